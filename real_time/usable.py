"""Loads a model file for scoring a topic. Every command rejects exactly the models that are rejected here."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from os import fspath
from pathlib import Path

from real_time.card import Card, History, card_path, library_versions, other_versions, read_card
from real_time.features import Dtype
from real_time.history import PatientHistory
from real_time.inference import RiskScorer
from real_time.model_file import (
    ModelError,
    ModelHashError,
    ModelPath,
    ModelVersionWarning,
    load_model,
    model_sha256,
    pin_path,
    pinned_sha256,
)
from real_time.probing import require_independent_rows


class UnnamedFeaturesError(ModelError):
    """The model does not name its features, so messages cannot be decoded for it."""


class KeepsHistoryError(ModelError):
    """The model begins with a PatientHistory, but the caller scores each message alone."""


@dataclass(frozen=True, slots=True)
class Model:
    """A verified model: its scorer, the SHA-256 of its file, and its card if it has one.

    `features` are the message fields it needs, in order; for a model with a history, the history's input columns.
    """

    scorer: RiskScorer
    features: tuple[str, ...]
    sha256: str
    card: Card | None = None
    in_single_precision: bool = False
    """Whether it, or a part of it, computes in single precision."""
    cautions: tuple[str, ...] = ()
    """Warnings for the operator about a usable model, one sentence each without a full stop."""

    @property
    def history(self) -> PatientHistory | None:
        """The model's history, if it has one."""
        return self.scorer.history

    @property
    def dtypes(self) -> Mapping[str, str]:
        """The types of the features that are not numbers."""
        fields = self.scorer.prepared.fields
        return {feature.name: feature.dtype for feature in fields if feature.dtype != Dtype.NUMBER}

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:
        """By category feature, the values that the model knows; features without known values are left out."""
        return {feature.name: feature.values for feature in self.scorer.prepared.fields if feature.values}

    def described(self) -> Card:
        """The card, completed with everything known about the model and the versions of the loaded libraries."""
        prepared = self.scorer.prepared
        return replace(
            self.card or Card(self.sha256),
            features=prepared.fields,
            positive_class=str(prepared.positive_class),
            threshold=prepared.threshold,
            versions=library_versions(),
            history=None if prepared.history is None else _of_history(prepared.history),
        )


def load_usable(
    path: ModelPath,
    *,
    sha256: str | None = None,
    card: Card | None = None,
    trusted: Collection[str] = (),
    threshold: float | None = None,
    positive_class: str | None = None,
    features: Sequence[str] | None = None,
    code: ModelPath | None = None,
    with_history: bool = False,
) -> Model:
    """Load the model in `path` for scoring a topic. Takes the arguments of `load_model` and RiskScorer.

    Without `sha256`, the pin and the card next to the file apply and must belong to it. `with_history` says that the
    caller can use a model that begins with a PatientHistory.

    Raises a subclass of ModelError if a worker could not score a topic with the model.
    """
    pin, card = (sha256, card) if sha256 is not None else _beside(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ModelVersionWarning)
        try:
            model = load_model(path, sha256=pin, trusted=trusted, code=code)
        except ModelHashError as error:
            raise (_half_done(path, pin, card) if sha256 is None else error) from None
    scorer = RiskScorer(
        model, threshold=threshold, positive_class=positive_class, features=features, card=card
    )
    if scorer.history is not None and not with_history:
        raise KeepsHistoryError(
            f"model file {fspath(path)} begins with a PatientHistory, but this command scores each message alone: "
            "use a model without a history here, or score files with run_streaming_inference"
        )
    prepared = scorer.prepared
    if prepared.features is None:
        raise UnnamedFeaturesError(
            f"model file {fspath(path)} does not name its features: "
            "give their names in order with --features, or fit the model on a DataFrame"
        )
    single = require_independent_rows(scorer, prepared.features)
    cautions = [str(one.message) for one in caught if issubclass(one.category, ModelVersionWarning)]
    cautions += [f"model file {fspath(path)}: {other}" for other in (other_versions(card) if card else ())]
    return Model(
        scorer,
        tuple(one.name for one in prepared.fields),
        pin,
        card,
        in_single_precision=single,
        cautions=tuple(cautions),
    )


def files_of(path: ModelPath) -> tuple[Path, Path, Path]:
    """The paths of the model file, its pin and its card, whether or not they exist."""
    return Path(path), pin_path(path), card_path(path)


def is_current(path: ModelPath, model: Model) -> bool:
    """Whether `model` still matches the file, its pin and its card. Raises ModelError if those disagree."""
    pin, card = _beside(path)
    if model_sha256(path) != pin:
        raise _half_done(path, pin, card)
    return (pin, card) == (model.sha256, model.card)


def _of_history(history: PatientHistory) -> History:
    return History(history.recipe_sha256, tuple(history.get_feature_names_out()))


def _beside(path: ModelPath) -> tuple[str, Card | None]:
    """The pinned hash, and the card. Raises ModelHashError if they belong to different models."""
    pin, card = pinned_sha256(path), read_card(path)
    if card is not None and card.sha256 != pin:
        raise _half_done(path, pin, card)
    return pin, card


def _half_done(path: ModelPath, pin: str, card: Card | None) -> ModelHashError:
    """The error that says which of model file, pin and card was replaced without the others."""
    file = model_sha256(path)
    if file == pin and card is not None:
        problem = f"card {card_path(path)} belongs to a different model file, with SHA-256 {card.sha256}"
        cause = "either model file and pin were replaced without the card, or the card without them"
    else:
        problem = (
            f"model file {fspath(path)} has the SHA-256 {file}, not the pinned {pin}: "
            "it is not the file that was pinned"
        )
        if card is None:
            cause = "either the file was replaced without its pin, or the pin without the file"
        elif card.sha256 == pin:
            cause = "either the file was replaced without its pin and card, or those without the file"
        elif card.sha256 == file:
            cause = (
                "the card belongs to this file, so either both were replaced without the pin, or only the pin "
                "was replaced"
            )
        else:
            cause = f"the card belongs to a third file, with SHA-256 {card.sha256}"
    return ModelHashError(
        f"{problem}; {cause}: put the files of one model together or, if you trust the model file, "
        f"run `vitalstream model pin {fspath(path)}`"
    )

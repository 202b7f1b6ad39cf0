"""A model file as a topic is scored with it: what is refused here is refused by every command, and nothing else is."""

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
    """The model does not say which features it wants, so no message can be read for it."""


class KeepsHistoryError(ModelError):
    """The model begins with a PatientHistory, and who loads it looks at each message alone."""


@dataclass(frozen=True, slots=True)
class Model:
    """A verified model: its scorer, the sha256 of its file, and its card if it has any.

    `features` are the fields that messages bring for it, in order: where there is a history, what that is of.
    """

    scorer: RiskScorer
    features: tuple[str, ...]
    sha256: str
    card: Card | None = None
    cautions: tuple[str, ...] = ()
    """What an operator should know of it, though it can be used; a sentence each, without a full stop."""

    @property
    def history(self) -> PatientHistory | None:
        """What gives the model its features from patients' messages, if it has any."""
        return self.scorer.history

    @property
    def dtypes(self) -> Mapping[str, str]:
        """Of the features that are no numbers, what they are."""
        fields = self.scorer.prepared.fields
        return {feature.name: feature.dtype for feature in fields if feature.dtype != Dtype.NUMBER}

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:
        """Of the features that are categories, the values that the model knows, where they are known."""
        return {feature.name: feature.values for feature in self.scorer.prepared.fields if feature.values}

    def described(self) -> Card:
        """The card with all that is known by now, and the libraries that are loaded."""
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
    """The model in `path` if a worker can score a topic with it. Takes what `load_model` and RiskScorer take.

    Without `sha256` the pin and the card beside the file count, and must be of that file. `with_history` says that
    the caller can use a model that begins with a PatientHistory.

    Raises a subclass of ModelError if it can't.
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
            f"model file {fspath(path)} begins with a PatientHistory, and this command looks at each message alone: "
            "use a model without a history here, and run_streaming_inference to score files with this one"
        )
    prepared = scorer.prepared
    if prepared.features is None:
        raise UnnamedFeaturesError(
            f"model file {fspath(path)} does not say which features it wants: "
            "say --features with their names in order, or fit the model on a DataFrame"
        )
    require_independent_rows(scorer, prepared.features)
    cautions = [str(one.message) for one in caught if issubclass(one.category, ModelVersionWarning)]
    cautions += [f"model file {fspath(path)}: {other}" for other in (other_versions(card) if card else ())]
    return Model(scorer, tuple(one.name for one in prepared.fields), pin, card, tuple(cautions))


def files_of(path: ModelPath) -> tuple[Path, Path, Path]:
    """The model file, its pin and its card, wherever these are or would be."""
    return Path(path), pin_path(path), card_path(path)


def is_current(path: ModelPath, model: Model) -> bool:
    """Whether `model` is what the file, its pin and its card say by now. Raises ModelError where they do not agree."""
    pin, card = _beside(path)
    if model_sha256(path) != pin:
        raise _half_done(path, pin, card)
    return (pin, card) == (model.sha256, model.card)


def _of_history(history: PatientHistory) -> History:
    return History(history.recipe_sha256, tuple(history.get_feature_names_out()))


def _beside(path: ModelPath) -> tuple[str, Card | None]:
    """The hash that the pin gives, and the card. Raises ModelHashError where they are not of one model."""
    pin, card = pinned_sha256(path), read_card(path)
    if card is not None and card.sha256 != pin:
        raise _half_done(path, pin, card)
    return pin, card


def _half_done(path: ModelPath, pin: str, card: Card | None) -> ModelHashError:
    """Which of model file, pin and card are of one model, and which were replaced without the others."""
    file = model_sha256(path)
    if file == pin and card is not None:
        other = f"the card {card_path(path)} is of another file, with the SHA-256 {card.sha256},"
        problem = f"{other} than model file and pin"
        cause = "either they were replaced without the card, or the card without them"
    else:
        problem = (
            f"model file {fspath(path)} has the SHA-256 {file}, not the pinned {pin}: "
            "it is not the file that was pinned"
        )
        if card is None:
            cause = "either it was replaced without its pin, or the pin without it"
        elif card.sha256 == pin:
            cause = "either it was replaced without pin and card, or they without it"
        elif card.sha256 == file:
            cause = "the card is of this file, so either both were replaced without the pin, or the pin without them"
        else:
            cause = f"and the card is of a third one, {card.sha256}"
    return ModelHashError(
        f"{problem}; {cause}: bring the files of one model together, or, if you trust the model file, "
        f"run `vitalstream model pin {fspath(path)}`"
    )

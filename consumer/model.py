"""The model a worker scores with: verified before it is loaded, and its features known."""

import logging

from broker.errors import SettingsError
from broker.settings import Settings
from real_time.card import Card
from real_time.model_file import ModelError, ModelFileError, ModelHashError, ModelNotPinnedError
from real_time.usable import Model, is_current, load_usable
from schemas.decoding import make_decoder
from schemas.presence import require_min_features

log = logging.getLogger("vitalstream.worker")


class HalfReplacedError(SettingsError):
    """Model file, pin and card do not match, or one is missing: perhaps they are being replaced."""


def load(
    settings: Settings, *, sha256: str | None = None, card: Card | None = None, with_history: bool = False
) -> Model:
    """The model named by `settings`, whose bytes must have the hash `sha256`, or without it the pinned one.

    With `sha256` the `card` counts, without it the one beside the file. `with_history` says that the caller can use
    a model that begins with a PatientHistory.

    Raises:
        HalfReplacedError: its file is missing, not pinned or another one than was pinned.
        SettingsError: no model is named, what its file holds can't be used, the ranges are not of its features, or it
            has fewer than --min-features: one sentence with the remedy.
    """
    if settings.model is None:
        raise SettingsError(
            "--model is missing: name the file of a fitted classifier (vitalstream model demo makes a small one)"
        )
    try:
        model = load_usable(
            settings.model, sha256=sha256, card=card, with_history=with_history, **settings.of_model
        )
    except ModelError as error:
        raise _refusal(error) from None
    make_decoder(settings, model)  # refused here, before anything is begun
    require_min_features(settings.min_features, model.features)
    return model


def load_for_worker(settings: Settings) -> Model:
    """The same for a worker, which keeps the past of a model with a history, if it does so exactly once."""
    model = load(settings, with_history=True)
    if model.history is not None and settings.delivery != "exactly-once":
        raise SettingsError(
            f"--delivery {settings.delivery}: the model has a history, and after a failure a message would count twice "
            "in it; use exactly-once, or a model without a history"
        )
    return model


def load_if_changed(settings: Settings, model: Model) -> Model | None:
    """The model that is pinned by now, or None where that is `model`. Raises what `load` raises."""
    try:
        if settings.model is None or is_current(settings.model, model):
            return None
    except ModelError as error:
        raise _refusal(error) from None
    return load(settings, with_history=True)


def warn_of(model: Model) -> None:
    """Tell the log what an operator should know of a model that can be used."""
    for caution in model.cautions:
        log.warning("%s; it gave sound scores for the rows it was tried with", caution)


def _refusal(error: ModelError) -> SettingsError:
    half_done = isinstance(error, ModelHashError | ModelNotPinnedError | ModelFileError)
    return (HalfReplacedError if half_done else SettingsError)(f"--model: {error}")

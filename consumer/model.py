"""The model a worker scores with: verified before it is loaded, with known features."""

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
    """Load the model named by `settings`, whose bytes must have the hash `sha256`, by default the pinned one.

    With `sha256`, `card` applies; without it, the card next to the file. `with_history` says that the caller can use a
    model that begins with a PatientHistory.

    Raises:
        HalfReplacedError: its file is missing, not pinned, or not the one that was pinned.
        SettingsError: no model is named, the file's content can't be used, the ranges name other features, or it has
            fewer than --min-features: one sentence with the remedy.
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
    make_decoder(settings, model)  # fails here, before anything is started
    require_min_features(settings.min_features, model.features)
    return model


def load_for_worker(settings: Settings) -> Model:
    """Load it for a worker, which can keep the state of a model with a history if it commits exactly once."""
    model = load(settings, with_history=True)
    if model.history is not None and settings.delivery != "exactly-once":
        raise SettingsError(
            f"--delivery {settings.delivery}: the model has a history, in which a message could count twice "
            "after a failure; use exactly-once, or a model without a history"
        )
    return model


def load_if_changed(settings: Settings, model: Model) -> Model | None:
    """The currently pinned model, or None if it is `model`. Raises what `load` raises."""
    try:
        if settings.model is None or is_current(settings.model, model):
            return None
    except ModelError as error:
        raise _refusal(error) from None
    return load(settings, with_history=True)


def warn_of(model: Model) -> None:
    """Log what an operator should know about a usable model."""
    for caution in model.cautions:
        log.warning("%s; its scores for probe rows are sound", caution)


def _refusal(error: ModelError) -> SettingsError:
    half_done = isinstance(error, ModelHashError | ModelNotPinnedError | ModelFileError)
    return (HalfReplacedError if half_done else SettingsError)(f"--model: {error}")

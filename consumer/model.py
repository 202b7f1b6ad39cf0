"""The model a worker scores with: verified before it is loaded, and its features known."""

from broker.errors import SettingsError
from broker.settings import Settings
from real_time.card import Card
from real_time.model_file import ModelError
from real_time.usable import Model, load_usable
from schemas.decoding import make_decoder
from schemas.presence import require_min_features


def load(settings: Settings, *, sha256: str | None = None, card: Card | None = None) -> Model:
    """The model named by `settings`, whose bytes must have the hash `sha256`, or without it the pinned one.

    With `sha256` the `card` counts, without it the one beside the file.

    Raises:
        SettingsError: no model is named, its file is missing, not pinned or another one than was pinned, or what it
            holds can't be used, the ranges are not of its features, or it has fewer than --min-features: one
            sentence with the remedy.
    """
    if settings.model is None:
        raise SettingsError(
            "--model is missing: name the file of a fitted classifier (vitalstream model demo makes a small one)"
        )
    try:
        model = load_usable(settings.model, sha256=sha256, card=card, **settings.of_model)
    except ModelError as error:
        raise SettingsError(f"--model: {error}") from None
    make_decoder(settings, model.features)  # refused here, before anything is begun
    require_min_features(settings.min_features, model.features)
    return model

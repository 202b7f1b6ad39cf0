"""The model a worker scores with: verified before it is loaded, and its features known."""

from typing import Any

from broker.errors import SettingsError
from broker.settings import Settings
from consumer.scoring import Model
from real_time.inference import RiskScorer
from real_time.model_file import ModelError, load_model, pinned_sha256
from schemas.ranges import load_ranges


def load(settings: Settings) -> Model:
    """The model named by `settings`.

    Raises:
        SettingsError: no model is named, its file is missing, not pinned or another one than was pinned, or
            what it holds can't be used, or the ranges are not of its features: one sentence with the remedy.
    """
    if settings.model is None:
        raise SettingsError(
            "--model is missing: name the file of a fitted classifier (vitalstream model demo makes a small one)"
        )
    try:
        sha256 = pinned_sha256(settings.model)
        model = load_model(settings.model, sha256=sha256, trusted=settings.trusted)
        scorer = RiskScorer(_single_threaded(model), threshold=settings.threshold)
    except ModelError as error:
        raise SettingsError(f"--model: {error}") from None
    if scorer.features is None:
        raise SettingsError(
            f"--model {settings.model}: the model does not say which features it wants: fit it on a DataFrame, or set "
            "its feature_names_in_ to the list of column names, then save and pin it again"
        )
    load_ranges(settings.ranges, scorer.features)  # refused here, before anything is begun
    return Model(scorer=scorer, features=scorer.features, sha256=sha256)


def _single_threaded(model: Any) -> Any:
    """Scoring a small chunk in several threads or processes costs more than it saves; workers scale instead."""
    if hasattr(model, "get_params") and hasattr(model, "set_params"):
        jobs = [name for name in model.get_params() if name == "n_jobs" or name.endswith("__n_jobs")]
        model.set_params(**dict.fromkeys(jobs, 1))
    return model

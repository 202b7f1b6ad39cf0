"""The model that results are compared with, and how near they must come."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier

from broker.errors import SettingsError
from real_time import ModelError, RiskScorer, load_model, pinned_sha256

ULP = 4
"""How far apart two scores of anything but trees may be: BLAS rounds a row by itself and among others
differently."""

_TREES = (
    DecisionTreeClassifier,
    RandomForestClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
)


@dataclass(frozen=True, slots=True)
class OfflineModel:
    """A verified model, its features, and by how many units in the last place a score may differ."""

    classifier: Any
    features: tuple[str, ...]
    sha256: str
    ulp: int


def load_offline(path: Path, *, trusted: Sequence[str] = ()) -> OfflineModel:
    """The pinned model in `path`. Raises SettingsError where it can't be used."""
    try:
        sha256 = pinned_sha256(path)
        classifier = load_model(path, sha256=sha256, trusted=trusted)
        features = RiskScorer(classifier).features
    except ModelError as error:
        raise SettingsError(f"--model: {error}") from None
    if features is None:
        raise SettingsError(
            f"--model {path}: the model does not say which features it wants: give the one that consume has"
        )
    return OfflineModel(_in_one_thread(classifier), features, sha256, 0 if is_tree_based(classifier) else ULP)


def is_tree_based(classifier: Any) -> bool:
    """Whether the scores come out of trees, and so have the same bits however many rows are scored."""
    if steps := getattr(classifier, "steps", None):
        return is_tree_based(steps[-1][1])
    return isinstance(classifier, _TREES)


def _in_one_thread(classifier: Any) -> Any:
    """Threads add a forest's trees up in the order in which they finish, and that changes the last bit."""
    if hasattr(classifier, "get_params") and hasattr(classifier, "set_params"):
        names = [name for name in classifier.get_params() if name.rpartition("__")[2] == "n_jobs"]
        classifier.set_params(**dict.fromkeys(names, 1))
    return classifier

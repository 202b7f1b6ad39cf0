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
from real_time.model_file import ModelError
from real_time.usable import load_usable

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
        model = load_usable(path, trusted=trusted)
    except ModelError as error:
        raise SettingsError(f"--model: {error}") from None
    classifier = model.scorer.model
    return OfflineModel(classifier, model.features, model.sha256, 0 if is_tree_based(classifier) else ULP)


def is_tree_based(classifier: Any) -> bool:
    """Whether the scores come out of trees, and so have the same bits however many rows are scored."""
    if steps := getattr(classifier, "steps", None):
        return is_tree_based(steps[-1][1])
    return isinstance(classifier, _TREES)

"""The model that results are compared with, and how near they must come."""

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
from real_time.inference import RiskScorer
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

    scorer: RiskScorer
    features: tuple[str, ...]
    sha256: str
    ulp: int


def load_offline(path: Path, **of_model: Any) -> OfflineModel:
    """The pinned model in `path`; takes what `load_usable` takes. Raises SettingsError where it can't be used."""
    try:
        model = load_usable(path, **of_model)
    except ModelError as error:
        raise SettingsError(f"--model: {error}") from None
    ulp = 0 if is_tree_based(model.scorer.prepared.classifier) else ULP
    return OfflineModel(model.scorer, model.features, model.sha256, ulp)


def is_tree_based(classifier: Any) -> bool:
    """Whether the scores come out of trees, and so have the same bits however many rows are scored."""
    if steps := getattr(classifier, "steps", None):
        return is_tree_based(steps[-1][1])
    return isinstance(classifier, _TREES)

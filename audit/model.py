"""The model that results are compared with, and the tolerance."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier

from audit.bitmap import Bools, Ints
from audit.published import Floats
from broker.errors import SettingsError
from real_time.inference import RiskScorer
from real_time.model_file import ModelError
from real_time.usable import Model, load_usable

ULP = 4
DOUBLE, SINGLE = 1e-12, 1e-6
"""How far two scores of anything but trees may differ: in units in the last place or, if larger, in absolute terms.

The absolute terms are for double and single precision. BLAS and others round a row differently when it is alone
(measured: 41 units in the last place, and 6e-8 in single precision), and processors have different exponential
functions.
"""

_TREES = (
    DecisionTreeClassifier,
    RandomForestClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
)


@dataclass(frozen=True, slots=True)
class OfflineModel:
    """A verified model, its features, and how far a score may be off: by `ulp` units in the last place or `off`."""

    scorer: RiskScorer
    features: tuple[str, ...]
    dtypes: Mapping[str, str]
    sha256: str
    ulp: int
    off: float

    @property
    def recipe_sha256(self) -> str | None:
        """The hash of its history's recipe; None if it has no history."""
        return self.scorer.history and str(self.scorer.history.recipe_sha256)

    def agrees(self, told: Floats, found: Floats) -> Bools:
        """Whether each published score is within tolerance of the offline one."""
        near: Bools = (ulps(told, found) <= self.ulp) | (np.abs(told - found) <= self.off)
        return near


def load_offline(path: Path, **of_model: Any) -> OfflineModel:
    """The pinned model in `path`; takes what `load_usable` takes. Raises SettingsError if it can't be used."""
    try:
        model = load_usable(path, with_history=True, **of_model)
    except ModelError as error:
        raise SettingsError(f"--model: {error}") from None
    return OfflineModel(model.scorer, model.features, model.dtypes, model.sha256, *_nearness(model))


def _nearness(model: Model) -> tuple[int, float]:
    if is_tree_based(model.scorer.prepared.classifier):
        return 0, 0.0
    return ULP, SINGLE if model.in_single_precision else DOUBLE


def is_tree_based(classifier: Any) -> bool:
    """Whether the scores come from trees, so that their bits do not depend on how many rows are scored."""
    if steps := getattr(classifier, "steps", None):
        return is_tree_based(steps[-1][1])
    module = type(classifier).__module__.partition(".")[0]
    if module == "xgboost":
        return bool(classifier.booster != "gblinear")
    return module == "lightgbm" or isinstance(classifier, _TREES)


# Between a number and null.
NOT_A_NUMBER = np.iinfo(np.int64).max


def ulps(told: Floats, found: Floats) -> Ints:
    """The number of doubles between them; 0 if both are NaN, the largest integer if only one is."""
    nan = np.isnan(told) | np.isnan(found)
    distances = np.abs(_ranks(told) - _ranks(found))
    both = np.isnan(told) & np.isnan(found)
    ranked: Ints = np.where(both, 0, np.where(nan, NOT_A_NUMBER, distances))
    return ranked


def _ranks(values: Floats) -> Ints:
    """Doubles as integers in the same order, neighbours one apart; NaN as 0."""
    bits = np.where(np.isnan(values), 0.0, values).view(np.int64)
    return np.where(bits < 0, np.iinfo(np.int64).min - bits, bits)

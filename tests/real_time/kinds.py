"""The kinds of model that people use, each fitted once to the same simulated patients."""

import functools
from typing import Any

import numpy as np
import pandas as pd
from catboost import CatBoostClassifier
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from imblearn.under_sampling import RandomUnderSampler
from lightgbm import LGBMClassifier
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

FEATURES = ("heart_rate", "respiratory_rate", "temperature", "spo2")


def patients(rows: int = 400, *, seed: int = 3) -> tuple[pd.DataFrame, Any]:
    """Their vitals, and 1 for those who deteriorate."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "heart_rate": rng.normal(85, 18, rows),
            "respiratory_rate": rng.normal(18, 5, rows),
            "temperature": rng.normal(37.2, 0.9, rows),
            "spo2": rng.uniform(85, 100, rows),
        }
    )
    worse = X["heart_rate"] + 2 * X["respiratory_rate"] - X["spo2"] + rng.normal(0, 10, rows) > 35
    return X, worse.to_numpy(int)


def holed(X: pd.DataFrame) -> pd.DataFrame:
    return X.mask(np.random.default_rng(4).random(X.shape) < 0.1)


class Net(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """In single precision, with sums whose order depends on how many rows there are."""

    def __init__(self, bias: float = 0, dtype: type = np.float32) -> None:
        self.bias = bias
        self.dtype = dtype

    def fit(self, X: pd.DataFrame, y: Any = None) -> Any:
        random = np.random.default_rng(0)
        self.classes_, self.feature_names_in_ = np.array([0, 1]), np.array([*X], object)
        self.hidden_ = random.normal(size=(X.shape[1], 64)).astype(np.float32)
        self.out_ = random.normal(size=64).astype(np.float32)
        return self

    def predict_proba(self, X: pd.DataFrame) -> Any:
        values = np.nan_to_num((np.asarray(X) - 50) / 50).astype(np.float32)
        order = slice(None, None, -1 if len(X) == 1 else 1)  # on some processors, BLAS adds alike
        margin = np.tanh(values @ self.hidden_)[:, order] @ self.out_[order] + np.float32(self.bias)
        risk = 1 / (1 + np.exp(-margin))
        return np.column_stack([1 - risk, risk]).astype(self.dtype)


def _linear() -> Pipeline:
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())


def _forest(**parameters: Any) -> RandomForestClassifier:
    return RandomForestClassifier(12, max_depth=5, random_state=0, **parameters)


def _xgboost() -> XGBClassifier:
    return XGBClassifier(n_estimators=12, max_depth=3)


def _lightgbm() -> LGBMClassifier:
    return LGBMClassifier(n_estimators=12, verbose=-1)


def _catboost() -> CatBoostClassifier:
    return CatBoostClassifier(iterations=12, depth=3, verbose=0, allow_writing_files=False)


def _boosting() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=12)


SINGLE: dict[str, Any] = {
    "net": Net,
    "net that is sure": lambda: Net(-20),
    "net in doubles": lambda: Net(dtype=np.float64),
    "voting of a net and LR": lambda: VotingClassifier([("net", Net()), ("lr", _linear())], voting="soft"),
}
"""Those that compute in single precision, entirely or in part, and whose scores show it by more than their bits."""

UNFITTED: dict[str, Any] = {
    "LR": _linear,
    "RF in threads": lambda: make_pipeline(SimpleImputer(), _forest(n_jobs=2)),
    "HGB": _boosting,
    "XGBoost": _xgboost,
    "XGBoost in a Pipeline": lambda: make_pipeline(StandardScaler(), _xgboost()),
    "LightGBM": _lightgbm,
    "CatBoost": _catboost,
    "CatBoost in a Pipeline": lambda: make_pipeline(SimpleImputer(), _catboost()),
    "search of LR": lambda: GridSearchCV(_linear(), {"logisticregression__C": [0.1, 1]}, cv=2),
    "search of RF in threads": lambda: make_pipeline(
        SimpleImputer(),
        RandomizedSearchCV(_forest(n_jobs=2), {"max_depth": [3, 4]}, n_iter=2, cv=2, n_jobs=1),
    ),
    "tuned threshold of LR": lambda: TunedThresholdClassifierCV(_linear(), cv=2),
    "fixed threshold of HGB": lambda: FixedThresholdClassifier(_boosting(), threshold=0.2),
    "search of a fixed threshold of LR": lambda: GridSearchCV(
        FixedThresholdClassifier(_linear(), threshold=0.2), {"threshold": [0.2]}, cv=2
    ),
    "SMOTE and LR": lambda: make_imblearn_pipeline(
        SimpleImputer(), SMOTE(random_state=0), StandardScaler(), LogisticRegression()
    ),
    "under-sampling and RF": lambda: make_imblearn_pipeline(
        SimpleImputer(), RandomUnderSampler(random_state=0), _forest(n_jobs=2)
    ),
    "calibrated RF in threads": lambda: CalibratedClassifierCV(
        _forest(n_jobs=2), method="isotonic", cv=2, n_jobs=1
    ),
    "calibrated XGBoost": lambda: CalibratedClassifierCV(_xgboost(), cv=2),
    "calibrated CatBoost": lambda: CalibratedClassifierCV(_catboost(), cv=2),
    "voting in threads": lambda: VotingClassifier(
        [("lr", _linear()), ("rf", _forest(n_jobs=2)), ("hgb", _boosting())], voting="soft", n_jobs=2
    ),
    "stacking in threads": lambda: StackingClassifier(
        [("lr", _linear()), ("rf", _forest(n_jobs=2))], _linear(), cv=2, n_jobs=2
    ),
    "bagging in threads": lambda: BaggingClassifier(_linear(), 4, n_jobs=2, random_state=0),
    "KNN in threads": lambda: make_pipeline(SimpleImputer(), KNeighborsClassifier(n_jobs=2)),
    "LDA": lambda: make_pipeline(SimpleImputer(), LinearDiscriminantAnalysis()),
    "GNB": lambda: make_pipeline(SimpleImputer(), GaussianNB()),
    "MLP": lambda: make_pipeline(SimpleImputer(), StandardScaler(), MLPClassifier((8,), max_iter=50)),
    "frozen HGB, calibrated": lambda: CalibratedClassifierCV(
        FrozenEstimator(_boosting().fit(holed(patients()[0]), patients()[1])), cv=2
    ),
}
"""By name, how each kind of model is made."""


@functools.cache
def fitted(name: str) -> Any:
    X, y = patients()
    return (UNFITTED | SINGLE)[name]().fit(holed(X), y)


def parts(model: Any, seen: set[int] | None = None) -> list[Any]:
    """Every estimator in a model, including the model itself."""
    seen = set() if seen is None else seen
    if isinstance(model, list | tuple):
        return [part for one in model for part in parts(one, seen)]
    if isinstance(model, type) or id(model) in seen:
        return []
    calibrated = type(model).__module__ == "sklearn.calibration"
    if not (isinstance(model, BaseEstimator) or calibrated or hasattr(model, "get_params")):
        return []
    seen.add(id(model))
    return [model, *(part for one in vars(model).values() for part in parts(one, seen))]

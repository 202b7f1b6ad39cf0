"""Fitted models of each kind, made once, and frames that vary in every way that matters."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from real_time import Classifier, compiled

FEATURES = ("age", "heart_rate", "spo2", "on_oxygen")


class HandWritten:
    """Not a scikit-learn model: no feature names, no classes; NaN in, NaN out."""

    def predict_proba(self, X: pd.DataFrame) -> Any:
        risk = X["heart_rate"].to_numpy("float64", na_value=np.nan) / 256
        return np.column_stack([1 - risk, risk])


def _training_frame() -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(7)
    X = pd.DataFrame(
        {
            "age": rng.uniform(18, 95, 600),
            "heart_rate": rng.normal(85, 18, 600),
            "spo2": rng.uniform(80, 100, 600),
            "on_oxygen": rng.integers(0, 2, 600).astype(float),
        }
    )
    risky = X["heart_rate"] + X["age"] / 2 - X["spo2"] + rng.normal(0, 15, 600) > 25
    return X, risky.to_numpy(int)


def _with_gaps(X: pd.DataFrame) -> pd.DataFrame:
    return X.mask(np.random.default_rng(8).random(X.shape) < 0.1)


@pytest.fixture(scope="session")
def models() -> dict[str, Classifier]:
    X, y = _training_frame()
    forest = RandomForestClassifier(n_estimators=12, max_depth=6, random_state=0)
    return {
        "logistic": LogisticRegression(max_iter=2000).fit(X, y),
        "pipeline": make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(
            _with_gaps(X), y
        ),
        "boosting": HistGradientBoostingClassifier(max_iter=30, random_state=0).fit(_with_gaps(X), y),
        "forest": forest.fit(_with_gaps(X), y),
        "calibrated": CalibratedClassifierCV(forest, cv=2).fit(_with_gaps(X), y),
        "hand-written": HandWritten(),
    }


@pytest.fixture(scope="session")
def model(models: dict[str, Classifier]) -> Classifier:
    """Any model that accepts missing values."""
    return models["boosting"]


@pytest.fixture(scope="session")
def patients() -> pd.DataFrame:
    """Fifty rows without missing values, in the models' column order."""
    return _training_frame()[0].head(50)


_LABELS: dict[str, st.SearchStrategy[Any]] = {
    "integers": st.integers(-5, 5),  # few values, so duplicates are the rule
    "strings": st.text("ab", max_size=3),
    "times": st.datetimes(pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02")).map(pd.Timestamp),
    "pairs": st.tuples(st.text("ab", max_size=1), st.integers(0, 2)),
}


@st.composite
def indexes(draw: st.DrawFn, size: int) -> pd.Index:
    kind = draw(st.sampled_from(["default", *_LABELS]))
    if kind == "default":
        return pd.RangeIndex(size)
    labels = draw(st.lists(_LABELS[kind], min_size=size, max_size=size))
    if kind == "pairs":
        return pd.MultiIndex.from_arrays([[a for a, _ in labels], [b for _, b in labels]], names=["bed", "n"])
    if kind == "times":
        return pd.DatetimeIndex(labels, tz="UTC")
    return pd.Index(labels, dtype="int64" if kind == "integers" else None, name=kind)


@st.composite
def frames(draw: st.DrawFn, *, gaps: bool) -> pd.DataFrame:
    """Up to 30 rows of the features, shuffled, with mixed dtypes, plus a column that is no feature."""
    size = draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = {"age": (0, 100), "heart_rate": (30, 220), "spo2": (60, 100), "on_oxygen": (0, 1)}
    columns: dict[str, Any] = {"bed": ["B"] * size}
    for name, (low, high) in raw.items():
        dtype = draw(st.sampled_from(["float64", "float32", "int64", "Int64", "bool", "object"]))
        whole = dtype in ("int64", "Int64", "bool")
        values = rng.integers(low, high, size, endpoint=True) if whole else rng.uniform(low, high, size)
        column = pd.Series(values).astype(dtype)
        if gaps and dtype not in ("int64", "bool"):
            column[rng.random(size) < draw(st.sampled_from([0, 0.3, 1]))] = (
                pd.NA if dtype == "Int64" else np.nan
            )
        columns[name] = column
    frame = pd.DataFrame(columns)[draw(st.permutations(list(columns)))]
    return frame.set_axis(draw(indexes(size)))


@pytest.fixture
def no_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kernels = (compiled._kernel, compiled._logistic_kernel)
    for kernel in kernels:
        kernel.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    yield
    for kernel in kernels:
        kernel.cache_clear()

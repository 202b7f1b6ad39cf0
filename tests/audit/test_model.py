"""How close a model's scores must come, and how the distance between two is measured."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from audit.model import DOUBLE, ULP, is_tree_based, load_offline, ulps
from broker.errors import SettingsError
from tests.audit.conftest import save
from tests.real_time import kinds

X = pd.DataFrame({"a": [0.0, 1, 2, 3], "b": [1.0, 0, 1, 0]})
Y = [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("model", "tree_based"),
    [
        (DecisionTreeClassifier(), True),
        (ExtraTreeClassifier(), True),
        (make_pipeline(StandardScaler(), HistGradientBoostingClassifier()), True),
        (LogisticRegression(), False),
        (make_pipeline(StandardScaler(), PCA(1), LogisticRegression()), False),
        (object(), False),
    ],
)
def test_trees_are_distinguished_from_models_that_round(model: object, tree_based: bool) -> None:
    assert is_tree_based(model) is tree_based


def test_a_forest_is_scored_in_one_thread(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), RandomForestClassifier(3, n_jobs=2)).fit(X, Y)
    offline = load_offline(save(model, tmp_path / "forest.joblib"))
    assert offline.scorer.prepared.classifier[-1].n_jobs == 1
    assert (offline.features, offline.ulp) == (("a", "b"), 0)
    linear = load_offline(save(LogisticRegression().fit(X, Y), tmp_path / "l.joblib"))
    assert (linear.ulp, linear.off) == (ULP, DOUBLE)


def test_an_unusable_model_is_refused(tmp_path: Path) -> None:
    path = save(LogisticRegression().fit(X.to_numpy(), Y), tmp_path / "nameless.joblib")
    with pytest.raises(SettingsError, match="features"):
        load_offline(path)
    path.write_bytes(b"another")
    with pytest.raises(SettingsError, match="--model"):
        load_offline(path)


@given(st.floats(0, 1), st.integers(0, 6))
def test_neighbours_are_one_apart(value: float, steps: int) -> None:
    other = value
    for _ in range(steps):
        other = math.nextafter(other, math.inf)
    assert ulps(np.array([value]), np.array([other])).tolist() == [steps]
    assert ulps(np.array([other]), np.array([value])).tolist() == [steps]


def test_nan_is_close_only_to_nan() -> None:
    told, found = np.array([np.nan, np.nan, 0.0, -0.0]), np.array([np.nan, 0.0, np.nan, 0.0])
    assert (ulps(told, found) > ULP).tolist() == [False, True, True, False]


ROUNDS: dict[str, Callable[[], Any]] = {
    "LDA": lambda: kinds.fitted("LDA"),
    "GNB": lambda: kinds.fitted("GNB"),
    "MLP": lambda: kinds.fitted("MLP"),
    "calibrated RF": lambda: kinds.fitted("calibrated RF in threads"),
    "voting": lambda: kinds.fitted("voting in threads"),
    "stacking": lambda: kinds.fitted("stacking in threads"),
    "bagging": lambda: kinds.fitted("bagging in threads"),
    "CatBoost": lambda: kinds.fitted("CatBoost"),
    "XGBoost": lambda: kinds.fitted("XGBoost"),
    "LightGBM": lambda: kinds.fitted("LightGBM"),
    "splines": lambda: make_pipeline(
        SimpleImputer(), SplineTransformer(), LogisticRegression(max_iter=2000)
    ).fit(*kinds.patients()),
    **{name: functools.partial(kinds.fitted, name) for name in kinds.SINGLE},
}


@pytest.mark.parametrize("name", ROUNDS)
@pytest.mark.parametrize("chunk_size", [1, 7, 100])
def test_chunking_raises_no_alarm_but_a_doctored_score_does(
    name: str, chunk_size: int, tmp_path: Path
) -> None:
    offline = load_offline(save(ROUNDS[name](), tmp_path / "m.joblib"))
    rows = kinds.holed(kinds.patients(700, seed=9)[0])
    whole = offline.scorer.probability(rows)
    chunks = [rows.iloc[start : start + chunk_size] for start in range(0, len(rows), chunk_size)]
    told = np.concatenate([offline.scorer.probability(chunk) for chunk in chunks])
    assert offline.agrees(told, whole).all()
    told[3] += 2e-6
    assert np.flatnonzero(~offline.agrees(told, whole)).tolist() == [3]
    told[3] = np.nan
    assert np.flatnonzero(~offline.agrees(told, whole)).tolist() == [3]


def test_a_tree_of_any_library_must_give_the_same_bits(tmp_path: Path) -> None:
    for name in ("XGBoost", "XGBoost in a Pipeline", "LightGBM", "HGB", "under-sampling and RF"):
        offline = load_offline(save(kinds.fitted(name), tmp_path / "m.joblib"))
        assert (offline.ulp, offline.off) == (0, 0), name

"""How near the scores of a model must come, and what counts as the distance between two."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from audit.model import ULP, is_tree_based, load_offline
from audit.values import ulps
from broker.errors import SettingsError
from tests.audit.conftest import save

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
def test_trees_are_told_from_what_rounds(model: object, tree_based: bool) -> None:
    assert is_tree_based(model) is tree_based


def test_a_forest_is_scored_in_one_thread(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), RandomForestClassifier(3, n_jobs=2)).fit(X, Y)
    offline = load_offline(save(model, tmp_path / "forest.joblib"))
    assert offline.scorer.prepared.classifier[-1].n_jobs == 1
    assert (offline.features, offline.ulp) == (("a", "b"), 0)
    assert load_offline(save(LogisticRegression().fit(X, Y), tmp_path / "l.joblib")).ulp == ULP


def test_a_model_that_cannot_be_used(tmp_path: Path) -> None:
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


def test_nan_is_near_nan_only() -> None:
    told, found = np.array([np.nan, np.nan, 0.0, -0.0]), np.array([np.nan, 0.0, np.nan, 0.0])
    assert (ulps(told, found) > ULP).tolist() == [False, True, True, False]

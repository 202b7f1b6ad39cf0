"""Compiled trees give bit for bit what predict_proba gives, or are not used."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from real_time import RiskScorer, compiled

COLUMNS = ["heart_rate", "spo2", "age", "lactate"]
RANDOM = np.random.default_rng(6)
WHOLE = pd.DataFrame(RANDOM.normal(80, 25, (2000, 4)), columns=COLUMNS)
GAPS = WHOLE.mask(RANDOM.random(WHOLE.shape) < 0.25)
RISKY = (WHOLE["heart_rate"] - WHOLE["spo2"] + RANDOM.normal(0, 30, 2000) > 10).to_numpy()
# Here missing values carry information, so splits send them either way.
TELLING = GAPS.assign(lactate=GAPS["lactate"].mask(RISKY & (RANDOM.random(2000) < 0.5)))
LARGEST = float(np.finfo(np.float32).max)

MODELS: dict[str, Callable[[], Any]] = {
    "histogram boosting": lambda: HistGradientBoostingClassifier(max_iter=30),
    "forest": lambda: RandomForestClassifier(20, random_state=0),
    "extra trees": lambda: ExtraTreesClassifier(20, max_depth=8, random_state=0),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=30),
    "exponential loss": lambda: GradientBoostingClassifier(n_estimators=10, loss="exponential"),
    "best first": lambda: RandomForestClassifier(10, max_leaf_nodes=30, random_state=0),
    "stumps": lambda: HistGradientBoostingClassifier(max_iter=5, max_depth=1),
}
NO_NAN = ("gradient boosting", "exponential loss")


IMPUTED = [f"imputed {name}" for name in list(MODELS)[:4]]


@pytest.fixture(scope="module", params=[*MODELS, *IMPUTED])
def fitted(request: pytest.FixtureRequest) -> tuple[Any, pd.DataFrame]:
    """A model, with rows at, next to and between its thresholds, and full of missing values."""
    name = request.param.removeprefix("imputed ")
    imputed = request.param != name
    takes_nan = imputed or name not in NO_NAN
    data = TELLING if takes_nan else WHOLE
    model = make_pipeline(SimpleImputer(), MODELS[name]()) if imputed else MODELS[name]()
    model.fit(data, RISKY)
    return model, _edges(model[-1] if imputed else model, holes=takes_nan)


def _edges(model: Any, *, holes: bool) -> pd.DataFrame:
    rows = RANDOM.normal(80, 40, (1200, len(COLUMNS)))
    for column in range(len(COLUMNS)):
        found = _thresholds(model, column)
        found = found[np.isfinite(found)]
        if len(found):
            rows[200:, column] = RANDOM.choice(found, 1000)
    rows[400:600] = np.nextafter(rows[400:600], np.inf)
    rows[600:800] = rows[600:800].astype(np.float32)
    rows[800:1000] = np.nextafter(rows[800:1000].astype(np.float32), np.float32(-np.inf))
    rows[1000:1003] = [[LARGEST] * 4, [-LARGEST] * 4, [-0.0, 0.0, 1e-310, -1e-310]]
    if holes:
        rows[RANDOM.random(rows.shape) < 0.2] = np.nan
    return pd.DataFrame(RANDOM.permutation(rows), columns=COLUMNS)


def _thresholds(model: Any, column: int) -> Any:
    if isinstance(model, HistGradientBoostingClassifier):
        nodes = np.concatenate([predictor.nodes for (predictor,) in model._predictors])
        return nodes["num_threshold"][(nodes["feature_idx"] == column) & (nodes["is_leaf"] == 0)]
    trees = [estimator.tree_ for estimator in np.ravel(model.estimators_)]
    return np.concatenate([tree.threshold[tree.feature == column] for tree in trees])


def _scores(scorer: RiskScorer, rows: pd.DataFrame) -> Any:
    return scorer(rows)["risk_probability"].to_numpy()


def test_the_same_bits_at_every_chunk_size(fitted: tuple[Any, pd.DataFrame]) -> None:
    model, rows = fitted
    scorer = RiskScorer(model)
    assert scorer.path == "compiled trees"
    expected = model.predict_proba(rows)[:, 1]
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(_scores(scorer, rows), expected)
    for size in range(1, 1001):
        start = (size * 37) % (len(rows) - size)
        chunk = slice(start, start + size)
        np.testing.assert_array_equal(
            _scores(scorer, rows[chunk]), expected[chunk], err_msg=f"chunk of {size}"
        )


@pytest.mark.usefixtures("no_numba")
def test_the_same_bits_without_numba(fitted: tuple[Any, pd.DataFrame]) -> None:
    model, rows = fitted
    scorer = RiskScorer(model)
    assert scorer.path == "scikit-learn's trees: install numba to compile them"
    np.testing.assert_array_equal(_scores(scorer, rows), model.predict_proba(rows)[:, 1])


def test_rows_may_have_any_memory_layout_and_are_never_modified(fitted: tuple[Any, pd.DataFrame]) -> None:
    model, rows = fitted
    scorer = RiskScorer(model)
    expected = _scores(scorer, rows)
    values = np.asfortranarray(rows.to_numpy())
    values.flags.writeable = False
    packed = np.zeros(len(rows), np.dtype([("byte", "u1"), ("row", "f8", (4,))]))  # unaligned
    packed["row"] = values
    for same in (values, packed["row"], np.repeat(values, 2, axis=1)[:, ::2]):
        frame = pd.DataFrame(same, columns=COLUMNS, copy=False)
        np.testing.assert_array_equal(_scores(scorer, frame), expected)


def test_infinity_is_left_to_the_model() -> None:
    rows = WHOLE.head(3).assign(age=[np.inf, -np.inf, 1.0])
    boosting = HistGradientBoostingClassifier(max_iter=20).fit(WHOLE, RISKY)
    np.testing.assert_array_equal(_scores(RiskScorer(boosting), rows), boosting.predict_proba(rows)[:, 1])
    forest = RandomForestClassifier(5).fit(WHOLE, RISKY)
    with pytest.raises(ValueError, match="infinity"):
        RiskScorer(forest)(rows)


def _strict(*arguments: Any) -> None:
    """Sends values equal to a threshold to the other side."""
    X, total, roots, depths, feature, threshold, child, value, single = arguments
    inner = np.isfinite(threshold)
    below = np.where(inner, np.nextafter(threshold, -np.inf), threshold)
    compiled._add_leaves(X, total, roots, depths, feature, below, child, value, single)


def _unrounded(*arguments: Any) -> None:
    *others, _ = arguments
    rounded: Any = compiled._add_leaves
    rounded(*others, False)


def _deaf_to_nan(*arguments: Any) -> None:
    X, *others = arguments
    compiled._add_leaves(np.nan_to_num(X, nan=-1e30), *others)


def _backwards(*arguments: Any) -> None:
    X, total, roots, depths, feature, threshold, child, value, single = arguments
    compiled._add_leaves(X, total, roots[::-1], depths[::-1], feature, threshold, child, value, single)


def _one_bit_more(*arguments: Any) -> None:
    _, total, *_ = arguments
    compiled._add_leaves(*arguments)
    total[0] = np.nextafter(total[0], 1)


@pytest.mark.parametrize("wrong", [_strict, _unrounded, _deaf_to_nan, _backwards, _one_bit_more])
def test_code_that_differs_in_one_bit_is_not_used(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = RandomForestClassifier(8, max_depth=4, random_state=0).fit(TELLING, RISKY)
    monkeypatch.setattr(compiled, "_kernel", lambda _: wrong)
    scorer = RiskScorer(model)
    assert scorer.path == "scikit-learn's trees: compiled ones give other scores"
    np.testing.assert_array_equal(_scores(scorer, GAPS), model.predict_proba(GAPS)[:, 1])


def test_a_broken_numba_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> Any:
        raise ImportError("Numba needs NumPy 1.0 or less")

    monkeypatch.setattr(compiled, "_kernel", broken)
    scorer = RiskScorer(HistGradientBoostingClassifier(max_iter=5).fit(WHOLE, RISKY))
    assert scorer.path == "scikit-learn's trees: compiling them failed with ImportError"


PROGRAM = """
import sys
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from real_time import RiskScorer

X, y = np.arange(40.0).reshape(-1, 1), np.arange(40) % 3 == 0
RiskScorer(LogisticRegression().fit(X, y))
assert "numba" not in sys.modules
print(RiskScorer(RandomForestClassifier(5).fit(X, y)).path)
from real_time import compiled
kernel = compiled._kernel("float64")
print(len(kernel.signatures), kernel._can_compile, list(kernel.stats.cache_misses.values()))
"""


def _run(home: Path) -> list[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.splitlines()


def test_code_is_compiled_once_then_cached_and_never_while_scoring(tmp_path: Path) -> None:
    """And numba is imported only for trees."""
    assert _run(tmp_path) == ["compiled trees", "1 False [1]"]
    assert _run(tmp_path) == ["compiled trees", "1 False []"]


def test_code_is_compiled_even_without_a_place_to_cache_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    compiled._kernel.cache_clear()
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])  # as on a read-only file system
    assert RiskScorer(RandomForestClassifier(5).fit(WHOLE, RISKY)).path == "compiled trees"
    compiled._kernel.cache_clear()


def test_models_without_trees_do_not_mention_compiled_code() -> None:
    assert (
        RiskScorer(LogisticRegression(max_iter=2000).fit(WHOLE, RISKY)).path
        == "the linear model's arithmetic"
    )

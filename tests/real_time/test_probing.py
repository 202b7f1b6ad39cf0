"""Checks on a model before it scores: refuse rows that depend on each other, on chance or on earlier calls."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, PowerTransformer, StandardScaler

from real_time import RiskScorer, model_sha256
from real_time.inference import ModelOutputError
from real_time.probing import DependentRowsError, FailsOnEveryRowError, require_independent_rows
from real_time.usable import load_usable

from .kinds import FEATURES, SINGLE, UNFITTED, fitted, holed, patients

X, Y = patients()
HOLED = holed(X)

BESIDE = "depends on the rows next to it"
BEFORE = "depends on chance, or on what was scored before"


def median_of_the_batch(X: pd.DataFrame) -> Any:
    return X.fillna(X.median()).fillna(0)


def scaled_in_the_batch(X: pd.DataFrame) -> Any:
    filled = X.fillna(50)
    return (filled - filled.mean()) / (filled.std(ddof=0) + 1e-9)


def rank_in_the_batch(X: pd.DataFrame) -> Any:
    return X.fillna(50).rank(pct=True)


def filled_from_above(X: pd.DataFrame) -> Any:
    return X.ffill().fillna(50)


def linear(*steps: Any) -> Any:
    return make_pipeline(*steps, StandardScaler(), LogisticRegression()).fit(HOLED, Y)


class Dropout:
    """Still drops values at random while predicting."""

    classes_ = (0, 1)

    def __init__(self) -> None:
        self._linear = linear(SimpleImputer())
        self._random = np.random.default_rng(0)

    def predict_proba(self, X: pd.DataFrame) -> Any:
        return self._linear.predict_proba(X.mask(self._random.random(X.shape) < 0.2))


class Drifting(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Centers on everything it has seen so far."""

    def fit(self, X: Any, y: Any = None) -> Any:
        self.sum_, self.count_ = np.nansum(X, axis=0), len(X)
        return self

    def transform(self, X: Any) -> Any:
        values = np.nan_to_num(np.asarray(X, float))
        self.sum_, self.count_ = self.sum_ + values.sum(axis=0), self.count_ + len(X)
        return values - self.sum_ / self.count_


class NotAlone:
    """Fails on a single row."""

    classes_ = (0, 1)

    def predict_proba(self, X: pd.DataFrame) -> Any:
        if len(X) < 2:
            raise ValueError
        return np.full((len(X), 2), 0.5)


DEPENDENT: dict[str, tuple[Callable[[], Any], str]] = {
    "median of the batch": (lambda: linear(FunctionTransformer(median_of_the_batch)), BESIDE),
    "z-norm of the batch": (lambda: linear(FunctionTransformer(scaled_in_the_batch)), BESIDE),
    "rank in the batch": (lambda: linear(FunctionTransformer(rank_in_the_batch)), BESIDE),
    "forward fill": (lambda: linear(FunctionTransformer(filled_from_above)), BESIDE),
    "posterior sample": (lambda: linear(IterativeImputer(sample_posterior=True, max_iter=2)), BEFORE),
    "dropout": (Dropout, BEFORE),
    "state": (lambda: linear(Drifting()), BEFORE),
    "not alone": (NotAlone, BESIDE),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_rows_that_depend_on_anything_else_are_refused(name: str) -> None:
    make, why = DEPENDENT[name]
    with pytest.raises(DependentRowsError, match=why) as refused:
        require_independent_rows(RiskScorer(make()), FEATURES)
    if name != "not alone":
        apart = re.search(r"other scores, by up to (\S+), where they are scored", str(refused.value))
        assert apart
        assert 0.001 < float(apart[1]) <= 1


class Confident:
    """Scores by the ranks in the batch, near 0 or 1."""

    classes_ = (0, 1)

    def __init__(self, bias: float, dtype: type) -> None:
        self._ranks = linear(FunctionTransformer(rank_in_the_batch))
        self._bias, self._dtype = bias, dtype

    def predict_proba(self, X: pd.DataFrame) -> Any:
        margin = (self._ranks.decision_function(X) + self._bias).astype(self._dtype)
        return np.column_stack([1 / (1 + np.exp(margin)), 1 / (1 + np.exp(-margin))])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("bias", [-30, -18, 8])
def test_scores_near_0_or_1_hide_no_dependence(bias: float, dtype: type) -> None:
    scorer = RiskScorer(Confident(bias, dtype))
    assert np.abs(scorer.probability(X) - (bias > 0)).max() < (1e-6 if bias < 0 else 0.02)
    with pytest.raises(DependentRowsError, match=BESIDE):
        require_independent_rows(scorer, FEATURES)


@pytest.mark.parametrize("bias", [18, 30])
def test_near_1_double_precision_shows_a_dependence(bias: float) -> None:
    with pytest.raises(DependentRowsError, match=BESIDE):
        require_independent_rows(RiskScorer(Confident(bias, np.float64)), FEATURES)


def categorical(*, unknown: str) -> Any:
    columns = ColumnTransformer(
        [
            ("unit", OneHotEncoder(handle_unknown=unknown), ["unit"]),
            ("number", make_pipeline(SimpleImputer(), StandardScaler()), ["spo2", "heart_rate"]),
        ]
    )
    rows = HOLED.assign(unit=np.arange(len(HOLED)) % 2 + 1.0)
    return make_pipeline(columns, LogisticRegression()).fit(rows[["spo2", "unit", "heart_rate"]], Y)


LEGITIMATE: dict[str, Callable[[], Any]] = {
    **{name: functools.partial(fitted, name) for name in UNFITTED},
    "iterative imputer": lambda: linear(IterativeImputer(max_iter=2)),
    "nearest neighbours' imputer": lambda: linear(KNNImputer()),
    "refuses gaps": lambda: LogisticRegression(max_iter=500).fit(X, Y),
    "refuses what is not positive": lambda: make_pipeline(
        PowerTransformer("box-cox"), LogisticRegression()
    ).fit(X, Y),
    "numeric categories": lambda: categorical(unknown="ignore"),
    "numeric categories, others refused": lambda: categorical(unknown="error"),
}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_no_legitimate_kind_of_model_is_refused(name: str) -> None:
    scorer = RiskScorer(LEGITIMATE[name]())
    require_independent_rows(scorer, scorer.features or ())


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("positive", [0, 1])
def test_single_precision_is_recognized_and_its_rounding_is_not_refused(name: str, positive: int) -> None:
    scorer = RiskScorer(fitted(name), positive_class=positive)
    assert require_independent_rows(scorer, FEATURES)


@pytest.mark.parametrize("name", ["LR", "MLP", "GNB"])
def test_double_precision_is_recognized(name: str) -> None:
    assert not require_independent_rows(RiskScorer(fitted(name)), FEATURES)


class Answers:
    """The same risk for every row."""

    classes_ = (0, 1)
    feature_names_in_ = FEATURES

    def __init__(self, risk: float) -> None:
        self.risk = risk

    def predict_proba(self, X: pd.DataFrame) -> Any:
        if self.risk == 333:
            raise KeyError("patient 4711")
        return np.full((len(X), 1 if self.risk == 444 else 2), self.risk)


def test_a_model_that_fails_on_every_row_is_refused() -> None:
    with pytest.raises(FailsOnEveryRowError, match="raises KeyError on every one of") as refused:
        require_independent_rows(RiskScorer(Answers(333)), FEATURES)
    assert "4711" not in str(refused.value)
    with pytest.raises(FailsOnEveryRowError, match="gives no probability between 0 and 1"):
        require_independent_rows(RiskScorer(Answers(7)), FEATURES)
    with pytest.raises(ModelOutputError, match="must return shape"):
        require_independent_rows(RiskScorer(Answers(444)), FEATURES)
    require_independent_rows(RiskScorer(Answers(np.nan)), FEATURES)


class HigherAlone:
    """A tiny risk, a twentieth higher for a row that is alone."""

    classes_ = (0, 1)

    def predict_proba(self, X: pd.DataFrame) -> Any:
        risk = np.full(len(X), 1.05e-7 if len(X) == 1 else 1e-7)
        return np.column_stack([1 - risk, risk])


def test_a_twentieth_of_a_tiny_score_is_no_rounding() -> None:
    with pytest.raises(DependentRowsError, match="alone"):
        require_independent_rows(RiskScorer(HigherAlone()), FEATURES)


class RoundsNextTo1:
    """What is left of 1, rounded otherwise where a row is alone."""

    classes_ = (0, 1)

    def __init__(self, dtype: type) -> None:
        one: Any = np.array(1, dtype)
        self._among_others = one - 5 * np.finfo(dtype).eps
        self._alone = np.nextafter(self._among_others, one)

    def predict_proba(self, X: pd.DataFrame) -> Any:
        risk = np.full(len(X), self._alone if len(X) == 1 else self._among_others)
        return np.column_stack([1 - risk, risk])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("positive", [0, 1])
def test_the_last_bit_of_a_number_next_to_1_is_rounding(dtype: type, positive: int) -> None:
    scorer = RiskScorer(RoundsNextTo1(dtype), positive_class=positive)
    require_independent_rows(scorer, FEATURES)


def test_0_and_1_are_no_sign_of_single_precision() -> None:
    assert not require_independent_rows(RiskScorer(Answers(1)), FEATURES)


def test_a_model_is_probed_when_its_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    joblib.dump(linear(FunctionTransformer(rank_in_the_batch)), path)
    with pytest.raises(DependentRowsError):
        load_usable(path, sha256=model_sha256(path))

"""The fast path gives the model's own scores, row by row, or is not used."""

import operator
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler

from real_time import RiskScorer, run_streaming_inference
from real_time.columns import Columns
from real_time.fast_path import FastPath
from real_time.prepared import prepare
from real_time.steps import NoFastPathError

COLUMNS = ["heart_rate", "spo2", "age", "lactate", "temperature"]
RANDOM = np.random.default_rng(5)
WHOLE = pd.DataFrame(RANDOM.normal(80, 25, (3000, 5)).round(1), columns=COLUMNS)
GAPS = WHOLE.mask(RANDOM.random(WHOLE.shape) < 0.25)
RISKY = (WHOLE["heart_rate"] - WHOLE["spo2"] + RANDOM.normal(0, 30, 3000) > 10).to_numpy()

LINEAR = {
    "logistic": (LogisticRegression(max_iter=2000), WHOLE),
    "imputed, scaled": (make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), GAPS),
    "median, robust": (
        make_pipeline(SimpleImputer(strategy="median"), RobustScaler(), LogisticRegression()),
        GAPS,
    ),
    "min-max": (make_pipeline(MinMaxScaler(), "passthrough", LogisticRegression()), WHOLE),
    "no centre": (
        make_pipeline(SimpleImputer(), StandardScaler(with_mean=False), LogisticRegression()),
        GAPS,
    ),
}
TREES = {
    "histogram boosting": (HistGradientBoostingClassifier(max_iter=40), GAPS),
    "imputed boosting": (make_pipeline(SimpleImputer(), HistGradientBoostingClassifier(max_iter=20)), GAPS),
    "forest": (RandomForestClassifier(25, max_depth=7, random_state=0), GAPS),
    "extra trees": (ExtraTreesClassifier(25, max_depth=7, random_state=0), WHOLE),
    "gradient boosting": (GradientBoostingClassifier(n_estimators=30), WHOLE),
    "from zero": (GradientBoostingClassifier(n_estimators=30, init="zero"), WHOLE),
}


def path_of(model: Any, positive: int = 1) -> FastPath:
    def ask(X: Any) -> Any:
        return model.predict_proba(X)[:, positive]

    prepared = prepare(model, positive_class=model.classes_[positive])
    return FastPath(prepared, ask=ask, columns=Columns(prepared))


@pytest.fixture(scope="module", params=[*LINEAR, *TREES])
def fitted(request: pytest.FixtureRequest) -> tuple[str, Any, pd.DataFrame]:
    model, frame = (LINEAR | TREES)[request.param]
    return request.param, model.fit(frame, RISKY), frame


def test_the_fast_path_is_used_and_gives_the_models_scores(fitted: tuple[str, Any, pd.DataFrame]) -> None:
    name, model, frame = fitted
    scorer = RiskScorer(model)
    assert scorer.path == ("compiled trees" if name in TREES else "the linear model's arithmetic")
    found, expected = scorer(frame)["risk_probability"], model.predict_proba(frame)[:, 1]
    if name in TREES:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=0)


def test_a_rows_score_does_not_depend_on_the_other_rows(fitted: tuple[str, Any, pd.DataFrame]) -> None:
    """The same bits at every chunk size from 1 to 1000; for linear models, predict_proba does not guarantee that."""
    _, model, frame = fitted
    scorer = RiskScorer(model)
    rows = frame.head(1000)
    whole = scorer(rows)["risk_probability"].to_numpy()
    for size in range(1, 1001):
        start = (size * 37) % (1001 - size)  # a chunk of this size, from some position
        chunk = scorer(rows.iloc[start : start + size])["risk_probability"].to_numpy()
        np.testing.assert_array_equal(chunk, whole[start : start + size], err_msg=f"chunk of {size}")


@pytest.mark.parametrize("features", [1, 2, 3, 7, 8, 9, 16, 33])
def test_a_rows_score_does_not_depend_on_the_other_rows_for_any_number_of_features(features: int) -> None:
    random = np.random.default_rng(features)
    X = np.asfortranarray(random.normal(size=(1000, features)))
    path = path_of(LogisticRegression().fit(X, X[:, 0] > 0))
    whole = path(X)
    assert whole is not None
    for size in range(1, 1001):
        start = (size * 37) % (1001 - size)
        chunk = path(X[start : start + size])
        np.testing.assert_array_equal(chunk, whole[start : start + size], err_msg=f"chunk of {size}")


def test_chunked_inference_is_bit_for_bit_the_same() -> None:
    model, frame = LINEAR["imputed, scaled"]
    model.fit(frame, RISKY)
    whole = run_streaming_inference(frame, model, len(frame))
    for size in (1, 3, 100):
        pd.testing.assert_frame_equal(run_streaming_inference(frame, model, size), whole, check_exact=True)


def test_rows_with_missing_values_score_the_same_alone_and_together() -> None:
    model, frame = LINEAR["imputed, scaled"]
    scorer = RiskScorer(model.fit(frame, RISKY))
    rows = frame.head(20).copy()
    rows.iloc[7] = np.nan
    alone, together = scorer(rows.iloc[7:8]), scorer(rows).iloc[7:8]
    pd.testing.assert_frame_equal(alone, together, check_exact=True)


def test_rows_that_the_model_refuses_are_still_refused() -> None:
    scorer = RiskScorer(LogisticRegression(max_iter=2000).fit(WHOLE, RISKY))
    with pytest.raises(ValueError, match="NaN"):
        scorer(GAPS.head(50))
    with pytest.raises(ValueError, match="infinity"):
        scorer(WHOLE.head(3) * np.inf)


@pytest.mark.parametrize("factor", [1e39, -1e39])
def test_forests_refuse_values_too_large_for_single_precision(factor: float) -> None:
    scorer = RiskScorer(RandomForestClassifier(5).fit(WHOLE, RISKY))
    with pytest.raises(ValueError, match="too large"):
        scorer(WHOLE.head(3) * factor)


def test_forests_refuse_values_that_only_scaling_makes_too_large() -> None:
    tiny = WHOLE * 1e-9
    scorer = RiskScorer(make_pipeline(StandardScaler(), RandomForestClassifier(5)).fit(tiny, RISKY))
    assert "trees" in scorer.path
    with pytest.raises(ValueError, match="too large"):
        scorer(tiny.head(3) * 1e42)


class Subclass(LogisticRegression):  # type: ignore[misc]
    """May override anything."""


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (CalibratedClassifierCV(Subclass()), "Subclass"),
        (CalibratedClassifierCV(LogisticRegression(), method="temperature"), "temperature"),
        (SGDClassifier(loss="modified_huber"), "modified_huber"),
        (make_pipeline(PolynomialFeatures(), LogisticRegression()), "PolynomialFeatures"),
        (Subclass(), "Subclass"),
        (
            make_pipeline(SimpleImputer(missing_values=80.0), LogisticRegression()),
            "missing_values is not NaN",
        ),
        (make_pipeline(MinMaxScaler(clip=True), LogisticRegression()), "clips"),
        (HistGradientBoostingClassifier(categorical_features=[0]), "categorical"),
        (GradientBoostingClassifier(init=LogisticRegression()), "initial estimator"),
    ],
)
def test_other_models_get_plain_arrays_in_their_own_predict_proba(model: Any, why: str) -> None:
    frame = WHOLE.assign(heart_rate=WHOLE["heart_rate"].clip(0, 200).round(-1))
    model.fit(frame, RISKY)
    scorer = RiskScorer(model)
    assert scorer.path.startswith("predict_proba on plain arrays: ")
    assert why in scorer.path
    np.testing.assert_array_equal(scorer(frame)["risk_probability"], model.predict_proba(frame)[:, 1])


def test_a_fast_path_with_different_scores_is_not_used() -> None:
    """As might happen with another version of scikit-learn, whose private attributes mean something else."""
    model = HistGradientBoostingClassifier(max_iter=20).fit(WHOLE, RISKY)

    model.predict_proba = lambda X: np.nextafter(type(model).predict_proba(model, X), 1)
    scorer = RiskScorer(model)
    assert scorer.path == "predict_proba on plain arrays: its fast path gives other scores than predict_proba"
    np.testing.assert_array_equal(scorer(WHOLE)["risk_probability"], model.predict_proba(WHOLE)[:, 1])


def test_a_fast_path_without_its_private_attributes_is_not_used() -> None:
    model = HistGradientBoostingClassifier(max_iter=20).fit(WHOLE, RISKY)
    del model._bin_mapper
    with pytest.raises(
        NoFastPathError, match="fast path failed with AttributeError, and asking with plain arrays"
    ):
        path_of(model)


def test_verification_finds_weights_wrong_in_the_last_digits() -> None:
    model = LogisticRegression(max_iter=2000).fit(WHOLE, RISKY)
    path = path_of(model)
    other = clone(model).fit(WHOLE, RISKY)
    other.coef_ = model.coef_ * (1 + 1e-13)
    assert path._agrees(WHOLE.to_numpy(), lambda X: model.predict_proba(X)[:, 1])
    assert not path._agrees(WHOLE.to_numpy(), lambda X: other.predict_proba(X)[:, 1])


def test_a_linear_sum_is_added_from_left_to_right() -> None:
    """Whatever order a library or processor would choose: results are audited elsewhere, to the last bits."""
    random = np.random.default_rng(2)
    X = random.normal(size=(500, 20)) * 100
    model = LogisticRegression(max_iter=1000).fit(X / 100, X[:, 0] > 0)
    path = path_of(model)
    (weights,), (intercept,) = model.coef_.tolist(), model.intercept_.tolist()
    sums = [reduce(operator.add, map(operator.mul, row, weights)) + intercept for row in X.tolist()]
    np.testing.assert_array_equal(path(X), expit(sums))


def test_many_terms_of_one_sign_may_be_added_in_any_order() -> None:
    random = np.random.default_rng(1)
    X = random.normal(size=(50, 1600))
    model = LogisticRegression(max_iter=1, tol=1e9).fit(X, X[:, 0] > 0)
    model.coef_ = -np.abs(random.normal(size=model.coef_.shape)) * 1e-3
    assert path_of(model).how == "the linear model's arithmetic"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("features", [1, 3, 30])
def test_another_order_of_addition_does_not_count_as_another_score(features: int) -> None:
    """Values of all magnitudes whose terms cancel each other, with many probabilities close to 0 and 1."""
    random = np.random.default_rng(features)
    X = random.normal(size=(1000, features)) * random.uniform(0.1, 50, features) + random.uniform(
        -99, 99, features
    )
    y = X[:, 0] - X[:, 0].mean() + random.normal(size=1000) > 0
    path = path_of(LogisticRegression(max_iter=100).fit(X, y))
    assert path.how == "the linear model's arithmetic"

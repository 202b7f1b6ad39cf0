"""Each kind of model takes its path and gives its own scores: bit for bit for trees, else within 1e-9."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostClassifier
from imblearn.ensemble import BalancedRandomForestClassifier
from lightgbm import LGBMClassifier
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
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
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier

from real_time import RiskScorer, arithmetic, boosters

RANDOM = np.random.default_rng(8)
NUMBERS, CATEGORIES = ["heart_rate", "spo2", "lactate"], ["unit", "gender"]
WHOLE = pd.DataFrame(RANDOM.normal(80, 25, (600, 3)), columns=NUMBERS).assign(
    unit=RANDOM.choice([1.0, 2.0, 5.0], 600), gender=RANDOM.choice([0.0, 1.0], 600)
)
GAPS = WHOLE.mask((RANDOM.random(WHOLE.shape) < 0.2) & [True, True, True, False, False])
RISKY = (WHOLE["heart_rate"] - WHOLE["spo2"] + 9 * WHOLE["unit"] + RANDOM.normal(0, 20, 600) > 20).to_numpy(
    int
)

LINEAR, TREES, PLAIN = "the linear model's arithmetic", "compiled trees", "predict_proba on plain arrays: "


def linear() -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())


def imputed(model: Any) -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler(), model)


def forest() -> Any:
    return RandomForestClassifier(12, max_depth=5, random_state=0)


def boosting() -> Any:
    return HistGradientBoostingClassifier(max_iter=12)


def xgboost(**parameters: Any) -> Any:
    return XGBClassifier(**{"n_estimators": 12, "max_depth": 3, **parameters})


def lightgbm(**parameters: Any) -> Any:
    return LGBMClassifier(**{"n_estimators": 12, "verbose": -1, **parameters})


def columns(encoder: Any, **others: Any) -> Any:
    return make_column_transformer(
        (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), NUMBERS),
        (make_pipeline(SimpleImputer(strategy="most_frequent"), encoder), CATEGORIES),
        **others,
    )


def ignoring() -> Any:
    return OneHotEncoder(handle_unknown="ignore", drop="if_binary", sparse_output=False)


def numbered() -> Any:
    return OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2, dtype=np.float64
    )


def voting(*parts: Any, **parameters: Any) -> Any:
    return VotingClassifier(
        [(str(place), part) for place, part in enumerate(parts)], voting="soft", **parameters
    )


def stacking(*parts: Any, last: Any, **parameters: Any) -> Any:
    return StackingClassifier(
        [(str(place), part) for place, part in enumerate(parts)], last, cv=2, **parameters
    )


KINDS: dict[str, tuple[Callable[[], Any], str]] = {
    "LR-CV": (lambda: imputed(LogisticRegressionCV(Cs=2, cv=2, use_legacy_attributes=False)), LINEAR),
    "SGD": (lambda: imputed(SGDClassifier(loss="log_loss", random_state=0)), LINEAR),
    "LDA": (lambda: imputed(LinearDiscriminantAnalysis()), LINEAR),
    "holes marked": (lambda: make_pipeline(SimpleImputer(add_indicator=True), linear()), LINEAR),
    "scaled by the largest": (
        lambda: make_pipeline(SimpleImputer(), MaxAbsScaler(), LogisticRegression()),
        LINEAR,
    ),
    "columns and LR": (lambda: make_pipeline(columns(ignoring()), LogisticRegression(max_iter=500)), LINEAR),
    "columns, others kept, and LR": (
        lambda: make_pipeline(
            make_column_transformer(("drop", ["gender"]), (ignoring(), ["unit"]), remainder=SimpleImputer()),
            LogisticRegression(max_iter=2000),
        ),
        LINEAR,
    ),
    "columns and HGB": (
        lambda: make_pipeline(
            make_column_transformer((numbered(), CATEGORIES), remainder="passthrough"), boosting()
        ),
        TREES,
    ),
    "balanced forest": (
        lambda: BalancedRandomForestClassifier(
            12, max_depth=5, random_state=0, sampling_strategy="all", replacement=True
        ),
        TREES,
    ),
    "decision tree": (lambda: DecisionTreeClassifier(max_depth=5, random_state=0), TREES),
    "XGBoost": (xgboost, TREES),
    "XGBoost of a base score": (lambda: xgboost(base_score=0.3), TREES),
    "XGBoost in a pipeline": (lambda: imputed(xgboost()), TREES),
    "XGBoost, dart": (
        lambda: xgboost(booster="dart"),
        "XGBoost's trees: they are not summed for a logistic function",
    ),
    "XGBoost, a number is missing": (
        lambda: make_pipeline(SimpleImputer(strategy="constant", fill_value=-1), xgboost(missing=-1.0)),
        "XGBoost's trees: a number marks missing values",
    ),
    "XGBoost, linear": (
        lambda: imputed(xgboost(booster="gblinear", max_depth=None)),
        PLAIN + "its fast path failed with XGBoostError",
    ),
    "LightGBM": (lightgbm, TREES),
    "LightGBM of values around zero": (lambda: imputed(lightgbm(n_estimators=60)), TREES),
    "LightGBM, zero is missing": (
        lambda: lightgbm(zero_as_missing=True),
        "LightGBM's trees: zero marks missing values",
    ),
    "LightGBM, linear leaves": (
        lambda: lightgbm(linear_tree=True),
        "LightGBM's trees: their leaves are linear models",
    ),
    "frozen": (
        lambda: make_pipeline(SimpleImputer(), FrozenEstimator(forest().fit(WHOLE.to_numpy(), RISKY))),
        TREES,
    ),
    "calibrated LR": (lambda: CalibratedClassifierCV(linear(), cv=2), f"{LINEAR}; calibrated"),
    "calibrated HGB": (lambda: CalibratedClassifierCV(boosting(), cv=2), f"{TREES}; calibrated"),
    "calibrated XGBoost": (lambda: CalibratedClassifierCV(xgboost(), cv=3), f"{TREES}; calibrated"),
    "calibrated forest, isotonic": (
        lambda: CalibratedClassifierCV(forest(), method="isotonic", cv=3),
        f"{TREES}; calibrated",
    ),
    "voting": (
        lambda: voting(linear(), forest(), boosting(), weights=[1, 2, 2]),
        f"{LINEAR}, {TREES}; votes averaged",
    ),
    "voting of trees": (lambda: voting(forest(), xgboost(), lightgbm()), f"{TREES}; votes averaged"),
    "stacking": (
        lambda: stacking(linear(), forest(), last=LogisticRegression()),
        f"{LINEAR}, {TREES}; stacked",
    ),
    "stacking on all": (
        lambda: stacking(forest(), boosting(), last=linear(), passthrough=True),
        f"{TREES}, {LINEAR}; stacked",
    ),
    "MLP": (
        lambda: imputed(MLPClassifier((8,), max_iter=20)),
        PLAIN + "there is no fast path for MLPClassifier",
    ),
    "GNB": (lambda: imputed(GaussianNB()), PLAIN + "there is no fast path for GaussianNB"),
    "bagging": (
        lambda: BaggingClassifier(linear(), 3, random_state=0),
        PLAIN + "there is no fast path for BaggingClassifier",
    ),
    "HGB, categorical": (
        lambda: HistGradientBoostingClassifier(max_iter=12, categorical_features=CATEGORIES),
        PLAIN + "there is no fast path for categorical features",
    ),
    "CatBoost": (
        lambda: CatBoostClassifier(iterations=12, depth=3, verbose=0, allow_writing_files=False),
        PLAIN + "there is no fast path for CatBoostClassifier",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def in_one_thread() -> Iterator[None]:
    with threadpool_limits(limits=1):
        yield


@functools.cache
def fitted(name: str) -> Any:
    return KINDS[name][0]().fit(GAPS, RISKY)


def assert_same(found: Any, expected: Any, path: str) -> None:
    if LINEAR in path:
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", KINDS)
def test_each_kind_takes_its_path_and_gives_its_own_scores_at_any_chunk_size(name: str) -> None:
    model, path = fitted(name), KINDS[name][1]
    for positive in (1, 0):
        scorer = RiskScorer(model, positive_class=positive)
        assert scorer.path == path
        whole = scorer.probability(GAPS)
        assert_same(whole, model.predict_proba(GAPS)[:, positive], path)
        for size in (1, 7, 100):
            chunk = scorer.probability(GAPS.iloc[3 : 3 + size])
            if path.startswith(PLAIN):  # BLAS may round differently for several rows
                np.testing.assert_allclose(chunk, whole[3 : 3 + size], rtol=1e-9)
            else:
                np.testing.assert_array_equal(chunk, whole[3 : 3 + size])


@pytest.mark.parametrize("name", ["columns and LR", "columns and HGB"])
def test_an_unknown_category_is_handled_as_by_the_model(name: str) -> None:
    strange = GAPS.assign(unit=[1.0, 3.0, np.nan] * 200, gender=[7.0, np.nan, 1.0, 0.0] * 150)
    scorer, expected = RiskScorer(fitted(name)), fitted(name).predict_proba(strange)[:, 1]
    assert scorer.path == KINDS[name][1]
    assert_same(scorer.probability(strange), expected, scorer.path)


@pytest.mark.parametrize("encoder", [OneHotEncoder(), OrdinalEncoder()])
def test_a_category_that_the_model_refuses_is_refused(encoder: Any) -> None:
    ending = boosting() if isinstance(encoder, OrdinalEncoder) else LogisticRegression(max_iter=500)
    scorer = RiskScorer(make_pipeline(columns(encoder), ending).fit(GAPS, RISKY))
    assert scorer.path in {TREES, LINEAR}
    with pytest.raises(ValueError, match="unknown categories"):
        scorer(GAPS.assign(unit=3.0))


def test_an_infinite_category_is_refused_as_by_the_model() -> None:
    with pytest.raises(ValueError, match="infinity"):
        RiskScorer(fitted("columns and LR"))(GAPS.assign(unit=np.inf))


def test_infrequent_categories_are_left_to_the_encoder() -> None:
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=2)
    model = make_pipeline(columns(encoder), LogisticRegression(max_iter=500)).fit(GAPS, RISKY)
    scorer = RiskScorer(model)
    assert scorer.path == LINEAR
    strange = GAPS.assign(unit=3.0)
    assert_same(scorer.probability(strange), model.predict_proba(strange)[:, 1], scorer.path)


def test_xgboost_predicts_with_the_trees_up_to_its_best_iteration() -> None:
    model = xgboost(n_estimators=60, early_stopping_rounds=2, learning_rate=1.0)
    model.fit(GAPS[:300], RISKY[:300], eval_set=[(GAPS[300:], RISKY[300:])], verbose=False)
    assert model.best_iteration < 50
    scorer = RiskScorer(model)
    assert scorer.path == TREES
    np.testing.assert_array_equal(scorer.probability(GAPS), model.predict_proba(GAPS)[:, 1])


# --- what is not used


@pytest.mark.usefixtures("no_numba")
@pytest.mark.parametrize(("name", "library"), [("XGBoost", "XGBoost"), ("LightGBM", "LightGBM")])
def test_without_numba_the_library_evaluates_its_trees(name: str, library: str) -> None:
    scorer = RiskScorer(fitted(name))
    assert scorer.path == f"{library}'s trees: install numba to compile them"
    np.testing.assert_array_equal(scorer.probability(GAPS), fitted(name).predict_proba(GAPS)[:, 1])


@pytest.mark.parametrize(("name", "reader"), [("XGBoost", "xgboost_trees"), ("LightGBM", "lightgbm_trees")])
def test_misread_trees_are_not_used(name: str, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As might happen with another version of the library."""
    read = getattr(boosters, reader)

    def doctored(model: Any) -> Any:
        trees, start = read(model)
        return [trees[0]._replace(nan_left=~trees[0].nan_left), *trees[1:]], start

    monkeypatch.setattr(boosters, reader, doctored)
    scorer = RiskScorer(fitted(name))
    assert scorer.path == f"{name}'s trees: compiled ones give other scores"
    np.testing.assert_array_equal(scorer.probability(GAPS), fitted(name).predict_proba(GAPS)[:, 1])


def test_a_step_that_gives_different_numbers_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def doctored(scaler: StandardScaler) -> Any:
        return lambda X: (X - scaler.mean_) / scaler.scale_ * (1 + 1e-7)

    monkeypatch.setitem(arithmetic.TRANSFORMERS, StandardScaler, doctored)
    for name in ("LDA", "voting", "columns and LR"):
        scorer = RiskScorer(fitted(name))
        assert ": its fast path gives other scores than predict_proba" in scorer.path
        np.testing.assert_array_equal(scorer.probability(GAPS), fitted(name).predict_proba(GAPS)[:, 1])


class Choosy(BaseEstimator):  # type: ignore[misc]
    """Gives scores that differ by `off` between a frame and an array."""

    classes_ = (0, 1)
    n_features_in_ = 5
    feature_names_in_ = tuple(WHOLE)

    def __init__(self, off: float = 0.0) -> None:
        self.off = off

    def predict_proba(self, X: Any) -> Any:
        off = 0.0 if isinstance(X, pd.DataFrame) else self.off
        risk = 0.25 + off + np.where(np.isnan(np.asarray(X)[:, 0]), 0.0, 0.5)
        return np.column_stack([1 - risk, risk])


def test_a_model_that_scores_arrays_differently_gets_frames() -> None:
    assert RiskScorer(Choosy()).path == PLAIN + "there is no fast path for Choosy"
    scorer = RiskScorer(Choosy(off=1e-15))
    assert scorer.path == (
        "the model's own predict_proba: there is no fast path for Choosy, "
        "and asking with plain arrays gives other scores than predict_proba"
    )
    assert set(scorer.probability(GAPS)) == {0.25, 0.75}


def test_a_model_that_reads_column_names_gets_frames() -> None:
    class Reads(Choosy):
        def predict_proba(self, X: Any) -> Any:
            return super().predict_proba(X[["heart_rate"]])

    assert RiskScorer(Reads()).path == (
        "the model's own predict_proba: there is no fast path for Reads, "
        "and asking with plain arrays failed with IndexError"
    )

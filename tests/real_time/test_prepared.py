"""One preparation for every kind of model: one thread, and the model's own features, class and threshold."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info
from xgboost import XGBClassifier

from real_time import (
    FeaturesError,
    PositiveClassError,
    RiskScorer,
    ThresholdError,
    run_streaming_inference,
)
from real_time.prepared import prepare

from .kinds import FEATURES, UNFITTED, fitted, holed, parts, patients

X, Y = patients()
HOLED = holed(X)
THREADS = ("n_jobs", "nthread", "num_threads")


# --- the predictor


@pytest.mark.parametrize("name", UNFITTED)
def test_each_kind_scores_like_its_own_predict_proba(name: str) -> None:
    model = fitted(name)
    scorer = RiskScorer(model)
    expected = model.predict_proba(HOLED)[:, 1]
    for size in (1, 7, len(HOLED)):
        found = scorer.probability(HOLED.iloc[:size])
        np.testing.assert_allclose(found, expected[:size], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(scorer.asked(HOLED), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", UNFITTED)
def test_no_fitted_copy_uses_threads_and_the_model_itself_is_unchanged(name: str) -> None:
    model = fitted(name)
    before = pickle.dumps(model)
    for part in parts(prepare(model).classifier):
        given = part.get_params(deep=False) if hasattr(part, "get_params") else {}
        boosting = type(part).__module__.startswith(("xgboost", "lightgbm"))
        for parameter in {*THREADS} & {*given}:
            assert given[parameter] == 1 or (given[parameter] is None and not boosting), (part, parameter)
    assert pickle.dumps(model) == before


def test_xgboost_itself_is_set_to_one_thread() -> None:
    model = fitted("XGBoost")
    prepared = prepare(model).classifier
    assert '"nthread":"1"' in prepared.get_booster().save_config()
    assert '"nthread":"1"' not in model.get_booster().save_config()


def test_lightgbm_uses_one_thread_whatever_its_parameter_is_called() -> None:
    model = LGBMClassifier(n_estimators=2, verbose=-1, num_threads=2).fit(X, Y)
    assert prepare(model).classifier.get_params()["num_threads"] == 1
    assert model.get_params()["num_threads"] == 2


def test_catboost_predicts_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = CatBoostClassifier.predict_proba

    def predict_proba(self: Any, *args: Any, thread_count: int = -1, **kwargs: Any) -> Any:
        asked.append(thread_count)
        return original(self, *args, thread_count=thread_count, **kwargs)

    monkeypatch.setattr(CatBoostClassifier, "predict_proba", predict_proba)
    for name in ("CatBoost", "CatBoost in a Pipeline", "calibrated CatBoost"):
        RiskScorer(fitted(name)).probability(HOLED)
    assert {*asked} == {1}


class Counting:
    """A model that records how many threads libraries may use for it."""

    feature_names_in_ = np.array(FEATURES, object)

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def predict_proba(self, X: Any) -> Any:
        self.threads |= {one["num_threads"] for one in threadpool_info()}
        return np.full((len(X), 2), 0.5)


def test_a_model_is_tried_in_one_thread_even_from_another_thread() -> None:
    model = Counting()
    with ThreadPoolExecutor() as pool:
        pool.submit(RiskScorer, model).result()
    assert model.threads == {1}


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("search of LR", "the linear model's arithmetic"),
        ("tuned threshold of LR", "the linear model's arithmetic"),
        ("search of a fixed threshold of LR", "the linear model's arithmetic"),
        ("SMOTE and LR", "the linear model's arithmetic"),
        ("search of RF in threads", "compiled trees"),
        ("under-sampling and RF", "compiled trees"),
        ("fixed threshold of HGB", "compiled trees"),
        ("RF in threads", "compiled trees"),
    ],
)
def test_wrappers_are_as_fast_as_what_they_wrap(name: str, inner: str) -> None:
    assert RiskScorer(fitted(name)).path == inner


def test_a_subclass_with_its_own_predict_proba_is_not_unwrapped() -> None:
    class Cautious(GridSearchCV):  # type: ignore[misc]
        def predict_proba(self, X: Any) -> Any:
            return super().predict_proba(X) / 2 + 0.25

    model = Cautious(LogisticRegression(), {"C": [1]}, cv=2).fit(X, Y)
    np.testing.assert_array_equal(RiskScorer(model).probability(X), model.predict_proba(X)[:, 1])


def test_a_model_that_contains_itself_does_no_harm() -> None:
    class Circular(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def __init__(self, n_jobs: int = 2) -> None:
            self.n_jobs = n_jobs
            self.me_ = [self]
            self.classes_ = np.array([0, 1])

        def predict_proba(self, X: Any) -> Any:
            return np.full((len(X), 2), 0.5)

    assert prepare(Circular()).classifier.n_jobs == 1


# --- features


@pytest.mark.parametrize("name", UNFITTED)
def test_features_are_found_where_the_library_keeps_them(name: str) -> None:
    assert RiskScorer(fitted(name)).features == FEATURES


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        XGBClassifier(n_estimators=3),
        LGBMClassifier(n_estimators=3, verbose=-1),
        CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False),
        HistGradientBoostingClassifier(max_iter=3),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_model_fitted_without_names_works_with_given_names(
    model: Any, recwarn: pytest.WarningsRecorder
) -> None:
    model.fit(X.to_numpy(), Y)
    assert RiskScorer(model).features is None
    scorer = RiskScorer(model, features=FEATURES)
    recwarn.clear()
    shuffled = X[[*reversed(FEATURES)]]
    expected = model.predict_proba(X.to_numpy())[:, 1]
    np.testing.assert_allclose(scorer.probability(shuffled), expected, rtol=1e-12)
    np.testing.assert_allclose(scorer.asked(shuffled), expected, rtol=1e-12)
    assert not recwarn.list


def test_given_features_must_fit() -> None:
    named, nameless = LogisticRegression().fit(X, Y), LogisticRegression().fit(X.to_numpy(), Y)
    assert RiskScorer(named, features=FEATURES).features == FEATURES
    with pytest.raises(FeaturesError, match=r"fitted with the features heart_rate, respiratory_rate"):
        RiskScorer(named, features=FEATURES[::-1])
    with pytest.raises(
        FeaturesError, match=r"fitted with 4 features, but --features gives 3: name all of them"
    ):
        RiskScorer(nameless, features=FEATURES[1:])
    with pytest.raises(FeaturesError, match=r"no two may share one"):
        RiskScorer(nameless, features=("spo2",) * 4)


# --- the positive class

DIED = np.where(Y == 1, "died", "survived")  # sorts before "survived", so its probability is in column 0


@pytest.mark.parametrize(
    "labels", [Y, Y == 1, 2 * Y - 1, Y.astype(float)], ids=["0/1", "False/True", "-1/1", "0./1."]
)
def test_an_obvious_positive_class_need_not_be_named(labels: Any) -> None:
    model = LogisticRegression().fit(X, labels)
    np.testing.assert_allclose(RiskScorer(model).probability(X), model.predict_proba(X)[:, 1], rtol=1e-12)


@pytest.mark.parametrize(
    "labels", [DIED, Y + 1, 2 * Y, np.where(Y, "1", "0")], ids=["words", "1/2", "0/2", "texts"]
)
def test_any_other_pair_is_refused_until_the_class_is_named(labels: Any) -> None:
    model = LogisticRegression().fit(X, labels)
    first, second = model.classes_
    with pytest.raises(
        PositiveClassError, match=rf"are {first} and {second}, .*--positive-class {first} or --p"
    ):
        RiskScorer(model)
    for column, name in enumerate((first, second)):
        for given in (name, str(name)):
            scorer = RiskScorer(model, positive_class=given)
            np.testing.assert_allclose(scorer.probability(X), model.predict_proba(X)[:, column], rtol=1e-12)
    with pytest.raises(PositiveClassError, match=r"Died is not a class of the model: give one of"):
        RiskScorer(model, positive_class="Died")


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(max_iter=500),
        make_pipeline(StandardScaler(), LogisticRegression()),
        RandomForestClassifier(7, random_state=0),
        ExtraTreesClassifier(7, random_state=0),
        GradientBoostingClassifier(n_estimators=7),
        HistGradientBoostingClassifier(max_iter=7),
        CalibratedClassifierCV(LogisticRegression(), cv=2),
    ],
    ids=lambda model: type(model).__name__,
)
def test_the_risk_is_the_named_class_even_in_the_first_column(model: Any) -> None:
    model.fit(X, DIED)
    scorer = RiskScorer(model, positive_class="died")
    exact = "trees" in scorer.path
    np.testing.assert_allclose(
        scorer.probability(X),
        model.predict_proba(X)[:, 0],
        rtol=0 if exact else 1e-9,
        atol=0 if exact else 1e-15,
    )
    assert scorer.is_fast
    risk = run_streaming_inference(X, model, 7, positive_class="died")
    assert risk["risk_probability"][Y == 1].mean() > 0.5 > risk["risk_probability"][Y == 0].mean()


def test_classes_may_have_any_order() -> None:
    class Reversed:
        classes_ = (1, 0)

        def predict_proba(self, X: Any) -> Any:
            return np.tile([0.9, 0.1], (len(X), 1))

    assert RiskScorer(Reversed()).probability(X).tolist() == [0.9] * len(X)


# --- the threshold


def tuned(**parameters: Any) -> Any:
    return TunedThresholdClassifierCV(LogisticRegression(max_iter=500), cv=2, **parameters).fit(X, Y)


def fixed(threshold: Any = 0.2, **parameters: Any) -> Any:
    return FixedThresholdClassifier(LogisticRegression(max_iter=500), threshold=threshold, **parameters).fit(
        X, Y
    )


def prefit() -> Any:
    return FixedThresholdClassifier(
        FrozenEstimator(LogisticRegression(max_iter=500).fit(X, Y)), threshold=0.2
    )


def searched() -> Any:
    return GridSearchCV(fixed(), {"threshold": [0.2]}, cv=2).fit(X, Y)


def last_step() -> Any:
    return Pipeline([("scale", StandardScaler()), ("fixed", fixed())]).fit(X, Y)


def outer() -> Any:
    return FixedThresholdClassifier(tuned(), threshold=0.2).fit(X, Y)


def catboost() -> Any:
    model = CatBoostClassifier(iterations=12, verbose=0, allow_writing_files=False).fit(X, Y)
    model.set_probability_threshold(0.2)
    return model


@pytest.mark.parametrize("make", [fixed, tuned, prefit, searched, last_step, outer, catboost])
def test_a_models_own_threshold_gives_the_labels_of_its_own_predict(make: Any) -> None:
    model = make()
    risk = run_streaming_inference(X, model, 50)
    assert risk["risk_label"].tolist() == model.predict(X).astype(int).tolist()
    assert risk["risk_label"].tolist() != (model.predict_proba(X)[:, 1] >= 0.5).astype(int).tolist()
    assert RiskScorer(model).prepared.threshold_from == "the model's own"
    given = run_streaming_inference(X, model, 50, threshold=0.9)["risk_label"]
    assert given.tolist() == (model.predict_proba(X)[:, 1] >= 0.9).astype(int).tolist()
    assert RiskScorer(model, threshold=0.9).prepared.threshold_from == "the given"


def test_a_model_without_a_threshold_gets_the_default() -> None:
    for model in (LogisticRegression().fit(X, Y), fixed("auto"), fitted("CatBoost")):
        assert RiskScorer(model).threshold == 0.5
    assert "label is 1 from 0.5 upwards (the default threshold)" in RiskScorer(fitted("LR")).prepared.decision


def test_a_threshold_that_is_not_for_the_risk_is_refused() -> None:
    model = fixed(0.2, response_method="decision_function")
    with pytest.raises(ThresholdError, match=r"0\.2, is for its decision_function, .*--threshold"):
        RiskScorer(model)
    assert RiskScorer(model, threshold=0.4).threshold == 0.4
    with pytest.raises(
        ThresholdError, match=r"0\.2, is for the probability of 0, but the risk is the probability of 1"
    ):
        RiskScorer(fixed(0.2, pos_label=0))
    assert RiskScorer(fixed(0.2, pos_label=0), positive_class=0).threshold == 0.2

"""Categories and booleans from message to score: each kind of model gives its own answer."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier

from real_time import Card, FeaturesError, RiskScorer
from real_time.features import Dtype, Feature
from real_time.prepared import prepare
from real_time.probing import FailsOnEveryRowError, made_up_rows, require_independent_rows
from schemas.contract import Reason
from schemas.vitals import Decoded
from tests.schemas.messages import decoder, good

ROWS = 300
UNITS = ("ED", "ICU", "ward")


def rows() -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(7)
    X = pd.DataFrame(
        {
            "spo2": rng.uniform(85, 100, ROWS),
            "unit": rng.choice(UNITS, ROWS),
            "bed": rng.choice([1.0, 2.0, 5.0], ROWS),
            "on_oxygen": rng.random(ROWS) < 0.4,
        }
    )
    worse = (X["spo2"] < 92) ^ (X["unit"] == "ICU") ^ X["on_oxygen"] ^ (X["bed"] == 5)
    return X, worse.to_numpy(int)


X, Y = rows()
CATEGORIES = X.assign(unit=pd.Categorical(X["unit"]), bed=pd.Categorical(X["bed"].astype(int)))


def encoded(*, unknown: str = "ignore", **of_encoder: Any) -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown=unknown, **of_encoder), ["unit", "bed", "on_oxygen"]),
            ("number", make_pipeline(SimpleImputer(), StandardScaler()), ["spo2"]),
        ]
    )


def _xgboost() -> XGBClassifier:
    return XGBClassifier(n_estimators=8, max_depth=3, enable_categorical=True, n_jobs=1)


def _lightgbm() -> LGBMClassifier:
    return LGBMClassifier(n_estimators=8, min_child_samples=5, verbose=-1, n_jobs=1)


def _one_hot() -> Any:
    return make_pipeline(encoded(), LogisticRegression())


def _ordinal() -> Any:
    filled = make_pipeline(
        SimpleImputer(strategy="most_frequent"),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    )
    columns = ColumnTransformer([("unit", filled, ["unit"])], remainder="passthrough")
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=8))


KINDS: dict[str, tuple[Callable[[], Any], pd.DataFrame]] = {
    "one-hot": (_one_hot, X),
    "one-hot, others refused": (lambda: make_pipeline(encoded(unknown="error"), LogisticRegression()), X),
    "imputed, ordinal": (_ordinal, X),
    "HGB": (lambda: HistGradientBoostingClassifier(max_iter=8), CATEGORIES),
    "XGBoost": (_xgboost, CATEGORIES),
    "LightGBM": (_lightgbm, CATEGORIES),
    "CatBoost": (
        lambda: CatBoostClassifier(iterations=8, verbose=0, cat_features=["unit"], allow_writing_files=False),
        X,
    ),
    "calibrated LightGBM": (lambda: CalibratedClassifierCV(_lightgbm(), cv=2), CATEGORIES),
    "voting": (
        lambda: VotingClassifier([("lr", _one_hot()), ("xgb", _xgboost())], voting="soft"),
        CATEGORIES,
    ),
}
# What a model does not say itself: a column that it sees as numbers holds booleans for everybody else.
OXYGEN = Feature("on_oxygen", Dtype.BOOLEAN)
REST = (Feature("bed"), OXYGEN)
CARD = Card("ab" * 32, features=(Feature("spo2"), Feature("unit", Dtype.CATEGORY), *REST))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(limits=1):
        yield


@functools.cache
def fitted(name: str) -> Any:
    make, frame = KINDS[name]
    return make().fit(frame, Y)


def decoded(scorer: RiskScorer, messages: list[dict[str, Any]]) -> Decoded:
    """The rows that a worker decodes from messages for a model."""
    dtypes = {one.name: one.dtype for one in scorer.prepared.described if one.dtype != Dtype.NUMBER}
    read = decoder(scorer.features or (), dtypes=dtypes, ranges={})
    return read(good(heart_rate=..., **message) for message in messages)


@pytest.mark.parametrize("name", KINDS)
def test_messages_score_like_the_rows_the_model_was_fitted_to(name: str) -> None:
    model, frame = fitted(name), KINDS[name][1]
    scorer = RiskScorer(model, card=CARD)
    messages = X.to_dict("records")
    found = decoded(scorer, messages)
    assert not found.rejects
    expected = model.predict_proba(frame)[:, 1]
    for size in (ROWS, 7, 1):
        chunks = [found.frame.iloc[start : start + size] for start in range(0, min(ROWS, 3 * size), size)]
        risk = np.concatenate([scorer.probability(chunk) for chunk in chunks])
        np.testing.assert_allclose(risk, expected[: len(risk)], rtol=1e-12, atol=1e-15)
    require_independent_rows(scorer, scorer.features or ())


@pytest.mark.parametrize("name", KINDS)
def test_unknown_and_missing_categories_are_handled_as_by_the_model(name: str) -> None:
    model, frame = fitted(name), KINDS[name][1]
    scorer = RiskScorer(model, card=CARD)
    for value in ("morgue", None):
        row = X.iloc[:1].to_dict("records")[0] | {"unit": value}
        asked = frame.iloc[:1].astype({"unit": object})
        asked["unit"] = pd.Series([np.nan if value is None else value], dtype=X["unit"].dtype)
        if frame is CATEGORIES:
            asked["unit"] = pd.Categorical(asked["unit"], categories=[*UNITS, *([value] if value else [])])
        try:
            expected = model.predict_proba(asked)[:, 1]
        except Exception as refused:
            with pytest.raises(type(refused)):
                scorer.probability(decoded(scorer, [row]).frame)
            good_row = X.iloc[1:2].to_dict("records")
            assert len(scorer.probability(decoded(scorer, good_row).frame)) == 1
        else:
            np.testing.assert_allclose(scorer.probability(decoded(scorer, [row]).frame), expected, rtol=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_any_suitable_frame_scores_like_messages(name: str) -> None:
    model, frame = fitted(name), KINDS[name][1]
    scorer = RiskScorer(model, card=CARD)
    expected = model.predict_proba(frame)[:, 1]
    for own in (
        frame,
        X,
        X.astype({"unit": object, "on_oxygen": object})[["on_oxygen", "bed", "unit", "spo2"]],
    ):
        np.testing.assert_allclose(scorer.probability(own), expected, rtol=1e-12, atol=1e-15)


def test_a_value_of_another_type_is_rejected_as_wrong_type() -> None:
    """Before, a text column behind a OneHotEncoder rejected every message, and the other wrong values were accepted."""
    scorer = RiskScorer(fitted("one-hot"))
    wrong = {"unit": 3, "on_oxygen": 1, "spo2": "97", "bed": True}
    messages = [X.iloc[0].to_dict(), *(X.iloc[0].to_dict() | {name: value} for name, value in wrong.items())]
    found = decoded(scorer, messages)
    assert [(one.position, one.reason, one.field) for one in found.rejects] == [
        (number, Reason.WRONG_TYPE, name) for number, name in enumerate(wrong, 1)
    ]
    np.testing.assert_allclose(
        scorer.probability(found.frame), fitted("one-hot").predict_proba(X.iloc[:1])[:, 1], rtol=1e-12
    )


def test_booleans_stay_bool_in_the_frame_unless_one_is_missing() -> None:
    seen: list[Any] = []

    class Looks:
        classes_ = (0, 1)
        feature_names_in_ = ("on_oxygen", "unit")

        def predict_proba(self, X: pd.DataFrame) -> Any:
            seen.append(X.dtypes.tolist())
            return np.full((len(X), 2), 0.5)

    card = Card("ab" * 32, features=(Feature("on_oxygen", Dtype.BOOLEAN), Feature("unit", Dtype.CATEGORY)))
    scorer = RiskScorer(Looks(), card=card)
    for oxygen in ([True, False], [True, None], [None, None]):
        scorer.probability(decoded(scorer, [{"on_oxygen": one, "unit": None} for one in oxygen]).frame)
    text = X["unit"].dtype
    assert seen == [[np.dtype(bool), text], [np.dtype(float), text], [np.dtype(float), text]]


def test_booleans_keep_the_fast_path() -> None:
    numbers = X[["spo2", "on_oxygen"]]
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(numbers, Y)
    card = Card("ab" * 32, features=(Feature("spo2"), Feature("on_oxygen", Dtype.BOOLEAN)))
    scorer = RiskScorer(model, card=card)
    assert scorer.is_fast
    scorer._asked = None  # type: ignore[assignment, method-assign]
    messages = [*numbers.to_dict("records"), {"spo2": 90, "on_oxygen": None}]
    risk = scorer.probability(decoded(scorer, messages).frame)
    expected = model.predict_proba(pd.concat([numbers, pd.DataFrame({"spo2": [90.0]})]).astype(float))[:, 1]
    np.testing.assert_allclose(risk, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("LightGBM", "some of its features have pandas' category type"),
        ("CatBoost", "there is no fast path for CatBoostClassifier"),
    ],
)
def test_a_model_with_categories_says_why_it_has_no_fast_path(name: str, why: str) -> None:
    assert RiskScorer(fitted(name), card=CARD).path == f"the model's own predict_proba: {why}"


def test_the_card_cannot_contradict_what_the_model_knows() -> None:
    described = prepare(fitted("one-hot")).described
    assert [one.dtype for one in described] == ["number", "category", "number", "boolean"]
    assert described[1].values == UNITS
    for told, problem in (
        (
            Feature("unit"),
            "the card or --data says that unit is a number, but the model was fitted with a category",
        ),
        (
            Feature("unit", Dtype.CATEGORY, ("a", "b")),
            "that the values of unit are a, b, but the model was fitted",
        ),
    ):
        with pytest.raises(FeaturesError, match=problem):
            RiskScorer(fitted("one-hot"), card=Card("ab" * 32, features=(Feature("spo2"), told, *REST)))


class Opaque:
    """Accepts text but does not say so."""

    classes_ = (0, 1)
    feature_names_in_ = ("unit",)

    def predict_proba(self, X: pd.DataFrame) -> Any:
        risk = X["unit"].str.len().fillna(0).to_numpy() / 10
        return np.column_stack([1 - risk, risk])


def test_the_card_adds_what_the_model_does_not_say() -> None:
    with pytest.raises(FailsOnEveryRowError, match="pin --data FILE` learns these"):
        require_independent_rows(RiskScorer(Opaque()), ["unit"])
    scorer = RiskScorer(Opaque(), card=Card("ab" * 32, features=(Feature("unit", Dtype.CATEGORY, UNITS),)))
    require_independent_rows(scorer, ["unit"])
    frame = decoded(scorer, [{"unit": "ward"}, {"unit": None}]).frame
    assert scorer.probability(frame).tolist() == [0.4, 0]
    assert {*made_up_rows(scorer.prepared, 50)["unit"]} == {*UNITS}


def test_none_is_a_category_for_an_encoder_fitted_with_it() -> None:
    text = pd.DataFrame({"unit": pd.Series(["ICU", None] * 20, dtype=object)})
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(text, [1, 0] * 20)
    scorer = RiskScorer(model)
    frame = decoded(scorer, [{"unit": "ICU"}, {"unit": None}]).frame
    np.testing.assert_allclose(scorer.probability(frame), model.predict_proba(text.head(2))[:, 1], rtol=1e-12)


def test_a_model_without_names_gets_an_array_of_the_fitted_dtype() -> None:
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    model.fit(X[["unit", "on_oxygen"]].to_numpy(), Y)
    scorer = RiskScorer(model, features=["unit", "on_oxygen"])
    frame = decoded(scorer, X[["unit", "on_oxygen"]].to_dict("records")).frame
    expected = model.predict_proba(X[["unit", "on_oxygen"]].to_numpy())[:, 1]
    np.testing.assert_allclose(scorer.probability(frame), expected, rtol=1e-12)

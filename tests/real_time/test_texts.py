"""Text categories on the fast path: known, unknown and missing ones are handled as by the model, or it is not used."""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from threadpoolctl import threadpool_limits

from real_time import RiskScorer, arithmetic
from real_time.probing import require_independent_rows
from real_time.texts import Texts

LINEAR, TREES = "the linear model's arithmetic", "compiled trees"
OWN = "the model's own predict_proba: "
ROWS = 400
NUMBERS, CATEGORIES = ["spo2", "heart_rate"], ["unit", "gender", "bed", "on_oxygen"]
TEXTS = [*NUMBERS, "unit", "gender"]


def _patients() -> tuple[pd.DataFrame, Any]:
    random = np.random.default_rng(11)
    frame = pd.DataFrame(
        {
            "spo2": random.uniform(85, 100, ROWS),
            "unit": random.choice(["ED", "ICU", "ward", "burns"], ROWS, p=[0.3, 0.3, 0.38, 0.02]),
            "heart_rate": random.normal(85, 15, ROWS),
            "gender": random.choice(["f", "m"], ROWS),
            "bed": random.choice([1.0, 2.0, 5.0], ROWS),
            "on_oxygen": random.random(ROWS) < 0.4,
        }
    )
    worse = (frame["spo2"] < 92) ^ (frame["unit"] == "ICU") ^ (random.random(ROWS) < 0.2)
    return frame.mask((random.random(frame.shape) < 0.1) & frame.columns.isin(NUMBERS)), worse.to_numpy(int)


X, Y = _patients()
GAPS = X.assign(unit=X["unit"].mask(np.random.default_rng(1).random(ROWS) < 0.1))
NONE = GAPS.assign(unit=GAPS["unit"].astype(object).where(GAPS["unit"].notna(), None))


def columns(encoder: Any, categories: list[str] = CATEGORIES) -> Any:
    return make_column_transformer(
        (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), NUMBERS),
        (encoder, categories),
    )


def linear(encoder: Any) -> Any:
    return make_pipeline(columns(encoder), LogisticRegression(max_iter=500))


def boosted(encoder: Any) -> Any:
    return make_pipeline(columns(encoder), HistGradientBoostingClassifier(max_iter=12))


def one_hot(unknown: str = "ignore", **parameters: Any) -> Any:
    return OneHotEncoder(handle_unknown=unknown, **parameters)


def ordinal(**parameters: Any) -> Any:
    return OrdinalEncoder(handle_unknown="use_encoded_value", **parameters)


def filled(encoder: Any, **parameters: Any) -> Any:
    """Only text, because imputers accept no booleans."""
    imputer = SimpleImputer(**{"strategy": "most_frequent", **parameters})
    parts = make_column_transformer(
        (make_pipeline(imputer, encoder), ["unit", "gender"]), (SimpleImputer(), NUMBERS)
    )
    return make_pipeline(parts, LogisticRegression(max_iter=5000))


KINDS: dict[str, tuple[Callable[[], Any], pd.DataFrame, str]] = {
    "others ignored": (lambda: linear(one_hot()), X, LINEAR),
    "others refused": (lambda: linear(one_hot("error")), X, LINEAR),
    "others refused, missing ones known": (lambda: linear(one_hot("error")), GAPS, LINEAR),
    "missing ones are NaN": (lambda: linear(one_hot()), GAPS, LINEAR),
    "missing ones are None": (lambda: linear(one_hot()), NONE, LINEAR),
    "infrequent": (lambda: linear(one_hot("infrequent_if_exist", min_frequency=20)), GAPS, LINEAR),
    "infrequent, others warned of": (lambda: linear(one_hot("warn", max_categories=2)), X, LINEAR),
    "first dropped": (lambda: linear(one_hot("ignore", drop="first", sparse_output=False)), GAPS, LINEAR),
    "first dropped, others refused": (lambda: linear(one_hot("error", drop="first")), X, LINEAR),
    "dropped if there are two": (lambda: linear(one_hot(drop="if_binary", min_frequency=20)), X, LINEAR),
    "categories that were given": (
        lambda: linear(
            one_hot(categories=[["ward", "ICU", "OR", "ED"], ["m", "f"], [1, 2, 5], [False, True]])
        ),
        X[X["unit"] != "burns"],
        LINEAR,
    ),
    "means of the target": (lambda: linear(TargetEncoder(random_state=0)), GAPS, LINEAR),
    "most frequent": (lambda: filled(one_hot()), GAPS[TEXTS], LINEAR),
    "a text in place of missing ones": (
        lambda: filled(one_hot(), strategy="constant", fill_value="not told", add_indicator=True),
        GAPS[TEXTS],
        LINEAR,
    ),
    "numbered, boosted": (lambda: boosted(ordinal(unknown_value=-1)), GAPS, TREES),
    "numbered, others are NaN, boosted": (
        lambda: boosted(ordinal(unknown_value=np.nan, encoded_missing_value=-2)),
        GAPS,
        TREES,
    ),
    "numbered, infrequent, boosted": (
        lambda: boosted(ordinal(unknown_value=-1, min_frequency=20)),
        GAPS,
        TREES,
    ),
    "numbered, others refused, boosted": (lambda: boosted(OrdinalEncoder()), X, TREES),
    "one-hot, forest": (
        lambda: make_pipeline(columns(one_hot()), RandomForestClassifier(9, max_depth=5, random_state=0)),
        GAPS,
        TREES,
    ),
    "calibrated": (
        lambda: CalibratedClassifierCV(boosted(ordinal(unknown_value=-1)), cv=2),
        GAPS,
        f"{TREES}; calibrated",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(limits=1):
        yield


@functools.cache
def fitted(name: str) -> Any:
    make, frame, _ = KINDS[name]
    return make().fit(frame, Y[frame.index])


@functools.cache
def scorer_of(name: str) -> RiskScorer:
    return RiskScorer(fitted(name))


def as_decoded(frame: pd.DataFrame) -> pd.DataFrame:
    """As decoded from messages: text and booleans are objects, missing ones None."""
    texts = frame[[name for name in ("unit", "gender", "on_oxygen") if name in frame]].astype(object)
    return frame.assign(**texts.where(texts.notna(), None))


def strange(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that each have a category which is missing or unknown to the model."""
    rows = frame.head(48).astype({"unit": object, "gender": object}).reset_index(drop=True)
    missing = None if frame is NONE else np.nan
    for place, (name, value) in enumerate(
        [
            ("unit", "morgue"),
            ("unit", missing),
            ("gender", ""),
            ("gender", np.nan),
            ("bed", 3.0),
            ("bed", np.nan),
        ]
    ):
        rows.loc[place::6, name] = value
    return rows


def assert_as_the_model(model: Any, scorer: RiskScorer, rows: pd.DataFrame) -> None:
    expected = model.predict_proba(rows)[:, 1]
    for size in (1, 7, 100):
        chunks = [as_decoded(rows.iloc[at : at + size]) for at in range(0, min(len(rows), 7 * size), size)]
        found = np.concatenate([*map(scorer.probability, chunks)])
        if TREES in scorer.path:
            np.testing.assert_array_equal(found, expected[: len(found)])
        else:
            np.testing.assert_allclose(found, expected[: len(found)], rtol=1e-12)


@pytest.mark.filterwarnings("ignore:Found unknown categories")
@pytest.mark.parametrize("name", KINDS)
def test_each_encoder_takes_the_fast_path_and_gives_the_models_scores_at_any_chunk_size(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (_, frame, path), scorer = fitted(name), KINDS[name], scorer_of(name)
    assert scorer.path == path
    with monkeypatch.context() as patched:
        patched.setattr(scorer, "_asked", None)
        assert_as_the_model(model, scorer, frame)
    require_independent_rows(scorer, scorer.features or ())


@pytest.mark.filterwarnings("ignore:Found unknown categories")
@pytest.mark.parametrize("name", KINDS)
def test_unknown_and_missing_categories_are_scored_or_refused_as_by_the_model(name: str) -> None:
    model, scorer = fitted(name), scorer_of(name)
    rows = strange(KINDS[name][1])
    for place in range(6):
        few = rows.iloc[place::6]
        if refusal := _refusal(model, few):
            with pytest.raises(ValueError, match=f"^{re.escape(refusal)}$"):
                scorer.probability(as_decoded(few))
        else:
            assert_as_the_model(model, scorer, few)


def _refusal(model: Any, rows: pd.DataFrame) -> str:
    try:
        model.predict_proba(rows)
    except ValueError as error:
        return str(error)
    return ""


def test_a_missing_value_where_none_is_allowed_does_not_slow_the_other_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The column passed through to a linear model must be complete; the others are imputed."""
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        (one_hot(), ["unit"]),
        remainder="passthrough",
    )
    frame = GAPS.drop(columns=["gender", "on_oxygen"])
    model = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(frame, Y)
    scorer = RiskScorer(model)
    assert scorer.path == LINEAR
    with pytest.raises(ValueError, match="contains NaN"):
        scorer.probability(frame.assign(bed=np.nan))
    monkeypatch.setattr(scorer, "_asked", None)
    np.testing.assert_allclose(scorer.probability(frame), model.predict_proba(frame)[:, 1], rtol=1e-12)


def test_an_encoding_table_with_different_numbers_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As might happen with another version of scikit-learn."""
    monkeypatch.setitem(
        arithmetic.OF_CATEGORIES,
        OneHotEncoder,
        lambda *given: lambda X: arithmetic._encoder(*given)(X)[:, ::-1],
    )
    scorer = RiskScorer(fitted("missing ones are NaN"))
    assert scorer.path == f"{OWN}its fast path gives other scores than predict_proba"
    assert_as_the_model(fitted("missing ones are NaN"), scorer, GAPS)


@pytest.mark.parametrize("wrong", ["unknown", "missing"])
def test_different_scores_only_for_unknown_or_missing_categories_are_noticed(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = arithmetic._Table.of

    def doctored(*given: Any) -> Any:
        table = of(*given)
        return table._replace(**{wrong: table.known[:1]})

    monkeypatch.setattr(arithmetic._Table, "of", doctored)
    path = RiskScorer(fitted("missing ones are NaN")).path
    assert path == f"{OWN}its fast path gives other scores than predict_proba"


def test_a_path_that_scores_what_the_model_refuses_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    of = arithmetic._Table.of
    monkeypatch.setattr(
        arithmetic._Table, "of", lambda *given: of(*given)._replace(unknown=of(*given).known[:1])
    )
    assert RiskScorer(fitted("others refused")).path.startswith(f"{OWN}its fast path failed with ValueError")


def test_an_encoder_with_very_many_categories_is_left_to_the_model() -> None:
    rows = pd.DataFrame({"bed": [f"bed {number}" for number in range(1200)], "spo2": np.arange(1200.0)})
    encoder = make_column_transformer((one_hot(), ["bed"]), (StandardScaler(), ["spo2"]))
    model = make_pipeline(encoder, LogisticRegression()).fit(rows, rows["spo2"] > 600)
    assert RiskScorer(model).path == f"{OWN}there is no fast path for an encoder with that many categories"


def test_a_value_of_another_type_or_dtype_is_left_to_the_model() -> None:
    model, scorer = fitted("missing ones are NaN"), scorer_of("missing ones are NaN")
    for rows in (
        GAPS.astype({"unit": "category"}),
        GAPS.astype({"spo2": np.float32}),
        GAPS.assign(unit=pd.Series([7, *GAPS["unit"][1:]], dtype=object)),
    ):
        np.testing.assert_allclose(scorer.probability(rows), model.predict_proba(rows)[:, 1], rtol=1e-6)


def test_texts_keep_the_numbers_they_were_fitted_with() -> None:
    texts = Texts()
    first = texts.learned(["ED", "ICU", None, 5.0])
    assert texts.learned(["ICU", "ward", "ED"])[[2, 0]].tolist() == first[:2].tolist()
    assert np.isnan(first[2])
    assert first[3] == 5
    numbers = texts.numbers(["ward", "ED", None, np.nan, "morgue", ""])
    assert numbers[4] == numbers[5]
    assert len({*numbers[[0, 1, 4]]}) == 3
    back = texts.texts(numbers)
    assert back[:4] == ["ward", "ED", None, None]
    assert back[4] not in {"ward", "ED", "ICU"}

"""A patient's past: what is known at each row, with the same bits at any chunk size, compiled or not."""

import contextlib
import importlib.util
import math
import pickle
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from real_time import inference, load_model, pin_model, run_streaming_inference
from real_time.card import Card
from real_time.features import Dtype, Feature
from real_time.history import HistoryError, PatientHistory, Window
from real_time.history import fold as fold_module
from real_time.history.rows import time_of, time_reader
from real_time.prepared import FeaturesError, prepare
from real_time.probing import DependentRowsError
from real_time.usable import KeepsHistoryError, load_usable
from tests.consumer.processes import ROOT
from tests.kernels import with_kernel

START = pd.Timestamp("2026-01-05T08:00:00Z")
HOUR = pd.Timedelta("1h")
NAN = math.nan


def rows(*told: tuple[str, float, float]) -> pd.DataFrame:
    """Each row: patient, hours since the start, heart rate."""
    return pd.DataFrame(
        [(patient, START + hours * HOUR, value) for patient, hours, value in told],
        columns=["patient_id", "event_time", "heart_rate"],
    )


def history(frame: pd.DataFrame, *args: Any, **options: Any) -> pd.DataFrame:
    return PatientHistory(*args, **options).fit_transform(frame)


# --- what each row gets


def test_the_default_columns_are_last_values_ages_changes_and_time_since_first_seen() -> None:
    found = history(rows(("a", 0, 80), ("b", 0.5, 60), ("a", 1, NAN), ("a", 3, 90)))
    assert [*found.columns] == [
        "heart_rate_last",
        "heart_rate_age_h",
        "heart_rate_delta",
        "hours_since_first_seen",
        "rows_seen",
    ]
    expected = [[80, 0, NAN, 0, 1], [60, 0, NAN, 0, 1], [80, 1, NAN, 1, 2], [90, 0, 10, 3, 3]]
    np.testing.assert_array_equal(found, expected)


def test_a_value_is_carried_forward_up_to_its_limit_but_its_age_keeps_growing() -> None:
    found = history(rows(("a", 0, 80), ("a", 2, NAN), ("a", 2.25, NAN), ("a", 5, 90)), {"heart_rate": "2h"})
    np.testing.assert_array_equal(found["heart_rate_last"], [80, 80, NAN, 90])
    np.testing.assert_array_equal(found["heart_rate_age_h"], [0, 2, 2.25, 0])
    np.testing.assert_array_equal(found["heart_rate_delta"], [NAN, NAN, NAN, NAN])


def test_a_late_row_gets_what_is_known_now() -> None:
    found = history(rows(("a", 0, 80), ("a", 4, 90), ("a", 2, 70), ("a", 2, 71)))
    np.testing.assert_array_equal(found["heart_rate_last"], [80, 90, 90, 90])
    np.testing.assert_array_equal(found["heart_rate_age_h"], [0, 0, 0, 0])
    np.testing.assert_array_equal(found["rows_seen"], [1, 2, 3, 4])


def test_a_late_row_can_be_the_newest_of_its_column_and_the_first_of_its_patient() -> None:
    found = history(rows(("a", 4, NAN), ("a", 2, 70)))
    np.testing.assert_array_equal(
        found[["heart_rate_last", "heart_rate_age_h", "hours_since_first_seen"]], [[NAN, NAN, 0], [70, 2, 2]]
    )


def test_a_second_value_of_the_same_time_is_a_correction() -> None:
    found = history(rows(("a", 0, 80), ("a", 1, 90), ("a", 1, 95)))
    np.testing.assert_array_equal(found["heart_rate_last"], [80, 90, 95])
    np.testing.assert_array_equal(found["heart_rate_delta"], [NAN, 10, 15])


def test_a_window_keeps_a_value_and_its_correction() -> None:
    window = Window("2h", of=("min", "max", "count"))
    found = history(rows(("a", 0, 900), ("a", 0, 90)), windows=[window])
    names = ["heart_rate_last", *(f"heart_rate_{one}_2h" for one in window.of)]
    np.testing.assert_array_equal(found[names], [[900, 900, 900, 1], [90, 90, 900, 2]])


def test_a_missing_value_corrects_nothing() -> None:
    found = history(rows(("a", 0, 80), ("a", 0, NAN)))
    np.testing.assert_array_equal(found["heart_rate_last"], [80, 80])


def test_windows_consist_of_whole_steps() -> None:
    window = Window("3h", of=("min", "max", "mean", "count"))
    found = history(
        rows(("a", 0.9, 80), ("a", 1.1, 90), ("a", 2.5, NAN), ("a", 2.9, 40), ("a", 3.0, 50), ("a", 9, NAN)),
        windows=[window],
    )
    names = [f"heart_rate_{one}_3h" for one in window.of]
    expected = [
        [80, 80, 80, 1],
        [80, 90, 85, 2],
        [80, 90, 85, 2],
        [40, 90, 70, 3],
        [40, 90, 60, 3],  # the step of 8 o'clock has left the window
        [NAN, NAN, NAN, 0],
    ]
    np.testing.assert_array_equal(found[names], expected)


def test_a_late_row_falls_into_its_step_or_is_counted_as_late() -> None:
    fitted = PatientHistory(windows=[Window("2h", of=("count",))]).fit(rows(("a", 0, 80)))
    patients = fitted.start()
    found = patients.advance(rows(("a", 5, 80), ("a", 4.5, 81), ("a", 3.9, 82), ("a", 5.5, NAN)))
    np.testing.assert_array_equal(found["heart_rate_count_2h"], [1, 2, 2, 2])
    assert patients.late == 1


def test_forgetting_a_patient_depends_only_on_that_patients_times() -> None:
    found = history(
        rows(("a", 0, 80), ("b", 400, 60), ("a", 24, NAN), ("a", 48.5, NAN)), last="4h", forget_after="24h"
    )
    np.testing.assert_array_equal(found["rows_seen"], [1, 1, 2, 1])
    np.testing.assert_array_equal(found["heart_rate_age_h"], [0, 0, 24, NAN])


def test_a_new_encounter_starts_from_scratch() -> None:
    frame = rows(("a", 0, 80), ("a", 1, NAN), ("a", 2, NAN), ("b", 2, 60), ("a", 3, NAN))
    found = history(frame.assign(encounter_id=["x", None, "y", None, "y"]))
    np.testing.assert_array_equal(found["rows_seen"], [1, 2, 1, 1, 2])
    np.testing.assert_array_equal(found["heart_rate_last"], [80, 80, NAN, 60, NAN])


def test_a_late_row_of_the_previous_encounter_also_starts_from_scratch() -> None:
    frame = rows(("a", 0, 80), ("a", 5, 90), ("a", 1, 70), ("a", 6, NAN))
    found = history(frame.assign(encounter_id=["x", "y", "x", "y"]))
    np.testing.assert_array_equal(found["rows_seen"], [1, 1, 1, 1])
    np.testing.assert_array_equal(found["heart_rate_last"], [80, 90, 70, NAN])


def test_a_time_far_in_the_future_is_accepted_and_makes_the_other_rows_late() -> None:
    found = history(rows(("a", 0, 80), ("a", 24 * 365, 81), ("a", 1, 82), ("b", 1, 60)), "6h")
    np.testing.assert_array_equal(found["heart_rate_last"], [80, 81, 81, 60])
    np.testing.assert_array_equal(found["rows_seen"], [1, 1, 2, 1])


@pytest.mark.parametrize("hours", [-24 * 365 * 90, 24 * 365 * 100])
def test_any_year_is_accepted(hours: float) -> None:
    found = history(rows(("a", hours, 80), ("a", hours + 1, NAN)), windows=[Window("2h", of=("mean",))])
    np.testing.assert_array_equal(found["heart_rate_mean_2h"], [80, 80])
    np.testing.assert_array_equal(found["heart_rate_age_h"], [0, 1])


# --- compared with the definition, at any chunk size, compiled or not

Row = tuple[str, int, float, float]
"""Patient, minutes, two values."""

VALUES = st.one_of(st.just(NAN), st.sampled_from([-0.0, 0.0, 80.1, 80.2, 1e300]), st.floats(-1e6, 1e6))
ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 600), VALUES, VALUES), min_size=1, max_size=25
)
RECIPE = PatientHistory(
    {"p": "1h", "q": "2h"},
    windows=[Window("2h", "30min"), Window("5h"), Window("1h", "30min")],
    forget_after="6h",
)


def framed(told: Sequence[Row]) -> pd.DataFrame:
    frame = pd.DataFrame(told, columns=["patient_id", "event_time", "p", "q"])
    return frame.assign(event_time=START + pd.to_timedelta(frame["event_time"], unit="min"))


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_the_columns_match_their_definition(told: list[Row]) -> None:
    frame = framed(told)
    found = clone(RECIPE).fit(frame).transform(frame)
    for place in range(len(told)):
        expected = _by_definition(told[: place + 1])
        for name, value in expected.items():
            np.testing.assert_allclose(
                found[name].iloc[place], value, rtol=1e-12, err_msg=f"{name} of {place}"
            )


def _by_definition(told: list[Row]) -> dict[str, float]:
    """The columns of the last of these rows, computed from all rows of its patient."""
    kept: list[tuple[int, float, float]] = []
    clock = -math.inf
    for patient, minutes, *values in told:
        if patient == told[-1][0]:
            kept = [] if minutes > clock + 360 else kept
            clock = minutes if not kept else max(clock, minutes)
            kept.append((minutes, values[0], values[1]))
    expected = {
        "rows_seen": len(kept),
        "hours_since_first_seen": (clock - min(m for m, *_ in kept if clock_at(kept, m) - m <= 360)) / 60,
    }
    for number, (column, limit) in enumerate({"p": 60, "q": 120}.items()):
        readings = [(m, row[number]) for m, *row in kept if not math.isnan(row[number])]
        newest = max((m for m, _ in readings), default=NAN)
        last = [value for m, value in readings if m == newest]
        expected[f"{column}_age_h"] = (clock - newest) / 60
        expected[f"{column}_last"] = last[-1] if last and clock - newest <= limit else NAN
        for length, step, steps in (("2h", 30, 4), ("5h", 60, 5), ("1h", 30, 2)):
            origin = 8 * 60  # the start is 8 o'clock, and steps are counted from midnight
            within = [
                value for m, value in readings if (origin + clock) // step - (origin + m) // step < steps
            ]
            # A value that came too late for a window at the time is also too old for it now.
            expected[f"{column}_count_{length}"] = len(within)
            expected[f"{column}_min_{length}"] = min(within, default=NAN)
            expected[f"{column}_max_{length}"] = max(within, default=NAN)
    return expected


def clock_at(kept: list[tuple[int, float, float]], minutes: int) -> float:
    """The clock when the first row with this time arrived."""
    clock = -math.inf
    for m, *_ in kept:
        clock = max(clock, m)
        if m == minutes:
            return clock
    raise AssertionError


@given(ROWS, st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_any_chunk_size_with_and_without_numba_gives_the_same_bits(told: list[Row], size: int) -> None:
    frame = framed(told)
    fitted = clone(RECIPE).fit(frame)
    whole = fitted.transform(frame).to_numpy().tobytes()
    chunked, uncompiled = fitted.start(), fitted.start()
    uncompiled._fold = PYTHON.fold
    parts = [frame.iloc[at : at + size] for at in range(0, len(frame), size)]
    assert pd.concat([chunked.advance(part) for part in parts]).to_numpy().tobytes() == whole
    assert uncompiled.advance(frame).to_numpy().tobytes() == whole


def _without_numba() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fold_without_numba", str(fold_module.__file__))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "numba", None)
        spec.loader.exec_module(module)
    return module


PYTHON = _without_numba()


# --- in a model


@pytest.fixture(scope="module")
def stays() -> pd.DataFrame:
    random = np.random.default_rng(7)
    count = 600
    frame = pd.DataFrame(
        {
            "patient_id": random.choice([f"p-{n}" for n in range(20)], count),
            "event_time": START + pd.to_timedelta(np.sort(random.random(count)) * 96, unit="h"),
            "heart_rate": np.where(random.random(count) < 0.5, NAN, random.normal(80, 10, count)),
            "temperature": np.where(random.random(count) < 0.8, NAN, random.normal(37, 1, count)),
        }
    )
    return frame.set_index(random.permutation(count))


@pytest.fixture(scope="module")
def sepsis() -> pd.Series:
    return pd.Series(np.random.default_rng(8).random(600) < 0.3)


WINDOWS = (Window("24h", of=("min", "max")),)


def models() -> dict[str, Any]:
    return {
        "boosting": make_pipeline(
            PatientHistory(windows=WINDOWS), HistGradientBoostingClassifier(max_iter=20)
        ),
        "scaled": make_pipeline(PatientHistory(), _Filled(), StandardScaler(), LogisticRegression()),
    }


class _Filled(StandardScaler):  # type: ignore[misc]
    """Replaces missing values with zero."""

    def fit(self, X: Any, y: object = None, sample_weight: object = None) -> Any:
        return super().fit(X.fillna(0))

    def transform(self, X: Any, copy: object = None) -> Any:
        return super().transform(X.fillna(0))


@pytest.mark.parametrize("name", ["boosting", "scaled"])
def test_any_chunk_size_gives_the_models_own_scores(
    name: str, stays: pd.DataFrame, sepsis: pd.Series
) -> None:
    model = models()[name].fit(stays, sepsis)
    expected = pd.Series(model.predict_proba(stays)[:, 1], stays.index).sort_index(kind="stable")
    found = {size: run_streaming_inference(stays, model, size) for size in (1, 7, 100, 600)}
    for risk in found.values():
        if name == "boosting":
            assert risk["risk_probability"].equals(expected)
        np.testing.assert_allclose(risk["risk_probability"], expected, rtol=1e-12)
        assert risk.index.equals(expected.index)


def test_each_call_of_a_scorer_knows_only_its_own_rows(stays: pd.DataFrame, sepsis: pd.Series) -> None:
    model = models()["boosting"].fit(stays, sepsis)
    scorer = inference.RiskScorer(model)
    assert scorer.features == ("patient_id", "event_time", "heart_rate", "temperature")
    np.testing.assert_array_equal(scorer(stays)["risk_probability"], model.predict_proba(stays)[:, 1])
    np.testing.assert_array_equal(scorer(stays)["risk_probability"], model.predict_proba(stays)[:, 1])


def test_an_empty_frame_gives_an_empty_result(stays: pd.DataFrame, sepsis: pd.Series) -> None:
    model = models()["boosting"].fit(stays, sepsis)
    assert run_streaming_inference(stays.iloc[:0], model, 10).empty


def test_a_history_that_is_not_the_first_step_is_refused(stays: pd.DataFrame, sepsis: pd.Series) -> None:
    model = CalibratedClassifierCV(models()["boosting"], cv=2).fit(stays, sepsis)
    with pytest.raises(HistoryError, match="must be the first step of the model's outermost Pipeline"):
        run_streaming_inference(stays, model, 10)


def test_a_history_clones_pickles_and_names_features_as_scikit_learn_expects(stays: pd.DataFrame) -> None:
    fitted = clone(PatientHistory(windows=WINDOWS)).fit(stays)
    out = fitted.transform(stays)
    assert [*fitted.get_feature_names_out()] == [*out.columns]
    assert "heart_rate_max_24h" in out.columns
    assert out.index.equals(stays.index)
    again = pickle.loads(pickle.dumps(fitted))
    assert again.transform(stays).equals(out)
    assert again.recipe_sha256 == fitted.recipe_sha256
    assert PatientHistory("4h").fit(stays).recipe_sha256 != fitted.recipe_sha256
    assert fitted.set_output(transform="pandas").transform(stays).equals(out)


def test_a_model_with_a_history_can_be_saved_with_skops(
    stays: pd.DataFrame, sepsis: pd.Series, tmp_path: Path
) -> None:
    import skops.io

    model: Pipeline = models()["boosting"].fit(stays, sepsis)
    path = tmp_path / "model.skops"
    skops.io.dump(model, path)
    pin_model(path)
    loaded = load_model(path, trusted=skops.io.get_untrusted_types(file=path))
    np.testing.assert_array_equal(loaded.predict_proba(stays), model.predict_proba(stays))


@pytest.fixture(scope="module")
def pinned(stays: pd.DataFrame, sepsis: pd.Series, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import joblib

    path = tmp_path_factory.mktemp("model") / "model.joblib"
    joblib.dump(models()["boosting"].fit(stays, sepsis), path)
    pin_model(path)
    return path


def test_commands_that_look_at_each_message_alone_refuse_a_history(pinned: Path) -> None:
    with pytest.raises(KeepsHistoryError, match=r"scores each message alone: .* run_streaming_inference"):
        load_usable(pinned)


def test_the_features_are_the_columns_of_the_history(pinned: Path, stays: pd.DataFrame) -> None:
    model = load_usable(pinned, with_history=True)
    assert model.features == ("heart_rate", "temperature")
    history = model.described().history
    assert history is not None
    assert model.scorer.history is not None
    assert history.recipe_sha256 == model.scorer.history.recipe_sha256
    assert [*history.gives] == [*model.scorer.history.get_feature_names_out()]
    features = model.scorer.history.transform(stays)
    np.testing.assert_array_equal(model.scorer.behind_history(features), model.scorer.probability(stays))


def test_the_features_include_the_encounter_if_the_history_uses_it(
    stays: pd.DataFrame, sepsis: pd.Series
) -> None:
    frame = stays.assign(encounter_id=[f"e{n % 3}" for n in range(len(stays))])
    model = make_pipeline(PatientHistory(), HistGradientBoostingClassifier(max_iter=2)).fit(frame, sepsis)
    told = Feature("encounter_id", Dtype.CATEGORY, values=("e0", "e1"))
    card = Card("0" * 64, features=(told, Feature("heart_rate"), Feature("temperature")))
    fields = prepare(model, card=card).fields
    assert [one.name for one in fields] == ["encounter_id", "heart_rate", "temperature"]
    assert fields[0] == Feature("encounter_id", Dtype.CATEGORY)  # the values of encounters are not limited
    assert prepare(model).fields == fields


def test_the_model_after_a_history_is_probed_like_any_other(
    stays: pd.DataFrame, sepsis: pd.Series, tmp_path: Path
) -> None:
    import joblib

    path = tmp_path / "model.joblib"
    joblib.dump(make_pipeline(PatientHistory(), Centered(), LogisticRegression()).fit(stays, sepsis), path)
    pin_model(path)
    with pytest.raises(DependentRowsError):
        load_usable(path, with_history=True)


class Centered(_Filled):
    """Centers by the rows it is given."""

    def transform(self, X: Any, copy: object = None) -> Any:
        return X.fillna(0) - X.fillna(0).mean()


def test_a_cards_columns_must_match_the_history(pinned: Path) -> None:
    model = load_model(pinned)
    heart_rate, temperature = Feature("heart_rate", typical=(60, 80, 100)), Feature("temperature")
    card = Card("0" * 64, features=(heart_rate, temperature))
    assert prepare(model, card=card).fields == card.features
    assert prepare(model, features=["heart_rate", "temperature"]).fields[1] == temperature
    with pytest.raises(
        FeaturesError, match="fitted with the features heart_rate, temperature, in this order"
    ):
        prepare(model, card=Card("0" * 64, features=(temperature, heart_rate)))
    category = Feature("temperature", Dtype.CATEGORY)
    with pytest.raises(FeaturesError, match="temperature is a category, but a history takes only numbers"):
        prepare(model, card=Card("0" * 64, features=(heart_rate, category)))


def test_the_guide_runs_as_written(stays: pd.DataFrame, sepsis: pd.Series, tmp_path: Path) -> None:
    stays.assign(sepsis=sepsis.to_numpy()).to_csv(tmp_path / "stays.csv", index=False)
    first, second, *_ = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "history.md").read_text(), re.DOTALL
    )
    names: dict[str, Any] = {}
    with contextlib.chdir(tmp_path):
        exec(first + second, names)
    assert len(names["risk"]) == len(stays)
    assert "heart_rate_max_24h" in names["history"].fit(names["vitals"]).get_feature_names_out()


# --- refusals


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        (PatientHistory("soon"), "'soon' is not a duration: write it as 90min, 8h or 7d"),
        (PatientHistory("-2h"), "the duration '-2h' must be more than 0"),
        (PatientHistory({"pulse": "8h"}), "the frame has no column pulse"),
        (PatientHistory(windows=[Window("5h", "2h")]), "5h, must be a multiple of its step, 2h"),
        (
            PatientHistory(windows=[Window("5h", of=("median",))]),
            "a window gives min, max, mean, count, and not median",
        ),
        (PatientHistory(windows=[Window("5h"), Window("5h")]), "two windows of the same length"),
        (PatientHistory(windows=[Window("9d")]), "forget_after, 7d, is shorter"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(recipe: PatientHistory, problem: str) -> None:
    with pytest.raises(HistoryError, match=problem):
        recipe.fit(rows(("a", 0, 80)))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"patient_id": [None]}, "a row has no patient_id"),
        ({"event_time": [None]}, "a row has no event_time"),
        ({"event_time": ["soon"]}, "event_time must hold ISO 8601 times"),
        ({"heart_rate": ["fast"]}, "must hold numbers"),
    ],
)
def test_a_row_without_a_usable_patient_or_time_is_refused(change: dict[str, Any], problem: str) -> None:
    fitted = PatientHistory().fit(rows(("a", 0, 80)))
    with pytest.raises(HistoryError, match=problem):
        fitted.transform(rows(("a", 0, 80)).assign(**change))


def test_the_target_is_not_part_of_the_history(stays: pd.DataFrame, sepsis: pd.Series) -> None:
    with pytest.raises(HistoryError, match="column sepsis is the label the model learns"):
        models()["boosting"].fit(stays.assign(sepsis=sepsis.to_numpy()), sepsis)


@given(
    st.lists(
        st.builds(
            "{}-{:02}-{:02}{}{:02}:{:02}:{:02}{}{}".format,
            st.sampled_from(["0000", "0001", "1969", "2026", "9999"]),
            st.integers(1, 12),
            st.integers(1, 31),
            st.sampled_from("TTTt"),
            st.integers(0, 24),
            st.integers(0, 59),
            st.integers(0, 60),
            st.sampled_from(["", ".5", ".123456", ".1234567"]),
            st.sampled_from(["Z", "z", "+00:00", "-23:59", ""]),
        ),
        max_size=4,
    )
)
@pytest.mark.parametrize("native", [False, True])
def test_parsing_times_together_or_one_by_one_gives_the_same(native: bool, texts: list[str]) -> None:
    expected = []
    for text in texts:
        with suppress(ValueError, OverflowError):
            expected.append(time_of(text))
            continue
        expected.append(math.nan)
    with with_kernel(native) as as_wanted:
        if as_wanted:
            np.testing.assert_array_equal(time_reader()(texts), expected)


def test_times_may_be_strings() -> None:
    frame = rows(("a", 0, 80), ("a", 1, NAN))
    texts = frame.assign(event_time=["2026-01-05T09:00:00+01:00", "2026-01-05T09:00:00.000Z"])
    assert history(texts).equals(history(frame))


@pytest.mark.parametrize("missing", ["patient_id", "event_time", "heart_rate"])
def test_a_missing_column_is_named(missing: str) -> None:
    fitted = PatientHistory().fit(rows(("a", 0, 80)))
    with pytest.raises(HistoryError, match=missing):
        fitted.transform(rows(("a", 0, 80)).drop(columns=missing))

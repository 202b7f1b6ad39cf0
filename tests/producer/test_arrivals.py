"""Rows as devices send them: every value once, at its own time, in order for each patient."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.arrivals import DEVICES, OF_EACH, WITHIN_S, AsArrived
from producer.pacing import unix_seconds
from producer.sources import Record, find_source
from producer.ward import Ward, record
from schemas.clock import rfc3339
from schemas.contract import STANDARD_FEATURES
from tests.producer.files import START, WRITERS, simulated, stays, write_csv, write_ndjson, write_parquet
from vitalstream.layouts import readers

NAN = float("nan")
HEAD = ("patient_id", "event_time", *OF_EACH)


def row(hours: float, patient: str | None = "p", **fields: Any) -> Record:
    return {"patient_id": patient, "event_time": rfc3339(START.timestamp() + hours * 3600), **fields}


def measured(records: Iterable[Record]) -> dict[tuple[Any, str], list[Any]]:
    """The values of each patient and field, in order."""
    values = defaultdict(list)
    for one in records:
        for name, value in one.items():
            if name not in HEAD and value is not None and value == value:  # noqa: PLR0124 - not NaN
                values[one["patient_id"], name].append(value)
    return values


def times(records: Iterable[Record]) -> list[float]:
    return [unix_seconds(one["event_time"]) or 0.0 for one in records]


def test_each_device_sends_what_it_measured_at_its_own_time() -> None:
    rows = [
        row(0, heart_rate=80, spo2=97, temperature=37.1, systolic_bp=120, mean_arterial_pressure=9, age=61, ward="A"),
        row(1, heart_rate=81, spo2=None, temperature=NAN, systolic_bp=118, encounter_id="e", lactate=2, ph=7.4),
    ]  # fmt: skip
    messages = [*AsArrived(rows)]
    first, second = messages[:4], messages[4:]
    assert sorted(str(sorted(one.keys() - {*HEAD})) for one in first) == [
        "['heart_rate', 'spo2']", "['mean_arterial_pressure', 'systolic_bp']", "['temperature']", "['ward']"
    ]  # fmt: skip
    assert sorted(str(sorted(one.keys() - {*HEAD})) for one in second) == [
        "['heart_rate']", "['lactate', 'ph']", "['systolic_bp']"
    ]  # fmt: skip
    assert {one["age"] for one in first} == {61}
    assert {one["encounter_id"] for one in second} == {"e"}
    assert [[*one][:2] for one in messages] == [["patient_id", "event_time"]] * 7
    assert first[-1]["event_time"] == rows[0]["event_time"]
    assert second[-1]["event_time"] == rows[1]["event_time"]
    assert len({*times(messages)}) == 7
    assert times(messages) == sorted(times(messages))
    assert times(messages)[0] > START.timestamp() - WITHIN_S


def test_every_standard_feature_is_measured_by_a_device_or_in_each_message() -> None:
    assert {*STANDARD_FEATURES} <= {*chain(*DEVICES.values()), *OF_EACH}


TABLES = {"a.csv": write_csv, "a.parquet": write_parquet, "a.ndjson": write_ndjson}


@pytest.mark.parametrize("layout", [*TABLES, *WRITERS])
def test_every_value_of_any_file_arrives_once(tmp_path: Path, layout: str) -> None:
    if layout in TABLES:
        TABLES[layout](tmp_path / layout, simulated(500))
        how = readers("plain")
    else:
        WRITERS[layout](tmp_path, stays())
        how = readers("physionet2019" if layout in ("psv", "hourly") else "physionet2012")
    source = find_source([tmp_path], how)
    arrivals = AsArrived(source, seed=5)
    messages = [*arrivals]
    assert measured(messages) == measured(source)
    assert arrivals.rows == len([*source])
    assert messages == [*AsArrived(source, seed=5)]
    assert messages != [*AsArrived(source, seed=6)]


ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 300), st.sets(st.sampled_from(STANDARD_FEATURES[:7]))),
    max_size=20,
)


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_rows_in_any_order_keep_their_order_and_their_time(told: list[tuple[str, int, set[str]]]) -> None:
    rows = [
        row(minutes / 60, patient, **dict.fromkeys(sorted(fields), number))
        for number, (patient, minutes, fields) in enumerate(told)
    ]
    arrivals = AsArrived(rows)
    messages = [*arrivals]
    assert measured(messages) == measured(rows)
    assert arrivals.empty == sum(not fields for *_, fields in told)
    for patient in "abc":
        latest = -1.0
        of_patient = [one for one in messages if one["patient_id"] == patient]
        for number, (who, minutes, fields) in enumerate(told):
            if who != patient:
                continue
            at, before = START.timestamp() + minutes * 60, latest
            latest = max(latest, at)
            own = [one for one in of_patient if fields and number in one.values()]
            assert times(own) == sorted(times(own))
            assert all(min(before, at) <= time <= at and time > at - WITHIN_S for time in times(own))
            assert times(own)[-1:] == [at][: len(own)]


def test_messages_of_rows_in_time_order_are_in_time_order() -> None:
    messages = [*AsArrived(simulated(600, patients=20))]
    assert times(messages) == sorted(times(messages))


def test_the_simulated_ward_can_send_like_devices_forever() -> None:
    readings = Ward(patients=20).readings(START, 60)
    messages = [*islice(AsArrived(map(record, readings)), 5000)]
    assert times(messages) == sorted(times(messages))
    assert {len(one.keys() & {*STANDARD_FEATURES[:7]}) for one in messages} <= {1, 2, 3}


def test_with_one_stay_after_another_only_a_few_rows_are_held_back() -> None:
    read = []

    def rows() -> Iterable[Record]:
        for number in range(1000):
            read.append(number)
            yield row(number % 10, f"p-{number // 10}", heart_rate=number)

    for place, message in enumerate(AsArrived(rows())):
        assert message["heart_rate"] == place
        assert len(read) - place <= 3


@pytest.mark.parametrize("time", ["soon", "2026-01-05", None, 5])
def test_an_unreadable_time_stays_unchanged(time: object) -> None:
    rows = [row(0, heart_rate=1), row(0, heart_rate=2, temperature=3) | {"event_time": time}, row(1, spo2=4)]
    assert [one["event_time"] for one in AsArrived(rows)] == [
        rows[0]["event_time"], time, time, rows[2]["event_time"]
    ]  # fmt: skip


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+05:00"])
def test_no_time_before_the_earliest_is_made_up(time: str) -> None:
    messages = [*AsArrived([row(0, heart_rate=2, temperature=3) | {"event_time": time}])]
    assert [one["event_time"] for one in messages] == [time, time]


def test_any_device_may_send_last() -> None:
    messages = [*AsArrived(row(hour, heart_rate=80, temperature=37) for hour in range(20))]
    assert {"heart_rate" in one for one in messages[1::2]} == {True, False}


def test_a_row_without_id_or_time_is_passed_on() -> None:
    listed = row(0, heart_rate=3) | {"patient_id": ["p"]}
    rows: list[Record] = [{"heart_rate": 1}, {"patient_id": None, "heart_rate": 2}, listed]
    assert [*AsArrived(rows)] == rows


def test_a_row_that_no_device_measured_gives_no_message() -> None:
    arrivals = AsArrived([row(0, heart_rate=None, age=61, encounter_id="e"), row(1, heart_rate=80)])
    assert [one["heart_rate"] for one in arrivals] == [80]
    assert arrivals.counts == {"rows_read": 2, "rows_without_measurement": 1}

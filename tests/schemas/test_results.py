"""Risk results: one message per row, floats bit for bit, as their schema says."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from broker.errors import VitalstreamError
from schemas import load_schema
from schemas.results import RiskResult, Told, decode_result, encode_results

pytestmark = pytest.mark.usefixtures("kernel")

SCHEMA = Draft202012Validator(load_schema("risk"))
MODEL = "0123456789abcdef" * 4
MAPPING = "fedcba9876543210" * 4
AT = "2026-01-05T08:30:00.412Z"


COLUMNS = ["heart_rate", 'spo2 "%b"', "},{", "temp\u00e9rature"]


def encode(probabilities: list[float], patient_ids: list[str], **more: Any) -> list[bytes]:
    n = len(probabilities)
    usual: dict[str, Any] = {
        "patient_ids": patient_ids,
        "event_times": ["2026-01-05T08:30:00+01:00"] * n,
        "probabilities": probabilities,
        "labels": [None if math.isnan(one) else int(one >= 0.5) for one in probabilities],
        "implausible": [["spo2"] if i % 2 else [] for i in range(n)],
        "threshold": 0.5,
        "model": MODEL,
        "scored_at": AT,
        "topic": "vitals",
        "partitions": [3] * n,
        "offsets": [1207 + i for i in range(n)],
        "features_present": [8 - i % 3 for i in range(n)],
        "no_input": [False] * n,
        "mapping": MAPPING,
    }
    return encode_results(**usual | more)


def test_a_result_has_the_contracts_fields_in_order() -> None:
    (value,) = encode([0.75], ["p1"])
    assert list(json.loads(value).items()) == [
        ("patient_id", "p1"),
        ("event_time", "2026-01-05T08:30:00+01:00"),
        ("risk_probability", 0.75),
        ("risk_label", 1),
        ("implausible", []),
        ("threshold", 0.5),
        ("model", MODEL),
        ("scored_at", AT),
        ("source_topic", "vitals"),
        ("source_partition", 3),
        ("source_offset", 1207),
        ("features_present", 8),
        ("no_input", False),
        ("mapping", MAPPING),
    ]


def test_results_of_older_versions_are_read() -> None:
    (value,) = encode([0.75], ["p1"])
    later = ("features_present", "no_input", "mapping")
    earlier = {name: v for name, v in orjson.loads(value).items() if name not in later}
    expected = replace(decode_result(value), features_present=None, mapping=None)
    assert decode_result(orjson.dumps(earlier)) == expected


def test_nan_makes_probability_and_label_null() -> None:
    results = [decode_result(value) for value in encode([0.1, float("nan"), 0.5], ["a", "b", "c"])]
    assert [(r.patient_id, r.risk_probability, r.risk_label) for r in results] == [
        ("a", 0.1, 0),
        ("b", None, None),
        ("c", 0.5, 1),
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1) | st.just(float("nan")), st.text(min_size=1, max_size=128))))
def test_results_survive_a_round_trip_bit_for_bit(rows: list[tuple[float, str]]) -> None:
    values = encode([p for p, _ in rows], [patient for _, patient in rows])

    results = [decode_result(value) for value in values]

    read = np.array([r.risk_probability for r in results], dtype=np.float64)
    sent = np.array([p for p, _ in rows], dtype=np.float64)
    np.testing.assert_array_equal(
        read.view(np.uint64)[~np.isnan(sent)], sent.view(np.uint64)[~np.isnan(sent)]
    )
    np.testing.assert_array_equal(np.isnan(read), np.isnan(sent))
    assert [r.patient_id for r in results] == [patient for _, patient in rows]
    for value in values:
        SCHEMA.validate(json.loads(value))
        assert orjson.dumps(orjson.loads(value)) == value


_ages = st.floats(0, 1e15) | st.integers(0, 10**9).map(lambda n: n * 180_000.0) | st.just(math.nan)
_knowns = st.tuples(
    st.integers(1, 10**9),
    st.floats(0, 3e17) | st.just(0.0),
    st.lists(_ages, min_size=4, max_size=4),
    st.booleans(),
)


@settings(deadline=None)
@given(st.lists(_knowns, max_size=6))
def test_results_say_what_was_known_about_each_patient(
    rows: list[tuple[int, float, list[float], bool]],
) -> None:
    def hours(microseconds: float) -> float:
        return float(np.round(microseconds / 3_600_000_000, 4))

    limits = np.array([0.0, 1e9, 5e14, 1e15])
    told = Told(
        seen=np.array([(seen, since) for seen, since, *_ in rows], np.float64).reshape(-1, 2),
        ages=np.array([ages for *_, ages, _ in rows], np.float64).reshape(-1, len(COLUMNS)),
        limits=limits,
        columns=COLUMNS,
    )
    empty = [no_input for *_, no_input in rows]
    values = encode([0.5] * len(rows), ["a"] * len(rows), told=told, no_input=empty)
    assert [orjson.loads(value)["no_input"] for value in values] == empty
    assert [decode_result(value).history for value in values] == [
        {
            "rows_seen": seen,
            "hours_since_first_seen": hours(since),
            "carried_forward": {
                name: hours(age)
                for name, age, limit in zip(COLUMNS, ages, limits, strict=True)
                if 0 < age <= limit
            },
        }
        for seen, since, ages, _ in rows
    ]
    for value in values:
        assert orjson.dumps(orjson.loads(value)) == value


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"zip|one value for each row"):
        encode([0.1, 0.2], ["only one"])


@pytest.mark.parametrize("rows", [1, 3])
def test_histories_of_other_lengths_are_refused(rows: int) -> None:
    told = Told(np.ones((rows, 2)), np.ones((rows, len(COLUMNS))), np.ones(len(COLUMNS)), COLUMNS)
    with pytest.raises(ValueError, match=r"zip|one value for each row"):
        encode([0.1, 0.2], ["a", "b"], told=told)


def test_a_reader_ignores_new_fields_and_accepts_integers_for_floats() -> None:
    (value,) = encode([0.75], ["p1"])
    later = orjson.loads(value) | {"risk_probability": 1, "explanation": [1, 2]}
    assert decode_result(orjson.dumps(later)) == RiskResult(
        "p1", "2026-01-05T08:30:00+01:00", 1, 1, [], 0.5, MODEL, AT, "vitals", 3, 1207, 8, False, MAPPING
    )


@pytest.mark.parametrize(
    "change",
    [
        {"patient_id": 1},
        {"risk_probability": "0.75"},
        {"risk_probability": True},
        {"risk_label": True},
        {"risk_label": 1.0},
        {"source_offset": None},
        {"source_offset": ...},
        {"features_present": 7.5},
        {"no_input": 0},
        {"mapping": 7},
    ],
    ids=str,
)
def test_an_invalid_result_is_refused_without_showing_it(change: dict[str, object]) -> None:
    (value,) = encode([0.75], ["Jane-Doe"])
    doc = {name: v for name, v in (orjson.loads(value) | change).items() if v is not ...}
    with pytest.raises(VitalstreamError, match=next(iter(change))) as caught:
        decode_result(orjson.dumps(doc))
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"1"])
def test_values_that_are_no_objects_are_refused(value: bytes | None) -> None:
    with pytest.raises(VitalstreamError, match="not a JSON object"):
        decode_result(value)

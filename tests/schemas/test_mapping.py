"""Mappings: what they read, what they refuse to guess, and the error sentences for invalid ones."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import SettingsError
from schemas.contract import ALL_NUMBERS, Dtypes, Reason
from schemas.mapping import Mapping, load_mapping
from schemas.messages import Plain, plain
from schemas.units import STANDARD_UNITS, conversion, known_code
from schemas.units import UNITS as KNOWN_UNITS
from schemas.vitals import Decoded, Decoder, Reject
from tests.schemas.messages import Decode, with_kernel_or_not

pytestmark = pytest.mark.usefixtures("kernel")

TIME = "2026-01-05T08:30:00Z"
BASE = {"patient_id": {"path": "p"}, "event_time": {"path": "t"}}


def mapped(features: dict[str, Any], dtypes: Dtypes = ALL_NUMBERS, **more: Any) -> Decode:
    mapping = Mapping(**{**BASE, "features": features, **more})
    return with_kernel_or_not(Decoder, [*features], dtypes=dtypes, mapping=mapping)


def read(decode: Decode, *documents: Any) -> Decoded:
    return decode(plain(one if isinstance(one, bytes) else json.dumps(one).encode() for one in documents))


def message(**fields: Any) -> dict[str, Any]:
    return {"p": "p1", "t": TIME, **fields}


def rejects(decoded: Decoded) -> list[tuple[str, str]]:
    return [(str(one.reason), one.field) for one in decoded.rejects]


NESTED = mapped(
    {"heart_rate": {"path": "v.hr.value"}, "spo2": {"path": "v.spo2"}, "temperature": {"path": "list.1.t"}}
)


def test_paths_read_text_and_booleans_for_a_model_that_uses_them() -> None:
    features = {"unit": {"path": "at.unit"}, "on_oxygen": {"path": "o2.on"}}
    decode = mapped(features, {"unit": "category", "on_oxygen": "boolean"})
    sent = [message(at={"unit": "ICU"}, o2={"on": True}), message(at={"unit": 3}), message(o2={"on": False})]
    decoded = read(decode, *sent)
    assert decoded.frame.to_numpy().tolist() == [["ICU", True], [None, False]]
    assert [(one.reason, one.field) for one in decoded.rejects] == [(Reason.WRONG_TYPE, "unit")]


def test_absent_or_null_anywhere_along_a_path_means_missing() -> None:
    decoded = read(
        NESTED,
        message(v={"hr": {"value": 80}, "spo2": 97}, list=[None, {"t": 37}]),
        message(),
        message(v=None, list=None),
        message(v={}, list=[]),
        message(v={"hr": None, "spo2": None}, list=[{}]),
        message(v={"hr": {"value": None}}, list=[{}, {}]),
        message(v={"hr": {}}, list={"1": {"t": 36}}),
    )
    assert not decoded.rejects
    assert decoded.frame.iloc[0].tolist() == [80, 97, 37]
    assert decoded.frame.iloc[6].tolist()[2] == 36
    assert np.isnan(decoded.frame.iloc[1:6]).all().all()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"v": 5}, "heart_rate"),
        ({"v": "text"}, "heart_rate"),
        ({"v": [{"hr": 1}]}, "heart_rate"),
        ({"v": {"hr": 80}}, "heart_rate"),
        ({"v": {"hr": {"value": "80"}}}, "heart_rate"),
        ({"v": {"hr": {"value": True}}}, "heart_rate"),
        ({"v": {"hr": {"value": ">100"}}}, "heart_rate"),
        ({"v": {"spo2": "96,5"}}, "spo2"),
        ({"list": "abc"}, "temperature"),
        ({"list": [0, 5]}, "temperature"),
    ],
    ids=str,
)
def test_other_types_are_never_read_as_numbers(fields: dict[str, Any], field: str) -> None:
    decoded = read(NESTED, message(), message(**fields), message())
    assert decoded.rejects == [Reject(1, Reason.WRONG_TYPE, field)]
    assert decoded.frame.index.tolist() == [0, 2]


def test_a_name_that_is_read_must_not_repeat_in_its_object() -> None:
    twice = b'{"p":"p1","t":"2026-01-05T08:30:00Z","v":{"hr":{"value":80,"value":90}}}'
    unread = b'{"p":"p1","t":"2026-01-05T08:30:00Z","x":{"a":1,"a":2},"v":{"spo2":97}}'
    elsewhere = b'{"p":"p1","t":"2026-01-05T08:30:00Z","x":{"p":1,"t":2},"v":{"spo2":97}}'
    decoded = read(NESTED, message(), twice, unread, elsewhere)
    assert decoded.rejects == [Reject(1, Reason.NOT_JSON, "value")]


@pytest.mark.parametrize("unread", [0, 3, 1], ids=["no others", "a third", "all others"])
@pytest.mark.parametrize("deep", [False, True], ids=["", "one too deep to be written"])
@pytest.mark.parametrize("at", [{0}, {99}, {37}, {36, 37, 80}, {*range(100)}], ids=str)
def test_repeated_names_are_found_wherever_they_are_in_a_chunk(at: set[int], unread: int, deep: bool) -> None:
    values = [json.dumps(message(v={"spo2": 97}, n=number)).encode() for number in range(100)]
    for number, value in enumerate(values):
        if unread and number % unread == 0:
            values[number] = value[:-1] + b',"n":1}'
        if number in at:
            values[number] = values[number][:-1] + b',"v":{"spo2":90}}'
    if deep:
        values[50] = values[50][:-1] + b',"d":' + b"[" * 300 + b"]" * 300 + b"}"
    assert read(NESTED, *values).rejects == [Reject(number, Reason.NOT_JSON, "v") for number in sorted(at)]


SPLIT = mapped(
    {"systolic_bp": {"path": "bp", "split": ["/", 0]}, "diastolic_bp": {"path": "bp", "split": ["/", 1]}}
)


def test_a_string_is_split() -> None:
    decoded = read(SPLIT, message(bp="120/80"), message(bp=" 120.5 / 80 "), message(bp=None), message())
    assert not decoded.rejects
    assert decoded.frame.iloc[:2].to_numpy().tolist() == [[120, 80], [120.5, 80]]
    assert np.isnan(decoded.frame.iloc[2:]).all().all()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("120", "diastolic_bp"),
        ("/80", "systolic_bp"),
        ("120/", "diastolic_bp"),
        (">120/80", "systolic_bp"),
        ("12,5/80", "systolic_bp"),
        ("1e2/80", "systolic_bp"),
        ("nan/80", "systolic_bp"),
        ("\u0661\u0662\u0660/80", "systolic_bp"),
        ("9" * 400 + "/80", "systolic_bp"),
        (120, "systolic_bp"),
        ([120, 80], "systolic_bp"),
    ],
    ids=str,
)
def test_a_string_that_does_not_split_into_numbers_is_rejected(text: Any, field: str) -> None:
    assert rejects(read(SPLIT, message(bp=text))) == [("wrong_type", field)]


UNITS = mapped({"temperature": {"path": "v", "unit_path": "u", "units": {"F": "[degF]", "C": "Cel"}}})


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [(98.6, "F", 37), (37, "C", 37), (37, "Cel", 37), (98.6, "[degF]", 37), (310.15, "K", 37)],
)
def test_values_are_converted_from_the_unit_they_come_with(value: float, unit: str, expected: float) -> None:
    decoded = read(UNITS, message(v=value, u=unit), message(v=36.6, u="Cel"), message(u="?"))
    assert not decoded.rejects
    assert decoded.frame["temperature"].tolist() == pytest.approx([expected, 36.6, np.nan], nan_ok=True)


@pytest.mark.parametrize("unit", ["c", "f", "°C", "degF", "", "kPa", "%", None, 5, ["Cel"], ...], ids=str)
def test_an_unknown_unit_is_never_guessed(unit: Any) -> None:
    value = {"v": 37} if unit is ... else {"v": 37, "u": unit}
    decoded = read(UNITS, message(v=36, u="Cel"), message(**value), message(v=36, u="Cel"))
    assert decoded.rejects == [Reject(1, Reason.UNKNOWN_UNIT, "temperature")]
    assert decoded.frame["temperature"].tolist() == [36, 36]


def test_limits_are_in_the_models_unit() -> None:
    decoded = read(UNITS, message(v=98.6, u="F"), message(v=98.6, u="C"), message(v=0, u="F"))
    assert decoded.implausible == [[], ["temperature"], ["temperature"]]


@pytest.mark.parametrize(
    ("feature", "unit", "value", "expected"),
    [
        ("heart_rate", "Hz", 1.4, 84),
        ("heart_rate", "{beats}/min", 84, 84),
        ("heart_rate", "MDC 264864", 84, 84),
        ("spo2", "1", 0.97, 97),
        ("systolic_bp", "kPa", 16, 120.00992),
        ("age", "mo", 30, 2.5),
        ("temperature", "MDC 268192", 37, 37),
    ],
)
def test_a_constant_unit(feature: str, unit: str, value: float, expected: float) -> None:
    decoded = read(mapped({feature: {"path": "v", "unit": unit}}), message(v=value), message(v=None))
    assert decoded.frame[feature].tolist() == pytest.approx([expected, np.nan], nan_ok=True)


def test_oxygen_is_read_as_a_share_and_never_as_a_flow() -> None:
    decode = mapped({"fio2": {"path": "v", "unit_path": "u", "model_unit": "%"}})
    decoded = read(decode, *(message(v=0.4, u=unit) for unit in ("1", "%", "L/min", "l/min", None)))
    assert decoded.frame["fio2"].tolist() == [40, 0.4]
    assert rejects(decoded) == [("unknown_unit", "fio2")] * 3


EXCESSIVE = mapped(
    {
        "pulse": {"path": "hz", "unit": "Hz", "model_unit": "/min"},
        "fio2": {"path": "o2.v", "unit_path": "o2.u", "model_unit": "%"},
        "core": {"path": "temp.v", "unit_path": "temp.u", "model_unit": "Cel"},
        "heart_rate": {"path": "hr", "unit": "Hz"},
        "ward": {"path": "w"},
    },
    {"ward": "category"},
)
LARGEST = 1.7976931348623157e308


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"hz": 3e306}, "pulse"),
        ({"hz": -3e306}, "pulse"),
        ({"o2": {"v": 2e306, "u": "1"}}, "fio2"),
        ({"o2": {"v": -2e306, "u": "1"}}, "fio2"),
        ({"hr": 1e308}, "heart_rate"),  # regardless of its limits
        ({"hr": 1e308, "o2": {"v": 1e308, "u": "1"}, "hz": 1}, "fio2"),
        ({"hr": 1e308, "w": 5}, "ward"),
    ],
    ids=str,
)
def test_a_value_that_overflows_in_the_models_unit_is_rejected(fields: dict[str, Any], field: str) -> None:
    decoded = read(EXCESSIVE, message(hz=1.5, w="A"), message(**fields), message(hz=1, w="B"))
    assert decoded.rejects == [Reject(1, Reason.WRONG_TYPE, field)]
    assert decoded.frame["pulse"].tolist() == [90, 60]
    assert decoded.frame["ward"].tolist() == ["A", "B"]
    assert [*decoded.frame.index] == [0, 2]


@pytest.mark.parametrize(
    ("fields", "name", "expected"),
    [
        ({"hz": 2.9e306}, "pulse", 2.9e306 * 60),
        ({"hz": -2.9e306}, "pulse", -2.9e306 * 60),
        ({"o2": {"v": LARGEST, "u": "%"}}, "fio2", LARGEST),
        ({"o2": {"v": 5e-324, "u": "1"}}, "fio2", 5e-322),
        ({"temp": {"v": LARGEST, "u": "[degF]"}}, "core", LARGEST / 9 * 5),
        ({"temp": {"v": -LARGEST, "u": "K"}}, "core", -LARGEST),
        ({"hr": 1e306}, "heart_rate", np.nan),  # beyond its limits
    ],
    ids=str,
)
def test_any_value_that_fits_a_double_is_a_number(fields: dict[str, Any], name: str, expected: float) -> None:
    decoded = read(EXCESSIVE, message(**fields))
    assert not decoded.rejects
    assert decoded.frame[name].tolist() == pytest.approx([expected], rel=1e-15, nan_ok=True)


# Each known unit, with a value in it and the same in the first unit of its kind.
KNOWN: dict[str, dict[str, tuple[float, float]]] = {
    "/min": {
        "/min": (84, 84),
        "1/min": (84, 84),
        "min-1": (84, 84),
        "Hz": (1.4, 84),
        "/s": (1.4, 84),
        "/h": (60, 1),
    },
    "Cel": {"Cel": (37, 37), "[degF]": (98.6, 37), "K": (310.15, 37)},
    "%": {"%": (97, 97), "1": (0.97, 97)},
    "mm[Hg]": {
        "mm[Hg]": (120, 120),
        "kPa": (16, 120.00992),
        "hPa": (160, 120.00992),
        "mbar": (160, 120.00992),
        "Pa": (16_000, 120.00992),
        "cm[H2O]": (10, 7.35559),
    },
    "a": {"a": (2, 2), "mo": (24, 2), "wk": (365.25, 7), "d": (730.5, 2)},
    "mmol/L": {"mmol/L": (2, 2), "mol/L": (0.002, 2), "umol/L": (2000, 2)},
    "g/L": {"g/L": (140, 140), "g/dL": (14, 140), "mg/dL": (14_000, 140), "mg/L": (140_000, 140)},
    "kg": {"kg": (70, 70), "g": (70_000, 70), "[lb_av]": (100, 45.359237)},
    "cm": {"cm": (180, 180), "m": (1.8, 180), "mm": (1800, 180), "[in_i]": (10, 25.4)},
}
BY_DEVICES = {
    "MDC 264864": "/min",
    "MDC 264928": "/min",
    "MDC 264672": "/min",
    "MDC 268192": "Cel",
    "MDC 266560": "[degF]",
    "MDC 262688": "%",
    "MDC 266016": "mm[Hg]",
    "MDC 265987": "kPa",
}


def test_each_known_unit_is_converted_by_its_definition() -> None:
    assert {unit for kind in KNOWN.values() for unit in kind} == KNOWN_UNITS
    for wanted, kind in KNOWN.items():
        for unit, (value, expected) in kind.items():
            way = conversion(unit, wanted)
            assert way is not None
            assert (value - way.zero) * way.factor == pytest.approx(expected), unit
            assert not any(conversion(unit, other) for other in KNOWN if other != wanted)
    assert {code: known_code(code) for code in BY_DEVICES} == BY_DEVICES
    assert known_code("{beats}/min{at_rest}") == "/min"
    assert known_code("MDC 1") is None


def test_every_standard_unit_is_known_and_conversions_are_reversible() -> None:
    assert all(known_code(unit) == unit for unit in STANDARD_UNITS.values())
    there, back = conversion("[degF]", "K"), conversion("K", "[degF]")
    assert there is not None
    assert back is not None
    assert ((98.6 - there.zero) * there.factor - back.zero) * back.factor == pytest.approx(98.6)
    assert conversion("F", "Cel") is None
    assert conversion("mmHg", "mm[Hg]") is None
    assert known_code("mmHg") is None


BAD_IDS = [42, True, None, "", "x" * 129, ["p"], 1.5]


@pytest.mark.parametrize("value", BAD_IDS, ids=str)
def test_ids_must_be_strings(value: Any) -> None:
    decode = mapped({"spo2": {"path": "v"}})
    assert rejects(read(decode, message(p=value))) == [("wrong_type", "patient_id")]


@pytest.mark.parametrize("value", ["42", True, None, 42.0, ["p"]], ids=str)
def test_ids_must_be_integers_if_the_mapping_says_so(value: Any) -> None:
    decode = mapped({"spo2": {"path": "v"}}, patient_id={"path": "p", "integer": True})
    decoded = read(decode, message(p=42), message(p=value), {"t": TIME})
    assert decoded.patient_ids == ["42"]
    assert rejects(decoded) == [("wrong_type", "patient_id"), ("missing_field", "patient_id")]


def times(value: Any, **source: Any) -> str:
    """The time that is read, or the reason for rejecting it."""
    decoded = read(
        mapped({"spo2": {"path": "v"}}, event_time={"path": "t", **source}), {"p": "p1", "t": value}
    )
    return decoded.event_times[0] if decoded.event_times else str(decoded.rejects[0].reason)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("rfc3339", TIME, TIME),
        ("rfc3339", "1899-12-31T23:59:59Z", "bad_time"),
        ("rfc3339", "2201-01-01T00:00:00Z", "bad_time"),
        ("rfc3339", "2026-01-05 08:30:00", "bad_time"),
        ("rfc3339", 1767601800, "wrong_type"),
        ("epoch_s", 1767601800, TIME),
        ("epoch_s", 1767601800.0, TIME),
        ("epoch_s", 1767601800.25, "2026-01-05T08:30:00.250Z"),
        ("epoch_s", 1767601800250, "bad_time"),
        ("epoch_s", "1767601800", "wrong_type"),
        ("epoch_s", True, "wrong_type"),
        ("epoch_s", 1e300, "bad_time"),
        ("epoch_s", 10**30, "bad_time"),
        ("epoch_ms", 1767601800250, "2026-01-05T08:30:00.250Z"),
        ("epoch_ms", 1767601800, "bad_time"),
        ("epoch_ms", 1767601800250000, "bad_time"),
        ("epoch_us", 1767601800250001, "2026-01-05T08:30:00.250001Z"),
        ("epoch_us", 1767601800250, "bad_time"),
        ("epoch_us", 1767601800, "bad_time"),
        ("hl7", "20260105083000+0100", "2026-01-05T08:30:00+01:00"),
        ("hl7", "202601050830-0500", "2026-01-05T08:30:00-05:00"),
        ("hl7", "20260105083000.1234+0000", "2026-01-05T08:30:00.1234+00:00"),
        ("hl7", "20260105083000.123456+0000", "2026-01-05T08:30:00.123456+00:00"),
        ("hl7", "20260105083000", "bad_time"),
        ("hl7", "2026-1-05083000+0000", "bad_time"),
        ("hl7", "18260105083000+0000", "bad_time"),
        ("hl7", 20260105083000, "wrong_type"),
        ("hl7", "20260105", "bad_time"),
        ("hl7", "20260230083000+0000", "bad_time"),
    ],
)
def test_times(kind: str, value: Any, expected: str) -> None:
    assert times(value, **{"as": kind}) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-05T09:30:00", "2026-01-05T09:30:00+01:00"),
        ("2026-07-05 09:30", "2026-07-05T09:30:00+02:00"),
        ("2026-07-05 09:30:00.5", "2026-07-05T09:30:00.5+02:00"),
        (TIME, TIME),
        ("2026-03-29T02:30:00", "bad_time"),  # the clocks go forward
        ("2026-10-25T02:30:00", "bad_time"),  # the clocks go back
        ("2026-10-25T03:30:00", "2026-10-25T03:30:00+01:00"),
        ("2026-02-30T02:30:00", "bad_time"),
        ("2026-01-05", "bad_time"),
        ("05.01.2026 09:30", "bad_time"),
    ],
)
def test_times_in_a_zone(value: str, expected: str) -> None:
    assert times(value, zone="Europe/Berlin") == expected


def test_a_time_does_not_depend_on_its_neighbours() -> None:
    decode = mapped({"spo2": {"path": "v"}}, event_time={"path": "t", "as": "epoch_s"})
    values = [1767601800, 1767601800.0, True, 1, "x", None]
    alone = [time for value in values for time in read(decode, {"p": "p1", "t": value}).event_times]
    assert read(decode, *({"p": "p1", "t": value} for value in values)).event_times == alone


def test_an_hl7_time_does_not_depend_on_its_neighbours() -> None:
    decode = mapped({"spo2": {"path": "v"}}, event_time={"path": "t", "as": "hl7", "zone": "Europe/Berlin"})
    values = [
        "20260105083000+0100",
        "20260705083000",
        "202601050830-0500",
        "x",
        5,
        None,
        "20260105083000.5+0100",
    ]
    alone = [time for value in values for time in read(decode, {"p": "p1", "t": value}).event_times]
    together = read(decode, *({"p": "p1", "t": value} for value in values), {"p": "p1"})
    assert together.event_times == alone
    assert len(alone) == 4
    assert [one.position for one in together.rejects] == [3, 4, 5, 7]


ENVELOPE = mapped(
    {"spo2": {"path": "v"}},
    root="payload.after",
    when={"payload.op": ["c", 1]},
    retracted={"payload.op": ["d"]},
)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"payload": {"op": "c", "after": message(v=97)}}, None),
        ({"payload": {"op": 1, "after": message(v=97)}}, None),
        ({"payload": {"op": "t", "after": message(v=97)}}, ("not_for_us", "payload.op")),
        ({"payload": {"op": True, "after": message(v=97)}}, ("not_for_us", "payload.op")),
        ({"payload": {"op": ["c"], "after": message(v=97)}}, ("not_for_us", "payload.op")),
        ({"payload": {"op": "d", "after": None}}, ("retracted", "payload.op")),
        ({"payload": {"op": "c", "after": None}}, ("missing_field", "payload.after")),
        ({"payload": {"op": "c"}}, ("missing_field", "payload.after")),
        ({"payload": {"op": "c", "after": []}}, ("wrong_type", "payload.after")),
        ({}, ("not_for_us", "payload.op")),
        ({"payload": 7}, ("not_for_us", "payload.op")),
    ],
    ids=str,
)
def test_envelopes(document: Any, expected: tuple[str, str] | None) -> None:
    good = {"payload": {"op": "c", "after": message(v=98)}}
    decoded = read(ENVELOPE, good, document, good)
    assert rejects(decoded) == ([expected] if expected else [])
    assert decoded.frame["spo2"].tolist() == [98, 98] if expected else [98, 97, 98]


CODED = mapped(
    {"heart_rate": {"codes": ["HR", "8867"]}, "temperature": {"codes": ["T"]}},
    readings={"path": "list", "code": "c", "value": "v", "unit": "u"},
)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([{"c": "HR", "v": 80, "u": "/min"}, {"c": "T", "v": 310.15, "u": "K"}], [80, 37]),
        ([{"c": 8867, "v": 80, "u": "/min"}], [80, np.nan]),
        ([{"c": "HR", "v": 80, "u": "/min"}] * 2, [80, np.nan]),
        ([{"c": "HR", "v": 80, "u": "/min"}, {"c": "HR", "v": None}], [80, np.nan]),
        ([{"c": "HR"}], [np.nan, np.nan]),
        (
            [{"c": "HR", "v": 80, "u": "/min"}, {"c": "HR", "v": 81, "u": "/min"}],
            ("conflicting", "heart_rate"),
        ),
        (
            [{"c": "HR", "v": 80, "u": "/min"}, {"c": "8867", "v": 1.4, "u": "Hz"}],
            ("conflicting", "heart_rate"),
        ),
        ([{"c": "HR", "v": 80}], ("unknown_unit", "heart_rate")),
        ([{"c": "HR", "v": "80", "u": "/min"}], ("wrong_type", "heart_rate")),
        ([{"c": "X", "v": 80}, 7, None, "HR", {}], ("not_for_us", "")),
        ([], ("not_for_us", "")),
        ({}, ("not_for_us", "")),
        ("HR", ("not_for_us", "")),
    ],
    ids=str,
)
def test_readings_by_code(entries: Any, expected: Any) -> None:
    good = message(list=[{"c": "HR", "v": 60, "u": "/min"}])
    decoded = read(CODED, good, message(list=entries), good)
    if isinstance(expected, tuple):
        assert rejects(decoded) == [expected]
        assert decoded.frame["heart_rate"].tolist() == [60, 60]
    else:
        assert decoded.frame.iloc[1].tolist() == pytest.approx(expected, nan_ok=True)


HEADERS = mapped({"spo2": {"path": "v"}}, patient_id={"header": "who"}, event_time={"header": "when"})


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("who", b"p1"), ("when", TIME.encode())], None),
        ([("when", TIME.encode())], ("missing_field", "patient_id")),
        ([("who", b"\xff"), ("when", TIME.encode())], ("wrong_type", "patient_id")),
        ([("who", None), ("when", TIME.encode())], ("wrong_type", "patient_id")),
        ([("who", b"p1"), ("when", b"now")], ("bad_time", "event_time")),
    ],
    ids=str,
)
def test_identity_in_headers(
    headers: Sequence[tuple[str, bytes | None]], expected: tuple[str, str] | None
) -> None:
    decoded = HEADERS([Plain(b"{", headers), Plain(b'{"v":97}', headers)])
    assert rejects(decoded)[1:] == ([expected] if expected else [])


def test_a_feature_missing_from_every_message() -> None:
    decoded = read(mapped({"spo2": {"path": "v"}, "age": {"absent": True}}), message(v=97, age=40))
    assert decoded.frame["spo2"].tolist() == [97]
    assert np.isnan(decoded.frame["age"]).all()


OBJECTS = mapped(
    {
        "temperature": {"path": "v.v", "unit_path": "v.u", "units": {"F": "[degF]"}},
        "heart_rate": {"path": "v.c", "unit_path": "x.u", "unit": "Hz"},
        "spo2": {"path": "x.v", "unit": "1"},
    }
)


def test_each_value_is_converted_by_its_own_unit_even_if_others_are_missing() -> None:
    documents: list[dict[str, Any]] = [
        {"v": {"v": 98.6, "u": "F"}, "x": None},
        {"v": None, "x": {"v": 0.97}},
        {"x": {"v": 0.5, "u": "/min"}},
        {"v": {"v": 37, "u": "Cel", "c": 1}},
        {"v": {"v": None, "u": ["?"]}, "x": {"u": None}},
        {"v": {"u": None, "c": 90}, "x": {"u": "/min"}},
    ]
    for some in (documents, documents[:2], documents[:1] + documents[2:3], documents[1:3]):
        decoded = read(OBJECTS, *(message(**one) for one in some))
        assert not decoded.rejects
        expected = {
            0: [37, np.nan, np.nan],
            1: [np.nan, np.nan, 97],
            2: [np.nan, np.nan, 50],
            3: [37, 60, np.nan],
        }
        expected |= {4: [np.nan] * 3, 5: [np.nan, 90, np.nan]}
        np.testing.assert_allclose(decoded.frame.to_numpy(), [expected[documents.index(one)] for one in some])


READINGS = mapped(
    {
        "temperature": {"path": "v.t.v", "unit_path": "v.t.u", "units": {"F": "[degF]"}},
        "spo2": {"path": "v.x.v", "unit_path": "v.x.u"},
    }
)


def test_readings_in_objects_of_their_own() -> None:
    """They are read together, so one that is null, absent or odd must not change the others."""
    usual = message(v={"t": {"v": 98.6, "u": "F"}, "x": {"v": 0.97, "u": "1"}})
    others = {
        "null": message(v={"t": None, "x": {"v": 95, "u": "%"}}),
        "absent": message(v={"x": {"v": 95, "u": "%"}}),
        "value null": message(v={"t": {"v": None, "u": "?"}, "x": {"v": 95, "u": "%"}}),
        "value absent": message(v={"t": {"u": "F"}, "x": {"v": 95, "u": "%"}}),
    }
    for other in others.values():
        decoded = read(READINGS, usual, other, usual)
        assert not decoded.rejects
        np.testing.assert_allclose(decoded.frame.to_numpy(), np.array([[37, 97], [np.nan, 95], [37, 97]]))
    odd = {
        "no unit": message(v={"t": {"v": 98.6}, "x": None}),
        "unit null": message(v={"t": {"v": 98.6, "u": None}, "x": None}),
        "unknown unit": message(v={"t": {"v": 98.6, "u": "?"}, "x": None}),
    }
    for other in odd.values():
        decoded = read(READINGS, usual, other, usual)
        assert decoded.rejects == [Reject(1, Reason.UNKNOWN_UNIT, "temperature")]
        np.testing.assert_allclose(decoded.frame.to_numpy(), [[37, 97], [37, 97]])
    kinds: list[Any] = [98.6, "98.6", [], True]
    for not_object in kinds:
        decoded = read(READINGS, usual, message(v={"t": not_object, "x": None}), usual)
        assert decoded.rejects == [Reject(1, Reason.WRONG_TYPE, "temperature")]


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from("ptvuclx"), x, max_size=4),
)
_units = st.sampled_from(["Cel", "K", "F", "?"]) | _json
_reading = st.fixed_dictionaries({}, optional={"c": st.sampled_from(["HR", "T"]), "v": _json, "u": _units})
_readings = st.fixed_dictionaries({}, optional=dict.fromkeys("tx", st.none() | _reading | _json))
_documents = st.builds(
    lambda fields: {"p": "p1", "t": TIME} | fields,
    st.fixed_dictionaries(
        {},
        optional={
            "p": _json,
            "t": st.just(TIME) | _json,
            "v": st.floats(30, 45) | _json | _readings,
            "u": _units,
            "list": st.lists(_reading) | _json,
        },
    ),
)


@settings(deadline=None)
@given(
    st.sampled_from([UNITS, OBJECTS, READINGS, NESTED, SPLIT, CODED, ENVELOPE]),
    st.lists(_documents | _json, max_size=5),
)
def test_a_chunk_gives_the_same_as_its_messages_one_by_one(decode: Decode, documents: list[Any]) -> None:
    together, alone = read(decode, *documents), [read(decode, one) for one in documents]
    assert together.rejects == [
        Reject(i, r.reason, r.field) for i, each in enumerate(alone) for r in each.rejects
    ]
    assert together.patient_ids == [one for each in alone for one in each.patient_ids]
    assert together.event_times == [one for each in alone for one in each.event_times]
    assert together.implausible == [one for each in alone for one in each.implausible]
    width = together.frame.shape[1]
    rows = np.vstack([np.empty((0, width)), *(each.frame.to_numpy() for each in alone)])
    np.testing.assert_array_equal(together.frame.to_numpy(), rows)


FEATURE = '\n[features]\nspo2 = { path = "s" }\n'
PLACES = 'patient_id = { path = "p" }\nevent_time = { path = "t" }\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = ", "invalid value"),
        (b"\xff", "not UTF-8 text"),
        (FEATURE, "patient_id needs a path"),
        (PLACES, "features is missing"),
        (PLACES + FEATURE + 'lactate = { path = "l" }\nfoo = 1', "features.foo must be a table"),
        (PLACES + '[features]\nspo2 = { paht = "s" }', "there is no key features.spo2.paht"),
        (PLACES + "[features]\nspo2 = { }", "features.spo2 must have a path, or codes"),
        (PLACES + '[features]\nspo2 = { path = "a..b" }', "features.spo2.path must be a path of names"),
        (PLACES + "[features]\nspo2 = { path = 5 }", "features.spo2.path must be a path such as"),
        (
            PLACES + '[features]\nspo2 = { path = "s", unit = "kPa" }',
            "spo2.unit is kPa, which can't be made %",
        ),
        (PLACES + '[features]\nspo2 = { path = "s", unit = "percent" }', "features.spo2.unit is percent"),
        (
            PLACES + '[features]\nspo2 = { path = "s", unit_path = "u", units = { p = "percent" } }',
            "not a supported UCUM code",
        ),
        (PLACES + '[features]\nspo2 = { path = "s", model_unit = "1" }', "spo2.model_unit must be %"),
        (PLACES + '[features]\nspo2 = { codes = ["S"] }', "features by codes need [readings]"),
        (PLACES + '[features]\nspo2 = { codes = ["S"], split = ["/", 0] }', "which need a path"),
        (PLACES + '[features]\nlactate = { path = "l", unit_path = "u" }', "say in model_unit"),
        (PLACES.replace('"t" }', '"t", as = "epoch" }') + FEATURE, "event_time.as must be rfc3339"),
        (
            PLACES.replace('"t" }', '"t", zone = "Berlin" }') + FEATURE,
            "event_time.zone must be a zone's name",
        ),
        (PLACES.replace('"p" }', '"p", header = "h" }') + FEATURE, "patient_id has a path and a header"),
        (PLACES.replace('"p" }', '"p", integer = 1 }') + FEATURE, "patient_id.integer must be true or false"),
        (
            PLACES.replace('"p" }', '"p", type = "MR" }') + FEATURE,
            "patient_id.type is for --value-format fhir",
        ),
        ('when = { "a..b" = ["c"] }\n' + PLACES + FEATURE, "when must be a path"),
        ('sha256 = "x"\n' + PLACES + FEATURE, "there is no key sha256"),
    ],
)
def test_an_invalid_mapping_is_refused_with_one_sentence(
    text: str | bytes, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "ward.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError) as caught:
        load_mapping(file, value_format="json")
    assert str(caught.value).startswith(f"--mapping {file}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mapping_must_have_the_models_features(tmp_path: Path) -> None:
    file = tmp_path / "ward.toml"
    file.write_text(PLACES + FEATURE)
    assert load_mapping(file, value_format="json", features=["spo2"]).features
    with pytest.raises(SettingsError, match=r"the model wants age, which has no \[features.age\]"):
        load_mapping(file, value_format="json", features=["spo2", "age"])
    with pytest.raises(
        SettingsError,
        match=r"wants SpO2, and \[features.spo2\] only looks like it \(s in place of S\); rename that to SpO2",
    ):
        load_mapping(file, value_format="json", features=["SpO2"])
    with pytest.raises(SettingsError, match="no such file"):
        load_mapping(tmp_path / "nowhere.toml", value_format="json")

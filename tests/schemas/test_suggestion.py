"""A first mapping for some messages: what is certain works as it stands, and what is assumed is a comment."""

import json
import tomllib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.contract import EVENT_TIME, PATIENT_ID
from schemas.coverage import Coverage, coverage
from schemas.mapping import Mapping
from schemas.messages import plain
from schemas.suggestion import suggest
from schemas.vitals import Decoder
from tests.schemas.pages import EXPECTED, block, sections

CANARY = "canary-51c9"
TIME = "2026-01-05T08:30:00Z"


def mapping(*documents: dict[str, Any]) -> dict[str, Any]:
    return tomllib.loads(suggest(documents).text)


def features(**fields: Any) -> dict[str, Any]:
    """What is suggested for messages with these fields."""
    found: dict[str, Any] = mapping({"pid": "p", "at": TIME, **fields})["features"]
    return found


def tried(*documents: dict[str, Any]) -> Coverage:
    """The suggestion, tried on the messages it was made from."""
    known = Mapping(**mapping(*documents))
    decode = Decoder([*known.features], mapping=known)
    return coverage(decode, plain(json.dumps(one).encode() for one in documents), expected=decode.features)


@pytest.mark.parametrize("heading", [name for name in EXPECTED if name != "A list by position"])
def test_the_suggested_mappings_read_the_shapes_in_the_docs(heading: str) -> None:
    message = json.loads(block(sections()[heading], "json"))
    assert suggest([message]).missing == ()
    found = tried(message)
    _, time, values, _ = EXPECTED[heading]
    if heading == "Times without a zone":
        assert [(one.reason, one.field) for one in found.rejected] == [("bad_time", EVENT_TIME)]
        return
    assert found.complete, found
    assert found.times == (time, time)
    known = {one.name: one.span[0] for one in found.features if one.span}
    named = {name: value for name, value in values.items() if value == value}  # noqa: PLR0124 - skips NaN
    if heading == "Two values in a text, other units":
        del named["temperature"], named["spo2"]
    assert known == pytest.approx(named)


def test_an_assumed_unit_is_a_comment() -> None:
    text = suggest(
        [{"pid": "p", "at": TIME, "temp": 98.6 + n, "spo2": 0.97, "hr": 80} for n in range(3)]
    ).text
    assert '# Most are no temperature in Cel. If they are in [degF], add: unit = "[degF]"' in text
    assert '# Most are no spo2 in %. If they are in 1, add: unit = "1"' in text
    assert tomllib.loads(text)["features"] == {
        name: {"path": path}
        for name, path in (("temperature", "temp"), ("spo2", "spo2"), ("heart_rate", "hr"))
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"temp_f": 98.6}, {"temperature": {"path": "temp_f", "unit": "[degF]"}}),
        ({"tempC": 37}, {"temperature": {"path": "tempC", "unit": "Cel"}}),
        ({"heart_rate_bpm": 80}, {"heart_rate": {"path": "heart_rate_bpm", "unit": "/min"}}),
        (
            {"temp": 98.6, "temp_unit": "F"},
            {"temperature": {"path": "temp", "unit_path": "temp_unit", "units": {"F": "[degF]"}}},
        ),
        (
            {"v": {"sys": {"value": 16, "uom": "kPa"}}},
            {"systolic_bp": {"path": "v.sys.value", "unit_path": "v.sys.uom"}},
        ),
        ({"SaO2": 97, "potassium": 4.1, "hr": "80", "pulse": None, "rr": True}, {}),
    ],
)
def test_known_names_and_units_are_suggested(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert features(**fields) == expected


def test_codes_are_taken_from_the_messages() -> None:
    readings = [
        {"k": {"code": "8867-4", "text": "pulse"}, "value": 80, "unit": "bpm"},
        {"k": {"code": "147842", "text": "?"}, "value": 1.4, "unit": "Hz"},
        {"k": {"code": "8310-5", "text": "t"}, "value": 99, "unit": CANARY},
        {"k": {"code": CANARY}, "value": 1},
    ]
    documents = [{"patient_id": 17, "when": {"timestamp": 1767601800}, "obs": [one]} for one in readings]
    found = suggest(documents)
    assert tomllib.loads(found.text) == {
        "patient_id": {"path": "patient_id", "integer": True},
        "event_time": {"path": "when.timestamp", "as": "epoch_s"},
        "readings": {"path": "obs", "code": "k.code", "value": "value", "unit": "unit"},
        "features": {
            "heart_rate": {"codes": ["8867-4", "147842"], "units": {"bpm": "/min"}},
            "temperature": {"codes": ["8310-5"]},
        },
    }
    assert "# Some units of temperature are not known: see mapping check --payload" in found.text
    assert CANARY not in found.text


def test_other_numbers_are_comments_to_uncomment() -> None:
    text = suggest([{"pid": "p", "at": TIME, "hr": 80, "lab": {"lactate": 1.5, "note": CANARY}}]).text
    (line,) = (line for line in text.splitlines() if "lactate" in line)
    assert tomllib.loads(line.removeprefix("# ")) == {"lab_lactate": {"path": "lab.lactate"}}
    assert CANARY not in text


@pytest.mark.parametrize(
    ("document", "missing"),
    [
        ({"at": TIME, "hr": 80}, (PATIENT_ID,)),
        ({"pid": 1.5, "at": "today", "hr": 80}, (PATIENT_ID, EVENT_TIME)),
        ({"pid": "p", "at": 12, "lactate": 1.5}, (EVENT_TIME, "features")),
        ({}, (PATIENT_ID, EVENT_TIME, "features")),
    ],
)
def test_what_is_missing_is_named(document: dict[str, Any], missing: tuple[str, ...]) -> None:
    found = suggest([document])
    assert found.missing == missing
    assert tomllib.loads(found.text)


NAMES = st.sampled_from(
    ["pid", "at", "hr", "temp", "unit", "value", "type", "op", "after", "bp", "a.b", "", '"\x7f\n']
)
LEAVES = st.sampled_from(
    [None, True, 80, 98.6, 1767601800, TIME, "HR", "F", "120/80", "c", CANARY, f"{CANARY}/1"]
)
DOCUMENTS = st.dictionaries(
    NAMES,
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
        max_leaves=8,
    ),
)


@given(st.lists(DOCUMENTS, min_size=1, max_size=4))
@example([{"op": "c", "after": {"hr": 80}}, {"op": "c", "after": 80}])
def test_any_suggestion_is_a_valid_mapping_without_message_contents(
    documents: list[dict[str, Any]],
) -> None:
    found = suggest(documents)
    assert CANARY not in found.text
    parsed = tomllib.loads(found.text)
    if not found.missing:
        tried(*documents)
        assert parsed["features"]

"""Decode and the JSON Schema accept the same messages."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_jsonschema import from_schema
from jsonschema import Draft202012Validator

from schemas.contract import RFC3339, Reason
from schemas.vitals import vitals_schema
from tests.schemas.messages import ACCEPTED, BAD_TIMES, FEATURES, GOOD_TIMES, REJECTED, TIME, decoder, good

pytestmark = pytest.mark.usefixtures("kernel")

SCHEMA = vitals_schema(FEATURES)
schema = Draft202012Validator(SCHEMA)
decode = decoder(FEATURES, ranges={})

# The schema sees only parsed values, so it can't find errors in the text.
_TEXT_REASONS = {Reason.EMPTY, Reason.TOO_LARGE, Reason.NOT_JSON}


def accepts(value: bytes) -> bool:
    return not decode([value]).rejects


def agree(message: Any) -> bool:
    return accepts(json.dumps(message).encode()) is schema.is_valid(message)


def test_the_schema_is_valid() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("value", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_messages_validate(value: bytes) -> None:
    schema.validate(json.loads(value))


_parsed = {name: case for name, case in REJECTED.items() if case.reason not in _TEXT_REASONS}


@pytest.mark.parametrize("name", _parsed)
def test_rejected_messages_do_not_validate(name: str) -> None:
    case = _parsed[name]
    assert case.value is not None
    errors = [*schema.iter_errors(json.loads(case.value))]
    assert errors
    if case.reason is Reason.MISSING_FIELD:
        assert any(case.field in error.message for error in errors)
    elif case.field:
        assert case.field in {error.path[0] for error in errors if error.path}


def described_by(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects as the schema describes them, with other fields mixed in.

    hypothesis_jsonschema's own strategy for objects does not work with current hypothesis; those for the
    fields do.
    """
    fields = {name: from_schema(field) for name, field in schema["properties"].items()}
    required = {name: fields.pop(name) for name in schema["required"]}
    named = st.fixed_dictionaries(required, optional=fields)
    others = st.dictionaries(
        st.text().filter(lambda name: name not in schema["properties"]), _json, max_size=2
    )
    return st.builds(lambda ours, theirs: theirs | ours, named, others)


@settings(deadline=None)
@given(st.deferred(lambda: described_by(SCHEMA)))
def test_messages_generated_from_the_schema_are_accepted(message: dict[str, Any]) -> None:
    assert accepts(json.dumps(message).encode())


_numbers = st.integers() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
_scalars = st.none() | st.booleans() | _numbers | st.text(max_size=130)
_json = st.recursive(_scalars, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=3))
_times = st.sampled_from([*GOOD_TIMES, *BAD_TIMES])
_ids = st.sampled_from(["", "p", "p" * 128, "p" * 129, "\U0001f600" * 128, "\U0001f600" * 129])
_fields = st.sampled_from(["patient_id", "event_time", *FEATURES, "ward"])
_changes = st.dictionaries(_fields, st.just(...) | _json | _times | _ids | st.just("80"), max_size=2)


DTYPES = {"unit": "category", "on_oxygen": "boolean"}
TYPED = vitals_schema(["spo2", *DTYPES], dtypes=DTYPES, categories={"unit": ["ICU", "ward"]})
decode_typed = decoder(["spo2", *DTYPES], dtypes=DTYPES)


@pytest.mark.parametrize("value", [..., None, True, False, 1, 0, 1.5, "", "ICU", "another", [], {}], ids=repr)
@pytest.mark.parametrize("name", ["spo2", *DTYPES])
def test_decode_and_schema_agree_on_categories_and_booleans(name: str, value: Any) -> None:
    message = good(heart_rate=..., **{name: value})
    (reject, *_) = [*decode_typed([message]).rejects, None]
    assert (reject is None) is Draft202012Validator(TYPED).is_valid(json.loads(message))
    assert reject is None or (reject.reason, reject.field) == (Reason.WRONG_TYPE, name)


def test_the_schema_of_categories_has_an_example_and_lists_their_values() -> None:
    Draft202012Validator.check_schema(TYPED)
    for example in TYPED["examples"]:
        Draft202012Validator(TYPED).validate(example)
    assert TYPED["examples"][0]["unit"] == "ICU"
    assert "The model was fitted with ICU, ward." in TYPED["properties"]["unit"]["description"]


@settings(deadline=None)
@given(_changes)
def test_decode_and_schema_agree_on_changed_messages(changes: dict[str, Any]) -> None:
    assert agree(json.loads(good(**changes)))


@settings(deadline=None)
@given(_json)
def test_decode_and_schema_agree_on_anything(message: Any) -> None:
    assert agree(message)


@settings(deadline=None)
@given(st.integers(0, len(TIME)), st.integers(0, 2), st.sampled_from(["", *"0123456789TtZz:.+-, \n\u0662"]))
def test_decode_and_schema_agree_on_changed_times(at: int, cut: int, text: str) -> None:
    assert agree(json.loads(good(event_time=TIME[:at] + text + TIME[at + cut :])))


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 9999), st.integers(0, 13), st.integers(0, 32), st.integers(0, 24), st.integers(0, 60))
def test_dates_follow_the_real_calendar(year: int, month: int, day: int, hour: int, minute: int) -> None:
    text = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:00Z"
    assert bool(re.search(RFC3339, text)) == _exists(year, month, day, hour, minute)


@pytest.mark.parametrize("year", [1896, 1900, 2000, 2023, 2024, 2100, 2400])
def test_leap_years(year: int) -> None:
    assert accepts(good(event_time=f"{year}-02-29T00:00:00Z")) == _exists(year, 2, 29, 0, 0)


def _exists(year: int, month: int, day: int, hour: int, minute: int) -> bool:
    try:
        datetime(year, month, day, hour, minute, tzinfo=UTC)
    except ValueError:
        return False
    return True

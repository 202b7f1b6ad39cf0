"""Decode: exact bytes for each reason; one bad message affects no other; the fast and the slow way agree."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import VitalstreamError
from schemas.contract import Reason
from schemas.vitals import Decoded, Reject, vitals_schema
from tests.schemas.messages import (
    ACCEPTED,
    FEATURES,
    OF_OTHER_FORMATS,
    REJECTED,
    TIME,
    Rejected,
    decoder,
    good,
    raw,
)

pytestmark = pytest.mark.usefixtures("kernel")

decode = decoder(FEATURES, ranges={})


@pytest.mark.parametrize("case", REJECTED.values(), ids=REJECTED)
def test_each_message_is_rejected_for_its_reason(case: Rejected) -> None:
    decoded = decode([case.value])

    assert decoded.rejects == [Reject(0, case.reason, case.field)]
    assert decoded.frame.shape == (0, 2)


@pytest.mark.parametrize("value", ACCEPTED.values(), ids=ACCEPTED)
@pytest.mark.parametrize("company", [[], [b""]], ids=["alone", "next to a bad one"])
def test_valid_messages_are_decoded_as_by_a_plain_parser(value: bytes, company: list[bytes]) -> None:
    decoded = decode([value, *company])

    message = json.loads(value)
    assert [reject.position for reject in decoded.rejects] == [1] * len(company)
    assert decoded.patient_ids == [message["patient_id"]]
    assert decoded.event_times == [message["event_time"]]
    expected = [np.nan if message.get(name) is None else float(message[name]) for name in FEATURES]
    np.testing.assert_array_equal(decoded.frame.to_numpy(), [expected])


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("case", REJECTED.values(), ids=REJECTED)
def test_one_bad_message_affects_no_other(case: Rejected, position: int) -> None:
    values: list[bytes | None] = [good(patient_id=f"p{i}", heart_rate=60.5 + i) for i in range(3)]
    values.insert(position, case.value)

    decoded = decode(values)

    assert decoded.rejects == [Reject(position, case.reason, case.field)]
    assert decoded.patient_ids == ["p0", "p1", "p2"]
    assert decoded.event_times == [TIME] * 3
    assert decoded.frame.index.tolist() == [i for i in range(4) if i != position]
    assert decoded.frame["heart_rate"].tolist() == [60.5, 61.5, 62.5]


def test_every_kind_of_bad_message_at_once() -> None:
    cases = list(REJECTED.values())
    values = [value for case in cases for value in (good(), case.value)]

    decoded = decode(values)

    assert decoded.rejects == [Reject(2 * i + 1, case.reason, case.field) for i, case in enumerate(cases)]
    assert decoded.frame.index.tolist() == list(range(0, len(values), 2))
    assert {case.reason for case in cases} == {*Reason} - {Reason.MODEL_REJECTED, *OF_OTHER_FORMATS}


def test_the_frame_has_the_models_columns() -> None:
    decoded = decoder(["spo2", "heart_rate"])([good(), good(spo2=None), good(heart_rate=...)])

    expected = pd.DataFrame({"spo2": [97.5, np.nan, 97.5], "heart_rate": [80.0, 80.0, np.nan]})
    pd.testing.assert_frame_equal(decoded.frame, expected, check_index_type="exact", check_column_type=True)
    assert isinstance(decoded.frame.index, pd.RangeIndex)


def test_floats_survive_bit_for_bit() -> None:
    numbers = np.random.default_rng(7).normal(80, 15, 500)
    decoded = decode([good(heart_rate=x) for x in numbers.tolist()])
    assert decoded.frame["heart_rate"].to_numpy().tobytes() == numbers.tobytes()


@pytest.mark.parametrize("values", [[], [b""]])
def test_without_accepted_messages_the_frame_is_empty(values: list[bytes | None]) -> None:
    decoded = decode(values)
    assert decoded.frame.shape == (0, 2)
    assert (decoded.frame.dtypes == np.float64).all()
    assert [*decoded.frame.columns] == [*FEATURES]
    assert decoded.patient_ids == decoded.event_times == []


def test_a_model_with_one_feature() -> None:
    decoded = decoder(["spo2"])([good(heart_rate="ignored"), good(spo2=...), good(spo2="x")])
    np.testing.assert_array_equal(decoded.frame.to_numpy(), [[97.5], [np.nan]])
    assert decoded.rejects == [Reject(2, Reason.WRONG_TYPE, "spo2")]


def test_feature_names_may_be_anything_else() -> None:
    names = ["Größe", 'a"b', "a\\b", "x.y", "#", "lactate (mmol/l)"]
    message = {"patient_id": "p", "event_time": TIME} | {name: i for i, name in enumerate(names)}
    text = json.dumps(message)
    utf8 = json.dumps(message, ensure_ascii=False)
    twice = text[:-1] + ',"Gr\u00f6\\u00dfe":1}'

    decoded = decoder(names)([text.encode(), utf8.encode(), twice.encode()])

    np.testing.assert_array_equal(decoded.frame.to_numpy(), [[0, 1, 2, 3, 4, 5]] * 2)
    assert decoded.rejects == [Reject(2, Reason.NOT_JSON, "Größe")]


def test_a_smaller_limit_is_respected() -> None:
    decoded = decoder(FEATURES, max_bytes=len(good()))([good(), good() + b" "])
    assert decoded.rejects == [Reject(1, Reason.TOO_LARGE, "")]


@pytest.mark.parametrize(
    "features", [[], ["a", ""], ["a", "a"], ["patient_id"], ["a", "event_time"], [1], [None]], ids=str
)
def test_unusable_feature_names_are_refused(features: list[Any]) -> None:
    with pytest.raises(VitalstreamError, match="model"):
        decoder(features)
    with pytest.raises(VitalstreamError, match="model"):
        vitals_schema(features)


# Object members as text: plain and escaped names, standard and others; values that look like members.
_names = st.sampled_from(
    ['"patient_id"', '"event_time"', '"heart_rate"', r'"heart\u005frate"', '"spo2"', '"ward"', r'"\"spo2\""']
)
_plain = {'"patient_id"': '"p1"', '"event_time"': f'"{TIME}"', '"ward"': '"A"'}
_odd = [
    "null",
    "true",
    '"x"',
    r'"\"spo2\":"',
    r'"\\"',
    r'"\u0022"',
    r'"\\u0022"',
    '{"spo2":1,"spo2":2}',
    '[{"patient_id":"p2"},"spo2"]',
    '"}"',
    '"[{"',
]
_values = st.one_of(st.just("80.5"), st.sampled_from(_odd))
_members = st.lists(st.tuples(_names, st.none() | _values, st.sampled_from([":", " : ", ":\n"])), max_size=5)


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """Valid JSON objects, many with repeated or escaped names and nesting."""
    members = [f"{name}{colon}{value or _plain.get(name, '80')}" for name, value, colon in draw(_members)]
    if draw(st.booleans()):
        members = [f'"patient_id":"p1","event_time":"{TIME}"', *members]
    return ("{" + ",".join(members) + "}").encode()


@settings(deadline=None)
@given(objects())
def test_a_field_given_twice_is_never_guessed(value: bytes) -> None:
    reject = next(iter(decode([value]).rejects), None)
    names = [name for name, _ in json.loads(value, object_pairs_hook=lambda pairs: pairs)]
    twice = [name for name in ("patient_id", "event_time", *FEATURES) if names.count(name) > 1]
    if twice:
        assert reject == Reject(0, Reason.NOT_JSON, twice[0])
    else:
        assert reject is None or reject.reason is not Reason.NOT_JSON


_anything = st.one_of(
    objects(),
    st.sampled_from([*ACCEPTED.values()]),
    st.sampled_from([case.value for case in REJECTED.values()]),
    st.binary(max_size=20),
    st.builds(raw, st.text(max_size=20)),
)
_good_only = st.lists(st.one_of(objects().filter(lambda v: not decode([v]).rejects), st.just(good())))


@settings(deadline=None)
@given(st.lists(_anything, max_size=6) | _good_only)
def test_a_chunk_gives_the_same_as_its_messages_one_by_one(values: list[bytes | None]) -> None:
    """With and without a bad message next to them, to compare decoding the chunk as a whole and one by one."""
    alone = [decode([value]) for value in values]
    together, beside = decode(values), decode([*values, b""])

    assert together.rejects == beside.rejects[:-1] == _moved(alone)
    for decoded in together, beside:
        assert decoded.patient_ids == [one for each in alone for one in each.patient_ids]
        assert decoded.event_times == [one for each in alone for one in each.event_times]
        assert decoded.frame.index.tolist() == [i for i, each in enumerate(alone) if len(each.frame)]
        assert [*decoded.frame.columns] == [*FEATURES]
        np.testing.assert_array_equal(
            decoded.frame.to_numpy(), np.vstack([np.empty((0, 2)), *(each.frame for each in alone)])
        )


def _moved(alone: Sequence[Decoded]) -> list[Reject]:
    return [Reject(i, r.reason, r.field) for i, each in enumerate(alone) for r in each.rejects]

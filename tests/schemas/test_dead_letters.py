"""Dead letters: the source's own bytes, headers that say why, and a pointer if they don't fit."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from broker.errors import VitalstreamError
from schemas import load_schema
from schemas.contract import Reason
from schemas.dead_letters import (
    DeadLetter,
    Headers,
    Origin,
    dead_letter,
    dead_letter_headers,
    read_dead_letter_headers,
    read_replay_mark,
    replay_mark,
)

ORIGIN = Origin(Reason.WRONG_TYPE, "Größe", "vitals", 3, 1217, 1767598200412)
OURS: list[tuple[str, bytes | None]] = [
    ("dlq.reason", b"wrong_type"),
    ("dlq.field", "Größe".encode()),
    ("dlq.topic", b"vitals"),
    ("dlq.partition", b"3"),
    ("dlq.offset", b"1217"),
    ("dlq.timestamp", b"1767598200412"),
]
POINTER = ("dlq.pointer", b"1")


def letter(**changes: Any) -> DeadLetter:
    arguments: dict[str, Any] = {
        "key": b"k\xff",
        "value": b"{\xff",
        "headers": [("trace", b"\x00"), ("none", None)],
        "reason": Reason.WRONG_TYPE,
        "field": "Größe",
        "topic": "vitals",
        "partition": 3,
        "offset": 1217,
        "timestamp": 1767598200412,
        "max_bytes": 1_000_000,
    }
    return dead_letter(**(arguments | changes))


def test_a_dead_letter_holds_the_sources_bytes_and_headers_and_says_why() -> None:
    assert letter() == DeadLetter(b"k\xff", b"{\xff", [("trace", b"\x00"), ("none", None), *OURS])


@pytest.mark.parametrize(("key", "value", "headers"), [(None, None, None), (b"", b"", [])])
def test_null_and_empty_are_kept_apart(key: bytes, value: bytes, headers: Headers) -> None:
    assert letter(key=key, value=value, headers=headers) == DeadLetter(key, value, OURS)


def test_a_replayed_dead_letter_names_only_its_last_failure() -> None:
    earlier = [*dead_letter_headers(Origin(Reason.BAD_TIME, "event_time", "old", 0, 1, -1, pointer=True))]
    assert letter(headers=[("trace", b"1"), *earlier]).headers == [("trace", b"1"), *OURS]


def _least(**changes: Any) -> int:
    """The smallest max_bytes that keeps the whole message."""
    low, high = 0, 10_000_000
    while low < high:
        middle = (low + high) // 2
        kept = POINTER not in letter(**changes, max_bytes=middle).headers
        low, high = (low, middle) if kept else (middle + 1, high)
    return low


def test_a_dead_letter_that_does_not_fit_becomes_a_pointer() -> None:
    value = b"x" * 200_000
    least = _least(value=value)

    assert letter(value=value, max_bytes=least).value == value
    assert letter(value=value, max_bytes=least - 1) == DeadLetter(
        b"k\xff", b"", [("trace", b"\x00"), ("none", None), *OURS, POINTER]
    )
    headers = [("trace", b"\x00"), ("none", b""), *OURS]
    content = 2 + 200_000 + sum(len(name) + len(text or b"") for name, text in headers)
    assert least == content + 10 * len(headers) + 512  # the lengths of each header, and the record's framing


@pytest.mark.parametrize("part", ["key", "value", "headers"])
def test_key_value_and_headers_all_count(part: str) -> None:
    more: dict[str, Any] = {"key": b"x" * 1002, "value": b"x" * 1002, "headers": [("t" * 500, b"x" * 500)]}
    bare: dict[str, Any] = {"key": b"xx", "value": b"xx", "headers": []}
    grown = _least(**(bare | {part: more[part]})) - _least(**bare)
    assert 1000 <= grown <= 1010


def test_too_large_headers_are_dropped_before_the_key() -> None:
    assert letter(headers=[("big", b"x" * 5000)], max_bytes=2000) == DeadLetter(
        b"k\xff", b"", [*OURS, POINTER]
    )


def test_a_too_large_key_is_dropped_last() -> None:
    assert letter(key=b"x" * 5000, max_bytes=2000) == DeadLetter(None, b"", [*OURS, POINTER])
    assert letter(max_bytes=0) == DeadLetter(None, b"", [*OURS, POINTER])


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("pointer", [False, True])
def test_headers_validate_and_survive_a_round_trip(reason: Reason, pointer: bool) -> None:
    origin = Origin(reason, "", "vitals", 0, 0, -1, pointer)
    headers = dead_letter_headers(origin)

    schema = Draft202012Validator(load_schema("dead-letter-headers"))
    schema.validate({name: value.decode() for name, value in headers})
    assert read_dead_letter_headers([("trace", b"1"), *headers]) == origin


@pytest.mark.parametrize(
    "headers",
    [
        None,
        [],
        OURS[:-1],
        [*OURS, ("dlq.reason", b"bored")],
        [*OURS, ("dlq.offset", None)],
        [*OURS, ("dlq.topic", b"\xff")],
    ],
    ids=str,
)
def test_headers_that_are_no_dead_letters_are_refused(headers: Headers | None) -> None:
    with pytest.raises(VitalstreamError, match="dlq"):
        read_dead_letter_headers(headers)


def test_replay_marks_and_dead_letters_are_never_confused() -> None:
    assert read_replay_mark(replay_mark(1217)) == 1217
    assert read_replay_mark(None) is None
    assert read_replay_mark(OURS) is None
    with pytest.raises(VitalstreamError, match="dlq"):
        read_dead_letter_headers(replay_mark(1217))


def test_a_sources_own_header_does_not_turn_its_dead_letter_into_a_mark() -> None:
    assert read_replay_mark(letter(headers=replay_mark(0)).headers) is None

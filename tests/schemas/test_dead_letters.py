"""Dead letters: the source's own bytes, headers that say why, a pointer where it would not fit."""

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


def test_it_holds_the_sources_own_bytes_and_headers_and_says_why() -> None:
    assert letter() == DeadLetter(b"k\xff", b"{\xff", [("trace", b"\x00"), ("none", None), *OURS])


@pytest.mark.parametrize(("key", "value", "headers"), [(None, None, None), (b"", b"", [])])
def test_null_and_empty_stay_what_they_are(key: bytes, value: bytes, headers: Headers) -> None:
    assert letter(key=key, value=value, headers=headers) == DeadLetter(key, value, OURS)


def test_a_replayed_dead_letter_tells_of_its_last_failure_only() -> None:
    earlier = [*dead_letter_headers(Origin(Reason.BAD_TIME, "event_time", "old", 0, 1, -1, pointer=True))]
    assert letter(headers=[("trace", b"1"), *earlier]).headers == [("trace", b"1"), *OURS]


def _least(**changes: Any) -> int:
    """The smallest max_bytes at which the whole message is kept."""
    low, high = 0, 10_000_000
    while low < high:
        middle = (low + high) // 2
        kept = POINTER not in letter(**changes, max_bytes=middle).headers
        low, high = (low, middle) if kept else (middle + 1, high)
    return low


def test_what_does_not_fit_is_a_pointer() -> None:
    value = b"x" * 200_000
    least = _least(value=value)

    assert letter(value=value, max_bytes=least).value == value
    assert letter(value=value, max_bytes=least - 1) == DeadLetter(
        b"k\xff", b"", [("trace", b"\x00"), ("none", None), *OURS, POINTER]
    )
    headers = [("trace", b"\x00"), ("none", b""), *OURS]
    content = 2 + 200_000 + sum(len(name) + len(text or b"") for name, text in headers)
    assert least == content + 10 * len(headers) + 512  # each header's lengths, and a record's frame


@pytest.mark.parametrize("part", ["key", "value", "headers"])
def test_key_value_and_headers_all_count(part: str) -> None:
    more: dict[str, Any] = {"key": b"x" * 1002, "value": b"x" * 1002, "headers": [("t" * 500, b"x" * 500)]}
    bare: dict[str, Any] = {"key": b"xx", "value": b"xx", "headers": []}
    grown = _least(**(bare | {part: more[part]})) - _least(**bare)
    assert 1000 <= grown <= 1010


def test_headers_too_large_go_before_the_key() -> None:
    assert letter(headers=[("big", b"x" * 5000)], max_bytes=2000) == DeadLetter(
        b"k\xff", b"", [*OURS, POINTER]
    )


def test_a_key_too_large_goes_last() -> None:
    assert letter(key=b"x" * 5000, max_bytes=2000) == DeadLetter(None, b"", [*OURS, POINTER])
    assert letter(max_bytes=0) == DeadLetter(None, b"", [*OURS, POINTER])


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("pointer", [False, True])
def test_headers_validate_and_come_back_the_same(reason: Reason, pointer: bool) -> None:
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
def test_headers_of_something_else_are_refused(headers: Headers | None) -> None:
    with pytest.raises(VitalstreamError, match="dlq"):
        read_dead_letter_headers(headers)


def test_a_replay_mark_is_no_dead_letter_and_the_other_way_round() -> None:
    assert read_replay_mark(replay_mark(1217)) == 1217
    assert read_replay_mark(None) is None
    assert read_replay_mark(OURS) is None
    with pytest.raises(VitalstreamError, match="dlq"):
        read_dead_letter_headers(replay_mark(1217))


def test_a_sources_own_header_makes_no_mark_of_its_dead_letter() -> None:
    assert read_replay_mark(letter(headers=replay_mark(0)).headers) is None

"""Vitals messages, byte for byte: what decode accepts, and what it rejects and why."""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from schemas.contract import ALL_NUMBERS, MAX_MESSAGE_BYTES, Dtypes, Reason
from schemas.kernel import native
from schemas.messages import Message, plain
from schemas.vitals import Decoded, Decoder

FEATURES = ("heart_rate", "spo2")
TIME = "2026-01-05T08:30:00Z"


Decode = Callable[[Sequence[Message]], Decoded]


class Wanted(NamedTuple):
    """What a model needs."""

    features: tuple[str, ...]
    dtypes: Dtypes = ALL_NUMBERS


class Rejected(NamedTuple):
    reason: Reason
    field: str
    value: bytes | None


def decoder(features: Sequence[Any], **given: Any) -> Callable[[Iterable[bytes | None]], Decoded]:
    """A Decoder that takes values; it has the native kernel if the current test does."""
    decode = with_kernel_or_not(Decoder, features, **given)
    return lambda values: decode(plain(values))


def with_kernel_or_not(make: Callable[..., Decoder], *args: Any, **given: Any) -> Decode:
    """A Decoder, created anew for tests with the native kernel."""
    make(*args, **given)  # raises right away
    made = cache(lambda _: make(*args, **given))

    def decode(messages: Sequence[Message]) -> Decoded:
        return made(native())(messages)

    return decode


def good(**fields: Any) -> bytes:
    """A valid message, with some fields changed or added; `...` omits one."""
    message = {"patient_id": "p1", "event_time": TIME, "heart_rate": 80, "spo2": 97.5} | fields
    return json.dumps({name: value for name, value in message.items() if value is not ...}).encode()


def raw(text: str) -> bytes:
    """A valid message, with `text` inserted verbatim after its identity."""
    return f'{{"patient_id":"p1","event_time":"{TIME}",{text}}}'.encode()


def _of_length(length: int) -> bytes:
    frame = raw('"note":""')
    return frame.replace(b'""', b'"' + b"x" * (length - len(frame)) + b'"')


OF_OTHER_FORMATS = {
    Reason.NOT_DECODABLE,
    Reason.UNKNOWN_SCHEMA,
    Reason.UNKNOWN_UNIT,
    Reason.CONFLICTING,
    Reason.RETRACTED,
    Reason.NOT_FOR_US,
}
"""Reasons that JSON of the contract's own shape gives no cause for."""

REJECTED = {
    "tombstone": Rejected(Reason.EMPTY, "", None),
    "no bytes": Rejected(Reason.EMPTY, "", b""),
    "a byte too long": Rejected(Reason.TOO_LARGE, "", _of_length(MAX_MESSAGE_BYTES + 1)),
    "long and no JSON": Rejected(Reason.TOO_LARGE, "", b"x" * (MAX_MESSAGE_BYTES + 1)),
    "blank": Rejected(Reason.NOT_JSON, "", b" "),
    "truncated": Rejected(Reason.NOT_JSON, "", good()[:-1]),
    "byte order mark": Rejected(Reason.NOT_JSON, "", b"\xef\xbb\xbf" + good()),
    "UTF-16": Rejected(Reason.NOT_JSON, "", good().decode().encode("utf-16")),
    "lone surrogate": Rejected(Reason.NOT_JSON, "", raw(r'"note":"\ud800"')),
    "encoded surrogate": Rejected(Reason.NOT_JSON, "", raw('"note":"?"').replace(b"?", b"\xed\xa0\x80")),
    "bad UTF-8": Rejected(Reason.NOT_JSON, "", raw('"note":"?"').replace(b"?", b"\xff")),
    "overlong UTF-8": Rejected(Reason.NOT_JSON, "", raw('"note":"?"').replace(b"?", b"\xc0\x80")),
    "NaN": Rejected(Reason.NOT_JSON, "", raw('"heart_rate":NaN')),
    "Infinity": Rejected(Reason.NOT_JSON, "", raw('"heart_rate":Infinity')),
    "-Infinity": Rejected(Reason.NOT_JSON, "", raw('"heart_rate":-Infinity')),
    "1e400": Rejected(Reason.NOT_JSON, "", raw('"heart_rate":1e400')),
    "integer beyond double": Rejected(Reason.NOT_JSON, "", raw('"heart_rate":1' + "0" * 400)),
    "leading zero": Rejected(Reason.NOT_JSON, "", raw('"heart_rate":080')),
    "plus sign": Rejected(Reason.NOT_JSON, "", raw('"heart_rate":+80')),
    "bare fraction": Rejected(Reason.NOT_JSON, "", raw('"heart_rate":.5')),
    "trailing comma": Rejected(Reason.NOT_JSON, "", raw('"heart_rate":80,')),
    "comment": Rejected(Reason.NOT_JSON, "", raw('"heart_rate":80/* bpm */')),
    "single quotes": Rejected(Reason.NOT_JSON, "", b"{'patient_id':'p1'}"),
    "raw newline in a string": Rejected(Reason.NOT_JSON, "", raw('"note":"a\nb"')),
    "trailing data": Rejected(Reason.NOT_JSON, "", good() + b"{}"),
    "two messages": Rejected(Reason.NOT_JSON, "", good() + b"," + good()),
    "deep nesting": Rejected(Reason.NOT_JSON, "", raw('"note":' + "[" * 1024 + "]" * 1024)),
    "deep nesting, never closed": Rejected(Reason.NOT_JSON, "", b"[" * 100_000),
    "feature twice": Rejected(Reason.NOT_JSON, "heart_rate", raw('"heart_rate":80,"heart_rate":80')),
    "feature twice, apart": Rejected(
        Reason.NOT_JSON, "spo2", raw('"spo2":97,"heart_rate":{"spo2":1},"note":"}","spo2" : 98')
    ),
    "feature twice, once escaped": Rejected(
        Reason.NOT_JSON, "heart_rate", raw(r'"heart_rate":80,"heart\u005frate":90')
    ),
    "feature twice, next to quotes that are no bytes": Rejected(
        Reason.NOT_JSON, "heart_rate", raw(r'"note":"\u0022","heart_rate":80,"heart_rate":80,"spo2":97')
    ),
    "patient twice": Rejected(Reason.NOT_JSON, "patient_id", raw('"patient_id":"p2","heart_rate":80')),
    "time twice": Rejected(Reason.NOT_JSON, "event_time", raw(f'"event_time":"{TIME}"')),
    "array": Rejected(Reason.NOT_OBJECT, "", b"[" + good() + b"]"),
    "empty array": Rejected(Reason.NOT_OBJECT, "", b"[]"),
    "string": Rejected(Reason.NOT_OBJECT, "", b'"patient_id"'),
    "number": Rejected(Reason.NOT_OBJECT, "", b"80"),
    "null": Rejected(Reason.NOT_OBJECT, "", b"null"),
    "true": Rejected(Reason.NOT_OBJECT, "", b"true"),
    "empty object": Rejected(Reason.MISSING_FIELD, "patient_id", b"{}"),
    "no patient": Rejected(Reason.MISSING_FIELD, "patient_id", good(patient_id=...)),
    "no time": Rejected(Reason.MISSING_FIELD, "event_time", good(event_time=..., heart_rate="80")),
    "patient in capitals": Rejected(Reason.MISSING_FIELD, "patient_id", good(patient_id=..., PATIENT_ID="p")),
    "patient null": Rejected(Reason.WRONG_TYPE, "patient_id", good(patient_id=None)),
    "patient a number": Rejected(Reason.WRONG_TYPE, "patient_id", good(patient_id=42, event_time="?")),
    "patient an array": Rejected(Reason.WRONG_TYPE, "patient_id", good(patient_id=["p1"])),
    "patient empty": Rejected(Reason.WRONG_TYPE, "patient_id", good(patient_id="")),
    "patient too long": Rejected(Reason.WRONG_TYPE, "patient_id", good(patient_id="p" * 129)),
    "time null": Rejected(Reason.WRONG_TYPE, "event_time", good(event_time=None)),
    "time in seconds": Rejected(Reason.WRONG_TYPE, "event_time", good(event_time=1767601800)),
    "bool as number": Rejected(Reason.WRONG_TYPE, "heart_rate", raw('"heart_rate":true')),
    "string as number": Rejected(Reason.WRONG_TYPE, "heart_rate", raw('"heart_rate":"80"')),
    "empty string as number": Rejected(Reason.WRONG_TYPE, "spo2", raw('"heart_rate":80,"spo2":""')),
    "NaN as string": Rejected(Reason.WRONG_TYPE, "spo2", raw('"spo2":"NaN"')),
    "array as number": Rejected(Reason.WRONG_TYPE, "spo2", raw('"spo2":[97]')),
    "object as number": Rejected(Reason.WRONG_TYPE, "spo2", raw('"spo2":{"value":97}')),
    "first of two problems": Rejected(Reason.WRONG_TYPE, "heart_rate", good(spo2="97", heart_rate=False)),
}

BAD_TIMES = [
    "",
    "now",
    "2026-01-05",
    "2026-01-05T08:30:00",
    "2026-01-05 08:30:00Z",
    "2026-01-05T08:30Z",
    "20260105T083000Z",
    "2026-W02-1T08:30:00Z",
    "2026-13-05T08:30:00Z",
    "2026-00-05T08:30:00Z",
    "2026-01-00T08:30:00Z",
    "2026-01-32T08:30:00Z",
    "2026-04-31T08:30:00Z",
    "2026-02-29T08:30:00Z",
    "2100-02-29T08:30:00Z",
    "2024-02-30T08:30:00Z",
    "2026-01-05T24:00:00Z",
    "2026-01-05T08:60:00Z",
    "2026-01-05T08:30:61Z",
    "2026-01-05T08:30:00.Z",
    "2026-01-05T08:30:00,5Z",
    "2026-01-05T08:30:00+24:00",
    "2026-01-05T08:30:00+01:60",
    "2026-01-05T08:30:00+0100",
    "2026-01-05T08:30:00+01",
    "2026-01-05T08:30:00\u221201:00",
    "2026-01-05T08:30:00Z\n",
    "2026-01-05T08:30:00Z\n2026-01-05T08:30:00Z",
    " 2026-01-05T08:30:00Z",
    "2026-01-05T08:30:00Z ",
    "2026-01-05T08:30:00 Z",
    "2026-1-5T8:30:00Z",
    "12026-01-05T08:30:00Z",
    "-2026-01-05T08:30:00Z",
    "\u0662\u0660\u0662\u0666-01-05T08:30:00Z",
    "2026-01-05T08:30:00Z[UTC]",
]
REJECTED |= {f"time {t!a}": Rejected(Reason.BAD_TIME, "event_time", good(event_time=t)) for t in BAD_TIMES}

GOOD_TIMES = [
    TIME,
    "2026-01-05t08:30:00z",
    "2026-01-05T08:30:00.123456789012345678901234567890Z",
    "2026-01-05T08:30:00+23:59",
    "2026-01-05T08:30:00-00:00",
    "1990-12-31T15:59:60-08:00",
    "2024-02-29T00:00:00Z",
    "2000-02-29T23:59:59Z",
    "0000-02-29T00:00:00Z",
    "9999-12-31T23:59:59Z",
]

ACCEPTED = {
    "plain": good(),
    "as long as may be": _of_length(MAX_MESSAGE_BYTES),
    "blanks around": b" \r\n\t" + good() + b"\n",
    "features absent": good(heart_rate=..., spo2=...),
    "features null": good(heart_rate=None, spo2=None),
    "other fields": good(ward="ICU", bed=12, alarm=True, tags=["a"], note={"heart_rate": "no"}),
    "names inside strings": good(ward='"heart_rate":80,"heart_rate":'),
    "ignored field twice": raw('"ward":"A","ward":"B","heart_rate":80,"spo2":97'),
    "twice, but not at the top": raw('"heart_rate":80,"a":{"spo2":1,"spo2":2},"b":[{"spo2":3}],"spo2":97'),
    "escaped name": raw(r'"heart\u005frate":80,"spo2":97'),
    "escapes in strings": raw(r'"note":"\"\\","heart_rate":80,"spo2":97'),
    "quotes written as numbers": raw(r'"note":"\u0022 \\u0022","heart_rate":80,"spo2":97'),
    "patient of 128 code points": good(patient_id="\U0001f600" * 128),
    "patient with odd characters": good(patient_id='\x00"\\\n\u2028'),
    "deep, but not too deep": raw('"note":' + "[" * 500 + "]" * 500),
    "large integers": good(heart_rate=2**64, spo2=-(2**70)),
    "extreme floats": raw('"heart_rate":1.7976931348623157e308,"spo2":1e-400'),
    **{f"time {t}": good(event_time=t) for t in GOOD_TIMES},
}

"""Converts senders' times to RFC 3339 with a zone. Ambiguous times are refused, not guessed."""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final
from zoneinfo import ZoneInfo

from schemas.contract import RFC3339, TIMESTAMP, Reason
from schemas.fields import ABSENT

Times = Callable[[Sequence[Any]], tuple[list[Any], dict[int, Reason]]]
"""Converts a chunk's times to texts; also returns problems by row."""


class TimeKind(StrEnum):
    """How a time is written."""

    RFC3339 = "rfc3339"
    EPOCH_S = "epoch_s"
    EPOCH_MS = "epoch_ms"
    EPOCH_US = "epoch_us"
    HL7 = "hl7"


Lines = Callable[[str, int], re.Match[str] | None]
"""Matches as many consecutive lines of times as possible."""

_MICROSECONDS: Final = {TimeKind.EPOCH_S: 1_000_000, TimeKind.EPOCH_MS: 1_000, TimeKind.EPOCH_US: 1}
OUR_YEARS: Final = (1900, 2200)  # the years of any real measurement; also in _times_of_our_years
_FIRST, _LAST = OUR_YEARS
# Seconds read as milliseconds fall into 1970, and so do milliseconds read as microseconds.
_FIRST_OF_EPOCHS: Final = 1971
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_is_time = re.compile(RFC3339).fullmatch
# One per line.
_times = re.compile(rf"(?:{TIMESTAMP}\n)*+").match
_times_of_our_years = re.compile(rf"(?:(?=19|20|21|2200){TIMESTAMP}\n)*+").match
_local = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)([.]\d+)?)?", re.ASCII).fullmatch
_hl7 = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(?:(\d\d)([.]\d+)?)?([+-]\d{4})?", re.ASCII).fullmatch


def is_rfc3339(text: str) -> bool:
    """Whether it is an RFC 3339 time with a zone."""
    return _is_time(text) is not None


def as_received(times: Sequence[Any], *, lines: Lines = _times) -> tuple[list[Any], dict[int, Reason]]:
    """RFC 3339 with a zone, passed on as it is."""
    only_texts = set(map(type, times)) <= {str}
    # Messages that arrive together often have the same time.
    bad = _bad_times({*times} if only_texts else {time for time in times if type(time) is str}, lines)
    if only_texts and not bad:
        return [*times], {}
    return [*times], {row: reason for row, time in enumerate(times) if (reason := _reason(time, bad))}


def _reason(time: Any, bad: set[str]) -> Reason | None:
    if time is ABSENT:
        return Reason.MISSING_FIELD
    if type(time) is not str:
        return Reason.WRONG_TYPE
    return Reason.BAD_TIME if time in bad else None


def _bad_times(texts: set[str], lines: Lines) -> set[str]:
    bad = {text for text in texts if "\n" in text}
    text = "\n".join([*(texts - bad), ""])
    at = 0
    while (at := _matching(text, at, lines)) < len(text):
        end = text.index("\n", at)
        bad.add(text[at:end])
        at = end + 1
    return bad


def _matching(text: str, at: int, lines: Lines) -> int:
    """The start of the first line from `at` onwards that is not a time."""
    match = lines(text, at)
    return match.end() if match else at


def times_of(kind: TimeKind, zone: ZoneInfo | None) -> Times:
    """The reader of times of this kind; `zone` is for times without one."""
    if kind in _MICROSECONDS:
        return partial(_one_by_one, partial(_from_epoch, scale=_MICROSECONDS[kind]))
    if kind is TimeKind.HL7:
        return partial(_hl7_times, zone=zone)
    if zone is None:
        return partial(as_received, lines=_times_of_our_years)
    return partial(_one_by_one, partial(_from_rfc3339, zone=zone))


def _one_by_one(
    one: Callable[[Any], str | Reason], times: Sequence[Any]
) -> tuple[list[Any], dict[int, Reason]]:
    known: dict[Any, str | Reason] = {}
    texts: list[str | Reason] = []
    for time in times:
        key = type(time), time if type(time) in (str, int, float) else id(time)
        if key not in known:
            known[key] = one(time)
        texts.append(known[key])
    return [*texts], {row: text for row, text in enumerate(texts) if isinstance(text, Reason)}


def _from_rfc3339(time: Any, *, zone: ZoneInfo | None) -> str | Reason:
    if type(time) is not str:
        return Reason.MISSING_FIELD if time is ABSENT else Reason.WRONG_TYPE
    if _is_time(time):
        return time if _FIRST <= int(time[:4]) <= _LAST else Reason.BAD_TIME
    match = _local(time)
    return Reason.BAD_TIME if match is None or zone is None else _zoned(match.groups(), zone)


def _hl7_times(times: Sequence[Any], *, zone: ZoneInfo | None) -> tuple[list[Any], dict[int, Reason]]:
    """Times with seconds and a zone, nearly all, are put together from parts; the others are converted one by one."""
    starts, ends = _parts_of_hl7([time for time in times if type(time) is str])
    try:
        return [starts[time[:12]] + ends[time[12:]] for time in times], {}
    except (KeyError, TypeError):
        pass
    odd = [row for row, time in enumerate(times) if not _has_parts(time, starts, ends)]
    found, wrong = _one_by_one(partial(_from_hl7, zone=zone), [times[row] for row in odd])
    known = dict(zip(odd, found, strict=True))
    texts = [
        known[row] if row in known else starts[time[:12]] + ends[time[12:]] for row, time in enumerate(times)
    ]
    return texts, {odd[number]: reason for number, reason in wrong.items()}


def _has_parts(time: Any, starts: dict[str, str], ends: dict[str, str]) -> bool:
    return type(time) is str and time[:12] in starts and time[12:] in ends


def _parts_of_hl7(times: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Dates with minutes, and seconds with zones, of which a chunk has few: the valid ones, each as RFC 3339 has it.

    Every valid start makes a valid time with every valid end.
    """
    minutes, rest = {time[:12] for time in times}, {time[12:] for time in times}
    starts = {m: f"{m[:4]}-{m[4:6]}-{m[6:8]}T{m[8:10]}:{m[10:]}:" for m in minutes}
    ends = {r: f"{r[:-2]}:{r[-2:]}" for r in rest}
    whole = {start: f"{start}00Z" for start in starts.values()}
    whole |= {end: f"2000-01-01T00:00:{end}" for end in ends.values()}
    bad = _bad_times({*whole.values()}, _times_of_our_years)
    return (
        {minute: start for minute, start in starts.items() if whole[start] not in bad},
        {seconds: end for seconds, end in ends.items() if whole[end] not in bad},
    )


def _from_hl7(time: Any, *, zone: ZoneInfo | None) -> str | Reason:
    if type(time) is not str:
        return Reason.MISSING_FIELD if time is ABSENT else Reason.WRONG_TYPE
    match = _hl7(time)
    if match is None:
        return Reason.BAD_TIME
    *parts, offset = match.groups()
    if offset is None:
        return Reason.BAD_TIME if zone is None else _zoned(parts, zone)
    text = _text(parts) + f"{offset[:3]}:{offset[3:]}"
    return text if _is_time(text) and _FIRST <= int(parts[0] or 0) <= _LAST else Reason.BAD_TIME


def _text(parts: Sequence[str | None]) -> str:
    year, month, day, hour, minute, second, fraction = parts
    return f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}{fraction or ''}"


def _zoned(parts: Sequence[str | None], zone: ZoneInfo) -> str | Reason:
    """Add the zone's offset at that time; a time that occurs twice or not at all in the zone is ambiguous."""
    text = _text(parts)
    if not _is_time(f"{text}Z") or not _FIRST <= int(text[:4]) <= _LAST or text[17:19] == "60":
        return Reason.BAD_TIME
    local = datetime.fromisoformat(text[:19])
    offsets = {local.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1)}
    offset = offsets.pop()
    if offsets or offset is None or offset % timedelta(minutes=1):
        return Reason.BAD_TIME
    minutes = offset // timedelta(minutes=1)
    return f"{text}{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def _from_epoch(time: Any, *, scale: int) -> str | Reason:
    if type(time) not in (int, float):
        return Reason.MISSING_FIELD if time is ABSENT else Reason.WRONG_TYPE
    microseconds = time * scale
    if not math.isfinite(microseconds) or abs(microseconds) > 2**63:
        return Reason.BAD_TIME
    try:
        moment = _EPOCH + timedelta(microseconds=round(microseconds))
    except OverflowError:
        return Reason.BAD_TIME
    if not _FIRST_OF_EPOCHS <= moment.year <= _LAST:
        return Reason.BAD_TIME
    digits = (
        "microseconds" if moment.microsecond % 1000 else "milliseconds" if moment.microsecond else "seconds"
    )
    return f"{moment.replace(tzinfo=None).isoformat(timespec=digits)}Z"

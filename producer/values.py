"""Converts patient ids, event times and numbers from the way files write them, the same for all layouts.

A value with one meaning is written the way our messages write it. One with none, or more than one, raises
UnreadableError: nothing is guessed, and nothing becomes text just because Python can print it.
"""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contract import TIMESTAMP

NULLS: Final = frozenset({"", "na", "n/a", "#n/a", "<na>", "nan", "nat", "null", "none"})
"""The ways text files write a missing value, in upper or lower case."""

NOBODY: Final = frozenset({"nan", "NaN", "NaT", "None", "<NA>", "null"})
"""What programs write when a missing id becomes text; all patients without one would count as one patient."""

is_rfc3339 = re.compile(TIMESTAMP).fullmatch
_as_time = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})-([0-9]{2})|([0-9]{2})([0-9]{2}))"
    r"[Tt ]"
    r"([0-9]{2})(?::([0-9]{2})(?::([0-9]{2}))?|([0-9]{2})([0-9]{2}))(?:[.,]([0-9]+))?"
    r"(?: ?([Zz]|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?))?"
).fullmatch
_is_integer = re.compile("[+-]?[0-9]{1,18}").fullmatch  # what JSON writers treat as an integer
_has_decimal_comma = re.compile("[+-]?[0-9]+(,[0-9]+)+").fullmatch
# The way programs write floats, but nobody writes an id: "007.0" and "12E4" are text.
_is_float = re.compile(
    r"[+-]?(?:(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)(?:[Ee][+-]?[0-9]+)?|[1-9][0-9]*[Ee][+-][0-9]+|inf)"
).fullmatch

_NO_TIME = "is not a time with one meaning; write RFC 3339, such as 2026-01-05T08:30:00+01:00"
_NO_ID = "holds a number that is not an exact whole number, so patients may be mixed up; write it as text"
_NO_ID_CELL = _NO_ID.replace("as text", "without decimal point and exponent")
_NOBODY = "is a common placeholder for a missing id, so patients may be mixed up; write null"
_NOT_UTF8 = "holds bytes that are not UTF-8; write it as text"
_COMMA = "holds a number with a comma; write it with a decimal point"

_EXACT: Final = {16: 2**11, 32: 2**24, 64: 2**53}  # above this, floats of that many bits skip integers
_YEARS: Final = (-62_135_596_800, 253_402_300_799)  # 0001 to 9999 in Unix seconds
_TICKS: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class UnreadableError(ValueError):
    """A value can't be read safely. The message does not quote it; `row` counts from 0."""

    def __init__(self, problem: str, row: int = 0) -> None:
        super().__init__(problem)
        self.row = row


def instant(text: str) -> str:
    """An event time's text as RFC 3339. Valid RFC 3339 is returned unchanged; without a zone it is UTC.

    All digits of a fraction and the offset are kept. Raises UnreadableError for a bare date or anything else.
    """
    return text if is_rfc3339(text) else _rewritten(text)


@lru_cache(maxsize=1 << 16)
def _rewritten(text: str) -> str:
    found = _as_time(text.strip())
    if found is None:
        raise UnreadableError(_NO_TIME)
    year, month, day, *basic_day, hour, minute, second, basic_minute, basic_second, fraction, zone = (
        found.groups()
    )
    month, day = (month, day) if month else basic_day
    minute, second = (minute, second or "00") if minute else (basic_minute, basic_second)
    written = (
        f"{year}-{month}-{day}T{hour}:{minute}:{second}{'.' + fraction if fraction else ''}{_offset(zone)}"
    )
    if not is_rfc3339(written) or (fraction and not (found[8] or found[10])):  # a fraction of a minute
        raise UnreadableError(_NO_TIME)
    return written


def _offset(zone: str | None) -> str:
    if zone is None or zone[0] not in "+-":
        return "Z"
    return f"{zone[:3]}:{zone[3:].removeprefix(':') or '00'}"


def zone(text: str) -> str | None:
    """The UTC offset in an event time's text, in RFC 3339 form; None if there is none, which means UTC.

    Raises UnreadableError.
    """
    sent = instant(text)
    found = None if is_rfc3339(text) else _as_time(text.strip())
    if found is not None and found[found.re.groups] is None:
        return None
    return "Z" if sent[-1] in "Zz" else sent[-6:]


def event_time(value: Any) -> str | None:
    """An event time from JSON: text, or null, which stays null. Raises UnreadableError."""
    if type(value) is str:
        return instant(value)
    if value is None:
        return None
    raise UnreadableError(_NO_TIME)


def cell_time(text: str) -> str | None:
    """An event time's cell."""
    if is_rfc3339(text):
        return text
    return None if text.strip().lower() in NULLS else _rewritten(text)


@lru_cache(maxsize=1 << 16)
def cell_id(text: str) -> str | None:
    """A patient id's cell unchanged, or None if it means missing; a float loses its ".0".

    Programs with nulls in a column of whole numbers write it as floats. Raises UnreadableError for a float that may
    stand for several patients, and for a number with a comma.
    """
    number = text.strip()
    if number.lower() in NULLS:
        return None
    if _has_decimal_comma(number):
        raise UnreadableError(_COMMA)
    if not _is_float(number):
        return text
    try:
        return whole(float(number))
    except UnreadableError:
        raise UnreadableError(_NO_ID_CELL) from None


# As written by pandas, R and spreadsheets.
_BOOLEANS: Final = {"True": True, "true": True, "TRUE": True, "False": False, "false": False, "FALSE": False}


@lru_cache(maxsize=1 << 16)  # vitals take few values, and a look-up is far cheaper than a conversion
def number(cell: str) -> float | int | str | None:
    """A cell's text as a number or boolean if it is one, None if it means missing, else unchanged.

    Raises UnreadableError for a number with a comma, which may stand for decimals or for thousands.
    """
    text = cell.strip()
    if text.lower() in NULLS:
        return None
    try:
        value = float(text)
    except ValueError:
        if _has_decimal_comma(text):
            raise UnreadableError(_COMMA) from None
        return _BOOLEANS.get(text, cell)
    if "_" in text or not text.isascii():  # only Python writes numbers so
        return cell
    if _is_integer(text):
        return int(text)
    return value if math.isfinite(value) else None


def text_id(text: str) -> str:
    """A textual patient id unchanged. Raises UnreadableError if it means that there is none."""
    if text in NOBODY:
        raise UnreadableError(_NOBODY)
    return text


def whole(value: float, bits: int = 64) -> str:
    """A float patient id without its ".0". Raises UnreadableError if it may stand for several."""
    if not abs(value) < _EXACT[bits] or value != int(value):
        raise UnreadableError(_NO_ID)
    return str(int(value))


def ids(column: Any) -> list[str | None]:
    """An Arrow column of patient ids as text, None for null (and for NaN). Raises UnreadableError."""
    column = _decoded(column)
    kind = column.type
    if _is_text(kind):
        texts = _texts(column)
        return texts if NOBODY.isdisjoint(texts) else _each(text_id, texts)
    if pa.types.is_integer(kind):
        return _texts(column.cast(pa.string()))
    if pa.types.is_null(kind):
        return [None] * len(column)
    if pa.types.is_floating(kind):
        bits = kind.bit_width
        return _each(lambda value: None if math.isnan(value) else whole(value, bits), column.to_pylist())
    if pa.types.is_decimal(kind):
        return _each(_whole_decimal, column.to_pylist())
    raise UnreadableError(f"is of type {kind}; write it as text")


def times(column: Any, *, keep_going: bool = False) -> list[Any]:
    """An Arrow column of event times as RFC 3339 text, null as None. Timestamps are written in UTC.

    Raises UnreadableError at the first that can't be read; with `keep_going` those are returned unchanged.
    """
    column = _decoded(column)
    values = plain(column)
    if pa.types.is_timestamp(column.type) and _within_years(column):
        return values
    if _is_text(column.type) and not column.null_count and all(map(is_rfc3339, values)):
        return values
    return _each(event_time, values, keep_going=keep_going)


def time_texts(column: Any) -> list[str | None]:
    """An Arrow column of event times as written in the file; empty if they are not text."""
    column = _decoded(column)
    return [] if pa.types.is_nested(column.type) else list(column.cast(pa.string()).to_pylist())


def plain(column: Any) -> list[Any]:
    """An Arrow column as JSON values; a null among floats becomes NaN. Numbers keep their exact value.

    Raises UnreadableError for a type without a JSON form, and for bytes that are not UTF-8.
    """
    column = _decoded(column)
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _written(column)
    if pa.types.is_date(kind) or pa.types.is_time(kind):
        return _texts(column.cast(pa.string()))
    if pa.types.is_decimal(kind):
        return _decimals(column)
    if not _is_json(kind):
        raise UnreadableError(f"is of type {kind}; write it as numbers or text")
    if pa.types.is_floating(kind) or (pa.types.is_primitive(kind) and not column.null_count):
        return list(column.to_numpy(zero_copy_only=False).tolist())  # several times faster than to_pylist
    return _texts(column) if _is_text(kind) else list(column.to_pylist())


def _is_json(kind: Any) -> bool:
    """Whether an Arrow type is numbers, text, booleans, or lists and objects of these."""
    if pa.types.is_struct(kind):
        return all(_is_json(field.type) for field in kind)
    if pa.types.is_nested(kind) and hasattr(kind, "value_type"):
        return _is_json(kind.value_type)
    return (
        _is_text(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
    )


def _decoded(column: Any) -> Any:
    """The column without dictionary or extension types, with bytes and UUIDs as text."""
    if column.type == pa.uuid():
        return pa.array([None if one is None else str(one) for one in column.to_pylist()], pa.string())
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind) or kind == pa.binary_view():
        column = column.cast(pa.binary())
    if pa.types.is_binary(column.type):
        try:
            return column.cast(pa.string())
        except pa.ArrowInvalid:
            raise UnreadableError(_NOT_UTF8, _first_not_utf8(column)) from None
    return column


def _first_not_utf8(column: Any) -> int:
    for row, value in enumerate(column.to_pylist()):
        try:
            str(value or b"", "utf-8")
        except UnicodeDecodeError:
            return row
    return 0


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view())


def _texts(column: Any) -> list[str | None]:
    return list(column.to_numpy(zero_copy_only=False).tolist())


def _each(convert: Callable[[Any], Any], values: list[Any], *, keep_going: bool = False) -> list[Any]:
    converted = []
    for row, value in enumerate(values):
        try:
            converted.append(None if value is None else convert(value))
        except UnreadableError as error:
            if not keep_going:
                raise UnreadableError(str(error), row) from None
            converted.append(value)
    return converted


def _whole_decimal(value: Decimal) -> str:
    if value != value.to_integral_value():
        raise UnreadableError(_NO_ID)
    return str(int(value))


def _decimals(column: Any) -> list[Any]:
    """Convert by way of text: Arrow's own cast to float64 is off by one bit for one value in seven."""
    texts = column.cast(pa.string())
    if column.type.scale > 0:
        return plain(texts.cast(pa.float64()))
    return [text if text is None else number(str(int(Decimal(text)))) for text in texts.to_pylist()]


def _within_years(column: Any) -> bool:
    ends = pc.min_max(column.cast(pa.int64())).as_py()
    ticks, (first, last) = _TICKS[column.type.unit], _YEARS
    return ends["min"] is None or (ends["min"] >= first * ticks and ends["max"] < (last + 1) * ticks)


def _written(column: Any) -> list[str | None]:
    """Timestamps as RFC 3339 in UTC, to the microsecond, or the nanosecond if they are that fine."""
    moments = np.asarray(column.to_numpy(zero_copy_only=False))
    unit: Literal["us", "ns"] = "us"
    if column.type.unit == "ns" and _has_nanoseconds(moments):
        unit = "ns"
    texts = np.datetime_as_string(moments, unit=unit, timezone="UTC", casting="unsafe").tolist()
    return [None if text == "NaT" else text for text in texts]


def _has_nanoseconds(moments: Any) -> bool:
    known = moments[~np.isnat(moments)]
    return bool((known != known.astype("datetime64[us]")).any())

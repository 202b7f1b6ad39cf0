"""HL7 v2: an unsolicited observation message (ORU^R01), of which PCD-01 is a kind. One message is one row.

Each OBX has a code that says what it is (OBX-3), and a unit (OBX-6). Anything ambiguous is rejected.
"""

import codecs
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from schemas.columns import Columns
from schemas.contract import PATIENT_ID, Problem, Reason, RefusedError
from schemas.fields import ABSENT
from schemas.mapping import Mapping
from schemas.messages import Message
from schemas.readings import Content, OneRow, OneTime, Reading, codes_of, rows_of

SYSTEMS: Final = {"LOINC": "LN", "SNOMED": "SCT", "MDC": "MDC"}
"""HL7's names for the code systems that a mapping names (table 0396)."""

# OBX-11 (table 0085).
_SCORED = frozenset("FPCRSUABV")
_NO_RESULT = "X"
_LEFT_OUT = {
    "D": Reason.RETRACTED,
    "W": Reason.RETRACTED,
    "I": Reason.NOT_FOR_US,  # no result yet, or none was ordered
    "N": Reason.NOT_FOR_US,
    "O": Reason.NOT_FOR_US,
}

# Segments that no complete single message has: a second message, a batch, and parts of a split message.
_SEVERAL = frozenset({"MSH", "BHS", "BTS", "FHS", "FTS", "ADD", "DSC"})

# MSH-18 (table 0211), and names in use that are not in the table.
_JAPANESE = ("ISO IR14", "ISO IR87", "ISO IR159")
_CHARSETS: Final = {
    **{f"8859/{part}": f"iso8859-{part}" for part in (*range(1, 10), 15)},
    **{f"ISO-8859-{part}": f"iso8859-{part}" for part in (*range(1, 10), 15)},
    **dict.fromkeys(("UNICODE UTF-8", "UTF-8", "UTF8"), "utf-8"),
    **dict.fromkeys(_JAPANESE, "iso2022_jp_ext"),
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
}

_number = re.compile(r" *([+-]?(?:[0-9]+[.]?[0-9]*|[.][0-9]+)) *").fullmatch
_offset = re.compile(r"[+-][0-9]{4}$").search
_SIGNS = ("+", "-")
_COMPARATORS = frozenset({"<", ">", "<=", ">=", "<>"})
_MARKS = "FSRETP"  # the separators' letters in escapes, in the order of MSH-1 and MSH-2
_NOTHING = ("", '""')  # an empty field, or null
_FRAME = b"\x0b\x1c\r\n \t"  # MLLP's bytes, which some gateways leave around a message
_FIELDS = 15  # nothing after the 14th field of an OBX is read
_MANY, _LONG = 1000, 100  # remembered fields, and their length


def codes_in(message: Message) -> Iterator[str]:
    """The codes of all OBX-3 in a message, as a mapping would name them."""
    names = {system: name for name, system in SYSTEMS.items()}
    try:
        header, *segments = _segments(text_of(message.value() or b""))
    except RefusedError:
        return
    field, component = header[3], header[4]
    for segment in segments:
        fields = segment.split(field, 4)
        if fields[0] == "OBX":
            parts = [*_field(fields, 3).split(component), "", "", "", "", "", ""]
            for code, system in ((parts[0], parts[2]), (parts[3], parts[5])):
                if code:
                    yield f"{names.get(system, system)} {code}".strip()


class Hl7Reader:
    """Reads ORU^R01 messages by the codes of a mapping."""

    def __init__(self, features: Sequence[str], mapping: Mapping, *, max_bytes: int) -> None:
        self._features = features
        self._row = OneRow(features, mapping)
        self._time = OneTime(mapping.event_time)
        self._type = mapping.patient_id.type
        self._max_bytes = max_bytes
        codes = codes_of(features, mapping, SYSTEMS)
        self._dialect = lru_cache(maxsize=16)(
            lambda field, encoding: _Dialect(field, encoding, codes, features)
        )

    def __call__(self, messages: Sequence[Message]) -> Columns:
        """Read a chunk."""
        return rows_of(messages, self._read, self._row.units)

    def _read(self, value: Any) -> Content:
        if not value or len(value) > self._max_bytes:
            raise RefusedError(Reason.TOO_LARGE if value else Reason.EMPTY)
        header, *segments = _segments(text_of(value))
        fields = header.split(header[3], 9)
        dialect = self._dialect(header[3], fields[1])
        if problem := dialect.kinds[_field(fields, 8)]:
            raise RefusedError(*problem)
        found = _Results(dialect, self._row)
        found.take(segments)
        if not found.times:
            raise RefusedError(*found.left_out)
        patient = self._patient(dialect, found.patients)
        time = self._event_time(dialect, found.times, fields)
        self._row.require_none(found.conflicts)
        return patient, time, found.row

    def _patient(self, dialect: "_Dialect", lists: list[str]) -> Any:
        """The one id in all lists of identifiers."""
        if len(lists) == 1 and self._type is None and (id_ := dialect.only_identifier(lists[0])):
            return id_
        found = {id_ for one in lists for id_ in dialect.identifiers(one, self._type)}
        if len(found) > 1:
            raise RefusedError(Reason.CONFLICTING, PATIENT_ID)
        return found.pop() if found else ABSENT

    def _event_time(self, dialect: "_Dialect", times: list[str], header: list[str]) -> Any:
        """The latest time in OBX-14, else OBR-7, else MSH-7; times without a zone take that of MSH-7."""
        if times[0][-5:-4] in _SIGNS and times.count(times[0]) == len(times):  # as nearly always
            return times[0]
        sent = _field(header, 6)
        known = [_first(time, sent).split(dialect.component, 1)[0] for time in dict.fromkeys(times)]
        zone = _offset(sent.split(dialect.component, 1)[0])
        zoned = [time + zone[0] if zone and time and not _offset(time) else time for time in known]
        return self._time([time or ABSENT for time in zoned])


class _Results:
    """What the segments of one message say, in their order."""

    left_out: Problem = (Reason.NOT_FOR_US, "")
    _observed = ""  # OBR-7

    def __init__(self, dialect: "_Dialect", row: OneRow) -> None:
        self._dialect = dialect
        self._put = row.put
        self.row = row.empty()
        self.conflicts: list[int] = []  # features with two values
        self.times: list[str] = []
        self.patients: list[str] = []

    def take(self, segments: Sequence[str]) -> None:
        """Read segments."""
        separator, empty, numbers, units, number_of = self._dialect.in_obx
        values, their_units = self.row
        status_to_time, is_scored = "", False
        for segment in segments:
            name, _, kind, code, _, text, unit, rest = (segment + empty).split(separator, 7)
            if name != "OBX":
                self._other(name, code, rest)
                status_to_time = ""  # because an OBR may have another time
                continue
            if (number := numbers[code]) is None:
                continue
            if rest != status_to_time:  # most OBX have the same as the previous one
                status_to_time, is_scored = rest, self._is_scored(rest)
            if is_scored:
                value = number_of(text)
                if value is None or values[number] is not None or kind != "NM":
                    self.conflicts += self._put(self.row, self._dialect.readings(number, kind, text, unit))
                else:
                    values[number], their_units[number] = value, units[unit]

    def _is_scored(self, rest: str) -> bool:
        """Whether the fields from OBX-7 onwards say that there is a result. Notes its time, or why there is none."""
        _, _, _, _, status, _, _, time, _ = rest.split(self._dialect.field, 8)
        if status in _SCORED or status == _NO_RESULT:
            self.times.append(time or self._observed)
        elif status not in _LEFT_OUT:
            raise RefusedError(Reason.WRONG_TYPE if status else Reason.MISSING_FIELD, "OBX-11")
        elif not self.left_out[1]:
            self.left_out = _LEFT_OUT[status], "OBX-11"
        return status in _SCORED

    def _other(self, name: str, third: str, rest: str) -> None:
        """A segment with this third field, and these from the seventh onwards."""
        if name == "OBR":
            self._observed = rest.split(self._dialect.field, 1)[0]
        elif name == "PID":
            self.patients.append(third)
        elif name in _SEVERAL:
            raise RefusedError(Reason.NOT_DECODABLE, name)


class _Memory(dict[str, Any]):
    """Remembers a function's results for some fields; bounded, because senders may write anything."""

    def __init__(self, function: Callable[[str], Any]) -> None:
        self._function = function

    def __missing__(self, field: str) -> Any:
        found = self._function(field)
        if len(self) < _MANY and len(field) <= _LONG:
            self[field] = found
        return found


class _Dialect:
    """How to read fields with a message's separators.

    `kinds` has by MSH-9 why a message of this kind is not read, `numbers` by OBX-3 the number of the feature, `units`
    by OBX-6 the unit (a code of UCUM or IEEE 11073, else as the sender calls it), and `in_obx` what
    each OBX is read by, with fields for one that has too few, and a function that has the numbers of OBX-5 which were
    read before.
    """

    def __init__(
        self, field: str, encoding: str, codes: dict[tuple[Any, Any], int], features: Sequence[str]
    ) -> None:
        separators = field + encoding
        if (
            not 1 <= len(encoding) < len(_MARKS)
            or len({*separators}) < len(separators)
            or any(map(_is_no_separator, separators))
        ):
            raise RefusedError(Reason.NOT_DECODABLE, "MSH-2")
        self.field = field
        self.component, self._repetition, self._escape, self._part = [*encoding[:4].ljust(4, "\0")]
        self._marks = dict(zip(_MARKS, separators, strict=False))
        escape = re.escape(self._escape)
        self._escaped = re.compile(f"{escape}([^{escape}]*){escape}")
        self._codes = codes
        self._features = features
        self.kinds = _Memory(lambda field: _not_for_us(*field.split(self.component)))
        self.numbers = _Memory(self._number)
        self.units = _Memory(self._unit)
        self._known: dict[str, float] = {}
        self.in_obx = field, field * _FIELDS, self.numbers, self.units, self._known.get

    def _number(self, field: str) -> int | None:
        found = {self._codes.get((system, code)) for code, _, system in self._coded(field)} - {None}
        if len(found) > 1:
            raise RefusedError(Reason.CONFLICTING, self._features[max(filter(None, found))])
        return found.pop() if found else None

    def _unit(self, field: str) -> str | None:
        units = {system: code or text for code, text, system in self._coded(field)[::-1]}
        if "UCUM" in units:
            return units["UCUM"]
        if "MDC" in units:
            return f"MDC {units['MDC']}"
        return next((f"{system} {unit}".strip() for system, unit in [*units.items()][::-1]), None)

    def _coded(self, field: str) -> list[tuple[str, str, str]]:
        """Code, text and system, and those of the alternative if it has one."""
        if field in _NOTHING:
            return []
        parts = [self._plain(part) for part in field.split(self.component, 6)]
        parts += [""] * (6 - len(parts))
        return [(code, text, system) for code, text, system in (parts[:3], parts[3:6]) if code or text]

    def readings(self, number: int, type_: str, values: str, unit: str) -> list[Reading]:
        """A feature's readings in OBX-2, OBX-5 and OBX-6: numbers, None if missing, or anything else as text."""
        return [
            (number, self._value(type_, value), self.units[unit]) for value in values.split(self._repetition)
        ]

    def _value(self, type_: str, text: str) -> Any:
        value = self._number_in(text)
        if value is None or type_ == "NM":
            return value
        return self._structured(text) if type_ == "SN" else self._plain(text)

    def _number_in(self, text: str) -> float | str | None:
        """A number, which is remembered; None for an empty field; any other text unchanged."""
        if text in _NOTHING:
            return None
        value = _as_number(text)
        if type(value) is float and len(self._known) < _MANY and len(text) <= _LONG:
            self._known[text] = value
        return value

    def _structured(self, text: str) -> Any:
        """`^84` is a number, `>^100` is only a limit, and `^1^:^128` is neither."""
        comparator, number, *rest = [*text.split(self.component), ""]
        if any(rest) or type(value := _as_number(number)) is str:
            return text
        if comparator in _COMPARATORS:
            return None
        return value if comparator in ("", "=") else text

    def only_identifier(self, field: str) -> str | None:
        """The id in PID-3 if there is exactly one and it is plain, as it nearly always is."""
        id_ = field.split(self.component, 1)[0]
        is_plain = field.isascii() and self._repetition not in field and self._escape not in field
        return id_ if is_plain and id_ not in _NOTHING else None

    def identifiers(self, field: str, type_: str | None) -> Iterator[str]:
        """The ids in PID-3 of this type or this authority; all of them if none is given."""
        for identifier in field.split(self._repetition):
            id_, _, _, authority, kind, *_ = [*identifier.split(self.component), *[""] * 5]
            if id_ not in _NOTHING and type_ in (None, kind, authority.split(self._part)[0]):
                text = self._unescaped(id_)
                if text is None or not _is_text(text):
                    raise RefusedError(Reason.NOT_DECODABLE, PATIENT_ID)
                yield text

    def _plain(self, text: str) -> str:
        """The text without escapes; unchanged if it has an unknown escape, which then matches no code and no unit."""
        plain = self._unescaped(text)
        return text if plain is None else plain

    def _unescaped(self, text: str) -> str | None:
        if self._escape not in text:
            return text
        pieces = self._escaped.split(text)
        pieces[1::2] = [self._marks.get(name, "") for name in pieces[1::2]]
        known = all(pieces[1::2]) and not any(self._escape in piece for piece in pieces[::2])
        return "".join(pieces) if known else None


def text_of(value: bytes) -> str:
    """The text of a message, in the charset that MSH-18 names.

    Without one, bytes that are not ASCII become surrogates, which are not text. Raises RefusedError.
    """
    value = value.removeprefix(codecs.BOM_UTF8).strip(_FRAME)
    if value.isascii() and b"\x1b" not in value:
        return value.decode()
    try:
        return value.decode(*_charset(value))
    except UnicodeDecodeError:
        raise RefusedError(Reason.NOT_DECODABLE, "MSH-18") from None


def _charset(value: bytes) -> tuple[str, str]:
    """Python's name for it, and how to treat invalid bytes."""
    header = re.split(rb"[\r\n]", value, maxsplit=1)[0]
    fields = header.split(header[3:4] or b"|")
    repetition = fields[1][1:2] if len(fields) > 1 else b""
    names = fields[17].split(repetition or b"~") if len(fields) > 17 else []  # noqa: PLR2004
    others = {name.decode("ascii", "replace").strip().upper() for name in names} - {"", "ASCII"}
    if not others:
        return "ascii", "surrogateescape"
    found = {_CHARSETS.get(name, "") for name in others}
    if len(found) > 1 or "" in found:
        raise RefusedError(Reason.NOT_DECODABLE, "MSH-18")
    return found.pop(), "strict"


def _segments(text: str) -> list[str]:
    """Segments end with CR, or with LF if there is no CR."""
    found = text.split("\r") if "\r" in text else text.split("\n")
    if "\n" in text:
        found = [segment.lstrip("\n") for segment in found]
    if not text.startswith("MSH") or len(found[0]) < len("MSH|^"):
        raise RefusedError(Reason.NOT_DECODABLE, "MSH")
    return found


def _not_for_us(kind: str, event: str = "", *_: str) -> Problem | None:
    """MSH-9 must be ORU^R01, or ORU in old versions."""
    if not kind:
        return Reason.MISSING_FIELD, "MSH-9"
    return None if kind == "ORU" and event in ("", "R01") else (Reason.NOT_FOR_US, "MSH-9")


def _field(fields: list[str], number: int) -> str:
    return fields[number] if number < len(fields) else ""


def _first(*texts: str) -> str:
    """The first field that is not empty."""
    return next(filter(None, texts), "")


def _as_number(text: str) -> float | str:
    match = _number(text)
    number = float(match[1]) if match else math.inf
    return number if math.isfinite(number) else text


def _is_no_separator(character: str) -> bool:
    return character.isalnum() or not character.isprintable() or character == " "


def _is_text(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)

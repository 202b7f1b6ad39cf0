"""What replay would send and how it reads each column, without sending anything."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import orjson

from producer.pacing import unix_seconds
from producer.replay import encode
from producer.sources import Record
from schemas.contract import EVENT_TIME, FEATURES, MAX_PATIENT_ID, PATIENT_ID, RFC3339, STANDARD_FEATURES
from schemas.encoding import Encoder
from schemas.messages import plain
from schemas.vitals import Decoder

SHOWN: Final = 3
"""How many messages, and examples of values, are shown."""

PASSED_ON: Final = "passed on"
"""The role of a column other than id, time and standard features."""

_CHUNK: Final = 1000

_is_time = re.compile(RFC3339).fullmatch
_TYPES: Final = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    list: "list",
    dict: "object",
}
_NUMBERS: Final = {int, float}


@dataclass
class Column:
    """What is sent under one field name.

    `rejected` counts the values that make a worker reject the message; unless the column is a standard feature, only
    with a model that has a feature of that name. `implausible` values are missing to the model.
    """

    name: str
    values: int = 0  # neither null nor absent
    rejected: int = 0
    implausible: int = 0
    texts: Counter[str] = field(default_factory=Counter)
    rejected_texts: Counter[str] = field(default_factory=Counter)
    lowest: float | None = None
    highest: float | None = None
    _types: set[type] = field(default_factory=set)

    @property
    def role(self) -> str:
        """The column's meaning to a worker."""
        if self.name in (PATIENT_ID, EVENT_TIME):
            return self.name.replace("_", " ")
        return "vital" if self.name in FEATURES else PASSED_ON

    @property
    def unit(self) -> str | None:
        """The unit, for a vital."""
        return FEATURES[self.name].unit if self.name in FEATURES else None

    @property
    def type(self) -> str:
        """The JSON types of its values; several if they differ."""
        if not self.values:
            return "null"
        kinds = self._types - ({int} if float in self._types else set())
        return ", ".join(name for kind, name in _TYPES.items() if kind in kinds)

    @property
    def has_numbers(self) -> bool:
        """Whether any value is a number."""
        return bool(self._types & _NUMBERS)

    @property
    def span(self) -> tuple[Any, Any] | None:
        """The lowest and highest number, or the earliest and latest readable time."""
        if self.name != EVENT_TIME:
            return None if self.lowest is None else (self.lowest, self.highest)
        readable = filter(_is_time, self.texts)
        times = [(moment, text) for text in readable if (moment := unix_seconds(text)) is not None]
        return (min(times)[1], max(times)[1]) if times else None

    def add(self, value: Any) -> None:
        """Add one message's value."""
        if value is not None:
            self.values += 1
            self._types.add(type(value))
        if type(value) in _NUMBERS:
            self.lowest = value if self.lowest is None else min(self.lowest, value)
            self.highest = value if self.highest is None else max(self.highest, value)
        elif type(value) is str:
            self.texts[value] += 1
        if not _is_accepted(self.name, value):
            self.rejected += 1
            self.rejected_texts[value if type(value) is str else orjson.dumps(value).decode()] += 1


@dataclass(frozen=True)
class Preview:
    """The first messages as they would be sent (key and value), and all columns of the messages read.

    `whole` says whether all were read. `dead_letters` counts those a worker with the standard features would reject.
    """

    first: list[tuple[bytes | None, bytes]]
    messages: int
    whole: bool
    dead_letters: int
    columns: list[Column]


def preview(records: Iterable[Record], *, most: int, write: Encoder = orjson.dumps) -> Preview:
    """Read at most `most` records; `write` encodes the first ones as messages.

    Raises:
        SourceError: a file is malformed.
        UnwritableRowError: a row can't be written as a message.
    """
    decode = Decoder(STANDARD_FEATURES)
    columns: dict[str, Column] = {}
    first: list[tuple[bytes | None, bytes]] = []
    messages = dead_letters = 0
    rest = iter(records)
    while chunk := [*islice(rest, min(_CHUNK, most - messages))]:
        first += [encode(record, write) for record in chunk[: SHOWN - len(first)]]
        encoded = [*map(encode, chunk)]
        messages += len(encoded)
        for document in (orjson.loads(value) for _, value in encoded):
            for name in document:
                columns.setdefault(name, Column(name))
            for column in columns.values():
                column.add(document.get(column.name))
        decoded = decode(plain(value for _, value in encoded))
        dead_letters += len(decoded.rejects)
        for name in (name for names in decoded.implausible for name in names):
            columns[name].implausible += 1
    return Preview(first, messages, next(rest, None) is None, dead_letters, [*columns.values()])


def _is_accepted(name: str, value: Any) -> bool:
    if name == PATIENT_ID:
        return type(value) is str and 0 < len(value) <= MAX_PATIENT_ID
    if name == EVENT_TIME:
        return type(value) is str and _is_time(value) is not None
    return value is None or type(value) in _NUMBERS

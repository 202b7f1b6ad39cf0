"""JSON: parses a chunk of values into documents, and finds those that have a name twice.

A bad message delays no other: it is taken out, and the others are parsed together.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from schemas.columns import Columns, Documents, Read, unfit
from schemas.contract import (
    EVENT_TIME,
    MAX_MESSAGE_BYTES,
    PATIENT_ID,
    Problem,
    Reason,
)
from schemas.fields import Fields, at
from schemas.formats.framing import Framing
from schemas.messages import Message, Plain

_QUOTE = ord('"')
_FEW = 8  # values examined one by one
# In valid JSON a string before a colon is a name; brackets inside strings are swallowed by the first branch.
_NAMES_AND_BRACKETS = re.compile(rb'("(?:[^"\\]++|\\.)*+")(?:[ \t\r\n]*+(:))?|[{}\[\]]')


def parse(values: Sequence[Any], *, max_bytes: int) -> tuple[list[dict[str, Any]], dict[int, Problem]]:
    """The objects in those values that hold one, in order, and the problems of the others, by position."""
    problems = unfit(values, max_bytes)
    left = [*range(len(values))]
    for position in sorted(problems, reverse=True):
        del left[position]
    found, unparsable = _load([values[position] for position in left] if problems else values)
    for row in sorted(unparsable, reverse=True):
        problems[left.pop(row)] = Reason.NOT_JSON, ""
    if set(map(type, found)) <= {dict}:
        return found, problems
    problems |= {
        position: (Reason.NOT_OBJECT, "")
        for position, document in zip(left, found, strict=True)
        if type(document) is not dict
    }
    return [document for document in found if type(document) is dict], problems


def _load(values: Sequence[Any]) -> tuple[list[Any], set[int]]:
    """The values that can be parsed, in order, and the positions of those that can't."""
    found: list[Any] = []
    unparsable: set[int] = set()
    rest = map(orjson.loads, values)
    while True:
        try:
            found.extend(rest)  # continues after the value that raised
        except ValueError:
            unparsable.add(len(found) + len(unparsable))
        else:
            return found, unparsable


class FlatReader:
    """Reads flat objects whose fields have our names."""

    def __init__(self, features: Sequence[str], documents: Documents) -> None:
        self._features = Fields([(name,) for name in features])
        self._documents = documents

    def __call__(self, messages: Sequence[Message]) -> Columns:
        """Read a chunk."""
        positions, documents, problems = self._documents(messages)
        ids, times = (at((name,), documents) for name in (PATIENT_ID, EVENT_TIME))
        return Columns(positions, ids, times, self._features.cells(documents), problems)


class JsonDocuments:
    """Reads JSON objects. One that has one of `names` twice is returned along with a problem.

    With `nested`, the names are also looked for in inner objects.
    """

    def __init__(self, names: Collection[str], *, nested: bool, max_bytes: int) -> None:
        self._repeats = Repeats(names, nested=nested)
        self._max_bytes = max_bytes

    def __call__(self, messages: Sequence[Message]) -> Read:
        """Read a chunk."""
        values = [message.value() for message in messages]
        documents, problems = parse(values, max_bytes=self._max_bytes)
        positions = [*range(len(values))]
        for position in sorted(problems, reverse=True):
            del positions[position], values[position]
        twice = self._repeats(values, documents)
        problems |= {positions[row]: (Reason.NOT_JSON, name) for row, name in twice.items()}
        return positions, documents, problems


class FramedJsonDocuments:
    """Reads JSON objects that follow a schema ID."""

    def __init__(
        self, framing: Framing[None], json: JsonDocuments, *, max_bytes: int = MAX_MESSAGE_BYTES
    ) -> None:
        self._framing = framing
        self._json = json
        self._max_bytes = max_bytes

    def __call__(self, messages: Sequence[Message]) -> Read:
        """Read a chunk."""
        values: list[Any] = [message.value() for message in messages]
        problems = unfit(values, self._max_bytes)
        framed: dict[int, Plain] = {}
        for position, frame in enumerate(self._framing(messages, values)):
            if isinstance(frame, Reason):
                problems.setdefault(position, (frame, ""))
            elif position not in problems:
                framed[position] = Plain(values[position][frame.begin :])
        behind = [*framed]
        rows, documents, wrong = self._json([*framed.values()])
        problems |= {behind[row]: problem for row, problem in wrong.items()}
        return [behind[row] for row in rows], documents, problems


class Repeats:
    """Finds messages that have one of `names` twice; the parser silently kept the last of them.

    With `nested`, inner objects are examined, too; otherwise only the message's own names.
    """

    def __init__(self, names: Collection[str], *, nested: bool = False) -> None:
        self._names = tuple(names)
        self._quoted = [orjson.dumps(name) for name in names]
        self._deepest = None if nested else 1

    def __call__(self, values: Sequence[bytes], documents: Sequence[dict[str, Any]]) -> dict[int, str]:
        """By position in `values`, whose objects are `documents`, the first name that occurs twice.

        Counting quotes settles nearly all messages: a repeated name has quotes that the parsed object lacks.
        """
        found = self._among(values, documents, 0, _surplus(values, documents))
        return {number: name for number, name in found if name}

    def in_one(self, value: bytes, document: dict[str, Any]) -> str:
        """The first name that occurs twice in `value`, whose object is `document`, or ''."""
        try:
            written = orjson.dumps(document)
        except TypeError:  # nested deeper than can be written
            return self._repeated(value)
        if written == value or (b"\\" not in value and written.count(b'"') == value.count(b'"')):
            return ""
        return self._repeated(value)

    def _among(
        self,
        values: Sequence[bytes],
        documents: Sequence[dict[str, Any]],
        first: int,
        surplus: int | None,
    ) -> Iterator[tuple[int, str]]:
        """Bisect the values as long as they have surplus quotes; `first` is the first one's position."""
        if surplus == 0:
            return
        if len(values) <= _FEW:
            yield from enumerate(map(self.in_one, values, documents), first)
            return
        half = len(values) // 2
        left = _surplus(values[:half], documents[:half])
        yield from self._among(values[:half], documents[:half], first, left)
        rest = values[half:], documents[half:]
        right = _surplus(*rest) if surplus is None or left is None else surplus - left
        yield from self._among(*rest, first + half, right)

    def _repeated(self, value: bytes) -> str:
        """The first of our names that occurs twice in one object of the valid JSON `value`, or ''."""
        if b"\\" not in value and not any(value.count(name) > 1 for name in self._quoted):
            return ""
        counts = Counter(_names(value, self._deepest))
        twice = {name for (_, name), times in counts.items() if times > 1}
        return next((name for name in self._names if name in twice), "")


def _surplus(values: Sequence[bytes], documents: Sequence[Any]) -> int | None:
    """How many more quotes the values have than their parsed objects when serialized; None if those can't be
    serialized.

    An escape that may stand for a quote counts as one.
    """
    try:
        written = orjson.dumps(documents)
    except TypeError:  # nested deeper than can be written
        return None
    text = b"".join(values)
    escaped = text.count(rb"\u0022") if b"\\" in text else 0
    return _quotes(text) + escaped - _quotes(written)


def _quotes(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == _QUOTE))


def _names(value: bytes, deepest: int | None) -> Iterator[tuple[int, str]]:
    """The names in a valid JSON object as written in its text, with the number of the object they are in."""
    opened = 0
    inside: list[int] = []
    for token in _NAMES_AND_BRACKETS.finditer(value):
        text, colon = token.groups()
        if text is None:
            if token[0] in b"{[":
                opened += 1
                inside.append(opened)
            else:
                inside.pop()
        elif colon and (deepest is None or len(inside) <= deepest):
            yield inside[-1], orjson.loads(text)

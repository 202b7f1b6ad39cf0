"""Determines which schema a value was written with, and where the value begins.

Serializers put a byte 0 and the schema's registry ID before a value, or a byte 1 and its GUID into a header.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from schemas.contract import Reason
from schemas.messages import Message
from schemas.registry import Registry, RegistryError, WrittenWith

T = TypeVar("T")

HEADER: Final = "__value_schema_id"
UNKNOWN_S: Final = 60.0
"""How long an unknown schema is not requested again."""
MAX_UNKNOWN: Final = 10_000
LOOKUPS_S: Final = 10.0
"""How long one chunk may spend on requests: a worker that waits longer is excluded from its group."""

_IN_HEADER: Final = b"\xff"
_SIZES: Final = {0: 5, 1: 17}  # of an id and of a GUID, by their first byte


class Frame(NamedTuple, Generic[T]):
    """The writer's schema, and the position of the first byte that was written with it."""

    schema: T
    begin: int


class Framing(Protocol[T]):
    """Finds the frames of a chunk."""

    def __call__(
        self, messages: Sequence[Message], values: Sequence[bytes | None]
    ) -> Sequence[Frame[T] | Reason]:
        """One frame for each message, or why there is none; `values` are the messages' values.

        Raises RegistryError if that cannot be determined yet.
        """


class UnusableSchemaError(Exception):
    """No value can be read by this schema."""


class Bare(Generic[T]):
    """All values were written with one schema and do not name it."""

    def __init__(self, schema: T) -> None:
        self._frame = Frame(schema, 0)

    def __call__(
        self, messages: Sequence[Message], values: Sequence[bytes | None]
    ) -> Sequence[Frame[T] | Reason]:
        """The same frame for each message."""
        return [self._frame] * len(values)


class Unchecked:
    """Values name the schema they were written with, but it is not looked up."""

    def __call__(
        self, messages: Sequence[Message], values: Sequence[bytes | None]
    ) -> Sequence[Frame[None] | Reason]:
        """Where each value begins."""
        return [
            Frame(None, _begin(mark)) if _is_reference(mark) else Reason.NOT_DECODABLE
            for mark in map(_mark, messages, values)
        ]


class ByReference(Generic[T]):
    """Values name the schema they were written with, which is looked up in a registry.

    `prepare` turns a schema into what values are read with, or raises UnusableSchemaError. Unknown schemas are
    remembered for `UNKNOWN_S`.
    """

    def __init__(
        self,
        registry: Registry,
        prepare: Callable[[WrittenWith], T],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._prepare = prepare
        self._clock = clock
        self._known: dict[bytes, Frame[T] | Reason] = {}
        self._unknown: dict[bytes, float] = {}  # since when

    def __call__(
        self, messages: Sequence[Message], values: Sequence[bytes | None]
    ) -> Sequence[Frame[T] | Reason]:
        """Find each message's schema, and request the ones not known yet."""
        marks = [*map(_mark, messages, values)]
        try:
            return [self._known[mark] for mark in marks]
        except KeyError:
            return self._learned(marks)

    def _learned(self, marks: list[bytes]) -> list[Frame[T] | Reason]:
        until = self._clock() + LOOKUPS_S
        found: dict[bytes, Frame[T] | Reason] = {}
        for mark in dict.fromkeys(marks):
            if self._clock() > until:
                raise RegistryError(
                    f"the schema registry is slow: one chunk has asked it for {LOOKUPS_S:g} s"
                )
            found[mark] = self._known.get(mark) or self._find(mark)
        return [found[mark] for mark in marks]

    def _find(self, mark: bytes) -> Frame[T] | Reason:
        if not _is_reference(mark):
            return Reason.NOT_DECODABLE
        since = self._unknown.get(mark)
        if since is not None and self._clock() - since < UNKNOWN_S:
            return Reason.UNKNOWN_SCHEMA
        schema = self._registry.find(mark.removeprefix(_IN_HEADER))
        if schema is None:
            if len(self._unknown) >= MAX_UNKNOWN:
                self._unknown.clear()
            self._unknown[mark] = self._clock()
            return Reason.UNKNOWN_SCHEMA
        try:
            self._known[mark] = Frame(self._prepare(schema), _begin(mark))
        except UnusableSchemaError:
            self._known[mark] = Reason.NOT_DECODABLE
        return self._known[mark]


def _mark(message: Message, value: Any) -> bytes:
    """How a message names its schema: `_IN_HEADER` and the header's content, else the value's first bytes."""
    for name, content in message.headers() or ():
        if name == HEADER:
            return _IN_HEADER + (content or b"")
    return value[: _SIZES.get(value[0], 1)] if value else b""


def _is_reference(mark: bytes) -> bool:
    ref = mark.removeprefix(_IN_HEADER)
    return bool(ref) and len(ref) == _SIZES.get(ref[0])


def _begin(mark: bytes) -> int:
    return 0 if mark.startswith(_IN_HEADER) else len(mark)

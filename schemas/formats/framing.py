"""Which schema a value was written with, and where it begins."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from schemas.contract import Reason
from schemas.messages import Message

T = TypeVar("T")


class Frame(NamedTuple, Generic[T]):
    """The writer's schema, and the position of the first byte that was written with it."""

    schema: T
    begin: int


class Framing(Protocol[T]):
    """Finds the frames of a chunk."""

    def __call__(
        self, messages: Sequence[Message], values: Sequence[bytes | None]
    ) -> Sequence[Frame[T] | Reason]:
        """One for each message, or why there is none; `values` are those of the messages."""


class Bare(Generic[T]):
    """All values were written with one schema, and say nothing of it."""

    def __init__(self, schema: T) -> None:
        self._frame = Frame(schema, 0)

    def __call__(
        self, messages: Sequence[Message], values: Sequence[bytes | None]
    ) -> Sequence[Frame[T] | Reason]:
        """The one, for each message."""
        return [self._frame] * len(values)

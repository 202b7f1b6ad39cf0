"""The input of decoders: a message's value and headers, whatever their source."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Headers = Sequence[tuple[str, bytes | None]]


class Message(Protocol):
    """The parts of a Kafka message that a decoder needs."""

    def value(self) -> Any:
        """Its bytes; None for a tombstone."""

    def headers(self) -> Any:
        """Its headers as pairs of name and bytes; None if it has none."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A message that does not come from Kafka, such as a line of a file."""

    content: bytes | None
    told: Headers = ()

    def value(self) -> bytes | None:
        """Its bytes."""
        return self.content

    def headers(self) -> Headers:
        """Its headers."""
        return self.told


def plain(values: Iterable[bytes | None]) -> list[Plain]:
    """Messages without headers."""
    return [*map(Plain, values)]

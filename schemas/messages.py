"""What is decoded: a message's value and headers, whoever holds them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Headers = Sequence[tuple[str, bytes | None]]


class Message(Protocol):
    """A Kafka message, of which a decoder asks no more than this."""

    def value(self) -> Any:
        """Its bytes; None of a tombstone."""

    def headers(self) -> Any:
        """Its headers as pairs of name and bytes; None where it has none."""


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

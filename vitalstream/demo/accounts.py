"""Checks that each message sent has exactly one result or dead letter."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from typing_extensions import override

_NAMED: Final = 5  # positions named per kind of offence


class Position(NamedTuple):
    """The topic position of a message."""

    topic: str
    partition: int
    offset: int

    @override
    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True)
class Verdict:
    """The offending source positions, each list in order.

    `missing` has neither result nor dead letter, `doubled` several of one kind, `both` one of each kind, and
    A `missing` message has neither result nor dead letter, a `doubled` one several of one kind, one in `both` has
    """

    sent: int
    scored: int
    dead_lettered: int
    missing: tuple[Position, ...]
    doubled: tuple[Position, ...]
    invented: tuple[Position, ...]
    both: tuple[Position, ...]

    @property
    def counts(self) -> dict[str, int]:
        """The number of offences of each kind."""
        return {name: len(found) for name, found in self._offences()}

    @property
    def ok(self) -> bool:
        """Whether every message is accounted for exactly once."""
        return not any(self.counts.values())

    def offenders(self) -> list[str]:
        """A sentence for each kind of offence found, with the first positions."""
        return [
            f"{len(found):,} {name}: {', '.join(map(str, found[:_NAMED]))}"
            + (", ..." if len(found) > _NAMED else "")
            for name, found in self._offences()
            if found
        ]

    def _offences(self) -> list[tuple[str, tuple[Position, ...]]]:
        names = ("missing", "doubled", "invented", "both")
        return [(name, getattr(self, name)) for name in names]


class Accounts:
    """What was sent and what became of it. Times are Unix seconds."""

    def __init__(self) -> None:
        self._sent: dict[Position, float] = {}
        self._scored: Counter[Position] = Counter()
        self._dead: Counter[Position] = Counter()
        self._seen_at: dict[Position, float] = {}

    def sent(self, position: Position, at: float) -> None:
        """Record that the broker acknowledged a message; `at` is its producer's timestamp."""
        self._sent[position] = at

    def scored(self, position: Position, at: float) -> None:
        """Record that a reader received the message's result at `at`."""
        self._scored[position] += 1
        self._seen_at.setdefault(position, at)

    def dead_lettered(self, position: Position, at: float) -> None:
        """Record that a reader received the message's dead letter at `at`."""
        self._dead[position] += 1
        self._seen_at.setdefault(position, at)

    @property
    def in_flight(self) -> int:
        """Messages without a result or dead letter so far."""
        return max(0, len(self._sent) - len(self._seen_at))

    @property
    def counts(self) -> tuple[int, int, int]:
        """The numbers sent, scored and dead-lettered so far."""
        return len(self._sent), self._scored.total(), self._dead.total()

    def waits(self, *, since: float) -> list[float]:
        """Seconds from timestamp to result or dead letter, for the messages sent after `since`."""
        return [
            self._seen_at[position] - at
            for position, at in self._sent.items()
            if at > since and position in self._seen_at
        ]

    def verdict(self) -> Verdict:
        """The findings so far."""
        accounted = self._scored.keys() | self._dead.keys()
        return Verdict(
            *self.counts,
            missing=_ordered(self._sent.keys() - accounted),
            doubled=_ordered(_several(self._scored) | _several(self._dead)),
            invented=_ordered(accounted - self._sent.keys()),
            both=_ordered(self._scored.keys() & self._dead.keys()),
        )


def _several(counter: Counter[Position]) -> set[Position]:
    return {position for position, count in counter.items() if count > 1}


def _ordered(positions: Iterable[Position]) -> tuple[Position, ...]:
    return tuple(sorted(positions))

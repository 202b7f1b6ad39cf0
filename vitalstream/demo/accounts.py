"""Accounting: is there exactly one result or dead letter for each message that was sent?"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

_NAMED: Final = 5  # offenders of a kind that are named


class Position(NamedTuple):
    """Where a message stands."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True)
class Verdict:
    """What accounting found; each list holds source positions in order.

    `missing` has neither result nor dead letter, `doubled` several of one kind, `both` one of each kind, and
    `invented` is told of by a result or dead letter but was never acknowledged as sent.
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
        """How many of each kind of offence."""
        return {name: len(found) for name, found in self._offences()}

    @property
    def ok(self) -> bool:
        """Whether every message is accounted for exactly once."""
        return not any(self.counts.values())

    def offenders(self) -> list[str]:
        """A sentence for each kind of offence there is, with the first positions."""
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
    """What was sent, and what came of it. Times are Unix seconds."""

    def __init__(self) -> None:
        self._sent: dict[Position, float] = {}
        self._scored: Counter[Position] = Counter()
        self._dead: Counter[Position] = Counter()
        self._seen_at: dict[Position, float] = {}

    def sent(self, position: Position, at: float) -> None:
        """The broker has acknowledged a message whose producer's timestamp is `at`."""
        self._sent[position] = at

    def scored(self, position: Position, at: float) -> None:
        """A reader has had the result of the message since `at`."""
        self._scored[position] += 1
        self._seen_at.setdefault(position, at)

    def dead_lettered(self, position: Position, at: float) -> None:
        """A reader has had the dead letter of the message since `at`."""
        self._dead[position] += 1
        self._seen_at.setdefault(position, at)

    @property
    def in_flight(self) -> int:
        """Messages of which nothing has come yet."""
        return max(0, len(self._sent) - len(self._seen_at))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Sent, scored and dead-lettered so far."""
        return len(self._sent), self._scored.total(), self._dead.total()

    def waits(self, *, since: float) -> list[float]:
        """Seconds from a message's timestamp to its result or dead letter, of those sent after `since`."""
        return [
            self._seen_at[position] - at
            for position, at in self._sent.items()
            if at > since and position in self._seen_at
        ]

    def verdict(self) -> Verdict:
        """The findings on what is known now."""
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

"""The audit's invariants, and the records that disprove them."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from audit.bitmap import Bitmap
from audit.scope import Scope

NAMED: Final = 10
"""How many offenders are named; the others are only counted."""


class Invariant(StrEnum):
    """An invariant; `claim` states it in words."""

    claim: str

    def __new__(cls, code: str, claim: str) -> "Invariant":
        """Set its claim next to its code."""
        self = str.__new__(cls, code)
        self._value_ = code
        self.claim = claim
        return self

    COMPLETE = "I1", "every consumed message has a result or a dead letter"
    ONCE = "I2", "none has two, and none has both"
    GENUINE = "I3", "every result and dead letter is readable and matches a message"
    ATOMIC = "I4", "every chunk is complete, no two overlap, and their counts add up"
    ORDERED = "I5", "outputs are in the order of their messages"
    OFFSETS = "I6", "committed offset = last accounted + 1; no output beyond"
    SETTLED = "I7", "no transaction is left open"
    CORRECT = "I9", "every value equals offline scoring"
    STATE = "I10", "the state topic matches the consumed messages"


@dataclass(frozen=True, slots=True)
class Offender:
    """A record that disproves an invariant, and its position."""

    invariant: Invariant
    topic: str
    partition: int
    offset: int
    problem: str


class Findings:
    """Counts offenders of each invariant and keeps the first few."""

    def __init__(self) -> None:
        self.counts: Counter[Invariant] = Counter()
        self._named: dict[Invariant, list[Offender]] = {}

    def add(self, invariant: Invariant, topic: str, partition: int, offset: int, problem: str) -> None:
        """One more."""
        self.counts[invariant] += 1
        named = self._named.setdefault(invariant, [])
        if len(named) < NAMED:
            named.append(Offender(invariant, topic, partition, offset, problem))

    def add_members(
        self, invariant: Invariant, topic: str, members: Bitmap, *, scope: Scope, problem: str
    ) -> None:
        """Add all messages of `topic` in the bitmap."""
        named = scope.places(members.first(NAMED))
        for partition, offset in named:
            self.add(invariant, topic, partition, offset, problem)
        self.counts[invariant] += members.count() - len(named)

    def first(self) -> list[Offender]:
        """The first few offenders: one for each disproved invariant, then others."""
        heads = [named[0] for named in self._in_order()]
        others = [offender for named in self._in_order() for offender in named[1:]]
        chosen = [*heads, *others][:NAMED]
        return [offender for named in self._in_order() for offender in named if offender in chosen]

    def _in_order(self) -> list[list[Offender]]:
        return [self._named[invariant] for invariant in Invariant if invariant in self._named]

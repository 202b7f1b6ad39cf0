"""The outcome of an audit."""

from dataclasses import dataclass
from typing import Literal

from audit.findings import Invariant, Offender
from audit.unjudged import Unjudged


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one claim: what was checked, how many disprove it, and how many could not be judged."""

    invariant: Invariant
    checked: str
    failed: int
    unjudged: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many messages were not consumed yet. Unless `exact`, some of them may be transaction markers."""

    messages: int
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found.

    `messages` are the consumed messages of the input topic that were judged, `accounted` those of them with a
    result or a dead letter. `records` and `aborted` count visible and aborted records by output topic. `unjudged`
    says what could not be judged and why, and `offenders` are the first few. `waiting` are the messages that
    the group has yet to consume.
    """

    group: str
    messages: int
    accounted: int
    records: dict[str, int]
    aborted: dict[str, int]
    verdicts: list[Verdict]
    offenders: list[Offender]
    unjudged: list[Unjudged]
    waiting: Waiting
    notes: list[str]
    seconds: float

    @property
    def verdict(self) -> Literal["clean", "incomplete", "failed"]:
        """Whether something was disproved, or else could not be judged."""
        if any(verdict.failed for verdict in self.verdicts):
            return "failed"
        return "incomplete" if self.unjudged else "clean"

    @property
    def clean(self) -> bool:
        """Whether everything was judged and nothing disproved."""
        return self.verdict == "clean"

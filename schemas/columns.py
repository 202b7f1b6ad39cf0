"""The common result of reading any format, before anything is checked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from schemas.contract import Problem, Reason
from schemas.messages import Message


@dataclass(slots=True)
class Columns:
    """The messages of a chunk that could be read, with nothing checked yet.

    `positions` are the rows' positions in the chunk. `cells` has the features of the first row, then of the next.
    `units` are those that came with the values, by the feature's number, None for a value without one; empty if no
    unit matters. `others` are the values of features that are not numbers, by the feature's number; it is empty until
    everything is checked. `problems` are what the reader found, by position in the chunk, some perhaps of rows here.
    """

    positions: list[int]
    patient_ids: list[Any]
    event_times: list[Any]
    cells: list[Any]
    problems: dict[int, Problem]
    units: dict[int, list[Any]] = field(default_factory=dict)
    others: dict[int, list[Any]] = field(default_factory=dict)

    def take(self, number: int, features: int) -> list[Any]:
        """Remove the values of one feature, one of `features`, leaving None in their place."""
        values = self.cells[number::features]
        self.cells[number::features] = [None] * len(values)
        return values

    def drop(self, rows: Iterable[int]) -> None:
        """Remove rows, given from the last to the first."""
        width = len(self.cells) // max(1, len(self.positions))  # number of features
        for row in rows:
            for column in (
                self.positions,
                self.patient_ids,
                self.event_times,
                *filter(None, self.units.values()),
                *self.others.values(),
            ):
                del column[row]
            del self.cells[row * width : (row + 1) * width]


class Reader(Protocol):
    """Reads a format."""

    def __call__(self, messages: Sequence[Message]) -> Columns:
        """Read a chunk: every message has a row, a problem, or both."""


Read: TypeAlias = tuple[list[int], list[dict[str, Any]], dict[int, Problem]]
"""For a chunk: the positions of the messages that contain an object, the objects, and problems by position."""


class Documents(Protocol):
    """Reads a format whose messages are objects with named fields."""

    def __call__(self, messages: Sequence[Message]) -> Read:
        """Read a chunk: every message has an object, a problem, or both."""


def unfit(values: Sequence[bytes | None], max_bytes: int) -> dict[int, Problem]:
    """By position, the problems of values that are never read."""
    if all(values) and max(map(len, filter(None, values)), default=0) <= max_bytes:
        return {}
    return {
        number: (Reason.TOO_LARGE if value else Reason.EMPTY, "")
        for number, value in enumerate(values)
        if not value or len(value) > max_bytes
    }

"""What every format is read into, before anything is checked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.contract import Problem
from schemas.messages import Message


@dataclass(slots=True)
class Columns:
    """The messages of a chunk that could be read, as what they say: nothing is checked yet.

    `positions` are those of the rows in the chunk. `cells` has the features of the first row, then of the next.
    `units` are those that came with the values, by the feature's number, and None where a value came without.
    `problems` are what the reader found, by position in the chunk; some may be of rows that are here, too.
    """

    positions: list[int]
    patient_ids: list[Any]
    event_times: list[Any]
    cells: list[Any]
    problems: dict[int, Problem]
    units: dict[int, list[Any]] = field(default_factory=dict)

    def drop(self, rows: Iterable[int]) -> None:
        """Take rows out, given from the last to the first."""
        width = len(self.cells) // max(1, len(self.positions))  # how many features there are
        for row in rows:
            for column in (self.positions, self.patient_ids, self.event_times, *self.units.values()):
                del column[row]
            del self.cells[row * width : (row + 1) * width]


class Reader(Protocol):
    """Reads a format."""

    def __call__(self, messages: Sequence[Message]) -> Columns:
        """Every message of a chunk has a row, a problem, or both."""

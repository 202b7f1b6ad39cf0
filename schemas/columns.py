"""What every format is read into, before anything is checked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from schemas.contract import Problem
from schemas.messages import Message


@dataclass(frozen=True, slots=True)
class Columns:
    """The messages of a chunk that could be read, as what they say: nothing is checked yet.

    `positions` are those of the rows in the chunk. `cells` has the features of the first row, then of the next.
    `problems` are what the reader found, by position in the chunk; some may be of rows that are here, too.
    """

    positions: list[int]
    patient_ids: list[Any]
    event_times: list[Any]
    cells: list[Any]
    problems: dict[int, Problem]

    def drop(self, rows: Iterable[int]) -> None:
        """Take rows out, given from the last to the first."""
        width = len(self.cells) // max(1, len(self.positions))
        for row in rows:
            del self.positions[row], self.patient_ids[row], self.event_times[row]
            del self.cells[row * width : (row + 1) * width]


class Reader(Protocol):
    """Reads a format."""

    def __call__(self, messages: Sequence[Message]) -> Columns:
        """Every message of a chunk has a row, a problem, or both."""

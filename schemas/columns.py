"""What every format is read into, before anything is checked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from schemas.contract import Problem, Reason
from schemas.messages import Message


@dataclass(slots=True)
class Columns:
    """The messages of a chunk that could be read, as what they say: nothing is checked yet.

    `positions` are those of the rows in the chunk. `cells` has the features of the first row, then of the next.
    `units` are those that came with the values, by the feature's number, and None where a value came without; empty
    where none of them matters. `others` are the values of features that are no numbers, by the feature's number; they
    are empty until all is checked.
    `problems` are what the reader found, by position in the chunk; some may be of rows that are here, too.
    """

    positions: list[int]
    patient_ids: list[Any]
    event_times: list[Any]
    cells: list[Any]
    problems: dict[int, Problem]
    units: dict[int, list[Any]] = field(default_factory=dict)
    others: dict[int, list[Any]] = field(default_factory=dict)

    def take(self, number: int, features: int) -> list[Any]:
        """The values of one of so many features; None is left in their place."""
        values = self.cells[number::features]
        self.cells[number::features] = [None] * len(values)
        return values

    def drop(self, rows: Iterable[int]) -> None:
        """Take rows out, given from the last to the first."""
        width = len(self.cells) // max(1, len(self.positions))  # how many features there are
        for row in rows:
            for column in (
                self.positions,
                self.patient_ids,
                self.event_times,
                *filter(None, self.units.values()),
            ):
                del column[row]
            del self.cells[row * width : (row + 1) * width]


class Reader(Protocol):
    """Reads a format."""

    def __call__(self, messages: Sequence[Message]) -> Columns:
        """Every message of a chunk has a row, a problem, or both."""


Read: TypeAlias = tuple[list[int], list[dict[str, Any]], dict[int, Problem]]
"""Of a chunk, the positions of the messages that hold an object, these objects, and by position what is wrong."""


class Documents(Protocol):
    """Reads a format whose messages are objects with named fields."""

    def __call__(self, messages: Sequence[Message]) -> Read:
        """Every message of a chunk has an object, a problem, or both."""


def unfit(values: Sequence[bytes | None], max_bytes: int) -> dict[int, Problem]:
    """By position, what is wrong with values that are not read at all."""
    if all(values) and max(map(len, filter(None, values)), default=0) <= max_bytes:
        return {}
    return {
        number: (Reason.TOO_LARGE if value else Reason.EMPTY, "")
        for number, value in enumerate(values)
        if not value or len(value) > max_bytes
    }

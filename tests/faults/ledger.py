"""What the suite did to the system and how that ended: the table at the end."""

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

COLUMNS = ("fault", "times", "rows", "aborted", "lost", "doubled", "recovery p50", "max")


@dataclass
class Entry:
    """One kind of fault: how often, with how many rows, and the seconds until everything sent before it was done."""

    fault: str
    times: int = 0
    rows: int = 0
    aborted: int = 0  # records written and then aborted: the fault hit mid-transaction
    lost: int = 0
    doubled: int = 0
    recoveries: list[float] = field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        numbers = (self.times, self.rows, self.aborted, self.lost, self.doubled)
        return (self.fault, *(f"{number:,}" for number in numbers), *self._seconds())

    def _seconds(self) -> tuple[str, str]:
        if not self.recoveries:
            return "", ""
        return f"{statistics.median(self.recoveries):.1f} s", f"{max(self.recoveries):.1f} s"


class Ledger:
    """The entries by fault, in order of first appearance."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._entries: dict[str, Entry] = {}

    def entry(self, fault: str) -> Entry:
        return self._entries.setdefault(fault, Entry(fault))

    def table(self) -> Iterator[str]:
        """A Markdown table; nothing if there were no faults."""
        entries = [entry for entry in self._entries.values() if entry.times]
        if entries:
            yield from _markdown([COLUMNS, *(entry.cells() for entry in entries), _sum(entries).cells()])


def _sum(entries: Iterable[Entry]) -> Entry:
    total = Entry("all")
    for one in entries:
        total.times += one.times
        total.rows += one.rows
        total.aborted += one.aborted
        total.lost += one.lost
        total.doubled += one.doubled
        total.recoveries += one.recoveries
    return total


def _markdown(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = [_line(row, widths) for row in rows]
    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:]), ""])
    yield from (head, rule, *body)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    first = row[0].ljust(widths[0])
    rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
    return f"| {' | '.join([first, *rest])} |"

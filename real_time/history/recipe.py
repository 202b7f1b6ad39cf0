"""The recipe of a history: its output columns, and the layout of a patient's state."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import pandas as pd

from real_time.compiled import Floats
from real_time.model_file import ModelError

MICROSECONDS_PER_HOUR: Final = 3_600_000_000

STATISTICS: Final = ("min", "max", "mean", "count")

# The first cells of a patient's state, then three for each column, then the buckets of the windows.
ROWS, FIRST, CLOCK, LATE, ENCOUNTER, HEAD = range(6)
LAST_TIME, LAST, PREVIOUS, OF_COLUMN = range(4)
COUNT, SUM, MIN, MAX, OF_BUCKET = range(5)


class HistoryError(ModelError):
    """A recipe is invalid, or it cannot be applied to the given rows."""


@dataclass(frozen=True)
class Window:
    """Statistics of a patient's columns over the last `length`, in whole steps.

    The window ends with the step that contains the patient's clock: 24 h in steps of 1 h is the current hour and the 23
    before it. Steps are counted from 1970-01-01T00:00Z. `of` names any of min, max, mean and count.
    """

    length: str
    step: str = "1h"
    of: tuple[str, ...] = STATISTICS

    @property
    def steps(self) -> int:
        """Number of steps. Raises HistoryError unless the length is a multiple of the step."""
        length, step = microseconds(self.length), microseconds(self.step)
        if length % step:
            raise HistoryError(
                f"a window's length, {self.length}, must be a multiple of its step, {self.step}"
            )
        return length // step


def microseconds(duration: str) -> int:
    """A duration in pandas' notation ("90min", "8h", "7d"). Raises HistoryError unless it is more than 0."""
    try:
        found = pd.Timedelta(re.sub(r"d$", "D", duration)) // pd.Timedelta(1, "us")
    except (ValueError, TypeError):
        raise HistoryError(f"{duration!r} is not a duration: write it as 90min, 8h or 7d") from None
    if not isinstance(found, int) or found <= 0:
        raise HistoryError(f"the duration {duration!r} must be more than 0")
    return found


@dataclass(frozen=True)
class Ring:
    """The newest buckets of one step: bucket b of column c begins at cell `start + (c * buckets + b) * 4`."""

    step: int
    buckets: int
    start: int


@dataclass(frozen=True)
class Layout:
    """A resolved recipe: the output columns, and the cells of a patient's state."""

    columns: tuple[str, ...]
    limits: tuple[int, ...]
    """How long each column's last value is carried forward, in microseconds."""
    windows: tuple[Window, ...]
    rings: tuple[Ring, ...]
    forget_after: int
    age: bool
    delta: bool
    since_first_seen: bool
    rows_seen: bool

    @property
    def cells(self) -> int:
        """Number of float64 cells in a patient's state."""
        return HEAD + len(self.columns) * (OF_COLUMN + OF_BUCKET * sum(ring.buckets for ring in self.rings))

    @property
    def names(self) -> list[str]:
        """The output columns, in order."""
        return [*self._names()]

    def _names(self) -> Iterator[str]:
        per_column = ["last", *(["age_h"] if self.age else []), *(["delta"] if self.delta else [])]
        for column, what in product(self.columns, per_column):
            yield f"{column}_{what}"
        for window, column in product(self.windows, self.columns):
            for statistic in window.of:
                yield f"{column}_{statistic}_{window.length}"
        if self.since_first_seen:
            yield "hours_since_first_seen"
        if self.rows_seen:
            yield "rows_seen"

    def arrays(self) -> tuple[Floats, np.ndarray, np.ndarray, np.ndarray]:
        """For `fold`: limits, rings, windows (ring, steps, one flag per statistic) and flags."""
        by_step = {ring.step: number for number, ring in enumerate(self.rings)}
        windows = [
            [by_step[microseconds(one.step)], one.steps, *(name in one.of for name in STATISTICS)]
            for one in self.windows
        ]
        return (
            np.array(self.limits, np.float64),
            np.array([[ring.step, ring.buckets, ring.start] for ring in self.rings], np.int64).reshape(-1, 3),
            np.array(windows, np.int64).reshape(-1, 2 + len(STATISTICS)),
            np.array([self.age, self.delta, self.since_first_seen, self.rows_seen], np.bool_),
        )


def laid_out(
    last: dict[str, str],
    windows: Sequence[Window],
    forget_after: str,
    *,
    age: bool,
    delta: bool,
    since_first_seen: bool,
    rows_seen: bool,
) -> Layout:
    """Resolve a recipe. Raises HistoryError if it contradicts itself."""
    if not last:
        raise HistoryError("a history needs at least one numeric column: name one in last")
    _require_statistics(windows)
    names = [(window.length, name) for window in windows for name in window.of]
    if len({*names}) != len(names):
        raise HistoryError(
            "two windows of the same length produce the same column: name each statistic in one of them only"
        )
    limits, forget = tuple(map(microseconds, last.values())), microseconds(forget_after)
    longest = max([*limits, *(microseconds(window.length) for window in windows)])
    if longest > forget:
        raise HistoryError(
            f"forget_after, {forget_after}, is shorter than the longest last or window: make it at least as long"
        )
    return Layout(
        columns=tuple(last),
        limits=limits,
        windows=tuple(windows),
        rings=_rings(windows, len(last)),
        forget_after=forget,
        age=age,
        delta=delta,
        since_first_seen=since_first_seen,
        rows_seen=rows_seen,
    )


def _require_statistics(windows: Sequence[Window]) -> None:
    for window in windows:
        unknown = [name for name in window.of if name not in STATISTICS]
        if unknown or not window.of:
            raise HistoryError(
                f"a window gives {', '.join(STATISTICS)}, and not {', '.join(map(str, unknown)) or 'nothing'}"
            )


def _rings(windows: Sequence[Window], columns: int) -> tuple[Ring, ...]:
    """One ring per step length, as long as the longest window with that step."""
    longest: dict[int, int] = {}
    for window in windows:
        step = microseconds(window.step)
        longest[step] = max(longest.get(step, 0), window.steps)
    rings, start = [], HEAD + columns * OF_COLUMN
    for step, buckets in longest.items():
        rings.append(Ring(step, buckets, start))
        start += columns * buckets * OF_BUCKET
    return tuple(rings)

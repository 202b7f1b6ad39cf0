"""Rows of messages' readings, each of which says by a code what it is."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from schemas.columns import Columns
from schemas.contract import EVENT_TIME, Problem, Reason, RefusedError
from schemas.mapping import EventTime, Mapping
from schemas.messages import Message
from schemas.times import times_of

Reading = tuple[int, Any, Any]
"""The number of its feature, its value and its unit. A value of None says that there was none."""


Content = tuple[Any, Any, list[Reading]]
"""What a message says: whose, when, and what."""


def codes_of(
    features: Sequence[str], mapping: Mapping, systems: dict[str, str] | None = None
) -> dict[tuple[Any, Any], int]:
    """By system and code, the number of the feature. `systems` are a format's own names of the usual ones.

    Without `systems` a code is all that it says, and of no system.
    """
    found: dict[tuple[Any, Any], int] = {}
    for number, name in enumerate(features):
        for text in mapping.features[name].codes:
            system, _, code = text.rpartition(" ") if systems is not None else ("", "", text)
            found[(systems or {}).get(system, system), code] = number
    return found


class Rows:
    """Gathers the values and units of up to `size` messages, row by row, each from its readings."""

    def __init__(self, features: Sequence[str], mapping: Mapping, size: int) -> None:
        self._features = features
        self._width = len(features)
        self._count = 0
        self._cells: list[Any] = [None] * (self._width * size)
        # Where no reading is, the unit is any that is known.
        wanted = [mapping.features[name].wanted(name) for name in features]
        self._units = [[unit] * size for unit in wanted]

    def add(self, readings: Iterable[Reading]) -> None:
        """One row. Raises RefusedError where two readings of a feature differ; then there is none."""
        row, cells, units = self._count, self._cells, self._units
        start = row * self._width
        for number, value, unit in readings:
            if value is None:
                continue
            known = cells[start + number]
            if known is not None and (known, units[number][row]) != (value, unit):
                cells[start : start + self._width] = [None] * self._width
                raise RefusedError(Reason.CONFLICTING, self._features[number])
            cells[start + number] = value
            units[number][row] = unit
        self._count = row + 1

    def cells(self) -> tuple[list[Any], dict[int, list[Any]]]:
        """Row by row the values of all features, and the units of those features that any row has."""
        cells = self._cells[: self._count * self._width]
        units = {
            number: units[: self._count]
            for number, units in enumerate(self._units)
            if cells[number :: self._width].count(None) < self._count
        }
        return cells, units


def rows_of(
    messages: Sequence[Message], read: Callable[[Any], Content], features: Sequence[str], mapping: Mapping
) -> Columns:
    """A chunk, one message after the other: so many documents at once would keep the garbage collector busy.

    `read` takes a message's value, and raises RefusedError.
    """
    rows = Rows(features, mapping, len(messages))
    positions: list[int] = []
    ids: list[Any] = []
    times: list[Any] = []
    problems: dict[int, Problem] = {}
    for position, message in enumerate(messages):
        try:
            patient_id, event_time, readings = read(message.value())
            rows.add(readings)
        except RefusedError as refused:
            problems[position] = refused.problem
            continue
        positions.append(position)
        ids.append(patient_id)
        times.append(event_time)
    cells, units = rows.cells()
    return Columns(positions, ids, times, cells, problems, units)


class OneTime:
    """Makes one time of those of a message's readings."""

    def __init__(self, event_time: EventTime) -> None:
        self._normal = times_of(event_time.kind, event_time.zone_info)
        self._tolerance = timedelta(seconds=event_time.tolerance_s)

    def __call__(self, times: Sequence[Any]) -> Any:
        """The last of them, or the first that is none. Raises RefusedError where they are too far apart."""
        if times.count(times[0]) == len(times):
            return times[0]
        texts, wrong = self._normal(times)
        if wrong:
            return times[min(wrong)]
        moments = [*map(_moment, texts)]
        if max(moments) - min(moments) > self._tolerance:
            raise RefusedError(Reason.CONFLICTING, EVENT_TIME)
        return times[moments.index(max(moments))]


def _moment(text: str) -> datetime:
    """Of RFC 3339; a leap second is taken for the one before, for a datetime has none."""
    second = text[17:].upper()
    return datetime.fromisoformat(text[:17] + (f"59{second[2:]}" if second.startswith("60") else second))

"""Builds one row from a message's readings, each identified by a code."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from schemas.columns import Columns
from schemas.contract import EVENT_TIME, Problem, Reason, RefusedError
from schemas.mapping import EventTime, Mapping
from schemas.messages import Message
from schemas.times import times_of
from schemas.units import SAME

Reading = tuple[int, Any, Any]
"""The number of its feature, its value and its unit. A value of None is missing."""


Row = tuple[list[Any], list[Any]]
"""The values of all features, None if missing, and their units."""

Content = tuple[Any, Any, Row]
"""A message's content: patient, time, and values."""


def codes_of(
    features: Sequence[str], mapping: Mapping, systems: dict[str, str] | None = None
) -> dict[tuple[Any, Any], int]:
    """By system and code, the number of the feature. `systems` are the format's own names for the usual systems.

    Without `systems`, codes are taken literally and have no system.
    """
    found: dict[tuple[Any, Any], int] = {}
    for number, name in enumerate(features):
        for text in mapping.features[name].codes:
            system, _, code = text.rpartition(" ") if systems is not None else ("", "", text)
            found[(systems or {}).get(system, system), code] = number
    return found


class OneRow:
    """Builds one row from the readings of a message, with the units as sent."""

    def __init__(self, features: Sequence[str], mapping: Mapping) -> None:
        self._features = features
        self._values = [None] * len(features)
        self.units = [_usual_unit(name, mapping) for name in features]

    def empty(self) -> Row:
        """A row without values, in the usual units: those that need no conversion."""
        return [*self._values], [*self.units]

    def __call__(self, readings: Iterable[Reading]) -> Row:
        """The row of these readings. Raises RefusedError if two of a feature differ."""
        row = self.empty()
        self.require_none(self.put(row, readings))
        return row

    def put(self, row: Row, readings: Iterable[Reading]) -> list[int]:
        """Put readings into a row. Returns the features for which it had another value."""
        values, units = row
        conflicts = []
        for number, value, unit in readings:
            if value is None:
                continue
            if values[number] is not None and (values[number], units[number]) != (value, unit):
                conflicts.append(number)
            values[number], units[number] = value, unit
        return conflicts

    def require_none(self, conflicts: Sequence[int]) -> None:
        """Raise RefusedError if two readings of a feature differ."""
        if conflicts:
            raise RefusedError(Reason.CONFLICTING, self._features[conflicts[0]])


def _usual_unit(name: str, mapping: Mapping) -> Any:
    """The unit that the model wants; one that no message has if senders mean something else by that word."""
    convert = mapping.conversions(name)
    return convert.wanted if convert(convert.wanted) == SAME else object()


def rows_of(messages: Sequence[Message], read: Callable[[Any], Content], usual_units: list[Any]) -> Columns:
    """Read a chunk one message at a time: that many documents at once would keep the garbage collector busy.

    `read` takes a message's value and may raise RefusedError. `usual_units` are those of an empty row.
    """
    width = len(usual_units)
    positions: list[int] = []
    patient_ids: list[Any] = []
    event_times: list[Any] = []
    cells: list[Any] = []
    unusual: dict[int, list[Any]] = {}
    problems: dict[int, Problem] = {}
    for position, message in enumerate(messages):
        try:
            patient_id, event_time, (values, units) = read(message.value())
        except RefusedError as refused:
            problems[position] = refused.problem
            continue
        if units != usual_units:
            unusual[len(positions)] = units
        positions.append(position)
        patient_ids.append(patient_id)
        event_times.append(event_time)
        cells += values
    with_units = _columns(unusual, usual_units, len(positions)) if unusual else [[] for _ in range(width)]
    return Columns(positions, patient_ids, event_times, cells, problems, dict(enumerate(with_units)))


def _columns(unusual: dict[int, list[Any]], usual: list[Any], rows: int) -> list[list[Any]]:
    """A column of units for each feature: these by row, the usual ones in the other rows."""
    width = len(usual)
    units = usual * rows
    for row, theirs in unusual.items():
        units[row * width : (row + 1) * width] = theirs
    return [units[number::width] for number in range(width)]


class OneTime:
    """Chooses one time among those of a message's readings."""

    def __init__(self, event_time: EventTime) -> None:
        self._normal = times_of(event_time.kind, event_time.zone_info)
        self._tolerance = timedelta(seconds=event_time.tolerance_s)

    def __call__(self, times: Sequence[Any]) -> Any:
        """The latest of them, or the first that is not a time. Raises RefusedError if they are too far apart."""
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
    """Parse RFC 3339; a leap second counts as the second before it, because datetime has none."""
    second = text[17:].upper()
    return datetime.fromisoformat(text[:17] + (f"59{second[2:]}" if second.startswith("60") else second))

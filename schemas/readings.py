"""One row of a message's readings, each of which says by a code what it is."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from schemas.contract import Problem, Reason
from schemas.mapping import Mapping


class Row(NamedTuple):
    """The values of all features, and the units that came with them; None where there is none."""

    values: list[Any]
    units: list[Any]
    problem: Problem | None = None


def codes_of(
    features: Sequence[str], mapping: Mapping, systems: dict[str, str] | None = None
) -> dict[tuple[str, str], int]:
    """By system and code, the number of the feature. `systems` are a format's own names of the usual ones.

    Without `systems` a code is all that it says, and of no system.
    """
    found: dict[tuple[str, str], int] = {}
    for number, name in enumerate(features):
        for text in mapping.features[name].codes:
            system, _, code = text.rpartition(" ") if systems is not None else ("", "", text)
            found[(systems or {}).get(system, system), code] = number
    return found


class OneRow:
    """Makes one row of the readings of a message, with the units as they were sent."""

    def __init__(self, features: Sequence[str]) -> None:
        self._features = features

    def __call__(self, readings: Iterable[tuple[int, Any, Any]]) -> Row:
        """Of each reading its feature's number, value and unit. A value of None says that there was none.

        No reading at all is a message for others; two that differ are conflicting.
        """
        values: list[Any] = [None] * len(self._features)
        units: list[Any] = [None] * len(self._features)
        any_ = False
        for number, value, unit in readings:
            any_ = True
            if value is None:
                continue
            if values[number] is not None and (values[number], units[number]) != (value, unit):
                return self.without((Reason.CONFLICTING, self._features[number]))
            values[number], units[number] = value, unit
        return Row(values, units) if any_ else self.without((Reason.NOT_FOR_US, ""))

    def without(self, problem: Problem) -> Row:
        """The row of a message that has this problem."""
        nothing = [None] * len(self._features)
        return Row(nothing, nothing, problem)

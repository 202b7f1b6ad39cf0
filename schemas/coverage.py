"""What a mapping finds in a sample of messages: the values of each feature, and the rejected messages."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from schemas.columns import Columns
from schemas.contract import EVENT_TIME, NO_FAULT, PATIENT_ID, Problem, Reason
from schemas.messages import Message
from schemas.presence import features_present
from schemas.vitals import Decoded, Decoder

_EXAMPLES: Final = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """How many messages have a feature, and in which form.

    `span` is the lowest and the highest value that the model would get, in `unit`; `units` counts the values by the
    known unit they came in, '' if the message names none. `implausible` values are outside the limits.
    """

    name: str
    messages: int
    span: tuple[float, float] | None
    unit: str | None
    units: Counter[str]
    implausible: int


@dataclasses.dataclass(kw_only=True)
class Rejected:
    """The messages that are rejected for one reason and field.

    `examples` are a few of their texts, numbers or units, as Python writes them. They are patient data.
    """

    reason: Reason
    field: str
    first: int
    messages: int = 0
    examples: dict[str, None] = dataclasses.field(default_factory=dict)

    @property
    def is_fault(self) -> bool:
        """Whether it is a fault, rather than a message for others or a retraction."""
        return self.reason not in NO_FAULT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coverage:
    """Of all `messages`, `accepted` are scored; those not rejected as for others are `ours`.

    `empty` are accepted and have none of the features; `patients` and `times`, the first and the last, are theirs.
    """

    messages: int
    accepted: int
    ours: int
    empty: int
    patients: int
    times: tuple[str, str] | None
    features: list[Found]
    rejected: list[Rejected]

    @property
    def absent(self) -> list[str]:
        """The features that no message has."""
        return [one.name for one in self.features if not one.messages]

    @property
    def complete(self) -> bool:
        """Whether none of our messages is rejected, some are accepted, and every feature occurs."""
        return self.accepted > 0 and not self.absent and not any(one.is_fault for one in self.rejected)


def coverage(decode: Decoder, messages: Sequence[Message], *, expected: Sequence[str]) -> Coverage:
    """Read at least one message, as a worker would; `expected` are the features that should occur."""
    columns, decoded = decode.read(messages), decode(messages)
    foreign = {one.position for one in decoded.rejects if one.reason in NO_FAULT}
    rows = [row for row, position in enumerate(columns.positions) if position not in foreign]
    return Coverage(
        messages=len(messages),
        accepted=len(decoded.frame),
        ours=len(messages) - len(foreign),
        empty=int((features_present(decoded.frame) == 0).sum()),
        patients=len({*decoded.patient_ids}),
        times=_first_and_last(decoded.event_times),
        features=[
            _found(decode, number, columns, decoded, rows) for number in map(decode.features.index, expected)
        ],
        rejected=_rejected(decode, columns, decoded),
    )


def _first_and_last(times: list[str]) -> tuple[str, str] | None:
    moments = pd.to_datetime(
        pd.Series(times, dtype=str), utc=True, format="ISO8601", errors="coerce"
    ).dropna()
    return None if moments.empty else (times[int(moments.argmin())], times[int(moments.argmax())])


def _found(decode: Decoder, number: int, columns: Columns, decoded: Decoded, rows: list[int]) -> Found:
    name = decode.features[number]
    cells = columns.cells[number :: len(decode.features)]
    there = [row for row in rows if cells[row] is not None]
    values = decoded.frame[name].to_numpy()
    values = values[~np.isnan(values)]
    return Found(
        name=name,
        messages=len(there),
        span=(float(values.min()), float(values.max())) if len(values) else None,
        unit=decode.conversions[number].wanted if number in decode.conversions else None,
        units=Counter(_units(decode, number, columns, there)),
        implausible=sum(name in names for names in decoded.implausible),
    )


def _units(decode: Decoder, number: int, columns: Columns, rows: list[int]) -> Iterator[str]:
    if number in columns.units:
        convert = decode.conversions[number]
        theirs = columns.units[number] or [convert.wanted] * len(columns.positions)
        told = (theirs[row] for row in rows)
        yield from (unit or "" for unit in told if convert(unit) is not None)


def _rejected(decode: Decoder, columns: Columns, decoded: Decoded) -> list[Rejected]:
    """Most frequent first."""
    found: dict[Problem, Rejected] = {}
    row_of = {position: row for row, position in enumerate(columns.positions)}
    for one in decoded.rejects:
        problem = one.reason, one.field
        rejected = found.setdefault(problem, Rejected(reason=one.reason, field=one.field, first=one.position))
        rejected.messages += 1
        if one.position in row_of and len(rejected.examples) < _EXAMPLES:
            rejected.examples |= dict.fromkeys(_there(decode, columns, row_of[one.position], problem))
    return sorted(found.values(), key=lambda one: -one.messages)


def _there(decode: Decoder, columns: Columns, row: int, problem: Problem) -> Iterator[str]:
    """What a message has in the field at fault."""
    reason, name = problem
    value: Any = None
    by_unit = reason is Reason.UNKNOWN_UNIT
    if reason is Reason.MISSING_FIELD:
        return
    if name in (PATIENT_ID, EVENT_TIME):
        value = (columns.patient_ids if name == PATIENT_ID else columns.event_times)[row]
    elif name in decode.features:
        number = decode.features.index(name)
        cell = columns.cells[row * len(decode.features) + number]
        value = columns.units[number][row] if by_unit else cell
    if by_unit and value is None:
        yield "no unit"
    elif value is not None:
        yield repr(value)

"""Risk results: a frame of scores to one message per row, and back."""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.contract import (
    EVENT_TIME,
    FEATURES_PRESENT,
    HISTORY,
    IMPLAUSIBLE,
    MAPPING,
    MODEL,
    NO_INPUT,
    PATIENT_ID,
    RISK_LABEL,
    RISK_PROBABILITY,
    SCORED_AT,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    THRESHOLD,
)
from schemas.kernel import native
from schemas.reading import reader


@dataclass(frozen=True, slots=True)
class RiskResult:
    """The result of one message. Probability and label are both None if the model gave NaN or was not asked.

    `implausible` names the features whose values no body can have, which the model was given as missing.
    `features_present` is how many of the model's features had a number (None in results of earlier versions), and
    `no_input` says that they were too few to ask the model. `mapping` is the sha256 of the mapping that the message was
    read with; None where there was none. `history` is what a model with a history knew of the patient: `rows_seen`,
    `hours_since_first_seen`, and in `carried_forward` the age in hours of each value that is not of this time.
    """

    patient_id: str
    event_time: str
    risk_probability: float | None
    risk_label: int | None
    implausible: list[str]
    threshold: float
    model: str
    scored_at: str
    source_topic: str
    source_partition: int
    source_offset: int
    features_present: int | None = None
    no_input: bool = False
    mapping: str | None = None
    history: dict[str, Any] | None = None


@dataclass(frozen=True)
class Told:
    """What a model with a history knew about the patient at each row. Times are in microseconds."""

    seen: NDArray[np.float64]
    """By row, the rows seen and the time since the first."""
    ages: NDArray[np.float64]
    """Rows by columns: the time since the last value, NaN if there was none."""
    limits: NDArray[np.float64]
    """How long each column's last value is carried forward."""
    columns: Sequence[str]

    @cached_property
    def names(self) -> list[bytes]:
        """The columns' names as JSON, each with a colon after it."""
        return [orjson.dumps(name) + b":" for name in self.columns]


_HOUR: Final = 3_600_000_000  # microseconds
_DECIMALS: Final = 4  # of hours: a third of a second


def encode_results(
    *,
    patient_ids: Sequence[str],
    event_times: Sequence[str],
    probabilities: Sequence[float],
    labels: Sequence[int | None],
    implausible: Sequence[Sequence[str]],
    threshold: float,
    model: str,
    scored_at: str,
    topic: str,
    partitions: Sequence[int],
    offsets: Sequence[int],
    features_present: Sequence[int],
    no_input: Sequence[bool],
    mapping: str | None,
    told: Told | None = None,
) -> list[bytes]:
    """One value for the risk topic per row, in the order of the rows; each sequence has one entry per row.

    A NaN probability is written as null, any other so that it reads back bit for bit. `model` is the sha256
    of the model's file, `mapping` that of the mapping, if any; `topic`, `partitions` and `offsets` say where the rows
    came from. `told` is for models with a history.
    """
    # Column by column, joining the columns' texts into rows: less work than one object per row.
    columns = {
        PATIENT_ID: patient_ids,
        EVENT_TIME: event_times,
        RISK_PROBABILITY: probabilities,
        RISK_LABEL: labels,
        IMPLAUSIBLE: implausible,
        SOURCE_PARTITION: partitions,
        SOURCE_OFFSET: offsets,
        FEATURES_PRESENT: features_present,
    }
    if any(no_input):  # else the same for all rows, as nearly always
        columns[NO_INPUT] = no_input
    same = {THRESHOLD: threshold, MODEL: model, SCORED_AT: scored_at, SOURCE_TOPIC: topic}
    before = [b',"%b":' % name.encode() for name in columns]
    before[0] = before[0].replace(b",", b"{", 1)
    place = [*columns].index(SOURCE_PARTITION)
    before[place] = b"," + orjson.dumps(same)[1:-1] + before[place]
    behind = {MAPPING: mapping} if NO_INPUT in columns else {NO_INPUT: False, MAPPING: mapping}
    values: list[Sequence[Any] | Told] = [*columns.values()]
    end = b"," + orjson.dumps(behind)[1:]
    if told is not None:
        before.append(b',"%b":' % HISTORY.encode())
        values.append(told)
    return _rows([*before, end], values)


def _histories(told: Told) -> Iterator[bytes]:
    """An object for each row, with the columns whose value was carried forward."""
    carried = (told.ages > 0) & (told.ages <= told.limits)
    begin, ends = 0, carried.sum(axis=1).cumsum().tolist()
    ages, since = _hours(told.ages[carried]), _hours(told.seen[:, 1])
    rows = told.seen[:, 0].astype(np.int64).tolist()
    for pattern, end, count, hours in zip(carried.tolist(), ends, rows, since, strict=True):
        of_each = map(operator.add, compress(told.names, pattern), ages[begin:end])
        yield b'{"rows_seen":%d,"hours_since_first_seen":%b,"carried_forward":{%b}}' % (
            count,
            hours,
            b",".join(of_each),
        )
        begin = end


def _hours(microseconds: NDArray[np.float64]) -> Sequence[bytes]:
    hours: list[float] = np.round(microseconds / _HOUR, _DECIMALS).tolist()
    return _parted(hours)


def _rows(between: list[bytes], columns: Sequence[Sequence[Any] | Told]) -> list[bytes]:
    """One text for each row: the columns' values, with the texts before, between and after them."""
    if kernel := native():
        arrays = [orjson.dumps(one) for one in columns if not isinstance(one, Told)]
        told = [(one.seen, one.ages, one.limits, one.names) for one in columns if isinstance(one, Told)]
        rows: list[bytes] = kernel.rows_of(between, arrays, *told)
        return rows
    row = b"%b".join(one.replace(b"%", b"%%") for one in between)
    return [row % values for values in zip(*map(_parted, columns), strict=True)]


def _parted(values: Sequence[Any] | Told) -> Sequence[bytes]:
    """Each value as JSON."""
    if isinstance(values, Told):
        return [*_histories(values)]
    if not values:
        return values
    # Split at commas; if some value contains one, there are too many parts.
    texts = orjson.dumps(values)[1:-1].split(b",")
    return texts if len(texts) == len(values) else [*map(orjson.dumps, values)]


decode_result = reader(RiskResult)
"""Reads a result in JSON; fields added later are ignored. Raises MessageError."""

"""Risk results: a frame of scores to one message per row, and back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    read by; None where there was none. `history` is what a model with a history knew of the patient: `rows_seen`,
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


@dataclass(frozen=True, slots=True)
class Told:
    """What a model with a history knew about the patient at each row.

    `carried_forward` is rows by `columns`: hours since the last value, NaN where that is not carried forward.
    """

    rows_seen: NDArray[np.int64]
    hours_since_first_seen: NDArray[np.float64]
    columns: Sequence[str]
    carried_forward: NDArray[np.float64]


_BEFORE_TOLD: Final = (
    b',"%b":{"rows_seen":' % HISTORY.encode(),
    b',"hours_since_first_seen":',
    b',"carried_forward":',
)


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
    """One value for the risk topic a row, in the order of the rows; each sequence has one entry a row.

    A probability of NaN is written as null, any other so that it reads back bit for bit. `model` is the sha256
    of the model's file, `mapping` that of the mapping, if any; `topic`, `partitions` and `offsets` tell where the rows
    came from. `told` is for models with a history.
    """
    # Column by column, and rows put together from the columns' texts: less work than an object a row.
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
    if any(no_input):  # else the same for all, as nearly always
        columns[NO_INPUT] = no_input
    same = {THRESHOLD: threshold, MODEL: model, SCORED_AT: scored_at, SOURCE_TOPIC: topic}
    before = [b',"%b":' % name.encode() for name in columns]
    before[0] = before[0].replace(b",", b"{", 1)
    place = [*columns].index(SOURCE_PARTITION)
    before[place] = b"," + orjson.dumps(same)[1:-1] + before[place]
    behind = {MAPPING: mapping} if NO_INPUT in columns else {NO_INPUT: False, MAPPING: mapping}
    values, end = [*columns.values()], b"," + orjson.dumps(behind)[1:]
    if told is not None:
        before += _BEFORE_TOLD
        values += [told.rows_seen.tolist(), told.hours_since_first_seen.tolist(), [*_carried_forward(told)]]
        end = b"}" + end
    return _rows([*before, end], values)


def _carried_forward(told: Told) -> Iterator[bytes]:
    """An object for each row, of the columns whose value was carried forward."""
    carried = ~np.isnan(told.carried_forward)
    names = [orjson.dumps(name).replace(b"%", b"%%") + b":%b" for name in told.columns]
    objects: dict[bytes, bytes] = {}
    hours = _parted(told.carried_forward[carried].tolist())
    ends = carried.sum(axis=1).cumsum().tolist()
    begin = 0
    for pattern, end in zip(map(bytes, carried), ends, strict=True):
        form = objects.get(pattern)
        if form is None:
            form = objects[pattern] = b"{%b}" % b",".join(compress(names, pattern))
        yield form % (*hours[begin:end],)
        begin = end


def _rows(between: list[bytes], columns: Sequence[Sequence[Any]]) -> list[bytes]:
    """One text for each row: the columns' values, with the texts before, between and after them.

    Bytes among the values are JSON already.
    """
    if kernel := native():
        rows: list[bytes] = kernel.rows_of(between, [*map(_array, columns)])
        return rows
    row = b"%b".join(one.replace(b"%", b"%%") for one in between)
    return [row % values for values in zip(*map(_parted, columns), strict=True)]


def _array(values: Sequence[Any]) -> bytes:
    return b"[%b]" % b",".join(values) if _are_json(values) else orjson.dumps(values)


def _parted(values: Sequence[Any]) -> Sequence[bytes]:
    """Each value as JSON."""
    if _are_json(values) or not values:
        return values
    # Commas part them, unless some value has one of its own: then there are too many.
    texts = orjson.dumps(values)[1:-1].split(b",")
    return texts if len(texts) == len(values) else [*map(orjson.dumps, values)]


def _are_json(values: Sequence[Any]) -> bool:
    return bool(values) and isinstance(values[0], bytes)


decode_result = reader(RiskResult)
"""Reads a result in JSON; fields added later are ignored. Raises MessageError."""

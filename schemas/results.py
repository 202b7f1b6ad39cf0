"""Risk results: one frame of scores to one message a row, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

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
    """The result of one message. Probability and label are both None where the model gave NaN or was not asked.

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
    histories: Sequence[dict[str, Any]] | None = None,
) -> list[bytes]:
    """One value for the risk topic a row, in the order of the rows; each sequence has one entry a row.

    A probability of NaN is written as null, any other so that it reads back bit for bit. `model` is the sha256
    of the model's file, `mapping` that of the mapping, if any; `topic`, `partitions` and `offsets` tell where the rows
    came from. `histories` are for models with a history.
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
    if histories is not None:
        columns[HISTORY] = histories
    if any(no_input):  # else the same for all, as nearly always
        columns[NO_INPUT] = no_input
    same = {THRESHOLD: threshold, MODEL: model, SCORED_AT: scored_at, SOURCE_TOPIC: topic}
    before = [b',"%b":' % name.encode() for name in columns]
    before[0] = before[0].replace(b",", b"{", 1)
    place = [*columns].index(SOURCE_PARTITION)
    before[place] = b"," + orjson.dumps(same)[1:-1] + before[place]
    behind = {MAPPING: mapping} if NO_INPUT in columns else {NO_INPUT: False, MAPPING: mapping}
    return _rows([*before, b"," + orjson.dumps(behind)[1:]], [*columns.values()])


def _rows(between: list[bytes], columns: Sequence[Sequence[Any]]) -> list[bytes]:
    """One text for each row: the columns' values, and what stands before, between and behind them."""
    texts = [*map(orjson.dumps, columns)]
    if kernel := native():
        rows: list[bytes] = kernel.rows_of(between, texts)
        return rows
    row = b"%b".join(one.replace(b"%", b"%%") for one in between)
    return [row % values for values in zip(*map(_parted, texts, columns), strict=True)]


def _parted(text: bytes, values: Sequence[Any]) -> list[bytes]:
    """Each value as JSON, out of the text of all."""
    # Commas part them, unless some value has one of its own: then there are too many.
    texts = text[1:-1].split(b",")
    return texts if len(texts) == len(values) else [*map(orjson.dumps, values)]


decode_result = reader(RiskResult)
"""Reads a result in JSON; fields added later are ignored. Raises MessageError."""

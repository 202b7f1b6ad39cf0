"""Risk results: one frame of scores to one message a row, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import orjson

from schemas.contract import (
    EVENT_TIME,
    IMPLAUSIBLE,
    MODEL,
    PATIENT_ID,
    RISK_LABEL,
    RISK_PROBABILITY,
    SCORED_AT,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    THRESHOLD,
)
from schemas.reading import reader

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class RiskResult:
    """One scored message. Probability and label are both None where the model gave NaN.

    `implausible` names the features whose values no body can have, which the model was given as missing.
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


_read = reader(RiskResult)


def encode_results(
    scores: "pd.DataFrame",
    *,
    patient_ids: Sequence[str],
    event_times: Sequence[str],
    implausible: Sequence[Sequence[str]],
    sources: Sequence[tuple[str, int, int]],
    threshold: float,
    model: str,
    scored_at: str,
) -> list[bytes]:
    """One value for the risk topic a row of `scores`, in its order.

    `scores` has `risk_probability` (float64) and `risk_label` (Int64) as the core makes them; ids, times,
    implausible features and `sources` (topic, partition, offset) go with its rows. `model` is the sha256 of
    the model's file. Floats are written so that they read back bit for bit.
    """
    probabilities = scores[RISK_PROBABILITY].tolist()
    labels = scores[RISK_LABEL].to_numpy(np.int64, na_value=-1).tolist()
    rows = zip(patient_ids, event_times, probabilities, labels, implausible, sources, strict=True)
    return [
        orjson.dumps(
            {
                PATIENT_ID: patient_id,
                EVENT_TIME: event_time,
                RISK_PROBABILITY: probability,  # NaN is written as null
                RISK_LABEL: label if label >= 0 else None,
                IMPLAUSIBLE: names,
                THRESHOLD: threshold,
                MODEL: model,
                SCORED_AT: scored_at,
                SOURCE_TOPIC: topic,
                SOURCE_PARTITION: partition,
                SOURCE_OFFSET: offset,
            }
        )
        for patient_id, event_time, probability, label, names, (topic, partition, offset) in rows
    ]


def decode_result(value: bytes | None) -> RiskResult:
    """Read a value of the risk topic; fields added later are ignored. Raises MessageError."""
    return _read(value)

"""The conditions, besides decoding, for a message to become part of a patient's history."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.contract import EVENT_TIME, PATIENT_ID, Problem, Reason
from schemas.vitals import Decoded

AHEAD_S: Final = 300
"""How many seconds a message's event time may be ahead of its Kafka timestamp: devices' clocks differ."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def fit_for_history(
    decoded: Decoded, times: Floats, *, keys: Sequence[bytes | None], timestamps: Ints
) -> tuple[Decoded, Floats]:
    """Reject the rows that can't become part of their patient's history; returns the others with their times.

    `times` are the rows' event times in microseconds since 1970, NaN for a bad time; `keys` and `timestamps` (ms since
    1970, -1 if it has none) are those of all messages that were decoded. A time far ahead of the message's timestamp
    would stop its patient's clock. A patient whose messages have another key has them on several partitions, and would
    have several histories.
    """
    if len(times) < len(keys):
        positions = decoded.frame.index.to_numpy()
        keys, timestamps = [keys[position] for position in positions.tolist()], timestamps[positions]
    problems: dict[int, Problem] = dict.fromkeys(_far_ahead(times, timestamps), (Reason.BAD_TIME, EVENT_TIME))
    for row in _other_keys(keys, decoded.patient_ids):
        problems.setdefault(row, (Reason.CONFLICTING, PATIENT_ID))
    if not problems:
        return decoded, times
    return decoded.without(problems), np.delete(times, [*problems])


def _far_ahead(times: Floats, timestamps: Ints) -> list[int]:
    latest = np.where(timestamps < 0, np.inf, 1000.0 * (timestamps + 1000 * AHEAD_S))
    rows: list[int] = np.flatnonzero(~(times <= latest)).tolist()
    return rows


def _other_keys(keys: Sequence[bytes | None], patient_ids: Sequence[str]) -> list[int]:
    own = [*map(str.encode, patient_ids)]
    if keys == own:
        return []
    return [row for row, (key, patient) in enumerate(zip(keys, own, strict=True)) if key != patient]

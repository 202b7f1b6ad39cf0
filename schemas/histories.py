"""The conditions, besides decoding, for a message to become part of a patient's history."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.contract import EVENT_TIME, PATIENT_ID, Problem, Reason
from schemas.vitals import Decoded

AHEAD_S: Final = 300
"""How many seconds a message's event time may be ahead of its Kafka timestamp: devices' clocks differ."""

Floats = NDArray[np.float64]


class Placed(Protocol):
    """The parts of a Kafka message that a history needs."""

    def key(self) -> Any:
        """Its bytes; None if it has none."""

    def timestamp(self) -> tuple[int, int]:
        """Its kind, and milliseconds since 1970, -1 if it has none."""


def fit_for_history(
    decoded: Decoded, messages: Sequence[Placed], times: Floats, *, key_must_match: bool
) -> tuple[Decoded, Floats]:
    """Reject the rows that can't become part of their patient's history; returns the others with their times.

    `times` are the rows' event times in microseconds since 1970, NaN for a bad time; `messages` are all that were
    decoded. A time far ahead of the message's timestamp would stop its patient's clock. A patient whose messages have
    another key has them on several partitions, and would have several histories.
    """
    positions = decoded.frame.index.tolist()
    rows = [messages[position] for position in positions]
    problems: dict[int, Problem] = dict(_bad_times(rows, times))
    if key_must_match:
        for row in _other_keys(rows, decoded.patient_ids):
            problems.setdefault(row, (Reason.CONFLICTING, PATIENT_ID))
    if not problems:
        return decoded, times
    return decoded.without(problems), np.delete(times, [*problems])


def _bad_times(rows: Sequence[Placed], times: Floats) -> Iterator[tuple[int, Problem]]:
    stamps = np.array([message.timestamp()[1] for message in rows], np.float64)
    latest = np.where(stamps < 0, np.inf, 1000 * (stamps + 1000 * AHEAD_S))
    for row in np.flatnonzero(~(times <= latest)).tolist():
        yield row, (Reason.BAD_TIME, EVENT_TIME)


def _other_keys(rows: Sequence[Placed], patient_ids: Sequence[str]) -> list[int]:
    keys = [message.key() for message in rows]
    own = [patient_id.encode() for patient_id in patient_ids]
    if keys == own:
        return []
    return [row for row, (key, patient) in enumerate(zip(keys, own, strict=True)) if key != patient]

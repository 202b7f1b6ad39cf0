"""Splits rows into messages as a ward sends them: one device at a time, each with its own values and time."""

import math
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, Final

from producer.pacing import unix_seconds
from producer.sources import Record
from producer.values import is_rfc3339
from schemas.clock import rfc3339
from schemas.contract import ENCOUNTER_ID, EVENT_TIME, PATIENT_ID

DEVICES: Final = {
    "monitor": ("heart_rate", "respiratory_rate", "spo2"),
    "blood pressure": ("systolic_bp", "diastolic_bp", "mean_arterial_pressure"),
    "thermometer": ("temperature",),
}
"""The fields that each device measures and sends in one message. A row's other fields form one more message."""

OF_EACH: Final = (ENCOUNTER_ID, "age")
"""Measured by no device; every message of the row has them."""

WITHIN_S: Final = 3600.0
"""A row's messages are spread over at most this many seconds before it, and never before the patient's last row."""

_EARLIEST: Final = -62_135_596_800  # the year 1, in Unix seconds
_DEVICE_OF: Final = {field: device for device, fields in DEVICES.items() for field in fields}
_HEAD: Final = (PATIENT_ID, EVENT_TIME, *OF_EACH)


class AsArrived:
    """The messages of rows in order of time, each patient's in the order of their rows.

    A row becomes one message for each device that measured something. The last one has the row's own time, the
    others have random times before it; the same seed gives the same messages. A row whose time can't be read keeps it,
    and one without any measurement is skipped. `rows` counts the rows read so far over all iterations, `empty` the
    skipped ones.

    It holds an hour of messages in memory, and the time of each patient's last row.
    """

    def __init__(self, records: Iterable[Record], *, seed: int = 0) -> None:
        self._records = records
        self._seed = seed
        self.rows = 0
        self.empty = 0

    @property
    def counts(self) -> dict[str, int]:
        """The counts as JSON."""
        return {"rows_read": self.rows, "rows_without_measurement": self.empty}

    def __iter__(self) -> Iterator[Record]:
        waiting: list[tuple[float, int, Record]] = []
        newest, number = -math.inf, count()
        for moment, messages in self._timed():
            if moment is not None and moment < newest - WITHIN_S:  # a new stay begins
                yield from _released(waiting, math.inf)
                newest = moment
            newest = newest if moment is None else max(newest, moment)
            for at, message in messages:
                heappush(waiting, (at, next(number), message))
            yield from _released(waiting, newest - WITHIN_S)
        yield from _released(waiting, math.inf)

    def _timed(self) -> Iterator[tuple[float | None, list[tuple[float, Record]]]]:
        """Each row's time, and its messages with their times, none before the patient's previous row."""
        random = Random(self._seed)  # noqa: S311
        latest: dict[Any, float] = {}
        for record in self._records:
            self.rows += 1
            moment, parts = _moment(record), _parts(record)
            self.empty += not parts
            random.shuffle(parts)
            patient = record.get(PATIENT_ID)
            patient = patient if type(patient) is str else None
            before = latest.get(patient, -math.inf)
            latest[patient] = before if moment is None else max(before, moment)
            own = before if moment is None else moment
            times = _times(moment, before, len(parts), random)
            yield (
                moment,
                [
                    (max(before, own if at is None else at), _message(record, part, at))
                    for at, part in zip(times, parts, strict=True)
                ],
            )


def _moment(record: Record) -> float | None:
    """The row's time in Unix seconds; None if a worker could not read it."""
    time = record.get(EVENT_TIME)
    return unix_seconds(time) if type(time) is str and is_rfc3339(time) else None


def _parts(record: Record) -> list[Record]:
    """What each device measured."""
    parts: dict[str, Record] = {}
    for name, value in record.items():
        if name not in _HEAD and not _is_missing(value):
            parts.setdefault(_DEVICE_OF.get(name, "others"), {})[name] = value
    return [*parts.values()]


def _is_missing(value: Any) -> bool:
    return value is None or (type(value) is float and not math.isfinite(value))


def _times(moment: float | None, before: float, messages: int, random: Random) -> list[float | None]:
    """The times of a row's messages, in order, to the millisecond; None stands for the row's own time."""
    if moment is None or not messages:
        return [None] * messages
    length = max(0.0, min(WITHIN_S, moment - before, moment - _EARLIEST))
    times = sorted(moment - length * random.random() for _ in range(messages - 1))
    written = [math.ceil(at * 1000) / 1000 for at in times]
    return [*(at if at < moment else None for at in written), None]


def _message(record: Record, part: Record, at: float | None) -> Record:
    """A row's message at the time `at`; None keeps the row's time."""
    head = {name: record[name] for name in (PATIENT_ID, EVENT_TIME) if name in record}
    of_each = {name: record[name] for name in OF_EACH if not _is_missing(record.get(name))}
    return head | ({} if at is None else {EVENT_TIME: rfc3339(at)}) | of_each | part


def _released(waiting: list[tuple[float, int, Record]], until: float) -> Iterator[Record]:
    while waiting and waiting[0][0] <= until:
        yield heappop(waiting)[2]

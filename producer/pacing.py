"""Decides when each message is due."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from producer.sources import Record
from schemas.contract import EVENT_TIME

Schedule = Callable[[Record], float]
"""Called once per record, in order; returns when it is due, in seconds after the first."""

SLACK: Final = 0.001
"""A message due within this many seconds is sent at once: sleeping is no more precise."""

_LONGEST_SLEEP = 0.1  # so that a stop is noticed


def at_rate(rate: float) -> Schedule:
    """`rate` messages a second, evenly. Due times follow from each message's number, so errors do not add up."""
    sent = -1

    def due(_: Record) -> float:
        nonlocal sent
        sent += 1
        return sent / rate

    return due


def poisson(rate: float, *, seed: int) -> Schedule:
    """`rate` messages a second on average, as independent arrivals: exponential gaps."""
    gaps = random.Random(seed)  # noqa: S311
    due = 0.0

    def after_gap(_: Record) -> float:
        nonlocal due
        due += gaps.expovariate(rate)
        return due

    return after_gap


def by_event_time(speed: float) -> Schedule:
    """Follows the event times, `speed` times as fast.

    The delay is the gap between a record and the previous one. If time goes back, as from the end of one stay
    to the start of the next, or an event time can't be read, the record follows at once.
    """
    last: float | None = None
    due = 0.0

    def after_gap(record: Record) -> float:
        nonlocal last, due
        now = unix_seconds(record.get(EVENT_TIME))
        if now is not None:
            due += max(0.0, now - last) / speed if last is not None else 0.0
            last = now
        return due

    return after_gap


class Pacer:
    """Delays records until they are due; without a schedule it delays nothing.

    The first call starts the clock. Late records are sent at once, so the average rate holds.
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] = time.sleep,
    ) -> None:
        self._schedule = schedule
        self._clock = clock
        self._sleep = sleep
        self._start: float | None = None

    def wait(self, record: Record, *, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Return True when `record` is due, or False soon after `stopped()` is true."""
        if self._schedule is None:
            return True
        if self._start is None:
            self._start = self._clock()
        due = self._start + self._schedule(record)
        while (ahead := due - self._clock()) > SLACK:
            if stopped():
                return False
            self._sleep(min(ahead, _LONGEST_SLEEP))
        return True


def unix_seconds(event_time: object) -> float | None:
    """An RFC 3339 time as Unix seconds, as UTC if it names no zone; None if it can't be read."""
    try:
        when = datetime.fromisoformat(str(event_time))
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()

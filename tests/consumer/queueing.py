"""A simulated worker without Kafka: messages arrive, chunks are collected, scored and committed, by its own clock."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumer.chunks import Pace
from consumer.tuning import AT_ONCE, DELIVERY_S, Tuner

Floats = NDArray[np.float64]

FETCH_S = 0.002  # from a message's timestamp until it can be collected
COMMIT_S = 0.004
COMMIT_CPU_S = 0.0015
COMMIT_INTERVAL_S = 0.025  # when there is a backlog
NOISE = 0.25


@dataclass(frozen=True)
class Cost:
    """What a chunk takes, in seconds: `fixed + per_row * rows`."""

    fixed: float
    per_row: float


@dataclass(frozen=True)
class Trace:
    """What happened: when each message arrived, how old it was once readable, and when each chunk ended."""

    arrivals: Floats
    ages: Floats
    ended: Floats
    cpu: Floats
    paces: list[tuple[int, float, Pace]]  # the first chunk at this pace, and when

    def p99(self, start: float, end: float) -> float:
        """The 99th percentile for messages that arrived in this period."""
        return float(np.quantile(self.ages[(self.arrivals >= start) & (self.arrivals < end)], 0.99))

    def load(self, start: float, end: float) -> float:
        """CPU seconds per second."""
        return float(self.cpu[(self.ended >= start) & (self.ended < end)].sum()) / (end - start)

    def chunks(self, start: float, end: float) -> int:
        """How many chunks ended in this period."""
        return int(((self.ended >= start) & (self.ended < end)).sum())

    def changes(self, start: float, end: float) -> int:
        """How often the pace changed in this period."""
        return sum(start <= at < end for _, at, _ in self.paces[1:])


def poisson(rate: float, start: float, end: float, *, seed: int = 0) -> Floats:
    """Random arrivals, `rate` per second."""
    return np.sort(np.random.default_rng(seed).uniform(start, end, int(rate * (end - start))))


def simulate(arrivals: Floats, cost: Callable[[float], Cost], pace: Tuner | Pace, *, seed: int = 0) -> Trace:
    """Process `arrivals` chunk by chunk; `cost` depends on the time."""
    rng = np.random.default_rng(seed)
    there = arrivals + FETCH_S
    ages = np.full(len(arrivals), np.nan)
    ended, cpu = list[float](), list[float]()
    paces: list[tuple[int, float, Pace]] = []
    now, taken, uncommitted = 0.0, 0, 0
    oldest_at = born = waited = 0.0  # of the open transaction
    while taken < len(arrivals):
        limit = pace.pace if isinstance(pace, Tuner) else pace
        first, last, first_at, now = taken, *_collect(there, taken, now, limit)
        if not paces or paces[-1][2] != limit:
            paces.append((len(ended), now, limit))
        rows, full = last - first, last - first == limit.chunk_size
        at_once = full and now - first_at <= AT_ONCE * limit.max_wait
        price, closed_at = cost(now), now
        seconds = (price.fixed + price.per_row * rows) * np.exp(NOISE / 2 * rng.standard_normal())
        now += seconds
        if uncommitted == first:
            oldest_at, born, waited = first_at, arrivals[first], 0.0
        waited += closed_at - first_at
        taken = last
        if isinstance(pace, Tuner):
            pace.scored(rows, seconds)
        if commits := not full or now - oldest_at >= COMMIT_INTERVAL_S:
            now += COMMIT_S * np.exp(2 * NOISE * rng.standard_normal())
            ages[uncommitted:taken] = now + DELIVERY_S - arrivals[uncommitted:taken]
            uncommitted = taken
        if isinstance(pace, Tuner) and commits and not at_once:
            pace.committed(age=now - born, age_at_first=oldest_at - born, waited=waited, at=now)
        ended.append(now)
        cpu.append(seconds + commits * COMMIT_CPU_S)
    return Trace(arrivals, ages, np.array(ended), np.array(cpu), paces)


def _collect(there: Floats, taken: int, now: float, limit: Pace) -> tuple[int, float, float]:
    """For the chunk that starts at message `taken`: its end, when its first row was there, and when it closed."""
    first_at = max(now, there[taken])
    full = taken + limit.chunk_size
    if full <= len(there) and there[full - 1] <= first_at + limit.max_wait:
        return full, first_at, max(first_at, there[full - 1])
    closes = first_at + limit.max_wait
    return int(np.searchsorted(there, closes, side="right")), first_at, closes

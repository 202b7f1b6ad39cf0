"""The pacer, on a clock that only its own sleeps move."""

import statistics
from collections.abc import Iterable
from itertools import pairwise

import pytest

from producer.pacing import SLACK, Pacer, Schedule, at_rate, by_event_time, poisson
from producer.sources import Record


class Clock:
    """Sleeping moves it, and each look at it costs `cost` seconds."""

    def __init__(self, *, cost: float = 0.0) -> None:
        self.now = 1000.0
        self.cost = cost
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        self.now += self.cost
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def sent_at(schedule: Schedule | None, records: Iterable[Record], clock: Clock) -> list[float]:
    pacer = Pacer(schedule, clock=clock, sleep=clock.sleep)
    times = []
    for record in records:
        assert pacer.wait(record)
        times.append(clock.now - 1000.0)
    return times


def at(*times: str) -> list[Record]:
    return [{"patient_id": "p", "event_time": time} for time in times]


@pytest.mark.parametrize("rate", [0.5, 200, 20_000, 50_000])
def test_constant_rate_never_drifts(rate: float) -> None:
    clock = Clock(cost=1e-6)
    times = sent_at(at_rate(rate), [{}] * 2000, clock)
    assert all(-SLACK - 1e-9 <= time - i / rate < 1e-4 for i, time in enumerate(times))


def test_no_sleep_is_shorter_than_the_slack() -> None:
    clock = Clock(cost=1e-6)
    sent_at(at_rate(50_000), [{}] * 5000, clock)
    assert clock.sleeps
    assert min(clock.sleeps) > SLACK


def test_a_stall_is_caught_up_at_once() -> None:
    clock = Clock()
    pacer = Pacer(at_rate(100), clock=clock, sleep=clock.sleep)
    pacer.wait({})
    clock.now += 5.0
    slept = len(clock.sleeps)
    for _ in range(500):
        pacer.wait({})
    assert len(clock.sleeps) == slept
    pacer.wait({})
    assert clock.now - 1000.0 == pytest.approx(5.01)


def test_poisson_gives_exponential_gaps_determined_by_the_seed() -> None:
    def gaps(seed: int) -> list[float]:
        schedule = poisson(100, seed=seed)
        due = [0.0, *(schedule({}) for _ in range(20_000))]
        return [b - a for a, b in pairwise(due)]

    sample = gaps(7)
    assert statistics.mean(sample) == pytest.approx(0.01, rel=0.03)
    assert statistics.stdev(sample) == pytest.approx(0.01, rel=0.03)  # as large as the mean, so exponential
    assert gaps(7) == sample != gaps(8)


def test_messages_follow_event_time_at_the_given_speed() -> None:
    records = at("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "2026-01-01T02:01:30+01:00")
    assert sent_at(by_event_time(60), records, Clock()) == pytest.approx([0, 1, 61.5])


def test_the_next_stay_and_unreadable_times_are_sent_at_once() -> None:
    records = at(
        "2026-01-01T01:00:00Z",
        "2026-01-01T02:00:00Z",
        "2026-01-01T01:00:00Z",
        "never",
        "2026-01-01T02:00:00Z",
    )
    records[3:3] = [{}]
    assert sent_at(by_event_time(3600), records, Clock()) == pytest.approx([0, 1, 1, 1, 1, 2])


def test_without_a_schedule_nothing_waits() -> None:
    clock = Clock()
    sent_at(None, [{}] * 10, clock)
    assert clock.sleeps == []


def test_a_stop_interrupts_a_long_wait() -> None:
    clock = Clock()
    pacer = Pacer(at_rate(0.001), clock=clock, sleep=clock.sleep)
    assert pacer.wait({})
    assert not pacer.wait({}, stopped=lambda: clock.now >= 1003)
    assert clock.now - 1000.0 < 3.2

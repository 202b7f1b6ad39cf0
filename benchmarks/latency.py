"""Latency: from sending a message until a read_committed reader has its result, with random arrivals."""

import random
import sys
import threading
import time
from typing import Any, Final

import numpy as np
from confluent_kafka import Producer

from benchmarks.bench import Bench
from benchmarks.contender import PASS_DRAIN, QUIX, TEXTBOOK, WORKER, Contender, Work
from benchmarks.fitted import LR
from benchmarks.processes import Process
from benchmarks.results import Reader, Results
from benchmarks.rows import Floats
from benchmarks.throughput import ROUNDS, Step, reason

CHUNK: Final = 100
WARM_S: Final = 2.0
START_S: Final = 40.0
_LATE_S: Final = 8.0  # for results that arrive after the last message
_SLACK_S: Final = 0.001  # sleeps are no more precise than this

# Messages per second, with the number of rounds and the seconds of each.
RATES: Final = {50: (1, 20.0), 200: (5, 20.0), 2_000: (1, 12.0), 10_000: (ROUNDS, 10.0)}
# From this rate on, the sender lets messages share a request by waiting LINGER_MS, which counts as latency.
# With one request for each of 10,000 messages, the sender kept the broker busy, and messages waited up to a
# second.
SHARING_RATE: Final = 2_000
LINGER_MS: Final = 2
_HEAT_S: Final = 15.0  # a broker's first 100,000 messages take many times as long
OTHERS: Final[tuple[tuple[Contender, int], ...]] = (
    *((TEXTBOOK, rate) for rate in (50, 200, 10_000)),
    (QUIX, 200),
)


def measure(bench: Bench, step: Step) -> list[dict[str, Any]]:
    """One record per run: percentiles in milliseconds, and the contender's CPU."""
    step("latency: warming up the broker")
    warm_up(bench)
    records = []
    for rate, (rounds, _) in RATES.items():
        for number in range(rounds):
            pair = (WORKER, PASS_DRAIN) if number % 2 == 0 else (PASS_DRAIN, WORKER)
            records += [_record(bench, one, rate, number=number, step=step) for one in pair]
    records += [_record(bench, one, rate, number=0, step=step) for one, rate in OTHERS]
    return records


def warm_up(bench: Bench) -> None:
    """Unmeasured load."""
    run(bench, PASS_DRAIN, rate=max(RATES), seconds=_HEAT_S)


def steps() -> int:
    """How often `measure` will call `step`."""
    return 1 + 2 * sum(rounds for rounds, _ in RATES.values()) + len(OTHERS)


def _record(bench: Bench, contender: Contender, rate: int, *, number: int, step: Step) -> dict[str, Any]:
    step(f"latency: {contender.name} at {rate:,}/s")
    record: dict[str, Any] = {"contender": contender.name, "rate": rate, "round": number}
    try:
        return record | run(bench, contender, rate=rate, seconds=RATES[rate][1])
    except Exception as error:  # becomes its row in the table
        return record | {"why": reason(error)}


def run(bench: Bench, contender: Contender, *, rate: int, seconds: float) -> dict[str, Any]:
    """One contender at one rate. Raises PeerUnavailableError, or RuntimeError if no result arrives."""
    count = int((WARM_S + seconds) * rate * 1.1) + 10_000
    topic = bench.cluster.name(f"live-{time.monotonic_ns()}")
    bench.cluster.make(topic)
    results = Results(count)
    with (
        bench.work(contender, LR, CHUNK, topic) as work,
        bench.start(contender, work) as process,
        Reader(
            bench.cluster, work.output, results, echoed=bench.rows if contender.echoes else None
        ) as reader,
    ):
        load = Load(
            bench, topic, rate=rate, seconds=WARM_S + seconds, first=warm(bench, work, process, reader)
        )
        received = np.full(count, np.nan)
        load.start()
        follow(reader, load, received)
        load.join()
        found = load.measured(received)
        cpu = process.watch.cpu(load.began_at + WARM_S, load.ended_at)
    bench.cluster.delete([topic])
    truth = None if contender.echoes else bench.truth(LR, count)
    return {
        **found,
        "cpu_percent": round(100 * cpu / seconds, 1),
        "check": results.first(load.next).verdict(truth),
    }


def warm(bench: Bench, work: Work, process: Process, reader: Reader) -> int:
    """Send a message every quarter of a second until the first result arrives; returns the next message's number."""
    producer = Producer({"bootstrap.servers": bench.cluster.bootstrap, "linger.ms": 0, "log_level": 0})
    deadline, number, due = time.monotonic() + START_S, 0, 0.0
    while reader.next() is None:
        process.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"no result within {START_S:g} s: {process.tail()}")
        if time.monotonic() >= due:
            key, value = bench.rows.message(number)
            producer.produce(work.topic, value, key)
            producer.flush(5)
            number, due = number + 1, time.monotonic() + 0.25
    return number


class Load(threading.Thread):
    """Sends messages at random times, `rate` per second on average."""

    def __init__(self, bench: Bench, topic: str, *, rate: int, seconds: float, first: int) -> None:
        super().__init__(daemon=True)
        self._rows = bench.rows
        self._topic = topic
        self._gaps = random.Random(0)
        self._rate = rate
        self._seconds = seconds
        linger = LINGER_MS if rate >= SHARING_RATE else 0
        self._producer = Producer(
            {"bootstrap.servers": bench.cluster.bootstrap, "linger.ms": linger, "log_level": 0}
        )
        self.first = self.next = first
        self.began_at = self.ended_at = 0.0
        self.sent_at: list[float] = []

    def run(self) -> None:
        began = time.monotonic()
        self.began_at, due = time.time(), 0.0
        while due < self._seconds:
            ahead = began + due - time.monotonic()
            if ahead > _SLACK_S:
                time.sleep(ahead)
            key, value = self._rows.message(self.next)
            self.sent_at.append(time.time())
            self._producer.produce(self._topic, value, key)
            self._producer.poll(0)
            self.next += 1
            due += self._gaps.expovariate(self._rate)
        self._producer.flush(10)
        self.ended_at = time.time()

    def measured(self, received: Floats) -> dict[str, Any]:
        """Percentiles of the messages after the warm-up."""
        sent = np.array(self.sent_at)
        waited = 1e3 * (received[self.first : self.next] - sent)
        waited = waited[sent >= self.began_at + WARM_S]
        came = waited[~np.isnan(waited)]
        if not len(came):
            raise RuntimeError("no result arrived after the warm-up")
        p50, p95, p99 = np.percentile(came, [50, 95, 99])
        return {
            "p50": round(float(p50), 2),
            "p95": round(float(p95), 2),
            "p99": round(float(p99), 2),
            "samples": len(came),
            "late": int(np.isnan(waited).sum()),  # still missing when the run ended
        }


def follow(reader: Reader, load: Load, received: Floats) -> None:
    """Record when each result arrived, until all are there or none has arrived for a while."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(2e-4)  # the sender's thread must not delay the reader's
    try:
        end = float("inf")
        while time.time() < end and not (load.ended_at and reader.results.read >= load.next):
            number = reader.next()
            if number is not None:
                received[number] = time.time()
            if load.ended_at and end == float("inf"):
                end = time.time() + _LATE_S
    finally:
        sys.setswitchinterval(interval)

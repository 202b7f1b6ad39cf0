"""Where each microsecond of a worker goes: its main thread's CPU by stage, on a real Kafka, in this process."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest import mock

from benchmarks.bench import Bench
from benchmarks.contender import FAST, WORKER, Work, dead_letter_topic, metrics_topic
from benchmarks.fitted import HGB, LR, RF
from benchmarks.throughput import Step
from broker.settings import Settings
from consumer import scoring
from consumer.observer import Observer
from consumer.observer import Step as Point
from consumer.run import run_worker
from schemas.metrics import ChunkMetrics
from schemas.vitals import Decoder

CASES: Final = tuple((model, chunk) for model in (LR, HGB, RF) for chunk in (100, 1000))
_LIMIT_S: Final = 90.0

# The stage that ends at each point of the main thread. What is left of scoring without the parts below is
# `other`.
_ENDS_AT: Final = {
    Point.COLLECTED: "collect",
    Point.SCORED: "other",
    Point.PRODUCING: "produce",
    Point.PRODUCED: "produce",
    Point.FLUSHED: "commit",
    Point.OFFSETS_SENT: "commit",
    Point.COMMITTED: "commit",
}
# Where to find each stage's function.
_PARTS: Final[dict[str, tuple[Any, str]]] = {
    "decode": (Decoder, "__call__"),
    "score": (scoring, "score"),
    "encode": (scoring, "encode_results"),
}


class Clock(Observer):
    """Adds up CPU nanoseconds by stage, and counts rows."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.rows = 0
        self._last = time.thread_time_ns()
        self._inside = 0
        self.began = 0.0

    def assigned(self, *_: object, **__: object) -> None:
        """Start measuring."""
        self.began = self.began or time.process_time()
        self._last = time.thread_time_ns()

    def reached(self, step: Point) -> None:
        """Book the time since the last point."""
        now = time.thread_time_ns()
        self.spent[_ENDS_AT[step]] += now - self._last - self._inside
        self._last, self._inside = now, 0

    def scored(self, chunks: Sequence[ChunkMetrics]) -> None:
        """Count the rows."""
        self.rows += sum([chunk.rows for chunk in chunks])

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` with its CPU time booked to `stage`."""

        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time_ns()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time_ns() - start
                self.spent[stage] += spent
                self._inside += spent

        return run


def measure(bench: Bench, step: Step) -> list[dict[str, Any]]:
    """One record per model and chunk size: µs per row by stage, including librdkafka's threads."""
    return [_stages(bench, model, chunk, step) for model, chunk in CASES]


def _stages(bench: Bench, model: str, chunk: int, step: Step) -> dict[str, Any]:
    step(f"stages: {model}, {chunk}")
    clock, topic = Clock(), bench.input(FAST)
    with bench.work(WORKER, model, chunk, topic) as work, _timing(clock):
        deadline = time.monotonic() + _LIMIT_S
        run_worker(
            _settings(bench, work),
            observer=clock,
            should_stop=lambda: clock.rows >= FAST or time.monotonic() > deadline,
        )
    if clock.rows < FAST:
        return {"model": model, "chunk": chunk, "why": f"{clock.rows:,} rows in {_LIMIT_S:g} s"}
    total = 1e9 * (time.process_time() - clock.began)
    clock.spent["Kafka client's threads"] = int(total) - clock.spent.total()
    us = {stage: round(spent / 1e3 / clock.rows, 3) for stage, spent in clock.spent.items()}
    return {"model": model, "chunk": chunk, "rows": clock.rows, "us": us}


@contextmanager
def _timing(clock: Clock) -> Iterator[None]:
    with ExitStack() as stack:
        for stage, (holder, name) in _PARTS.items():
            timed = clock.timed(stage, getattr(holder, name))
            stack.enter_context(mock.patch.object(holder, name, timed))
        yield


def _settings(bench: Bench, work: Work) -> Settings:
    return Settings(
        bootstrap_servers=bench.cluster.bootstrap,
        input_topic=work.topic,
        output_topic=work.output,
        metrics_topic=metrics_topic(work.output),
        dead_letter_topic=dead_letter_topic(work.output),
        group=work.group,
        model=work.model,
        chunk_size=work.chunk,
    )

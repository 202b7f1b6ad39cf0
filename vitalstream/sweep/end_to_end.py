"""The sweep on a real Kafka: a worker process for each chunk size over the same backlog, and an audit of each."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np

from audit.run import audit
from broker.errors import BrokerError, VitalstreamError
from broker.options import OPTIONS
from broker.settings import Settings
from broker.topics import create_topics
from producer.replay import FLUSH_S, STOPPED_FLUSH_S
from producer.sender import Sender
from real_time.sweep import ChunkCost
from schemas.metrics import ChunkMetrics, decode_metrics
from vitalstream.follow import Follower
from vitalstream.own_topics import delete, renamed
from vitalstream.sweep.rows import Messages
from vitalstream.worker_process import WorkerProcess

_PATIENCE_S: Final = 0.1
_WARM_UP_S: Final = 90.0  # for the worker to import, join its group and commit the first chunk
_SETTLE_S: Final = 15.0
_UNTIL_IDLE_S: Final = 60.0  # so that a worker stops if its sweep was killed


class NotOnceError(VitalstreamError):
    """A row of the backlog was not scored exactly once."""


@contextmanager
def backlog(settings: Settings, messages: Messages, *, stopped: Callable[[], bool]) -> Iterator[Settings]:
    """Settings with new topics, the input holding the messages; all four are always deleted at the end.

    Raises:
        BrokerError: the brokers can't be reached, or refuse to create the topics.
    """
    own = renamed(
        settings,
        f"sweep-{uuid.uuid4().hex[:8]}",
        until_idle=_UNTIL_IDLE_S,
        workers=1,
        http=None,
        log_format="text",
        latency_goal_ms=OPTIONS["latency_goal_ms"].default,  # set together with the chunk size
    )
    try:
        create_topics(own)
        _publish(own, messages, stopped)
        yield own
    finally:
        delete(own, own.topics)


def _publish(own: Settings, messages: Messages, stopped: Callable[[], bool]) -> None:
    sender = Sender(own, topic=own.input_topic)
    for key, value in messages:
        if not sender.send(key, value, stopped=stopped) or stopped():
            break
    sender.flush(STOPPED_FLUSH_S if stopped() else FLUSH_S)


def measure(
    base: Settings,
    chunk_size: int,
    *,
    rows: int,
    seconds: float,
    directory: Path,
    stopped: Callable[[], bool],
) -> list[ChunkCost]:
    """Have a worker score the backlog of `rows`, for `seconds` at most, and audit it; None once stopped.

    Throughput is measured from the first chunk to the last, with all work in between: reading, decoding, scoring,
    encoding, committing. The other numbers are of scoring alone, as the worker's metrics messages report them.

    Raises:
        WorkerError: the worker exited early, or with a code other than 0.
        NotOnceError: a consumed row has no result or dead letter, or more than one.
        BrokerError: reading failed, or the worker scored nothing.
    """
    prefix = f"{base.group}-{chunk_size}"
    settings = renamed(base, prefix, input_topic=base.input_topic, chunk_size=chunk_size)
    try:
        create_topics(settings)
        with Follower(settings, [settings.metrics_topic], from_beginning=True) as follower:
            run = _Run(follower, rows)
            if not _work(settings, run, seconds=seconds, directory=directory, stopped=stopped):
                return []
            _check(settings, run)
            return [run.cost(chunk_size)]
    finally:
        delete(settings, settings.output_topics)


class _Run:
    """What one worker has committed so far."""

    def __init__(self, follower: Follower, rows: int) -> None:
        self._follower = follower
        self._chunks: list[ChunkMetrics] = []
        self._backlog = rows
        self.rows = 0
        self.began = 0.0  # when this reader saw the first chunk

    @property
    def done(self) -> bool:
        return self.rows >= self._backlog

    def read(self) -> None:
        for message in self._follower.read(_PATIENCE_S):
            chunk = decode_metrics(message.value())
            self.began = self.began or time.monotonic()
            self._chunks.append(chunk)
            self.rows += chunk.rows

    def cost(self, chunk_size: int) -> ChunkCost:
        """Raises VitalstreamError if there are fewer than two chunks, between which to measure."""
        first, *others = sorted(self._chunks, key=lambda chunk: chunk.at)
        if not others:
            raise VitalstreamError(
                f"one chunk of {chunk_size} took the whole backlog; raise --rows or --seconds"
            )
        rows = sum(chunk.rows for chunk in others)
        took = datetime.fromisoformat(others[-1].at) - datetime.fromisoformat(first.at)
        scored = [chunk.scored - chunk.no_input for chunk in others]  # by the model
        chunk_ms = np.multiply([chunk.latency_ms for chunk in others], scored)
        p50, p99 = np.quantile(chunk_ms, [0.5, 0.99]).tolist()
        return ChunkCost(
            chunk_size=chunk_size,
            latency_ms=float(chunk_ms.sum()) / max(1, sum(scored)),
            throughput=rows / max(took.total_seconds(), 0.001),
            chunk_ms_p50=p50,
            chunk_ms_p99=p99,
        )


def _work(
    settings: Settings, run: _Run, *, seconds: float, directory: Path, stopped: Callable[[], bool]
) -> bool:
    """Run a worker until the backlog is scored or the time is up; returns whether it was one of these."""
    worker = WorkerProcess(settings, directory)
    started = time.monotonic()
    try:
        while not run.done and not stopped() and not (run.began and time.monotonic() - run.began > seconds):
            worker.check()
            run.read()
            if not run.began and time.monotonic() - started > _WARM_UP_S:
                raise BrokerError(f"the worker scored nothing within {_WARM_UP_S:g} s")
        worker.stop()
    finally:
        worker.kill()
    return not stopped()


def _check(settings: Settings, run: _Run) -> None:
    """Audit the run, then read the metrics of everything that was consumed."""
    found = audit(settings)
    deadline = time.monotonic() + _SETTLE_S
    while run.rows < found.messages and time.monotonic() < deadline:
        run.read()
    if not found.clean or found.accounted != run.rows:
        raise NotOnceError(
            f"at chunk size {settings.chunk_size}, {found.accounted:,} of {found.messages:,} consumed rows came out "
            f"exactly once, and the worker reports {run.rows:,}"
        )

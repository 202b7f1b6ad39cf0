"""Prometheus metrics of a worker, from its events.

Rows and their times count when their transaction is committed, never before. A commit with an unknown outcome is
counted as unknown, without its rows: they are read again, or were committed after all.
"""

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
from confluent_kafka import libversion
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from typing_extensions import override

from consumer.errors import Action
from consumer.lag import Oldest, is_behind
from consumer.observer import Observer, Step
from schemas.contract import Reason
from schemas.metrics import ChunkMetrics

_CHUNK_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COMMIT_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_WAIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)

_RESULTS = ("committed", "aborted", "unknown", "fenced")


@dataclass(slots=True)
class _Uncommitted:
    """Counts to be added at the commit."""

    scored: int = 0
    no_input: int = 0
    skipped: int = 0
    dead: Counts[Reason] = field(default_factory=Counts)
    waits: list[tuple[NDArray[np.float64], float]] = field(default_factory=list)  # and when they were taken
    chunks: int = 0
    late: int = 0


class PrometheusObserver(Observer):
    """Keeps the metrics in `registry`. Costs a few microseconds per chunk and nothing per message."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._now = now
        self._uncommitted = _Uncommitted()
        self._collected_at = 0.0
        self._chunks = 0  # in the block that was scored last
        self._committing = False
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._waits = _Seconds(
            "vitalstream_end_to_end_seconds",
            "From the source message's timestamp to the commit of its result",
            _WAIT_BUCKETS,
        )
        self._chunk_seconds = _Seconds(
            "vitalstream_chunk_seconds",
            "Decoding, scoring and encoding a chunk: its share of a block's time",
            _CHUNK_BUCKETS,
        )
        self._backlog = _Backlog(now)
        for collector in (self._waits, self._chunk_seconds, self._backlog):
            registry.register(collector)

        rows = Counter("vitalstream_rows", "Messages committed, by outcome", ["outcome"], registry=registry)
        self._scored = rows.labels("scored")
        self._dead_lettered = rows.labels("dead_lettered")
        self._skipped = rows.labels("skipped")
        dead = Counter(
            "vitalstream_dead_letters", "Dead letters committed, by reason", ["reason"], registry=registry
        )
        self._dead = {reason: dead.labels(reason.value) for reason in Reason}
        self._no_input = Counter(
            "vitalstream_no_input_results",
            "Results committed without a score: their messages had too few of the model's features",
            registry=registry,
        )
        transactions = Counter(
            "vitalstream_transactions", "Transactions, by outcome", ["result"], registry=registry
        )
        self._transactions = {result: transactions.labels(result) for result in _RESULTS}
        self._commit_seconds = Histogram(
            "vitalstream_commit_seconds",
            "Committing a transaction",
            buckets=_COMMIT_BUCKETS,
            registry=registry,
        )
        self._rebuilds = Counter(
            "vitalstream_producer_rebuilds", "Producers replaced after a failure", registry=registry
        )
        self._registry_waits = Counter(
            "vitalstream_registry_waits",
            "Times that messages were put off because the schema registry could not be reached",
            registry=registry,
        )
        self._last_commit = Gauge(
            "vitalstream_last_commit_timestamp_seconds",
            "When a transaction was last committed",
            registry=registry,
        )
        self._state_patients = Gauge(
            "vitalstream_state_patients", "Patients whose state is in memory", registry=registry
        )
        self._state_bytes = Gauge(
            "vitalstream_state_bytes", "Memory that the patients' state takes", registry=registry
        )
        self._restored = Counter(
            "vitalstream_restored_patients", "Patients whose state was read back", registry=registry
        )
        self._restored_bytes = Counter(
            "vitalstream_restored_bytes", "Bytes of state that were read back", registry=registry
        )
        self._restore_seconds = Counter(
            "vitalstream_restore_seconds", "How long partitions waited for their state", registry=registry
        )
        self._restoring = Gauge(
            "vitalstream_restoring_partitions", "Partitions that wait for their state", registry=registry
        )
        self._late = Counter(
            "vitalstream_late_rows",
            "Rows committed that were too late for a step of their patient's windows",
            registry=registry,
        )
        self._partitions = Gauge(
            "vitalstream_assigned_partitions", "Partitions assigned to this worker", registry=registry
        )
        self._chunk_size = Gauge(
            "vitalstream_chunk_size_rows", "Rows that a chunk takes at most", registry=registry
        )
        self._max_wait = Gauge(
            "vitalstream_max_wait_seconds", "How long a chunk waits to fill, at most", registry=registry
        )
        self._models = Gauge(
            "vitalstream_model_info",
            "The model in use, and a new one while it is ready to take over",
            ["sha256", "path"],
            registry=registry,
        )
        self._scoring: tuple[str, ...] = ()
        self._ready: tuple[str, ...] = ()
        changes = Counter(
            "vitalstream_model_changes", "New models, by outcome", ["result"], registry=registry
        )
        self._changes = {result: changes.labels(result) for result in ("changed", "refused")}
        self._outdated = Gauge(
            "vitalstream_model_outdated",
            "1 while the pinned model is not in use: it was refused, or its files are only partly replaced",
            registry=registry,
        )
        Info("vitalstream_build", "What runs", registry=registry).info(
            {"version": version("vitalstream"), "librdkafka": libversion()[0]}
        )
        self._assigned: set[int] = set()

    @override
    def started(self, *, worker: str, model: str, features: Sequence[str], path: str, decision: str) -> None:
        self._scoring = self._ready = (model, path)
        self._models.labels(*self._scoring).set(1)

    @override
    def model_ready(self, *, model: str, path: str) -> None:
        self._ready = (model, path)
        self._models.labels(*self._ready).set(1)

    @override
    def model_changed(self, *, model: str, features: Sequence[str], path: str, decision: str) -> None:
        if self._scoring != self._ready:
            self._models.remove(*self._scoring)
        self._scoring = self._ready
        self._changes["changed"].inc()
        self._outdated.set(0)

    @override
    def model_awaited(self, why: str) -> None:
        """Until all its files are there, a restart would fail."""
        self._outdated.set(1)

    @override
    def model_refused(self, why: str) -> None:
        self._changes["refused"].inc()
        self._outdated.set(1)

    @override
    def model_kept(self) -> None:
        self._outdated.set(0)

    @override
    def assigned(self, partitions: Sequence[int]) -> None:
        self._assigned.update(partitions)
        self._partitions.set(len(self._assigned))

    @override
    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        self._assigned.difference_update(partitions)
        self._partitions.set(len(self._assigned))
        self._restoring.set(0)  # the remaining ones are reported at once

    @override
    def restoring(self, partitions: Sequence[int], *, patients: int) -> None:
        self._restoring.set(len(partitions))
        self._state_patients.set(patients)

    @override
    def restored(self, partition: int, *, patients: int, size: int, seconds: float) -> None:
        self._restored.inc(patients)
        self._restored_bytes.inc(size)
        self._restore_seconds.inc(seconds)

    @override
    def kept(self, *, patients: int, size: int) -> None:
        self._state_patients.set(patients)
        self._state_bytes.set(size)

    @override
    def late(self, rows: int) -> None:
        self._uncommitted.late += rows

    @override
    def behind(self, lags: Mapping[int, int]) -> None:
        self._backlog.update(lags)

    @override
    def collected(self, *, oldest: float | None, waited: float) -> None:
        self._collected_at = self._clock()
        self._backlog.oldest.collected(self._now() if oldest is None else oldest)

    @override
    def rejected(self, partition: int, offset: int, reason: Reason, field: str) -> None:
        self._uncommitted.dead[reason] += 1

    @override
    def waited(self, milliseconds: NDArray[np.float64]) -> None:
        """The commit adds the time from now until then."""
        self._uncommitted.waits.append((milliseconds, self._clock()))

    @override
    def scored(self, chunks: Sequence[ChunkMetrics]) -> None:
        self._chunks = len(chunks)
        self._uncommitted.chunks += len(chunks)
        self._uncommitted.scored += sum([chunk.scored for chunk in chunks])
        self._uncommitted.no_input += sum([chunk.no_input for chunk in chunks])
        self._uncommitted.skipped += sum([chunk.skipped for chunk in chunks])
        self._chunk_size.set(chunks[-1].chunk_size or 0)
        self._max_wait.set((chunks[-1].max_wait_ms or 0) / 1000)

    @override
    def reached(self, step: Step) -> None:
        """After `OFFSETS_SENT`, the outcome of a commit may be unknown."""
        if step is Step.SCORED:
            seconds = self._clock() - self._collected_at
            self._chunk_seconds.add(np.full(self._chunks, seconds / self._chunks))
        self._committing = step is Step.OFFSETS_SENT

    @override
    def committed(self, *, chunks: int, rows: int, seconds: float) -> None:
        done, self._uncommitted = self._uncommitted, _Uncommitted()
        self._scored.inc(done.scored)
        self._no_input.inc(done.no_input)
        self._skipped.inc(done.skipped)
        self._late.inc(done.late)
        for reason, count in done.dead.items():
            self._dead[reason].inc(count)
            self._dead_lettered.inc(count)
        now = self._clock()
        for milliseconds, taken_at in done.waits:
            self._waits.add(milliseconds / 1000 + (now - taken_at))
        self._transactions["committed"].inc()
        self._commit_seconds.observe(seconds)
        self._last_commit.set(self._now())
        self._backlog.oldest.committed()

    @override
    def failed(self, operation: str, error_name: str, action: Action) -> None:
        self._take_back("fenced" if action is Action.FENCED else self._unless_committing("aborted", action))

    @override
    def waiting(self, reason: str) -> None:
        self._registry_waits.inc()
        self._backlog.oldest.taken_back()

    @override
    def renewed(self) -> None:
        self._rebuilds.inc()

    @override
    def stopped(self) -> None:
        """This worker will never commit what is uncommitted now."""
        self._take_back("aborted")

    def _unless_committing(self, result: str, action: Action) -> str:
        return "unknown" if self._committing and action is Action.REBUILD else result

    def _take_back(self, result: str) -> None:
        if self._uncommitted.chunks:
            self._transactions[result].inc()
        self._uncommitted = _Uncommitted()
        self._committing = False
        self._backlog.oldest.taken_back()


class _Seconds(Collector):
    """A histogram that accepts many values at once."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = np.array(buckets)
        self._labels = [*map(floatToGoString, buckets), "+Inf"]
        # One object, replaced and never changed: a scrape sees counts and sum of the same moment.
        self._state = (np.zeros(len(self._labels), np.int64), 0.0)

    def add(self, seconds: NDArray[np.float64]) -> None:
        """Count each of these values."""
        counts, total = self._state
        buckets = np.bincount(self._bounds.searchsorted(seconds), minlength=len(counts))
        # Clocks differ; a decreasing sum would look like a restart.
        self._state = counts + buckets.cumsum(), total + max(0.0, float(seconds.sum()))

    @override
    def collect(self) -> Iterable[Metric]:
        counts, total = self._state
        yield HistogramMetricFamily(
            self._name,
            self._documentation,
            buckets=list(zip(self._labels, counts.tolist(), strict=True)),
            sum_value=total,
        )


class _Backlog(Collector):
    """Lag in messages and in time, computed at each scrape."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lags: Mapping[int, int] = {}
        self.oldest = Oldest()

    def update(self, lags: Mapping[int, int]) -> None:
        """Set the lag of each partition."""
        self._lags = lags
        self.oldest.behind(is_behind(lags), self._now())

    @override
    def collect(self) -> Iterable[Metric]:
        lag = GaugeMetricFamily(
            "vitalstream_consumer_lag_messages",
            "Messages that can be read and were not collected yet",
            labels=["partition"],
        )
        for partition, messages in self._lags.items():
            lag.add_metric([str(partition)], messages)
        yield lag
        since = self.oldest.since
        yield GaugeMetricFamily(
            "vitalstream_oldest_unprocessed_seconds",
            "Age of the oldest message that is not committed, by its own timestamp; 0 when nothing is behind",
            value=0.0 if since is None else max(0.0, self._now() - since),
        )

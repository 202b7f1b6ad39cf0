"""Hand-made messages and a queue to collect them from. Nothing here pretends to be Kafka."""

from collections.abc import Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError

from broker.roles import Role
from consumer.chunks import Block, Pace
from consumer.identity import Identity
from consumer.sending import Output, Records
from schemas.dead_letters import DeadLetter
from schemas.metrics import ChunkMetrics, ClosedBy


class FakeMessage:
    """The part of a Kafka message that the worker uses."""

    def __init__(
        self,
        value: bytes | None = b"{}",
        *,
        key: bytes | None = b"p1",
        partition: int = 0,
        offset: int = 0,
        timestamp: int = -1,
        headers: list[tuple[str, bytes | None]] | None = None,
        error: KafkaError | None = None,
    ) -> None:
        self._value, self._key, self._headers, self._error = value, key, headers, error
        self._partition, self._offset, self._timestamp = partition, offset, timestamp

    def __len__(self) -> int:
        return len(self._value or b"")

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes | None:
        return self._key

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return (0, -1) if self._timestamp < 0 else (1, self._timestamp)

    def error(self) -> KafkaError | None:
        return self._error


class Clock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Queue:
    """A MessageSource: queued messages are there at once; waiting for more advances the clock.

    `later` holds messages that arrive some seconds after a wait begins.
    """

    def __init__(self, clock: Clock, messages: Iterable[FakeMessage] = ()) -> None:
        self._clock = clock
        self.queued = list(messages)
        self.later: list[tuple[float, FakeMessage]] = []

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Any]:
        assert num_messages > 0
        assert timeout >= 0, "an endless wait"
        deadline = self._clock.now + timeout
        while len(self.queued) < num_messages and self.later and self.later[0][0] <= deadline:
            self._clock.now, message = self.later.pop(0)
            self.queued.append(message)
        if len(self.queued) < num_messages:
            self._clock.now = deadline
        taken, self.queued = self.queued[:num_messages], self.queued[num_messages:]
        return taken


def messages(*positions: tuple[int, int]) -> list[FakeMessage]:
    """Messages at (partition, offset)."""
    return [FakeMessage(partition=partition, offset=offset) for partition, offset in positions]


def chunk_of(given: list[FakeMessage]) -> Block:
    return block_of(given, chunk_size=len(given))


def block_of(given: list[FakeMessage], *, chunk_size: int, closed_by: ClosedBy = ClosedBy.FULL) -> Block:
    taken: list[Any] = list(given)
    partitions, offsets = [one.partition() for one in given], [one.offset() for one in given]
    return Block(taken, partitions, offsets, closed_by, 0.0, Pace(chunk_size, 0.0))


def chunk_metrics(*, scored: int = 1, dead_lettered: int = 0, **changes: Any) -> ChunkMetrics:
    """Metrics for a chunk whose details don't matter."""
    usual: dict[str, Any] = {
        "chunk_id": "vitals-0@0",
        "worker": "w",
        "closed_by": ClosedBy.FULL,
        "rows": scored + dead_lettered,
        "latency_ms": 1.0,
        "throughput_rows_per_s": 1.0,
        "end_to_end_ms_p50": None,
        "end_to_end_ms_p99": None,
        "end_to_end_ms_max": None,
        "lag": 0,
        "offsets": {},
        "model": "f00d",
        "at": "2026-01-05T08:30:00.000Z",
        "chunk_size": 100,
        "max_wait_ms": 0,
    }
    return ChunkMetrics(scored=scored, dead_lettered=dead_lettered, **(usual | changes))


def described(topic_id: str) -> "Future[Any]":
    """An answer to describe_topics: this topic ID."""
    answer: Future[Any] = Future()
    answer.set_result(SimpleNamespace(topic_id=topic_id))
    return answer


def identity(topic_id: str) -> Identity:
    """A topic that keeps its ID."""
    return Identity(lambda: described(topic_id), topic="vitals", clock=Clock())


def records_of(output: Output, role: Role) -> Records:
    """The records of one role."""
    (records,) = [one for one in output.records if one.role is role]
    return records


def results_of(output: Output) -> list[bytes]:
    return [value for value in records_of(output, Role.RESULTS).values if value is not None]


def metrics_of(output: Output) -> list[bytes]:
    return [value for value in records_of(output, Role.METRICS).values if value is not None]


def letters_of(output: Output) -> list[DeadLetter]:
    records = records_of(output, Role.DEAD_LETTERS)
    assert records.keys is not None
    assert records.headers is not None
    parts = zip(records.keys, records.values, records.headers, strict=True)
    return [DeadLetter(key, value, [*headers]) for key, value, headers in parts]

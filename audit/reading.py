"""One pass over a topic, from given offsets to given offsets, in batches."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from audit.bitmap import Bools, Ints
from audit.cluster import Offsets
from audit.errors import NotAuditableError
from broker.log import kafka_logger
from broker.settings import Settings
from schemas.dead_letters import Headers

BATCH = 10_000
STALL_S = 60.0

READ_COMMITTED = "read_committed"
READ_UNCOMMITTED = "read_uncommitted"

_READER = {
    "enable.auto.commit": False,
    "enable.partition.eof": True,  # the last offsets may be transaction markers rather than messages
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "check.crcs": True,
    "fetch.queue.backoff.ms": 10,
    "queued.max.messages.kbytes": 32_768,
    "fetch.wait.max.ms": 100,
}

_DELETED = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)

_HOPELESS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this user has no READ right on it",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "this user has no READ right on the group",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "it was deleted",
    KafkaError._UNKNOWN_PARTITION: "it was deleted",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a pass over a topic: `share` of its offsets, and messages read in `seconds`."""

    stage: str
    share: float
    rows: int
    seconds: float


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages with their partitions and offsets; those of one partition are in order."""

    messages: list[Message]
    partitions: Ints
    offsets: Ints

    def __len__(self) -> int:
        return len(self.messages)

    def kept(self, rows: Bools) -> "Batch":
        """Only these rows."""
        if rows.all():
            return self
        messages = [self.messages[row] for row in np.flatnonzero(rows).tolist()]
        return Batch(messages, self.partitions[rows], self.offsets[rows])

    def values(self) -> list[bytes | None]:
        """The messages' values."""
        return [*map(Message.value, self.messages)]


def headers_of(message: Message) -> Headers:
    """A message's headers; empty if it has none."""
    headers: Any = message.headers()  # the declared type allows more than a consumer returns
    return headers or ()


def read(
    settings: Settings,
    topic: str,
    *,
    starts: Offsets,
    ends: Offsets,
    stage: str,
    on_progress: OnProgress,
    isolation: str = READ_COMMITTED,
    on_deleted: Callable[[int], None] = lambda _: None,
) -> Iterator[Batch]:
    """All messages of `topic` from `starts` to below `ends`.

    `on_deleted` is called for each partition whose next messages were deleted before they were read; reading continues
    with the first remaining one. Raises NotAuditableError if they can't be read, or nothing arrives for a minute.
    """
    config = settings.client(_READER) | {"isolation.level": isolation, "group.id": settings.group}
    reader = Consumer(config, logger=kafka_logger("vitalstream.kafka"))
    try:
        yield from _Pass(
            reader,
            topic,
            starts=starts,
            ends=ends,
            stage=stage,
            on_progress=on_progress,
            on_deleted=on_deleted,
        )
    finally:
        reader.close()


class _Pass:
    def __init__(
        self,
        reader: Consumer,
        topic: str,
        *,
        starts: Offsets,
        ends: Offsets,
        stage: str,
        on_progress: OnProgress,
        on_deleted: Callable[[int], None],
    ) -> None:
        self._reader = reader
        self._topic = topic
        self._stage = stage
        self._on_progress = on_progress
        self._on_deleted = on_deleted
        self._left = {p for p, start in starts.items() if start < ends[p]}
        self._ends = np.array([ends[p] for p in range(len(ends))], dtype=np.int64)
        self._next = np.minimum(np.array([starts[p] for p in range(len(ends))], dtype=np.int64), self._ends)
        self._total = max(1, int((self._ends - self._next).sum()))
        self._rows = 0
        self._began = self._moved_at = time.monotonic()

    def __iter__(self) -> Iterator[Batch]:
        starts = [TopicPartition(self._topic, p, int(self._next[p])) for p in sorted(self._left)]
        if starts:
            self._reader.assign(starts)
        while self._left:
            arrived = self._reader.consume(BATCH, timeout=0.02)
            self._watch(arrived)
            events = [*filter(Message.error, arrived)]
            batch = self._batch([one for one in arrived if one.error() is None] if events else arrived)
            if len(batch):
                yield batch
            for event in events:  # the messages before them are processed by now
                self._hear(event)
            self._settle()
            self._tell()

    def _watch(self, arrived: list[Message]) -> None:
        if arrived:
            self._moved_at = time.monotonic()
        elif time.monotonic() - self._moved_at > STALL_S:
            raise NotAuditableError(f"topic {self._topic} can't be read: nothing arrived for {STALL_S:g} s")

    def _batch(self, messages: list[Message]) -> Batch:
        """Only messages that were not read before and lie before the end."""
        partitions = _ints(map(Message.partition, messages), len(messages))
        offsets = _ints(map(Message.offset, messages), len(messages))
        wanted = (offsets >= self._next[partitions]) & (offsets < self._ends[partitions])
        np.maximum.at(self._next, partitions, offsets + 1)
        batch = Batch(messages, partitions, offsets).kept(wanted)
        self._rows += len(batch)
        return batch

    def _hear(self, event: Message) -> None:
        error, partition, offset = event.error(), event.partition(), event.offset()
        code = error.code() if error is not None else 0
        if code == KafkaError._PARTITION_EOF and partition is not None and offset is not None:
            self._next[partition] = max(self._next[partition], offset)
        elif code in _DELETED and partition in self._left:
            self._go_on(partition)
        elif code in _HOPELESS:
            raise NotAuditableError(f"topic {self._topic} can't be read: {_HOPELESS[code]}")

    def _go_on(self, partition: int) -> None:
        self._on_deleted(partition)
        first_left = [TopicPartition(self._topic, partition, OFFSET_BEGINNING)]
        self._reader.incremental_unassign(first_left)
        self._reader.incremental_assign(first_left)

    def _settle(self) -> None:
        done = {p for p in self._left if self._next[p] >= self._ends[p]}
        if done:
            self._reader.incremental_unassign([TopicPartition(self._topic, p) for p in sorted(done)])
            self._left -= done

    def _tell(self) -> None:
        left = int(np.maximum(0, self._ends - self._next).sum())
        seconds = time.monotonic() - self._began
        self._on_progress(Progress(self._stage, 1 - left / self._total, self._rows, seconds))


def _ints(values: Iterable[Any], count: int) -> Ints:
    return np.fromiter(values, np.int64, count)

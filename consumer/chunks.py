"""Collecting: Kafka messages become chunks. Nothing here parses or scores."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from confluent_kafka import KafkaError, Message

from schemas.metrics import ClosedBy

POLL_S = 0.1  # how long one blocking call waits; a stop or a heartbeat is noticed within it


class MessageSource(Protocol):
    """The part of a Kafka consumer that collecting needs."""

    def consume(self, num_messages: int = ..., timeout: float = ...) -> list[Message]:
        """Up to `num_messages` messages, as soon as they are there or `timeout` seconds have passed."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When a chunk takes no more rows: at `chunk_size` rows, or `max_wait` seconds after its first one."""

    chunk_size: int
    max_wait: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """Messages of one topic to be scored together, in the order in which they were read."""

    messages: list[Message]
    partitions: list[int]  # of each message
    offsets: list[int]  # of each message
    closed_by: ClosedBy
    first_at: float  # monotonic seconds at which its first message was taken
    pace: Pace  # by which it was collected

    def __len__(self) -> int:
        return len(self.messages)

    def spans(self) -> dict[int, tuple[int, int]]:
        """The first and the last offset of each partition."""
        last = dict(zip(self.partitions, self.offsets, strict=True))
        return {
            partition: (self.offsets[self._first(partition)], offset) for partition, offset in last.items()
        }

    def oldest(self) -> float | None:
        """The earliest timestamp among each partition's first message, in seconds since 1970, if they have one."""
        times = [self.messages[self._first(partition)].timestamp()[1] for partition in set(self.partitions)]
        return min((time / 1000 for time in times if time >= 0), default=None)

    def only(self, positions: list[int]) -> "Chunk":
        """The messages at these positions, which ascend."""
        if len(positions) == len(self):
            return self
        return replace(
            self,
            messages=[self.messages[i] for i in positions],
            partitions=[self.partitions[i] for i in positions],
            offsets=[self.offsets[i] for i in positions],
        )

    def _first(self, partition: int) -> int:
        return self.partitions.index(partition)


class Collector:
    """Gathers messages until a chunk is full, the queue is drained, or its first row has waited enough.

    With `max_wait` 0 a chunk takes what is there at once and never waits. `pace` is asked when a chunk begins.
    `on_error` hears of every error that the consumer reports in place of a message, and may raise.
    """

    def __init__(
        self,
        source: MessageSource,
        *,
        pace: Callable[[], Pace],
        on_error: Callable[[KafkaError], None],
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._next_pace = pace
        self._on_error = on_error
        self._clock = clock
        self._pending: list[Message] = []
        self._pace = pace()
        self._first_at = 0.0

    def collect(self, *, patience: float = POLL_S) -> Chunk | None:
        """The next chunk, or None when nothing came, or a chunk is still waiting to fill, after `patience`."""
        if not self._pending:
            self._pace = self._next_pace()
        if not self._take(0.0) and not self._pending:
            self._take_first(patience)
        if self._pending and not self._full and self._pace.max_wait:
            self._take(min(patience, max(0.0, self._first_at + self._pace.max_wait - self._clock())))
        reason = self._closing_reason()
        return self.close(reason) if reason else None

    def close(self, closed_by: ClosedBy) -> Chunk | None:
        """The pending messages as a chunk, whatever their number; None when there are none."""
        if not self._pending:
            return None
        messages, self._pending = self._pending, []
        partitions: list[Any] = [message.partition() for message in messages]
        offsets: list[Any] = [message.offset() for message in messages]
        return Chunk(messages, partitions, offsets, closed_by, self._first_at, self._pace)

    def discard(self) -> None:
        """Forget the pending messages: they will be read again."""
        self._pending = []

    @property
    def _full(self) -> bool:
        return len(self._pending) >= self._pace.chunk_size

    def _closing_reason(self) -> ClosedBy | None:
        if not self._pending:
            return None
        if self._full:
            return ClosedBy.FULL
        if not self._pace.max_wait:
            return ClosedBy.DRAINED
        return ClosedBy.WAITED if self._clock() >= self._first_at + self._pace.max_wait else None

    def _take_first(self, patience: float) -> None:
        # consume(n, timeout) waits for all n messages, so the wait for the first is for one alone.
        self._append(self._source.consume(1, patience))
        if self._pending and not self._full:
            self._take(0.0)

    def _take(self, timeout: float) -> bool:
        return self._append(self._source.consume(self._pace.chunk_size - len(self._pending), timeout))

    def _append(self, arrived: list[Message]) -> bool:
        if not arrived:
            return False
        errors = [message.error() for message in arrived]
        messages = [message for message, error in zip(arrived, errors, strict=True) if error is None]
        if len(messages) < len(arrived):
            for error in errors:
                if error is not None:
                    self._on_error(error)
        if not messages:
            return False
        if not self._pending:
            self._first_at = self._clock()
        self._pending += messages
        return True

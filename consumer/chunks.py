"""Collecting: Kafka messages become blocks of chunks. Nothing here parses or scores."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any, Final, Protocol

import numpy as np
from confluent_kafka import KafkaError, Message
from numpy.typing import NDArray

from schemas.metrics import ClosedBy

POLL_S = 0.1  # how long one blocking call waits; a stop or a heartbeat is noticed within it
# A block takes no more than this, unless a single chunk does. Rows get no cheaper beyond 4,000. Decoding FHIR
# takes ten times the bytes of the messages.
BLOCK_ROWS: Final = 4_000
BLOCK_BYTES: Final = 4_000_000
STEP: Final = 500  # messages taken at once, after which their bytes are counted


class MessageSource(Protocol):
    """The part of a Kafka consumer that collecting needs."""

    def consume(self, num_messages: int = ..., timeout: float = ...) -> list[Message]:
        """Up to `num_messages` messages, as soon as they are there or `timeout` seconds have passed."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When a chunk closes: at `chunk_size` rows, or `max_wait` seconds after its first one."""

    chunk_size: int
    max_wait: float


@dataclass(frozen=True)
class Block:
    """Messages of one topic taken together, in the order they were read: one or more chunks.

    A chunk has `pace.chunk_size` messages; only the last one of a block may have fewer.
    """

    messages: list[Message]
    partitions: list[int]  # of each message
    offsets: list[int]  # of each message
    closed_by: ClosedBy  # why the last chunk closed
    first_at: float  # monotonic seconds at which its first message was taken
    pace: Pace  # at which it was collected

    def __len__(self) -> int:
        return len(self.messages)

    @cached_property
    def chunks(self) -> "list[Block]":
        """Each chunk, as its own block."""
        size = self.pace.chunk_size
        if len(self) <= size:
            return [self]
        return [self._cut(start, start + size) for start in range(0, len(self), size)]

    def last(self, rows: int) -> "Block":
        """Its last messages, this many if it has more."""
        return self if len(self) <= rows else self._cut(len(self) - rows, len(self))

    @cached_property
    def keys(self) -> list[bytes | None]:
        """The messages' keys."""
        keys: list[Any] = [message.key() for message in self.messages]
        return keys

    @cached_property
    def timestamps(self) -> NDArray[np.int64]:
        """The messages' timestamps in ms since 1970, -1 for one without."""
        return np.fromiter([message.timestamp()[1] for message in self.messages], np.int64, len(self))

    @property
    def spans(self) -> dict[int, tuple[int, int]]:
        """The first and the last offset of each partition."""
        return self._offsets(self._ends)

    @property
    def spans_by_chunk(self) -> list[dict[int, tuple[int, int]]]:
        """The same for each chunk; a chunk's first partition is that of its first message."""
        return [*map(self._offsets, self._ends_by(self.pace.chunk_size))]

    def oldest(self) -> float | None:
        """The earliest timestamp of the partitions' first messages, in seconds since 1970; None if they have none."""
        times = [self.messages[first].timestamp()[1] for first, _ in self._ends.values()]
        return min((time / 1000 for time in times if time >= 0), default=None)

    def only(self, positions: list[int]) -> "Block":
        """The messages at these positions, in ascending order."""
        if len(positions) == len(self):
            return self
        return replace(
            self,
            messages=[self.messages[i] for i in positions],
            partitions=[self.partitions[i] for i in positions],
            offsets=[self.offsets[i] for i in positions],
        )

    @cached_property
    def _ends(self) -> dict[int, tuple[int, int]]:
        """The positions of each partition's first and last message."""
        (ends,) = self._ends_by(len(self))
        return ends

    def _ends_by(self, size: int) -> list[dict[int, tuple[int, int]]]:
        """The same for each `size` messages."""
        found: list[dict[int, tuple[int, int]]] = [{} for _ in range(0, len(self), size)]
        start = 0
        for partition, run in groupby(self.partitions):  # a queue gives many messages of one in a row
            end = start + len([*run])
            while start < end:
                number = start // size
                ends, stop = found[number], min(end, (number + 1) * size)
                ends[partition] = ends.get(partition, (start,))[0], stop - 1
                start = stop
        return found

    def _offsets(self, ends: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
        return {
            partition: (self.offsets[first], self.offsets[last]) for partition, (first, last) in ends.items()
        }

    def _cut(self, start: int, stop: int) -> "Block":
        return Block(
            self.messages[start:stop],
            self.partitions[start:stop],
            self.offsets[start:stop],
            ClosedBy.FULL if stop <= len(self) else self.closed_by,
            self.first_at,
            self.pace,
        )


class Collector:
    """Gathers messages until a chunk is full, the queue is drained, or its first row has waited enough.

    With `max_wait` 0 a chunk takes what is queued and never waits. A block of several chunks has only full ones; the
    remaining messages wait for more, like any other chunk. `pace` is called each time. `on_error` receives every error
    that the consumer returns instead of a message, and may raise.
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
        self._pace = pace()
        self._pending: list[Message] = []
        self._bytes = 0  # of their values
        self._first_at = 0.0
        self._last_at = 0.0

    @property
    def pending(self) -> list[int]:
        """The partitions of the messages that were taken but are not yet in a block."""
        partitions: list[Any] = [message.partition() for message in self._pending]
        return partitions

    def collect(self, *, rows: int = 0, patience: float = POLL_S) -> Block | None:
        """The next block; None if nothing came, or a chunk is still waiting to fill, after `patience`.

        It has as many full chunks as are queued and fit into `rows`, but at least one.
        """
        self._pace = self._next_pace()
        size = self._pace.chunk_size
        wanted = max(size, min(rows, BLOCK_ROWS) // size * size)
        if not self._take_queued(wanted) and not self._pending:
            # consume(n, timeout) waits for all n messages, so wait for the first one alone.
            self._take(1, patience)
            self._take_queued(wanted)
        if self._pending and self._missing > 0 and self._pace.max_wait:
            self._take(self._missing, min(patience, max(0.0, self._deadline - self._clock())))
        reason = self._closing_reason()
        full = len(self._pending) // size * size
        return self._block(full or len(self._pending), reason) if reason else None

    def close(self, closed_by: ClosedBy) -> Block | None:
        """All pending messages as a block; None if there are none."""
        return self._block(len(self._pending), closed_by) if self._pending else None

    def discard(self) -> None:
        """Forget the pending messages: they will be read again."""
        self._pending, self._bytes = [], 0

    @property
    def _missing(self) -> int:
        return self._pace.chunk_size - len(self._pending)

    @property
    def _deadline(self) -> float:
        return self._first_at + self._pace.max_wait

    def _closing_reason(self) -> ClosedBy | None:
        if not self._pending:
            return None
        if self._missing <= 0:
            return ClosedBy.FULL
        if not self._pace.max_wait:
            return ClosedBy.DRAINED
        return ClosedBy.WAITED if self._clock() >= self._deadline else None

    def _block(self, rows: int, closed_by: ClosedBy) -> Block:
        if rows % self._pace.chunk_size == 0:
            closed_by = ClosedBy.FULL
        messages, self._pending = self._pending[:rows], self._pending[rows:]
        first_at, self._first_at = (
            self._first_at,
            self._last_at,
        )  # the remaining messages came with the last ones
        self._bytes = sum(map(len, self._pending))
        partitions: list[Any] = [message.partition() for message in messages]
        offsets: list[Any] = [message.offset() for message in messages]
        return Block(messages, partitions, offsets, closed_by, first_at, self._pace)

    def _take_queued(self, wanted: int) -> bool:
        """Take queued messages, up to `wanted` in all; returns whether there were any."""
        before = len(self._pending)
        while True:
            most = wanted - len(self._pending) if self._bytes < BLOCK_BYTES else self._missing
            asked = min(STEP, most)
            if asked <= 0 or self._take(asked, 0.0) < asked:
                return len(self._pending) > before

    def _take(self, most: int, timeout: float) -> int:
        """Take up to this many; returns how many came, errors included."""
        arrived = self._source.consume(most, timeout)
        errors = [message.error() for message in arrived]
        messages = [message for message, error in zip(arrived, errors, strict=True) if error is None]
        if len(messages) < len(arrived):
            for error in errors:
                if error is not None:
                    self._on_error(error)
        if messages:
            self._last_at = self._clock()
            if not self._pending:
                self._first_at = self._last_at
            self._pending += messages
            self._bytes += sum(map(len, messages))
        return len(arrived)

"""Reads the state topic: each partition from its beginning to the end committed with the offset."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from broker.admin import Admin
from broker.errors import VitalstreamError
from broker.roles import Role
from broker.settings import Settings
from consumer.clients import kafka_log, transaction_timeout
from consumer.errors import Action, KafkaCallError, stops_consumer

# Brokers check this often for timed-out transactions (transaction.abort.timed.out.transaction.cleanup.interval.ms).
ANOTHER_GROUP: Final = "choose another --group, and rebuild its state with vitalstream state rebuild"
SWEEP_S: Final = 10.0
MARGIN_S: Final = 5.0
_AT_ONCE: Final = 5_000  # messages
_LATEST: Final[Any] = OffsetSpec.latest()  # type: ignore[no-untyped-call]

_READER: Final[dict[str, Any]] = {
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "enable.partition.eof": True,
    # A compacted topic keeps its first offset; one that begins later was truncated.
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "check.crcs": True,
    # An empty partition answers only after this long, and the others wait for it; the default is 500 ms.
    "fetch.wait.max.ms": 10,
    "fetch.queue.backoff.ms": 10,
    "queued.max.messages.kbytes": 16_384,
}


class StateLostError(VitalstreamError):
    """The state topic does not hold the state that belongs to the committed offsets."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of a partition's records, in order; `whole` if they include the last."""

    partition: int
    keys: Sequence[bytes]
    values: Sequence[bytes | None]
    whole: bool


@dataclass(slots=True)
class _Wanted:
    end: int  # the offset after the last wanted record
    short_since: float | None = (
        None  # when the partition was first read to its end, and that came before `end`
    )


class StateReader:
    """Reads partitions of the state topic, several at a time. If `end` is 0, the partition must be empty."""

    def __init__(
        self,
        consumer: Consumer,
        *,
        topic: str,
        last_offset: Callable[[int], int | None],
        patience: float,
        clock: Callable[[], float],
    ) -> None:
        """`last_offset` gives a partition's end, open transactions included; `patience` is for those, in seconds."""
        self._consumer = consumer
        self._topic = topic
        self._end_of = last_offset
        self._patience = patience
        self._clock = clock
        self._wanted: dict[int, _Wanted] = {}

    @property
    def partitions(self) -> list[int]:
        """The partitions that are not completely read yet."""
        return sorted(self._wanted)

    def begin(self, partition: int, end: int) -> None:
        """Read a partition up to the offset `end`, from the beginning."""
        self.leave(partition)
        self._consumer.incremental_assign([TopicPartition(self._topic, partition, 0)])
        self._wanted[partition] = _Wanted(end)

    def leave(self, partition: int) -> None:
        """Stop reading a partition."""
        if self._wanted.pop(partition, None) is not None:
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def read(self, patience: float) -> Iterator[Piece]:
        """The pieces that arrive within this many seconds.

        Raises:
            StateLostError: the topic ends too early, begins too late, or has state that nobody committed.
            KafkaCallError: the brokers refuse.
        """
        if not self._wanted:
            return
        found: defaultdict[int, list[Message]] = defaultdict(list)
        ended: dict[int, int] = {}
        # consume(n, timeout) waits for all n messages, so wait for the first one alone.
        first = self._consumer.consume(1, patience)
        for message in chain(first, self._consumer.consume(_AT_ONCE, 0.0) if first else ()):
            partition: Any = message.partition()
            error = message.error()
            if error is None:
                found[partition].append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended[partition] = message.offset()  # type: ignore[assignment]
            else:
                self._require_harmless(error)
        for partition, wanted in [*self._wanted.items()]:
            if partition in found or partition in ended:
                yield self._piece(partition, found[partition], ended.get(partition))
            elif wanted.short_since is not None:
                self._require_patience(partition, wanted)

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def _piece(self, partition: int, messages: list[Message], ended: int | None) -> Piece:
        wanted = self._wanted[partition]
        if messages and not wanted.end:
            raise StateLostError(
                f"topic {self._topic} has state in partition {partition}, but the group has committed none: it "
                "belongs to an earlier group of this name; delete the topic and recreate it with topics create "
                "--state, or choose another --group"
            )
        offsets: list[Any] = [message.offset() for message in messages]
        whole = bool(offsets and offsets[-1] >= wanted.end - 1) or (ended is not None and ended >= wanted.end)
        if whole:
            messages = [one for one, offset in zip(messages, offsets, strict=True) if offset < wanted.end]
            self.leave(partition)
        elif ended is None:
            wanted.short_since = None  # it has grown
        else:
            self._require_patience(partition, wanted)
        return Piece(
            partition,
            [message.key() or b"" for message in messages],
            [message.value() for message in messages],
            whole,
        )

    def _require_patience(self, partition: int, wanted: _Wanted) -> None:
        """An open transaction hides what was committed after its beginning; the brokers will abort it."""
        now = self._clock()
        if wanted.short_since is None:
            wanted.short_since = now
            last = self._end_of(partition)
            if last is not None and last < wanted.end:
                raise StateLostError(
                    f"partition {partition} of topic {self._topic} ends at offset {last}, and the state of the group's "
                    f"committed offset ends at {wanted.end}: the topic was deleted or truncated; "
                    f"{ANOTHER_GROUP}"
                )
        elif now - wanted.short_since > self._patience:
            raise StateLostError(
                f"a transaction has kept partition {partition} of topic {self._topic} from being read up to offset "
                f"{wanted.end} for {self._patience:g} s, longer than the brokers allow one to stay open: check "
                "what else writes there and the brokers' health, then start again"
            )

    def _require_harmless(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise StateLostError(
                f"topic {self._topic} no longer begins at its first offset: records with patients' state were "
                f"deleted; {ANOTHER_GROUP}, and set cleanup.policy=compact on its state topic"
            )
        if stops_consumer(error):
            raise KafkaCallError("reading the state topic", error, Action.STOP)


def make_state_reader(settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> StateReader:
    """A reader of the settings' state topic."""
    topic, admin = settings.topic(Role.STATE), Admin(settings)

    def last_offset(partition: int) -> int | None:
        asked = TopicPartition(topic, partition)
        answers = admin.client.list_offsets(
            {asked: _LATEST},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=admin.timeout,
        )
        try:
            return int(answers[asked].result().offset)
        except KafkaException:
            return None

    return StateReader(
        Consumer(settings.client(_READER) | {"group.id": settings.group}, logger=kafka_log),
        topic=topic,
        last_offset=last_offset,
        patience=transaction_timeout(settings) + SWEEP_S + MARGIN_S,
        clock=clock,
    )

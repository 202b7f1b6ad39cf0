"""Reads ranges of a topic outside any consumer group: the available offsets, and the messages between two."""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec

from broker.admin import Admin
from broker.errors import BrokerError
from broker.log import kafka_logger
from broker.settings import Settings

Offsets = dict[int, int]
"""An offset for each partition of a topic."""

PATIENCE_S: Final = 25.0
"""A dead worker's transaction expires after 10 s, and brokers check for expired ones every 10 s."""

_READER: Final[dict[str, Any]] = {
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "enable.partition.eof": True,  # the last offsets may be transaction markers rather than messages
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "fetch.queue.backoff.ms": 10,
    "queued.max.messages.kbytes": 16_384,
    "client.id": "vitalstream-reader",
}
_MOST = 1000  # messages per read
_FIRST_STEP = 100  # offsets
_GROWTH = 10
_SPEC: Any = OffsetSpec  # has no types
_GONE = frozenset({
    KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC,
})  # fmt: skip
Kept = TypeVar("Kept")


def first_offsets(admin: Admin, topic: str) -> Offsets:
    """The first offset that retention has left. Raises BrokerError, as the others do, if the brokers don't answer."""
    return _offsets(admin, topic, _SPEC.earliest(), IsolationLevel.READ_UNCOMMITTED)


def end_offsets(admin: Admin, topic: str, *, settled: bool = False) -> Offsets:
    """The offset after the last readable message: the last stable offset.

    If `settled`, the very end, which becomes the last stable offset once open transactions end.
    """
    isolation = IsolationLevel.READ_UNCOMMITTED if settled else IsolationLevel.READ_COMMITTED
    return _offsets(admin, topic, _SPEC.latest(), isolation)


def offsets_at(admin: Admin, topic: str, milliseconds: int) -> Offsets:
    """The first offset with a timestamp of at least `since` (ms since 1970); -1 if there is none."""
    return _offsets(admin, topic, _SPEC.for_timestamp(milliseconds), IsolationLevel.READ_UNCOMMITTED)


def messages(
    settings: Settings, topic: str, starts: Offsets, ends: Offsets, *, patience: float = PATIENCE_S
) -> Generator[Message]:
    """The committed messages from `starts` to below `ends`, in order within a partition.

    Raises BrokerError if they can't be read, or nothing arrives for `patience` seconds.
    """
    with closing(make_reader(settings)) as reader:
        left = {number for number, start in starts.items() if start < ends[number]}
        reader.assign([TopicPartition(topic, number, starts[number]) for number in sorted(left)])
        moved_at = time.monotonic()
        while left:
            arrived = reader.consume(_MOST, 0.1)
            for event in arrived:
                if (progress := _progress(event, topic)) is None:
                    continue
                partition, following = progress
                if event.error() is None and following <= ends[partition]:
                    yield event
                if following >= ends[partition]:
                    left.discard(partition)
            if arrived:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > patience:
                raise BrokerError(
                    f"topic {topic} can't be read to its end: nothing arrived for {patience:g} s, or a "
                    "transaction on it was open; try again in a minute"
                )


def newest(
    settings: Settings,
    topic: str,
    starts: Offsets,
    ends: Offsets,
    *,
    count: int,
    keep: Callable[[Message], Kept | None],
) -> Mapping[int, list[Kept]]:
    """The last `count` results of `keep` over each partition's messages, newest last; None is left out.

    Reads backwards from `ends`, in growing steps and only as far as needed: `keep` sees every message from where the
    reading of a partition stops up to its end.
    """
    found: dict[int, list[Kept]] = {number: [] for number in starts}
    step = max(_FIRST_STEP, count)
    while ends:
        begins = {number: max(starts[number], end - step) for number, end in ends.items()}
        earlier: dict[int, list[Kept]] = {number: [] for number in ends}
        for message in messages(settings, topic, begins, ends):
            partition, kept = message.partition(), keep(message)
            if partition is not None and kept is not None:
                earlier[partition].append(kept)
        found |= {number: (kept_ + found[number])[-count:] for number, kept_ in earlier.items()}
        ends = {
            number: begin
            for number, begin in begins.items()
            if begin > starts[number] and len(found[number]) < count
        }
        step *= _GROWTH
    return found


def make_reader(settings: Settings) -> Consumer:
    """A consumer that commits nothing, for partitions assigned by hand."""
    own = {"group.id": settings.group}  # librdkafka requires one
    return Consumer(settings.client(_READER) | own, logger=kafka_logger("vitalstream.kafka"))


def is_gone(error: KafkaError) -> bool:
    """Whether the requested offset no longer exists."""
    return error.code() in _GONE


def _progress(event: Message, topic: str) -> tuple[int, int] | None:
    """The partition and the offset up to which it is read; None for errors that the client handles itself."""
    error, partition, offset = event.error(), event.partition(), event.offset()
    code = None if error is None else error.code()
    if partition is not None and offset is not None and code in (None, KafkaError._PARTITION_EOF):
        return partition, offset + (code is None)
    if error is not None and is_gone(error):
        raise BrokerError(f"messages of topic {topic} were deleted while it was read; try again")
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise BrokerError(f"topic {topic} can't be read: this user has no READ right on it")
    return None


def _offsets(admin: Admin, topic: str, spec: Any, isolation: IsolationLevel) -> Offsets:
    asked = {TopicPartition(topic, number): spec for number in admin.metadata.topics[topic].partitions}

    def question() -> Offsets:
        answers = admin.client.list_offsets(asked, isolation_level=isolation, request_timeout=admin.timeout)
        return {one.partition: answer.result().offset for one, answer in answers.items()}

    return admin.ask(f"the offsets of topic {topic}", question)

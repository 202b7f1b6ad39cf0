"""Reading the dead-letter topic: the letters on it, and which of them were put back."""

import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec

from broker.admin import Admin
from broker.errors import BrokerError
from broker.log import kafka_logger
from broker.settings import Settings
from broker.topics import require_topics
from schemas.contract import Reason
from schemas.dead_letters import Headers, Origin, read_dead_letter_headers, read_replay_mark
from schemas.reading import MessageError

Position = tuple[int, int]
"""Partition and offset on the dead-letter topic."""

PATIENCE_S: Final = 25.0
"""A dead worker's transaction is aborted after 10 s, and brokers look for such every 10 s."""

READER: Final[dict[str, Any]] = {
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "enable.partition.eof": True,  # the last offsets may hold no message, but the end of a transaction
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "fetch.queue.backoff.ms": 10,
    "queued.max.messages.kbytes": 16_384,
    "client.id": "vitalstream-dead-letters",
}
_MOST = 1000  # messages taken at once
_ASK_AGAIN_S = 0.1
_FETCH_S = 10.0
_SPEC: Any = OffsetSpec  # has no types
_GONE = frozenset({
    KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, where it stands, and when its source was sent (else it itself), in ms since 1970."""

    partition: int
    offset: int
    origin: Origin
    at: int
    message: Message

    @property
    def made_at(self) -> int:
        """When it became a dead letter, in ms since 1970."""
        return self.message.timestamp()[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Some letters: of this reason, field and input topic, from `since` (ms since 1970) on. None is any."""

    reason: Reason | None = None
    field: str | None = None
    topic: str | None = None
    since: float | None = None

    def __contains__(self, letter: Letter) -> bool:
        origin = letter.origin
        pairs = (self.reason, origin.reason), (self.field, origin.field), (self.topic, origin.topic)
        return all(wanted in (None, found) for wanted, found in pairs) and letter.at >= (self.since or 0)


class LetterBox:
    """The dead-letter topic as it is when this is made, read as often as needed.

    That is up to the first open transaction; or, if `settled`, up to its very end: reading then waits
    `patience` seconds for open transactions, and fails when they don't end.

    Raises BrokerError, as every method does, where the topic is missing or can't be read.
    """

    def __init__(self, settings: Settings, *, settled: bool, patience: float = PATIENCE_S) -> None:
        self._settings = settings
        self._topic = settings.dead_letter_topic
        self._patience = patience
        require_topics(settings, [self._topic])
        admin = Admin(settings)
        isolation = IsolationLevel.READ_UNCOMMITTED if settled else IsolationLevel.READ_COMMITTED
        self._starts = _offsets(admin, self._topic, _SPEC.earliest(), isolation)
        self._ends = _offsets(admin, self._topic, _SPEC.latest(), isolation)
        self.unreadable = 0  # records seen that are neither letters nor marks

    def put_back(self) -> set[Position]:
        """The positions of all letters that were put back."""
        marked = map(_marked, self._messages(self._starts, self._ends))
        return {position for position in marked if position is not None}

    def letters(self) -> Generator[Letter]:
        """All letters, in order within a partition."""
        self.unreadable = 0
        for message in self._messages(self._starts, self._ends):
            if (letter := self._letter(message)) is not None:
                yield letter

    def newest(self, selection: Selection, limit: int) -> list[tuple[Letter, bool]]:
        """The newest `limit` letters of `selection` and whether each was put back, the newest first.

        Each partition is read backwards from its end, only as far as it takes.
        """
        self.unreadable = 0
        found: dict[int, list[Letter]] = {number: [] for number in self._starts}
        marked: set[Position | None] = set()  # complete, for a mark stands behind its letter
        ends, span = self._ends, max(_MOST, limit)
        while ends:
            starts = {number: max(self._starts[number], end - span) for number, end in ends.items()}
            earlier: dict[int, list[Letter]] = {number: [] for number in ends}
            for message in self._messages(starts, ends):
                marked.add(_marked(message))
                letter = self._letter(message)
                if letter is not None and letter in selection:
                    earlier[letter.partition].append(letter)
            found |= {number: (letters + found[number])[-limit:] for number, letters in earlier.items()}
            ends = {
                number: start
                for number, start in starts.items()
                if start > self._starts[number] and len(found[number]) < limit
            }
            span *= 4
        newest = sorted(chain(*found.values()), key=lambda one: (one.made_at, one.offset), reverse=True)
        return [(letter, (letter.partition, letter.offset) in marked) for letter in newest[:limit]]

    def _letter(self, message: Message) -> Letter | None:
        """The letter that a record is, if it is one."""
        if _marked(message) is not None:
            return None
        try:
            return _letter(message, read_dead_letter_headers(own_headers(message)))
        except MessageError:
            self.unreadable += 1
            return None

    def _messages(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Generator[Message]:
        with closing(_make_reader(self._settings)) as reader:
            left = {number for number, start in starts.items() if start < ends[number]}
            reader.assign([TopicPartition(self._topic, number, starts[number]) for number in sorted(left)])
            moved_at = time.monotonic()
            while left:
                arrived = reader.consume(_MOST, 0.1)
                for event in arrived:
                    if (progress := self._progress(event)) is None:
                        continue
                    partition, following = progress
                    if event.error() is None and following <= ends[partition]:
                        yield event
                    if following >= ends[partition]:
                        left.discard(partition)
                if arrived:
                    moved_at = time.monotonic()
                elif time.monotonic() - moved_at > self._patience:
                    raise BrokerError(
                        f"topic {self._topic} can't be read to its end: for {self._patience:g} s nothing came, or a "
                        "transaction on it was open; try again in a minute"
                    )

    def _progress(self, event: Message) -> tuple[int, int] | None:
        """Partition, and the offset up to which it is read; None of what the client deals with itself."""
        error, partition, offset = event.error(), event.partition(), event.offset()
        code = None if error is None else error.code()
        if partition is not None and offset is not None and code in (None, KafkaError._PARTITION_EOF):
            return partition, offset + (code is None)
        if error is not None and _is_gone(error):
            raise BrokerError(f"topic {self._topic} was deleted from while it was read; try again")
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise BrokerError(f"topic {self._topic} can't be read: this user has no READ right on it")
        return None


class Sources:
    """The source messages that pointers point to."""

    def __init__(self, settings: Settings) -> None:
        self._reader = _make_reader(settings)

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()

    def fetch(self, letter: Letter) -> Message | None:
        """The message at the letter's source position; None where it is gone, or another one is there now.

        Raises BrokerError when no broker answers in time.
        """
        origin = letter.origin
        self._reader.assign([TopicPartition(origin.topic, origin.partition, origin.offset)])
        deadline = time.monotonic() + _FETCH_S
        while time.monotonic() < deadline:
            for message in self._reader.consume(1, 0.2):
                error = message.error()
                if error is None:
                    return message if _is_source(message, letter) else None
                if error.code() == KafkaError._PARTITION_EOF or _is_gone(error):
                    return None
        raise BrokerError(f"topic {origin.topic} can't be read: nothing came for {_FETCH_S:g} s; try again")


def _is_source(message: Message, letter: Letter) -> bool:
    """Whether this is the message that the pointer was made of, and not one of a topic made anew."""
    key = letter.message.key()
    return (
        message.offset() == letter.origin.offset
        and message.timestamp()[1] == letter.origin.timestamp
        and key in (None, message.key())
    )


def _make_reader(settings: Settings) -> Consumer:
    """A consumer that commits nothing, for partitions assigned by hand."""
    own = {"group.id": settings.group}  # librdkafka wants one
    return Consumer(settings.client(READER) | own, logger=kafka_logger("vitalstream.kafka"))


def own_headers(message: Message) -> Headers:
    """A message's headers, as a list."""
    headers: Any = message.headers()
    return headers or []


def _is_gone(error: KafkaError) -> bool:
    """Whether the offset asked for is not there any more."""
    return error.code() in _GONE


# What is so for a moment after a topic was made or a broker went; an admin's answer does not say that it passes.
_PASSES = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


def _marked(message: Message) -> Position | None:
    """The position of the letter that a record marks as put back; None where it is no mark."""
    partition, offset = message.partition(), read_replay_mark(own_headers(message))
    return None if partition is None or offset is None else (partition, offset)


def _letter(message: Message, origin: Origin) -> Letter:
    partition: Any = message.partition()
    offset: Any = message.offset()
    at = origin.timestamp if origin.timestamp >= 0 else message.timestamp()[1]
    return Letter(partition, offset, origin, at, message)


def _offsets(admin: Admin, topic: str, spec: Any, isolation: IsolationLevel) -> dict[int, int]:
    asked = {TopicPartition(topic, number): spec for number in admin.metadata.topics[topic].partitions}
    deadline = time.monotonic() + admin.timeout
    while True:
        try:
            answers = admin.client.list_offsets(
                asked, isolation_level=isolation, request_timeout=admin.timeout
            )
            return {one.partition: answer.result().offset for one, answer in answers.items()}
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if not (error.retriable() or error.code() in _PASSES) or time.monotonic() > deadline:
                raise BrokerError(
                    f"the brokers do not tell the offsets of topic {topic} ({error.name()}); check this user's rights"
                ) from None
        time.sleep(_ASK_AGAIN_S)

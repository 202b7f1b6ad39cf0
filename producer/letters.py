"""Reads the dead-letter topic: the letters on it, and which of them were replayed."""

import time
from collections.abc import Generator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from confluent_kafka import KafkaError, Message, TopicPartition

from broker.admin import Admin
from broker.errors import BrokerError
from broker.reading import (
    PATIENCE_S,
    end_offsets,
    first_offsets,
    is_gone,
    make_reader,
    messages,
    newest,
    offsets_at,
)
from broker.settings import Settings
from broker.topics import require_topics
from schemas.contract import Reason
from schemas.dead_letters import Headers, Origin, read_dead_letter_headers, read_replay_mark
from schemas.reading import MessageError

Position = tuple[int, int]
"""Partition and offset on the dead-letter topic."""

_FETCH_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, its position, and when its source (if unknown, the letter itself) was sent, in ms since 1970."""

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
    """Selects letters by reason, field, input topic, and time (from `since` onwards, ms since 1970); None means any."""

    reason: Reason | None = None
    field: str | None = None
    topic: str | None = None
    since: float | None = None

    def __contains__(self, letter: Letter) -> bool:
        origin = letter.origin
        pairs = (self.reason, origin.reason), (self.field, origin.field), (self.topic, origin.topic)
        return all(wanted in (None, found) for wanted, found in pairs) and letter.at >= (self.since or 0)


class LetterBox:
    """The dead-letter topic as of construction, read as often as needed.

    It is read up to the first open transaction; or, if `settled`, to its very end: reading then waits `patience`
    seconds for open transactions, and fails if they don't end. With `made_since` (ms since 1970) it begins with
    the letters made at that time.

    Raises BrokerError, as every method does, if the topic is missing or can't be read.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        settled: bool,
        patience: float = PATIENCE_S,
        made_since: int | None = None,
    ) -> None:
        self._settings = settings
        self._topic = settings.dead_letter_topic
        self._patience = patience
        require_topics(settings, [self._topic])
        admin = Admin(settings)
        self._starts = first_offsets(admin, self._topic)
        self._ends = end_offsets(admin, self._topic, settled=settled)
        if made_since is not None:
            found = offsets_at(admin, self._topic, made_since)
            self._starts = {one: found[one] if found[one] >= 0 else end for one, end in self._ends.items()}
        self.unreadable = 0  # records seen that are neither letters nor marks

    def put_back(self) -> set[Position]:
        """The positions of all letters that were replayed."""
        marked = map(_marked, self._messages())
        return {position for position in marked if position is not None}

    def letters(self) -> Generator[Letter]:
        """All letters, in order within a partition."""
        self.unreadable = 0
        for message in self._messages():
            if (letter := self._letter(message)) is not None:
                yield letter

    def newest(self, selection: Selection, limit: int) -> list[tuple[Letter, bool]]:
        """The newest `limit` letters of `selection`, newest first, and whether each was replayed.

        Each partition is read backwards from its end, only as far as needed.
        """
        self.unreadable = 0
        marked: set[Position | None] = set()  # complete, because a mark comes after its letter

        def keep(message: Message) -> Letter | None:
            marked.add(_marked(message))
            letter = self._letter(message)
            return letter if letter is not None and letter in selection else None

        found = newest(self._settings, self._topic, self._starts, self._ends, count=limit, keep=keep).values()
        letters = sorted(chain(*found), key=lambda one: (one.made_at, one.offset), reverse=True)[:limit]
        return [(letter, (letter.partition, letter.offset) in marked) for letter in letters]

    def _messages(self) -> Generator[Message]:
        return messages(self._settings, self._topic, self._starts, self._ends, patience=self._patience)

    def _letter(self, message: Message) -> Letter | None:
        """The record as a letter, if it is one."""
        if _marked(message) is not None:
            return None
        try:
            return _letter(message, read_dead_letter_headers(own_headers(message)))
        except MessageError:
            self.unreadable += 1
            return None


class Sources:
    """The source messages that pointers point to."""

    def __init__(self, settings: Settings) -> None:
        self._reader = make_reader(settings)

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()

    def fetch(self, letter: Letter) -> Message | None:
        """The message at the letter's source position; None if it was deleted, or another one is there now.

        Raises BrokerError if no broker answers in time.
        """
        origin = letter.origin
        self._reader.assign([TopicPartition(origin.topic, origin.partition, origin.offset)])
        deadline = time.monotonic() + _FETCH_S
        while time.monotonic() < deadline:
            for message in self._reader.consume(1, 0.2):
                error = message.error()
                if error is None:
                    return message if _is_source(message, letter) else None
                if error.code() == KafkaError._PARTITION_EOF or is_gone(error):
                    return None
        raise BrokerError(
            f"topic {origin.topic} can't be read: nothing arrived for {_FETCH_S:g} s; try again"
        )


def _is_source(message: Message, letter: Letter) -> bool:
    """Whether this is the pointer's own message, rather than one of a recreated topic."""
    key = letter.message.key()
    return (
        message.offset() == letter.origin.offset
        and message.timestamp()[1] == letter.origin.timestamp
        and key in (None, message.key())
    )


def own_headers(message: Message) -> Headers:
    """A message's headers, as a list."""
    headers: Any = message.headers()
    return headers or []


def _marked(message: Message) -> Position | None:
    """The position of the letter that this record marks as replayed; None if it is not a mark."""
    partition, offset = message.partition(), read_replay_mark(own_headers(message))
    return None if partition is None or offset is None else (partition, offset)


def _letter(message: Message, origin: Origin) -> Letter:
    partition: Any = message.partition()
    offset: Any = message.offset()
    at = origin.timestamp if origin.timestamp >= 0 else message.timestamp()[1]
    return Letter(partition, offset, origin, at, message)

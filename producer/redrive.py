"""Sends dead letters to the input topic again, once each.

A replayed letter is marked on the dead-letter topic itself: one transaction holds the message on the input topic
and, in the letter's own partition, a record without key and value that names the letter's offset. So there are
both or neither, and a replay that dies is simply run again. Alternatives, and why not:

- A group's committed offsets can't express that a filter skipped some letters, and Kafka deletes them a week after
  the group was last used, while the letters remain.
- The messages on the input topic could serve as marks, but retention deletes them before the letters.
- In its letter's partition the mark comes after the letter, so retention, which deletes from the front, never
  removes the mark first. And reading that one partition is enough to find it.

Two replays can't send a letter twice. The transactional ID belongs to the dead-letter topic, and a replay takes it
over before it reads which letters are marked; the brokers then abort another replay's open transaction and fence
it. A replay reads to the very end of the topic, past open transactions of workers, because a mark may follow one.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import pandas as pd
from confluent_kafka import KafkaError, KafkaException, Producer

from broker.errors import BrokerError
from broker.log import kafka_logger
from broker.reading import PATIENCE_S
from broker.rights import require_rights
from broker.settings import Settings
from broker.topics import message_limits, require_topics
from producer.letters import Letter, LetterBox, Selection, Sources, own_headers
from producer.sender import PRODUCER_DEFAULTS
from schemas.contract import EVENT_TIME, PATIENT_ID, Reason
from schemas.dead_letters import PREFIX, REPLAYED_FROM, DeadLetter, message_size, replay_mark
from schemas.messages import Plain
from schemas.vitals import Decoder

_TRANSACTIONAL: Final[dict[str, Any]] = {
    # Readers of both topics wait for an open transaction; this bounds how long a dead replay can make them wait.
    "transaction.timeout.ms": 10_000,
    "message.timeout.ms": 10_000,
    "client.id": "vitalstream-dead-letters",
}
_START_S = 30.0
_COMMIT_S = 30.0
_BATCH = 500  # letters per transaction,
_BATCH_BYTES = 4_000_000  # or bytes of them

_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
_FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "WRITE on both topics",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "WRITE on the transactional ID",
}


class RedriveError(BrokerError):
    """A replay failed; letters committed before are marked, the rest are unchanged."""


class Obstacle(StrEnum):
    """Why a letter was not replayed."""

    STILL_REJECTED = "still_rejected"
    NEEDS_MODEL = "needs_model"
    RESULT_TOO_LARGE = "result_too_large"
    GONE = "gone"
    TOO_LARGE = "too_large_for_topic"


class Judge:
    """Predicts whether a worker would reject a message, by decoding it and, with a model, scoring it.

    `refused` takes a frame of features and returns the index labels of the rows that the model rejects. Without it,
    letters whose field the decoder does not read can't be judged.
    """

    def __init__(
        self,
        decode: Decoder,
        *,
        refused: Callable[[pd.DataFrame], Collection[int]] | None = None,
    ) -> None:
        self._decode = decode
        self._refused = refused
        # With a mapping, this decoder reads everything that the worker does.
        self._fields = None if decode.mapping else {"", PATIENT_ID, EVENT_TIME, *decode.features}

    def __call__(self, letters: Sequence[Letter], messages: Sequence[DeadLetter]) -> list[Obstacle | None]:
        """The obstacle to each letter, if any, given the message that would be sent."""
        decoded = self._decode([Plain(message.value, message.headers) for message in messages])
        out = {reject.position for reject in decoded.rejects}
        if self._refused is not None:
            out |= {*self._refused(decoded.frame)}
        return [
            Obstacle.STILL_REJECTED if position in out else self._doubt(letter)
            for position, letter in enumerate(letters)
        ]

    def _needs_model(self, letter: Letter) -> bool:
        if self._fields is None:
            return letter.origin.reason is Reason.MODEL_REJECTED
        return letter.origin.field not in self._fields

    def _doubt(self, letter: Letter) -> Obstacle | None:
        if self._refused is None and self._needs_model(letter):
            return Obstacle.NEEDS_MODEL
        # It can be decoded, so it was the result that did not fit into the risk topic.
        return Obstacle.RESULT_TOO_LARGE if letter.origin.reason is Reason.TOO_LARGE else None


@dataclass
class Redriven:
    """What became of the selected letters that had not been replayed before.

    `left` counts the remaining ones by obstacle, reason and field. In a dry run, `replayed` counts those that would be.
    """

    selected: int = 0
    replayed: int = 0
    before: int = 0  # of the selection, replayed by an earlier run
    left: Counter[tuple[Obstacle, Reason, str]] = field(default_factory=Counter)
    stopped: bool = False


def redrive(
    settings: Settings,
    *,
    selection: Selection,
    judge: Judge,
    force: bool = False,
    dry_run: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    patience: float = PATIENCE_S,
) -> Redriven:
    """Send the selected letters of the input topic to it again, unless they were already replayed.

    A message keeps its key, value and headers and gets a header `replayed.from`. It gets a new timestamp: under the
    old one, retention could delete it unread. `force` also sends letters that would be rejected again. `patience` is
    how many seconds to wait for an open transaction on the dead-letter topic.

    Raises:
        BrokerError: the brokers can't be reached, or a topic is missing or can't be read.
        RedriveError: a transaction failed, or another replay has taken over.
    """
    require_topics(settings, [settings.input_topic, settings.dead_letter_topic])
    require_rights(settings, "dead-letters list" if dry_run else "dead-letters replay")
    transactions = None if dry_run else _Transactions(settings)
    box = LetterBox(settings, settled=True, patience=patience)
    marked = box.put_back()
    result = Redriven()
    with closing(_Contents(settings)) as contents, closing(box.letters()) as letters:
        for batch in _batches(_chosen(letters, selection, settings.input_topic, marked, result)):
            if stopped():
                result.stopped = True
                break
            messages = contents.of(batch)
            obstacles = _obstacles(batch, messages, judge=judge, room=contents.room, force=force)
            going = [
                (letter, message)
                for letter, message, obstacle in zip(batch, messages, obstacles, strict=True)
                if obstacle is None and message is not None
            ]
            if transactions is not None and going:
                transactions.send(going)
            result.selected += len(batch)
            result.replayed += len(going)
            result.left.update(
                (obstacle, letter.origin.reason, letter.origin.field)
                for letter, obstacle in zip(batch, obstacles, strict=True)
                if obstacle is not None
            )
    return result


def _chosen(
    letters: Iterable[Letter],
    selection: Selection,
    topic: str,
    marked: set[tuple[int, int]],
    result: Redriven,
) -> Iterator[Letter]:
    for letter in letters:
        if letter in selection and letter.origin.topic == topic:
            if (letter.partition, letter.offset) in marked:
                result.before += 1
            else:
                yield letter


def _batches(letters: Iterable[Letter]) -> Iterator[list[Letter]]:
    batch: list[Letter] = []
    size = 0
    for letter in letters:
        batch.append(letter)
        size += len(letter.message)
        if len(batch) >= _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _obstacles(
    letters: Sequence[Letter],
    messages: Sequence[DeadLetter | None],
    *,
    judge: Judge,
    room: int,
    force: bool,
) -> list[Obstacle | None]:
    """The obstacle to each letter, if any; a message of None was deleted."""
    there = [row for row, message in enumerate(messages) if message is not None]
    known = [message for message in messages if message is not None]
    verdicts = judge([letters[row] for row in there], known) if there and not force else []
    judged = dict(zip(there, verdicts, strict=False))
    obstacles: list[Obstacle | None] = []
    for row, message in enumerate(messages):
        if message is None:
            obstacles.append(Obstacle.GONE)
        elif message_size(message) > room:
            obstacles.append(Obstacle.TOO_LARGE)
        else:
            obstacles.append(judged.get(row))
    return obstacles


class _Contents:
    """The messages to send for the letters; a pointer's source message is fetched."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.dead_letter_topic
        self._sources = Sources(settings)
        self.room = message_limits(settings, [settings.input_topic])[settings.input_topic]

    def close(self) -> None:
        self._sources.close()

    def of(self, letters: Iterable[Letter]) -> list[DeadLetter | None]:
        return [*map(self._of, letters)]

    def _of(self, letter: Letter) -> DeadLetter | None:
        message = self._sources.fetch(letter) if letter.origin.pointer else letter.message
        if message is None:
            return None
        own = [(n, v) for n, v in own_headers(message) if not n.startswith(PREFIX) and n != REPLAYED_FROM]
        origin = f"{self._topic}-{letter.partition}@{letter.offset}".encode()
        return DeadLetter(_bytes(message.key()), _bytes(message.value()), [*own, (REPLAYED_FROM, origin)])


def _bytes(content: Any) -> bytes | None:
    return content if content is None else bytes(content)


class _Transactions:
    """Sends letters and their marks, one batch per transaction. Creating one fences any other replay."""

    def __init__(self, settings: Settings) -> None:
        self._input = settings.input_topic
        self._dead_letters = settings.dead_letter_topic
        self._done = 0
        limits = message_limits(settings, [self._input, self._dead_letters])
        defaults = {**PRODUCER_DEFAULTS, **_TRANSACTIONAL, "message.max.bytes": max(limits.values())}
        own = {"transactional.id": transactional_id(settings)}
        self._producer = Producer(settings.client(defaults) | own, logger=kafka_logger("vitalstream.kafka"))
        with self._failing("starting"):
            self._producer.init_transactions(_START_S)

    def send(self, batch: Sequence[tuple[Letter, DeadLetter]]) -> None:
        """Send the whole batch, messages and marks, or nothing."""
        try:
            with self._failing("sending"):
                self._producer.begin_transaction()
                for letter, message in batch:
                    self._produce(self._input, message.key, message.value, message.headers)
                    self._produce(
                        self._dead_letters, None, None, replay_mark(letter.offset), letter.partition
                    )
                self._commit()
        except RedriveError:
            with suppress(KafkaException):  # if this fails, the brokers abort it after 10 s
                self._producer.abort_transaction(5)
            raise
        self._done += len(batch)

    def _produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Any,
        partition: int = -1,  # by its key
    ) -> None:
        self._producer.produce(topic, value, key, partition=partition, headers=headers)

    def _commit(self) -> None:
        deadline = time.monotonic() + _COMMIT_S
        while True:
            try:
                self._producer.commit_transaction(_COMMIT_S / 3)
                return
            except KafkaException as exception:
                if not exception.args[0].retriable() or time.monotonic() > deadline:
                    raise

    @contextmanager
    def _failing(self, doing: str) -> Iterator[None]:
        try:
            yield
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            raise RedriveError(
                f"{self._sentence(doing, error)}; {self._done:,} were replayed before"
            ) from None

    def _sentence(self, doing: str, error: KafkaError) -> str:
        topic = self._dead_letters
        if error.code() in _FENCED:
            return f"another replay of topic {topic} has taken over, or this one paused too long; run it again later"
        if right := _FORBIDDEN.get(error.code()):
            return f"a replay of topic {topic} needs the right {right}"
        return (
            f"{doing} failed with {error.name()}; nothing is left half done and replayed letters are marked, so "
            "run it again"
        )


def transactional_id(settings: Settings) -> str:
    """The transactional ID of every replay of this dead-letter topic."""
    return f"vitalstream-replay-{settings.dead_letter_topic}"

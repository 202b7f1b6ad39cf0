"""Hands messages to a Kafka producer, which is replaced when its state can no longer be trusted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, repeat, starmap
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from broker.roles import Role
from consumer.errors import Action, KafkaCallError, action_for
from consumer.memory import give_back
from consumer.observer import Observer, Step
from schemas.messages import Headers

FULL_QUEUE_S = 10.0  # how long to wait for room in the producer's queue


OnDelivery = Callable[[KafkaError | None, Message], None]


@dataclass(frozen=True, slots=True)
class Records:
    """Records for the topic of a role, in order; without `partitions`, Kafka chooses them by key.

    `on_last` is called with whether and where the last record of each partition was delivered.
    """

    role: Role
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None] | None = None
    headers: Sequence[Headers] | None = None
    partitions: Sequence[int] | None = None
    on_last: OnDelivery | None = None

    def calls(self, topic: str) -> Iterator[tuple[Any, ...]]:
        """The arguments of `Producer.produce` for each: topic, value, key and, where they are needed, the others."""
        count = len(self.values)
        columns: list[Any] = [repeat(topic, count), self.values, self.keys or repeat(None, count)]
        if self.partitions or self.headers:
            columns += [
                self.partitions or repeat(-1, count),
                self._callbacks(),
                repeat(None, count),  # the same argument under another name
                repeat(0, count),  # no explicit timestamp
                self.headers or repeat(None, count),
            ]
        return zip(*columns, strict=True)

    def _callbacks(self) -> list[OnDelivery | None]:
        callbacks: list[OnDelivery | None] = [None] * len(self.values)
        for last in dict(zip(self.partitions or (), range(len(self.values)), strict=False)).values():
            callbacks[last] = self.on_last
        return callbacks


@dataclass(frozen=True, slots=True)
class Output:
    """Everything one block sends, and how many chunks and rows it had."""

    records: Sequence[Records]
    chunks: int
    rows: int


class MakeProducer(Protocol):
    """Creates a producer that reports to the given functions; see `consumer.clients.make_producer`."""

    def __call__(
        self,
        *,
        on_trouble: Callable[[KafkaError], None],
        on_undelivered: Callable[[KafkaError], None],
        on_disturbed: Callable[[], None],
    ) -> Producer:
        """A new producer."""


@contextmanager
def kafka_call(operation: str) -> Iterator[None]:
    """Turn a Kafka error in the block into a KafkaCallError that says what to do about it."""
    try:
        yield
    except (KafkaException, SystemError) as raised:
        error = _kafka_error(raised)
        if error is None:
            raise
        raise KafkaCallError(operation, error, action_for(error)) from None


def _kafka_error(raised: BaseException | None) -> KafkaError | None:
    # A dying producer's error is raised in the middle of its callbacks; a SystemError means that a callback
    # ran into that, or into another such SystemError.
    while isinstance(raised, SystemError):
        raised = raised.__cause__
    return raised.args[0] if isinstance(raised, KafkaException) else None


class Sender:
    """A producer with the counts a committer needs. No call waits longer than its timeout."""

    def __init__(
        self,
        make_producer: MakeProducer,
        *,
        topics: Mapping[Role, str],
        observer: Observer,
        clock: Callable[[], float],
    ) -> None:
        self._make = make_producer
        self._topics = topics
        self._observer = observer
        self._clock = clock
        self._new_producer()

    def renew(self) -> None:
        """Drop the producer and everything it still holds, and create a new one."""
        self._new_producer()
        # With glibc, memory freed by a producer's threads stays reserved for them, and a new producer has new threads.
        give_back()
        self._observer.renewed()

    def _new_producer(self) -> None:
        self.producer = self._make(
            on_trouble=self._on_trouble, on_undelivered=self._on_undelivered, on_disturbed=self._on_disturbed
        )
        self.clear()

    def clear(self) -> None:
        """Count from zero again."""
        self.chunks = 0
        self.rows = 0
        self._lost: KafkaError | None = None  # why a message was not delivered since
        self.disturbed = False  # whether the coordinator's connection has failed since

    def send(self, output: Output) -> None:
        """Queue everything a block sends."""
        self.chunks += output.chunks
        self.rows += output.rows
        self.add(output.records)
        self._observer.reached(Step.PRODUCED)

    def add(self, records: Sequence[Records]) -> None:
        """Queue records, in order."""
        with kafka_call("producing"), self._telling_why():
            for one in records:
                if one.role is Role.METRICS:
                    self._observer.reached(Step.PRODUCING)
                self._produce(self._topics[one.role], one)
            self.producer.poll(0)

    @contextmanager
    def _telling_why(self) -> Iterator[None]:
        """Raise a failed producer's original error: it rejects messages with only _FATAL, but poll() has the cause."""
        try:
            yield
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if error.code() == KafkaError._FATAL:
                self.producer.poll(0)
            raise

    def flush(self, timeout: float) -> None:
        """Wait until everything is delivered."""
        with kafka_call("delivering"):
            undelivered = self.producer.flush(timeout)
        if self._lost is not None:
            hopeless = action_for(self._lost) is Action.STOP
            raise KafkaCallError("delivering", self._lost, Action.STOP if hopeless else Action.REBUILD)
        if undelivered:
            raise KafkaCallError("delivering", None, Action.REBUILD)
        self._observer.reached(Step.FLUSHED)

    def _produce(self, topic: str, records: Records) -> None:
        # One call per message: produce_batch is slower and can drop part of a batch without an exception.
        rest = starmap(self.producer.produce, records.calls(topic))
        sent: list[None] = []
        while True:
            try:
                sent.extend(rest)  # continues after the message that raised
                return
            except BufferError:
                self._produce_later(next(islice(records.calls(topic), len(sent), None)))
                sent.append(None)

    def _produce_later(self, call: tuple[Any, ...]) -> None:
        deadline = self._clock() + FULL_QUEUE_S
        while True:
            try:
                self.producer.produce(*call)
                return
            except BufferError:
                if self._clock() > deadline:
                    raise KafkaCallError("waiting for room to produce", None, Action.REBUILD) from None
                self.producer.poll(0.01)

    def _on_disturbed(self) -> None:
        self.disturbed = True

    def _on_trouble(self, error: KafkaError) -> None:
        self._observer.kafka_error(error.name())

    def _on_undelivered(self, error: KafkaError) -> None:
        if self._lost is None or action_for(error) is Action.STOP:
            self._lost = error
        self._observer.kafka_error(error.name())

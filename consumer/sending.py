"""Handing messages to a Kafka producer, which is renewed when its state can't be trusted any more."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat, starmap
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.errors import Action, KafkaCallError, action_for
from consumer.memory import give_back
from consumer.observer import Observer, Step
from schemas.dead_letters import DeadLetter

FULL_QUEUE_S = 10.0  # how long to wait for room in the producer's queue


@dataclass(frozen=True, slots=True)
class Output:
    """All that one block sends: results (keys beside values), dead letters, and a metrics message for each chunk."""

    keys: Sequence[bytes]
    results: Sequence[bytes]
    dead_letters: Sequence[DeadLetter]
    metrics: Sequence[bytes]
    rows: int


class MakeProducer(Protocol):
    """Makes a producer that reports to the given functions; see `consumer.clients.make_producer`."""

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
    """Turn a Kafka error inside into the KafkaCallError that says what to do about it."""
    try:
        yield
    except (KafkaException, SystemError) as raised:
        error = _kafka_error(raised)
        if error is None:
            raise
        raise KafkaCallError(operation, error, action_for(error)) from None


def _kafka_error(raised: BaseException | None) -> KafkaError | None:
    # What a producer dies of is raised amid its callbacks; a SystemError is one that ran into that, or
    # into such a SystemError.
    while isinstance(raised, SystemError):
        raised = raised.__cause__
    return raised.args[0] if isinstance(raised, KafkaException) else None


class Sender:
    """A producer with the counts a committer needs. No call waits longer than it is told to."""

    def __init__(
        self,
        make_producer: MakeProducer,
        *,
        topics: tuple[str, ...],
        observer: Observer,
        clock: Callable[[], float],
    ) -> None:
        self._make = make_producer
        self._output_topic, self._metrics_topic, self._dead_letter_topic = topics
        self._observer = observer
        self._clock = clock
        self._new_producer()

    def renew(self) -> None:
        """Drop the producer and what it still holds, and make a new one."""
        self._new_producer()
        # What a producer's threads have freed stays with them (with glibc), and each new one has new threads.
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
        """Hand over everything a block sends."""
        self.chunks += len(output.metrics)
        self.rows += output.rows
        with kafka_call("producing"), self._telling_why():
            self._send(self._output_topic, output.results, output.keys)
            for letter in output.dead_letters:
                self._produce(self._dead_letter_topic, letter.value, letter.key, headers=letter.headers)
            self._observer.reached(Step.PRODUCING)
            self._send(self._metrics_topic, output.metrics, [None] * len(output.metrics))
            self.producer.poll(0)
        self._observer.reached(Step.PRODUCED)

    @contextmanager
    def _telling_why(self) -> Iterator[None]:
        """A dead producer takes no message and says no more than _FATAL; poll raises what it died of."""
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

    def _send(self, topic: str, values: Sequence[bytes], keys: Sequence[bytes | None]) -> None:
        # One call a message: produce_batch is slower and can drop a part of a batch without an exception.
        rest = starmap(self.producer.produce, zip(repeat(topic, len(values)), values, keys, strict=True))
        sent: list[None] = []
        while True:
            try:
                sent.extend(rest)  # goes on behind the message that raised
                return
            except BufferError:
                number = len(sent)
                self._produce(topic, values[number], keys[number])
                sent.append(None)

    def _produce(self, topic: str, value: bytes | None, key: bytes | None = None, **kwargs: Any) -> None:
        deadline = self._clock() + FULL_QUEUE_S
        while True:
            try:
                self.producer.produce(topic, value, key, **kwargs)
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

"""The producer that replay and publish share."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from broker.admin import properties_refused
from broker.errors import BrokerError
from broker.log import kafka_logger
from broker.settings import Settings

PRODUCER_DEFAULTS: Final[dict[str, Any]] = {
    "enable.idempotence": True,  # no duplicates, and retries keep each partition's order
    "partitioner": "murmur2_random",  # the Java client's partitioner
    "linger.ms": 5,
    "message.timeout.ms": 30_000,
    "delivery.report.only.error": True,  # successes are counted by what has left the queue
    "client.id": "vitalstream-producer",
}

_LOG = kafka_logger("vitalstream.kafka")
_POLL_EVERY = 256  # messages; the queue holds 100,000
_REPORTED_TOGETHER = 16  # messages per failure report: a callback for each costs a sixth of the speed
_ROOM_WAIT_S = 0.1
_GIVING_UP_S = 1.0
_GIVEN_UP = ("_PURGE_QUEUE", "_PURGE_INFLIGHT")


class DeliveryError(BrokerError):
    """The broker has not acknowledged all messages sent."""

    def __init__(self, message: str, *, sent: int, acknowledged: int) -> None:
        super().__init__(message)
        self.sent = sent
        self.acknowledged = acknowledged


@dataclass
class _Failures:
    count: int = 0
    code: str = ""  # the first failure, unless we gave up ourselves
    first: int | None = None

    def add(self, number: int, error: Any, _: Any) -> None:
        if error is None:
            return
        self.count += 1
        self.first = number if self.first is None else min(self.first, number)
        if error.name() not in _GIVEN_UP:
            self.code = self.code or error.name()


class Sender:
    """An idempotent producer for one topic that counts acknowledged messages.

    Raises SettingsError if librdkafka does not accept the properties.
    """

    def __init__(self, settings: Settings, *, topic: str) -> None:
        self._topic = topic
        self._failures = _Failures()
        try:
            self._producer = Producer(settings.client(PRODUCER_DEFAULTS), logger=_LOG)
        except KafkaException as error:
            raise properties_refused(error, settings) from None
        self.sent = 0
        self._on_delivery: Callable[[Any, Any], None]

    def send(self, key: bytes | None, value: bytes, *, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Queue one message, waiting for room in the queue; returns False once `stopped()` is true.

        Raises DeliveryError if the message can't be queued (too large, say), or as soon as the delivery of an
        earlier one is known to have failed.
        """
        if self.sent % _REPORTED_TOGETHER == 0:
            self._on_delivery = partial(self._failures.add, self.sent)
        while True:
            try:
                self._producer.produce(self._topic, value, key, -1, self._on_delivery)
                break
            except BufferError:  # the queue is full
                if stopped():
                    return False
                self.poll(_ROOM_WAIT_S)
            except KafkaException as error:
                raise self._error(f"refused by the client ({error.args[0].name()})") from None
        self.sent += 1
        if self.sent % _POLL_EVERY == 0:
            self.poll()
        return True

    def poll(self, timeout: float = 0) -> None:
        """Serve the client; raises DeliveryError as soon as a delivery is known to have failed."""
        with self._alive():
            self._producer.poll(timeout)
        self._raise_on_failure()

    def flush(self, timeout: float) -> None:
        """Wait until all are acknowledged; raises DeliveryError if not within `timeout` seconds.

        Messages not acknowledged by then are given up and the counts are final. The brokers may have them all the same.
        """
        deadline = time.monotonic() + timeout
        try:
            while len(self._producer) and (left := deadline - time.monotonic()) > 0:
                with self._alive():
                    self._producer.flush(min(left, 1.0))
        finally:
            self._give_up()
        self._raise_on_failure()
        if self.acknowledged < self.sent:
            raise self._error(f"not acknowledged within {timeout:g} s")

    @property
    def acknowledged(self) -> int:
        """The number of messages neither queued nor failed."""
        return max(0, self.sent - self._failures.count - len(self._producer))

    @property
    def acknowledged_first(self) -> int:
        """How many messages from the first are acknowledged without a gap, or slightly fewer; exact if all are.

        Known after `flush`.
        """
        if len(self._producer):
            return 0
        return self.sent if self._failures.first is None else self._failures.first

    def _give_up(self) -> None:
        """Have unacknowledged messages reported as failed."""
        if len(self._producer):
            with suppress(KafkaException, SystemError):  # a dead client has reported everything
                self._producer.purge()
                self._producer.flush(_GIVING_UP_S)

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """A dead client raises its reason here; a SystemError if that happened in a delivery report."""
        try:
            yield
        except (KafkaException, SystemError) as raised:
            reason = raised.__cause__ if isinstance(raised, SystemError) else raised
            code = reason.args[0].name() if isinstance(reason, KafkaException) else "_FATAL"
            raise self._error(f"not delivered ({code})") from None

    def _raise_on_failure(self) -> None:
        if self._failures.code:
            raise self._error(f"not delivered ({self._failures.code})")

    def _error(self, what: str) -> DeliveryError:
        return DeliveryError(
            f"messages to topic {self._topic} were {what}", sent=self.sent, acknowledged=self.acknowledged
        )

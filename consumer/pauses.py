"""Pauses reading without leaving the group."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from confluent_kafka import Consumer, KafkaException

FIRST_S: Final = 1.0
LONGEST_S: Final = 10.0  # together with a request's time, less than what Health counts as a stall


class Pause:
    """Pauses a consumer, each time for longer, until `over`; it must still be polled meanwhile."""

    def __init__(self, consumer: Consumer, *, clock: Callable[[], float]) -> None:
        self._consumer = consumer
        self._clock = clock
        self._until: float | None = None
        self._seconds = FIRST_S

    def begin(self) -> None:
        """Pause all partitions assigned now. Partitions assigned later are read."""
        self._until = self._clock() + self._seconds
        self._seconds = min(LONGEST_S, 2 * self._seconds)
        with suppress(KafkaException):  # being revoked
            self._consumer.pause(self._consumer.assignment())

    def lasts(self) -> bool:
        """Whether the pause lasts; ends it if its time is up."""
        if self._until is None or self._clock() < self._until:
            return self._until is not None
        self._until = None
        with suppress(KafkaException):
            self._consumer.resume(self._consumer.assignment())
        return False

    def over(self) -> None:
        """The cause is gone; the next pause is short again."""
        self._seconds = FIRST_S

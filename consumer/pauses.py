"""Reading nothing for a while, without leaving the group."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from confluent_kafka import Consumer, KafkaException

FIRST_S: Final = 1.0
LONGEST_S: Final = 10.0  # with the time that asking takes, less than Health takes for a stall


class Pause:
    """Pauses a consumer, which has to be polled all the same: each time for longer, until `over`."""

    def __init__(self, consumer: Consumer, *, clock: Callable[[], float]) -> None:
        self._consumer = consumer
        self._clock = clock
        self._until: float | None = None
        self._seconds = FIRST_S

    def begin(self) -> None:
        """Pause all partitions that are assigned now. Others, and those assigned anew, are read."""
        self._until = self._clock() + self._seconds
        self._seconds = min(LONGEST_S, 2 * self._seconds)
        with suppress(KafkaException):  # being revoked
            self._consumer.pause(self._consumer.assignment())

    def lasts(self) -> bool:
        """Whether it lasts; where its time is up, it ends."""
        if self._until is None or self._clock() < self._until:
            return self._until is not None
        self._until = None
        with suppress(KafkaException):
            self._consumer.resume(self._consumer.assignment())
        return False

    def over(self) -> None:
        """The reason is gone: the next one begins with a short pause."""
        self._seconds = FIRST_S

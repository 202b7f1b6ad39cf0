"""Detects that the input topic was deleted and recreated under the same name.

librdkafka (2.16) silently continues in the new topic at the old topic's offset, so messages before that offset would
never be read. The worker therefore asks for the topic ID while it reads, and commits it with each offset, so that the
change is also detected after a restart.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from broker.admin import Admin
from broker.settings import Settings
from consumer.errors import InputLostError

ASK_EVERY_S = 1.0

Describe = Callable[[], "Future[Any]"]
"""Asks for a topic's description, which has its `topic_id`."""


class Identity:
    """The topic's ID when this was created; '' if the brokers do not report it."""

    def __init__(self, describe: Describe, *, topic: str, clock: Callable[[], float]) -> None:
        self._describe = describe
        self._topic = topic
        self._clock = clock
        self.id = _id_in(describe())
        self._asked: Future[Any] | None = None
        self._ask_at = clock() + ASK_EVERY_S

    def check(self) -> None:
        """Check the answer to an earlier request, or send the next one when due. Never waits.

        Raises:
            InputLostError: the topic was recreated.
        """
        if self._asked is not None and self._asked.done():
            found, self._asked = _id_in(self._asked), None
            self.require(found)
        elif self._asked is None and self._clock() >= self._ask_at:
            self._asked, self._ask_at = self._describe(), self._clock() + ASK_EVERY_S

    def require(self, found: str | None) -> None:
        """Raise InputLostError if `found` is a different topic ID; a missing ID is ignored."""
        if found and self.id and found != self.id:
            raise InputLostError(
                f"topic {self._topic} was deleted and recreated while the group read it: its messages before "
                "the committed offsets were not scored; reset the group's offsets deliberately, then start again"
            )


def identity_of(settings: Settings, *, clock: Callable[[], float]) -> Identity:
    """The identity of the input topic. The embedded broker reports no topic ID, so it is not asked."""
    admin, topic = Admin(settings), settings.input_topic
    asked = TopicCollection([topic])

    def describe() -> "Future[Any]":
        if admin.is_mock:
            return _untold()
        return admin.client.describe_topics(asked, request_timeout=admin.timeout)[topic]

    return Identity(describe, topic=topic, clock=clock)


def _untold() -> "Future[Any]":
    answer: Future[Any] = Future()
    answer.set_exception(KafkaException(KafkaError(KafkaError._UNSUPPORTED_FEATURE)))
    return answer


def _id_in(answer: "Future[Any]") -> str:
    try:
        return str(answer.result().topic_id)
    except KafkaException:
        return ""

"""Following topics as they grow, without a consumer group's commits."""

import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from broker.errors import BrokerError, TopicError
from broker.log import kafka_logger
from broker.settings import Settings
from broker.topics import require_topics
from consumer.errors import stops_consumer

_DEFAULTS: Final[dict[str, Any]] = {
    "allow.auto.create.topics": False,
    "fetch.queue.backoff.ms": 10,  # with the default, a full queue stalls a partition for a second
    "client.id": "vitalstream-follower",
}
_OWN: Final[dict[str, Any]] = {
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",  # if retention overtakes the reader
}
_MOST = 1000  # messages per read
_ANSWER_S = 10.0


class Follower:
    """Reads all present partitions of these topics, read_committed, from their ends or beginnings onwards.

    It has a group ID of its own and commits nothing, so it disturbs nobody. It reads everything that is
    committed after the constructor has returned.

    Raises:
        BrokerError: no broker answers, or a topic is missing.
    """

    def __init__(self, settings: Settings, topics: Sequence[str], *, from_beginning: bool) -> None:
        require_topics(settings, topics)
        own = {**_OWN, "group.id": f"vitalstream-follower-{uuid.uuid4().hex}"}
        self._topics = ", ".join(topics)
        self._consumer = Consumer(settings.client(_DEFAULTS) | own, logger=kafka_logger("vitalstream.kafka"))
        known = self._consumer.list_topics(timeout=_ANSWER_S).topics
        partitions = [TopicPartition(topic, number) for topic in topics for number in known[topic].partitions]
        for partition in partitions:
            partition.offset = OFFSET_BEGINNING if from_beginning else self._end(partition)
        self._consumer.assign(partitions)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def read(self, patience: float) -> list[Message]:
        """The available messages; waits up to `patience` seconds for the first.

        Raises BrokerError if reading fails for good.
        """
        messages = self._consumer.consume(1, patience)
        if messages:
            messages += self._consumer.consume(_MOST, 0)
        return [message for message in messages if self._is_data(message)]

    def _end(self, partition: TopicPartition) -> int:
        _, end = self._consumer.get_watermark_offsets(partition, timeout=_ANSWER_S)
        return int(end)

    def _is_data(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return False  # no group: offsets are neither fetched nor committed
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicError(f"topic {message.topic()} was deleted", topics=(str(message.topic()),))
        if stops_consumer(error):
            raise BrokerError(f"reading {self._topics} failed with {error.name()}; check this user's rights")
        return False  # the client retries by itself

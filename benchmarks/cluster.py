"""The Kafka that is measured on, and the topics of a run."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from broker.local import LocalKafka

PARTITIONS: Final = 4
_TIMEOUT: Final = 60.0
_APPEND_TIME: Final[Mapping[str, str]] = {"message.timestamp.type": "LogAppendTime"}
_LOADING: Final[dict[str, Any]] = {"linger.ms": 20, "queue.buffering.max.messages": 500_000}


class Cluster:
    """A running Kafka. `pid` is the broker's where it is ours; topics begin with a name of this run's own."""

    def __init__(self, bootstrap: str, *, source: str, pid: int | None) -> None:
        self.bootstrap = bootstrap
        self.source = source
        self.pid = pid
        self._prefix = f"bench-{uuid.uuid4().hex[:8]}"
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._asker = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": self.name("asker"), "log_level": 0}
        )
        self._topics: set[str] = set()

    def name(self, what: str) -> str:
        """A topic's or group's name of this run."""
        return f"{self._prefix}-{what}"

    def make(
        self, *names: str, partitions: int = PARTITIONS, config: Mapping[str, str] = _APPEND_TIME
    ) -> None:
        """Make topics, by default with messages that carry the time at which the broker has them."""
        new = [NewTopic(name, partitions, -1, config={**config}) for name in names]
        for future in self._admin.create_topics(new, operation_timeout=_TIMEOUT).values():
            future.result(_TIMEOUT)
        self._topics.update(names)
        for name in names:
            self._wait_for(name, partitions)

    def fill(self, topic: str, messages: Iterable[tuple[bytes, bytes]]) -> None:
        """Send all (key, value) and wait until they are there."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0, **_LOADING})
        for key, value in messages:
            try:
                producer.produce(topic, value, key)
            except BufferError:
                producer.poll(1.0)
                producer.produce(topic, value, key)
        if producer.flush(_TIMEOUT):
            raise RuntimeError(f"{topic} could not be filled")

    def end(self, topic: str, partitions: int = PARTITIONS) -> int:
        """The sum of the topic's end offsets, transactions' markers and open transactions included."""
        return sum(self.ends(topic, partitions))

    def ends(self, topic: str, partitions: int = PARTITIONS) -> list[int]:
        """The same of each partition."""
        asked = [TopicPartition(topic, number) for number in range(partitions)]
        return [self._asker.get_watermark_offsets(one, timeout=_TIMEOUT)[1] for one in asked]

    def _wait_for(self, topic: str, partitions: int) -> None:
        """Until each partition has a leader. A client that asks before remembers that there is no such topic."""
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            found = self._asker.list_topics(topic, timeout=_TIMEOUT).topics[topic].partitions
            if len(found) == partitions and all(one.leader >= 0 for one in found.values()):
                with contextlib.suppress(KafkaException):  # the leader may not know yet that it is
                    self.end(topic, partitions)
                    return
            time.sleep(0.02)

    def delete(self, names: Sequence[str]) -> None:
        """Delete topics of this run, as far as they are there."""
        self._topics.difference_update(names)
        with contextlib.suppress(KafkaException):
            for future in self._admin.delete_topics(list(names)).values():
                with contextlib.suppress(KafkaException):
                    future.result(_TIMEOUT)

    def clear(self) -> None:
        """Delete what is left."""
        if self._topics:
            self.delete(sorted(self._topics))


@contextmanager
def running() -> Iterator[Cluster]:
    """The Kafka at KAFKA_BOOTSTRAP_SERVERS, else a local one with Java's usual compiler."""
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if not servers:
        with LocalKafka() as broker:
            yield Cluster(broker.bootstrap_servers, source="one local node", pid=broker.pid)
        return
    cluster = Cluster(servers, source="KAFKA_BOOTSTRAP_SERVERS", pid=None)
    try:
        yield cluster
    finally:
        cluster.clear()

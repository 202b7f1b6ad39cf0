"""The Kafka to measure on, and the topics of a run."""

import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from broker.local import LocalKafka

PARTITIONS: Final = 4
_TIMEOUT: Final = 60.0
_LATEST: Final[Any] = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_APPEND_TIME: Final[Mapping[str, str]] = {"message.timestamp.type": "LogAppendTime"}
_LOADING: Final[dict[str, Any]] = {"linger.ms": 20, "queue.buffering.max.messages": 500_000}


_MEMORY: Final = Path("/dev/shm")
_NEEDED: Final = 8_000_000_000  # bytes, about twice the messages and results of the longest part


class Cluster:
    """A running Kafka. `pid` is the broker's if it is ours; topic names start with a prefix unique to this run."""

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
        """A name for a topic or group of this run."""
        return f"{self._prefix}-{what}"

    def make(
        self, *names: str, partitions: int = PARTITIONS, config: Mapping[str, str] = _APPEND_TIME
    ) -> None:
        """Create topics; by default, messages carry the time at which the broker received them."""
        new = [NewTopic(name, partitions, -1, config={**config}) for name in names]
        for future in self._admin.create_topics(new, operation_timeout=_TIMEOUT).values():
            future.result(_TIMEOUT)
        self._topics.update(names)
        for name in names:
            self._wait_for(name, partitions)

    def fill(self, topic: str, messages: Iterable[tuple[bytes, bytes]]) -> None:
        """Send all (key, value) and wait until they are delivered."""
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
        """The sum of the topic's end offsets, including transaction markers and open transactions."""
        return sum(self.ends(topic, partitions))

    def ends(self, topic: str, partitions: int = PARTITIONS) -> list[int]:
        """The end offset of each partition, in one request: with one a partition, watching 50 would be a load."""
        asked = {TopicPartition(topic, number): _LATEST for number in range(partitions)}
        found = self._admin.list_offsets(asked, request_timeout=_TIMEOUT)
        return [found[one].result(_TIMEOUT).offset for one in asked]

    def _wait_for(self, topic: str, partitions: int) -> None:
        """Wait until each partition has a leader. A client that asks earlier caches that the topic does not exist."""
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            found = self._asker.list_topics(topic, timeout=_TIMEOUT).topics[topic].partitions
            if len(found) == partitions and all(one.leader >= 0 for one in found.values()):
                with contextlib.suppress(KafkaException):  # the leader may not know yet that it is one
                    self.end(topic, partitions)
                    return
            time.sleep(0.02)

    def delete(self, names: Sequence[str]) -> None:
        """Delete topics of this run, if they exist."""
        self._topics.difference_update(names)
        with contextlib.suppress(KafkaException):
            for future in self._admin.delete_topics(list(names)).values():
                with contextlib.suppress(KafkaException):
                    future.result(_TIMEOUT)

    def clear(self) -> None:
        """Delete all remaining topics."""
        if self._topics:
            self.delete(sorted(self._topics))


def _free(folder: Path) -> int:
    """Bytes; 0 if there is no such folder."""
    return shutil.disk_usage(folder).free if folder.is_dir() else 0


@contextmanager
def running() -> Iterator[Cluster]:
    """The Kafka at KAFKA_BOOTSTRAP_SERVERS, else a local one with Java's default compiler.

    A local one keeps its topics in memory if there is enough: otherwise the fastest contenders measure this machine's
    disk, on which waiting for a transaction's delivery takes two to three times as long and up to 200 ms.
    """
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if not servers:
        where = _MEMORY if _free(_MEMORY) >= _NEEDED else None
        source = f"one local node, topics {'in memory' if where else 'on disk'}"
        with (
            tempfile.TemporaryDirectory(prefix="vitalstream-kafka-", dir=where) as folder,
            LocalKafka(data_dir=Path(folder)) as broker,
        ):
            yield Cluster(broker.bootstrap_servers, source=source, pid=broker.pid)
        return
    cluster = Cluster(servers, source="KAFKA_BOOTSTRAP_SERVERS", pid=None)
    try:
        yield cluster
    finally:
        cluster.clear()

"""How far the group is, asked again and again, and so how long each fault held it up."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from broker.settings import Settings
from tests.consumer.accounts import LATEST

POLL_S = 0.1
Offsets = Mapping[int, int]


@dataclass
class Setback:
    """A fault: when it came, what had been sent by then, and how long until that was committed."""

    at: float
    goal: Offsets
    seconds: float | None = None


class Watch:
    """Polls the committed and the end offsets of a group's input topic, in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        client: dict[str, Any] = {"bootstrap.servers": settings.bootstrap_servers, "log_level": 0}
        self._admin = AdminClient(client)
        # AdminClient could tell what is committed, too; librdkafka 2.16 dies of it when the group's coordinator
        # is not ready. What an open transaction is about to commit is not waited for here.
        member = {"group.id": settings.group, "isolation.level": "read_uncommitted"}
        self._client = Consumer({**client, **member})
        self.ends: Offsets = {}
        self.committed: Offsets = {}
        self.setbacks: list[Setback] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True, name="watch")
        self._thread.start()

    @property
    def rows(self) -> int:
        """Messages committed."""
        return sum(self.committed.values())

    @property
    def sent(self) -> int:
        """Messages in the topic."""
        return sum(self.ends.values())

    def note_fault(self) -> Setback:
        """A fault has just happened."""
        setback = Setback(time.monotonic(), dict(self.ends))
        self.setbacks.append(setback)
        return setback

    def stop(self) -> None:
        self._done.set()
        self._thread.join()
        self._client.close()
        del self._admin

    def _poll(self) -> None:
        while not self._done.wait(POLL_S):
            try:
                self._look()
            except KafkaException:  # a broker that is down; the watch goes on
                continue
            for setback in list(self.setbacks):
                if setback.seconds is None and self._reached(setback.goal):
                    setback.seconds = time.monotonic() - setback.at

    def _reached(self, goal: Offsets) -> bool:
        return all(self.committed.get(partition, 0) >= offset for partition, offset in goal.items())

    def _look(self) -> None:
        topic = self._settings.input_topic
        numbers = self._admin.list_topics(topic, timeout=5).topics[topic].partitions
        asked: dict[TopicPartition, Any] = {TopicPartition(topic, number): LATEST for number in numbers}
        found = self._admin.list_offsets(asked, request_timeout=5)
        self.ends = {one.partition: answer.result().offset for one, answer in found.items()}
        answer = self._client.committed([*asked], timeout=5)
        self.committed = {one.partition: one.offset for one in answer if one.offset >= 0}

"""Polls how far the group is, and so measures how long each fault held it up."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from broker.bounded import Bounded
from broker.settings import Settings
from tests.consumer.accounts import LATEST

POLL_S = 0.1
ANSWER_S = 5.0  # per request
BLIND_S = 10.0  # without an answer for this long, new clients ask
Offsets = Mapping[int, int]


@dataclass
class Setback:
    """A fault: when it came, what had been sent by then, and how long until that was committed."""

    at: float
    goal: Offsets
    seconds: float | None = None


class Asker:
    """The clients that ask for the offsets of a group and its input topic."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.input_topic
        client: dict[str, Any] = {
            "bootstrap.servers": settings.bootstrap_servers,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        }
        self._admin = AdminClient(client)
        # AdminClient could report the committed offsets too, but librdkafka 2.16 crashes when the group's
        # coordinator is not ready. With read_uncommitted, no open transaction delays the answer.
        member = {"group.id": settings.group, "isolation.level": "read_uncommitted"}
        self._client = Consumer({**client, **member})

    def __call__(self) -> tuple[Offsets, Offsets]:
        """The end offsets and the committed offsets. Raises KafkaException; may never return."""
        numbers = self._admin.list_topics(self._topic, timeout=ANSWER_S).topics[self._topic].partitions
        asked: dict[TopicPartition, Any] = {TopicPartition(self._topic, number): LATEST for number in numbers}
        found = self._admin.list_offsets(asked, request_timeout=ANSWER_S)
        ends = {one.partition: answer.result().offset for one, answer in found.items()}
        answer = self._client.committed([*asked], timeout=ANSWER_S)
        return ends, {one.partition: one.offset for one in answer if one.offset >= 0}


class Watch:
    """Polls the committed and the end offsets of a group's input topic, in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ask = Asker(settings)
        self.ends: Offsets = {}
        self.committed: Offsets = {}
        self.setbacks: list[Setback] = []
        self._told_at = self._asking_since = time.monotonic()
        self._trouble = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True, name="watch")
        self._thread.start()

    @property
    def rows(self) -> int:
        """The number of committed messages."""
        return sum(self.committed.values())

    @property
    def sent(self) -> int:
        """The number of messages in the topic."""
        return sum(self.ends.values())

    @property
    def sight(self) -> str:
        """How old these numbers are, which shows whether the group has stalled or the watch sees nothing."""
        age = time.monotonic() - self._told_at
        return f"as seen {age:.1f} s ago" + (f", since then {self._trouble}" if self._trouble else "")

    def note_fault(self) -> Setback:
        """Record that a fault has just happened."""
        setback = Setback(time.monotonic(), dict(self.ends))
        self.setbacks.append(setback)
        return setback

    def stop(self) -> None:
        self._done.set()
        self._thread.join()
        del self._ask

    def _poll(self) -> None:
        bounded = Bounded()
        while not self._done.wait(POLL_S):
            try:
                self.ends, self.committed = bounded(self._ask, seconds=BLIND_S)
            except Exception as error:  # at best a broker is down; the watch carries on, and `sight` says so
                self._trouble = repr(error)
                self._ask_anew()
                continue
            self._trouble = ""
            self._told_at = self._asking_since = time.monotonic()
            for setback in list(self.setbacks):
                if setback.seconds is None and self._reached(setback.goal):
                    setback.seconds = time.monotonic() - setback.at

    def _ask_anew(self) -> None:
        """In librdkafka 2.16, an AdminClient that asks while its broker restarts may be left without a broker.

        Its `list_topics` then raises _TRANSPORT for minutes, while a new client gets an answer at once.
        """
        if time.monotonic() - self._asking_since > BLIND_S:
            self._ask = Asker(self._settings)
            self._asking_since = time.monotonic()

    def _reached(self, goal: Offsets) -> bool:
        return all(self.committed.get(partition, 0) >= offset for partition, offset in goal.items())

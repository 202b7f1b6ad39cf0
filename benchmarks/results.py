"""Reads a contender's results back with read_committed, and compares them with offline scoring."""

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from benchmarks.cluster import Cluster
from benchmarks.rows import Floats, Rows, number_of

TOLERANCE: Final = 1e-9


class Results:
    """What was read for each message: its result's probability and partition, and when the broker got it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.probability: Floats = np.full(count, np.nan)
        self.appended_at: Floats = np.full(count, np.nan)  # seconds since 1970
        self.partition = np.full(count, -1)
        self.read = 0
        self.foreign = 0
        self.changed = 0

    @property
    def distinct(self) -> int:
        """The number of messages that have a result."""
        return int(np.count_nonzero(~np.isnan(self.appended_at)))

    def first(self, count: int) -> "Results":
        """The results as if there had been only the first `count` messages."""
        part = Results(count)
        part.probability, part.appended_at = self.probability[:count], self.appended_at[:count]
        part.read, part.foreign, part.changed = self.read, self.foreign, self.changed
        return part

    def verdict(self, truth: Floats | None) -> str:
        """`exact`, or what is wrong. Without `truth`, the results must be the messages themselves."""
        problems = {
            "missing": self.count - self.distinct,
            "doubled": self.read - self.foreign - self.distinct,
            "invented": self.foreign,
            "different": self._different(truth),
        }
        return ", ".join(f"{number:,} {what}" for what, number in problems.items() if number) or "exact"

    def _different(self, truth: Floats | None) -> int:
        if truth is None:
            return self.changed
        there = ~np.isnan(self.appended_at)
        near = np.isclose(
            self.probability[there], truth[: self.count][there], rtol=0, atol=TOLERANCE, equal_nan=True
        )
        return int(np.count_nonzero(~near))


class Reader:
    """Follows an output topic from its beginning. A context manager."""

    def __init__(self, cluster: Cluster, topic: str, results: Results, *, echoed: Rows | None = None) -> None:
        self.results = results
        self._echoed = echoed
        self._consumer = Consumer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "group.id": cluster.name("reader"),
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.queue.backoff.ms": 5,
                "log_level": 0,
            }
        )
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def read(self, done: Callable[[], bool], *, timeout: float, batch: int = 5_000) -> None:
        """Keep reading until `done`, or until `timeout` seconds have passed."""
        deadline = time.monotonic() + timeout
        while not done() and time.monotonic() < deadline:
            for message in self._consumer.consume(batch, 0.05):
                if message.error() is None:
                    self._take(message)

    def next(self) -> int | None:
        """The message number of the next result, as soon as it arrives; None if none arrives for a moment."""
        message = self._consumer.poll(0.05)
        return self._take(message) if message is not None and message.error() is None else None

    def _take(self, message: Any) -> int | None:
        results, value = self.results, message.value()
        results.read += 1
        try:
            result = orjson.loads(value)
            number = number_of(result)
            results.appended_at[number] = message.timestamp()[1] / 1000
        except (ValueError, KeyError, IndexError):
            results.foreign += 1
            return None
        if self._echoed is not None:
            results.changed += value != self._echoed.message(number)[1]
            return number
        results.partition[number] = result.get("source_partition", -1)
        results.probability[number] = result.get("risk_probability", np.nan)
        return number

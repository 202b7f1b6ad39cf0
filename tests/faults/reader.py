"""Reads the results the whole time, as hospitals do: what was seen once must be there at the end."""

import functools
import threading
import zlib
from collections import defaultdict
from collections.abc import Mapping
from typing import Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, IsolationLevel, KafkaError, TopicPartition

from broker.settings import Settings
from tests.consumer.accounts import end_offsets
from tests.kafka import partitions, wait_until

Place = tuple[str, int]  # topic, partition


class Reader:
    """A read_committed reader of the three output topics, in a thread; keeps a checksum per partition.

    Two readers that have seen the same records in the same order have the same `seen`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer = Consumer({
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": f"{settings.group}-reader",
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        })  # fmt: skip
        self.seen: dict[Place, tuple[int, int]] = defaultdict(lambda: (0, 0))  # records, checksum
        self._next: dict[Place, int] = defaultdict(int)
        self._trouble: list[str] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True, name="reader")

    def start(self) -> Self:
        places = [
            TopicPartition(topic, number, OFFSET_BEGINNING)
            for topic in self._settings.output_topics
            for number in partitions(self._settings.bootstrap_servers, topic)
        ]
        self._consumer.assign(places)
        self._thread.start()
        return self

    def stop(self) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        self._consumer.close()

    def read_to_end(self, *, timeout: float = 240) -> dict[Place, tuple[int, int]]:
        """Wait until everything stable by now has been read; returns what was seen."""
        for topic in self._settings.output_topics:
            ends = end_offsets(self._settings, topic, isolation=IsolationLevel.READ_COMMITTED)
            try:
                wait_until(
                    functools.partial(self._is_at, topic, ends), timeout=timeout, what=f"the end of {topic}"
                )
            except AssertionError as error:
                places = {number: self._next[topic, number] for number in ends}
                raise AssertionError(f"{error}: {places}, not {ends}; {self._trouble}") from None
        assert not self._trouble, self._trouble
        return {place: told for place, told in self.seen.items() if told[0]}

    def _is_at(self, topic: str, ends: Mapping[int, int]) -> bool:
        return all(self._next[topic, number] >= end for number, end in ends.items())

    def _read(self) -> None:
        try:
            self._follow()
        except Exception as error:
            self._trouble.append(repr(error))

    def _follow(self) -> None:
        while not self._done.is_set():
            for message in self._consumer.consume(1000, 0.1):
                topic, number, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
                place, error = (topic, number), message.error()
                if error is None:
                    count, checksum = self.seen[place]
                    checksum = zlib.crc32(b"%d" % offset + (message.value() or b""), checksum)
                    self.seen[place] = count + 1, checksum
                    self._next[place] = offset + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._next[place] = max(self._next[place], offset)
                elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                    self._trouble.append(f"{place}: {error}")


def require_final(reader: Reader, settings: Settings) -> int:
    """Fail unless what `reader` saw along the way is there at the end; returns the number of records (I8)."""
    on_the_way = reader.read_to_end()
    afterwards = Reader(settings).start()
    try:
        assert on_the_way == afterwards.read_to_end(), (
            "a read_committed reader saw records that are not there at the end"
        )
    finally:
        afterwards.stop()
    return sum(count for count, _ in on_the_way.values())

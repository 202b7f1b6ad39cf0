"""Keeps the latest result of each patient, even after a restart.

    python reader.py --bootstrap-servers kafka-1:9092

Reads the results of the last hours, then follows the topic. Prints results exactly as they are on the topic, one a
line: first the latest of each patient, then every newer one. Needs only confluent-kafka.
"""

import argparse
import json
import time
from collections.abc import Iterator
from datetime import datetime

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition


class Latest:
    """The latest result by patient: the one with the newest `event_time`.

    Usually that is also the last one on the topic, but not if dead letters were replayed: then old readings are
    scored late.
    """

    def __init__(self) -> None:
        self._values: dict[str, tuple[datetime, bytes]] = {}

    def add(self, value: bytes) -> bool:
        """Add a result as it is on the topic; returns False if the patient has a newer one."""
        result = json.loads(value)
        patient, time_ = result["patient_id"], datetime.fromisoformat(result["event_time"])
        if patient in self._values and time_ < self._values[patient][0]:
            return False
        self._values[patient] = (time_, value)
        return True

    @property
    def values(self) -> list[bytes]:
        """One result per patient."""
        return [value for _, value in self._values.values()]


def main() -> None:
    """Print the latest result of each patient, then follow."""
    arguments = _arguments()
    consumer = Consumer(
        {
            "bootstrap.servers": arguments.bootstrap_servers,
            # Only committed transactions. Otherwise a reader sees aborted results, which come again later.
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            # Offsets are neither stored nor shared: each start reads the last hours again.
            "group.id": "risk-reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            # For TLS: "security.protocol": "SSL", "ssl.ca.location": "ca.pem".
        }
    )
    try:
        _follow(consumer, arguments)
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The latest result of each patient, then every newer one.")
    parser.add_argument("--bootstrap-servers", default="localhost:9092")
    parser.add_argument("--topic", default="risk")
    parser.add_argument("--hours", type=float, default=24, help="how far back to begin")
    parser.add_argument("--once", action="store_true", help="end when the latest results are printed")
    return parser.parse_args()


def _follow(consumer: Consumer, arguments: argparse.Namespace) -> None:
    latest = Latest()
    unread = _start(consumer, arguments.topic, hours=arguments.hours)
    for value in _values(consumer, unread):
        if value is None:
            for known in latest.values:
                _print(known)
            if arguments.once:
                return
        elif latest.add(value) and not unread:
            _print(value)


def _start(consumer: Consumer, topic: str, *, hours: float) -> set[int]:
    """Begin with the first message of the last hours. Returns the partitions.

    Partitions added to the topic later are read only after the next start.
    """
    numbers = set(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
    ends = {
        number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1]
        for number in numbers
    }
    since = int((time.time() - hours * 3600) * 1000)
    found = consumer.offsets_for_times(
        [TopicPartition(topic, number, since) for number in numbers], timeout=30
    )
    # A partition without a message since then has no offset for that time.
    starts = {one.partition: one.offset if one.offset >= 0 else ends[one.partition] for one in found}
    consumer.assign([TopicPartition(topic, number, offset) for number, offset in starts.items()])
    return numbers


def _values(consumer: Consumer, unread: set[int]) -> Iterator[bytes | None]:
    """Each result, and None once, when everything that was there at the start is read and `unread` is empty."""
    while True:
        message = consumer.poll(1)
        if message is None:
            continue
        error = message.error()
        if error is None:
            yield message.value()
        elif error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        elif unread:
            unread -= {message.partition()}
            if not unread:
                yield None


def _print(value: bytes) -> None:
    print(value.decode(), flush=True)


if __name__ == "__main__":
    main()

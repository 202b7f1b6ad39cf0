"""A real worker's output, copied record by record into topics where single records can be changed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from broker.settings import Settings
from broker.topics import create_topics
from schemas.contract import Reason
from schemas.dead_letters import dead_letter, read_dead_letter_headers
from tests.conftest import fresh_settings
from tests.kafka import committed_offsets, read_all

Headers = list[tuple[str, bytes | None]]
Place = tuple[int, int]
"""Partition and offset of an input message."""


@dataclass(frozen=True)
class Record:
    """A record of an output topic."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = field(default_factory=list)
    time: int = 0  # ms since 1970; 0 means now

    @property
    def json(self) -> dict[str, Any]:
        """Its value, parsed."""
        doc: dict[str, Any] = orjson.loads(self.value or b"")
        return doc

    def saying(self, **changes: Any) -> "Record":
        """The same record with some fields of its value changed."""
        return replace(self, value=orjson.dumps(self.json | changes))

    def headed(self, **changes: str) -> "Record":
        """The same record with some `dlq.*` headers changed or added."""
        told = dict(self.headers) | {f"dlq.{name}": text.encode() for name, text in changes.items()}
        return replace(self, headers=[*told.items()])

    @property
    def place(self) -> Place:
        """The source of a result."""
        return self.json["source_partition"], self.json["source_offset"]

    @property
    def letter_place(self) -> Place:
        """The source of a dead letter."""
        origin = read_dead_letter_headers(self.headers)
        return origin.partition, origin.offset


@dataclass
class Written:
    """The output topics and committed offsets of a run, to be changed at will."""

    settings: Settings
    results: list[Record]
    dead_letters: list[Record]
    metrics: list[Record]
    committed: dict[int, int]

    def letter(self, place: Place, reason: Reason, field: str = "") -> Record:
        """A dead letter for the message at a place, as a worker would write it."""
        topic, (partition, offset) = self.settings.input_topic, place
        message = next(
            one
            for one in read_all(self.settings.bootstrap_servers, topic)
            if (one.partition(), one.offset()) == place
        )
        made = dead_letter(
            key=message.key(),
            value=message.value(),
            headers=_headers(message),
            reason=reason,
            field=field,
            topic=topic,
            partition=partition,
            offset=offset,
            timestamp=message.timestamp()[1],
            max_bytes=1_000_000,
        )
        return Record(self.dead_letters[0].partition, made.key, made.value, made.headers)

    def copied(self) -> Settings:
        """Settings with new topics that hold this, and a new group; the input topic is the same."""
        topic = self.settings.input_topic
        kafka = self.settings.bootstrap_servers
        settings = fresh_settings(kafka, input_topic=topic, model=self.settings.model)
        create_topics(settings, partitions=4, replication_factor=1)
        producer = Producer({"bootstrap.servers": kafka, "max.in.flight": 1, "linger.ms": 5})
        for name, records in (
            (settings.output_topic, self.results),
            (settings.dead_letter_topic, self.dead_letters),
            (settings.metrics_topic, self.metrics),
        ):
            publish(producer, name, records)
        commit(settings, self.committed)
        return settings


def written(settings: Settings) -> Written:
    """What the worker of `settings` wrote, as a read_committed reader sees it."""
    kafka = settings.bootstrap_servers
    results, dead_letters, metrics = (
        [
            Record(
                message.partition() or 0,
                message.key(),
                message.value(),
                _headers(message),
                message.timestamp()[1],
            )
            for message in read_all(kafka, topic)
        ]
        for topic in (settings.output_topic, settings.dead_letter_topic, settings.metrics_topic)
    )
    committed = committed_offsets(kafka, settings.group, settings.input_topic)
    return Written(settings, results, dead_letters, metrics, committed)


def _headers(message: Message) -> Headers:
    found: Any = message.headers() or []
    return [*found]


def publish(producer: Producer, topic: str, records: Sequence[Record]) -> list[int]:
    """Write each record to its own partition; returns their offsets."""
    offsets: list[int] = []

    def note(_: object, message: Message) -> None:
        offsets.append(message.offset() or 0)

    for one in records:
        producer.produce(
            topic, one.value, one.key, one.partition, note, timestamp=one.time, headers=[*one.headers]
        )
        producer.poll(0)
    assert producer.flush(30) == 0
    assert len(offsets) == len(records)
    return offsets


def commit(settings: Settings, offsets: dict[int, int], *, metadata: str = "") -> None:
    """Commit these offsets for the group."""
    client = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.group})
    try:
        client.commit(
            offsets=[TopicPartition(settings.input_topic, p, o, metadata) for p, o in offsets.items()],
            asynchronous=False,
        )
    finally:
        client.close()

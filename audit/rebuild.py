"""Gives a new group another group's past: folds the state from the input topic and copies the offsets."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from audit.cluster import Cluster, Offsets
from audit.history import Fold
from audit.reading import OnProgress, read
from broker.errors import BrokerError, SettingsError
from broker.log import kafka_logger
from broker.notes import Note, write_note
from broker.roles import Role
from broker.settings import Settings
from broker.topics import require_state_topic

_PATIENCE_S: Final = 10.0
_TIMEOUT_S: Final = 60.0
_PRODUCER: Final[dict[str, Any]] = {
    "transaction.timeout.ms": 900_000,  # the most that brokers allow by default
    "compression.type": "zstd",
    "linger.ms": 20,
    "queue.buffering.max.kbytes": 262_144,
}


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How many messages were folded, and how many patients have state now.

    `cut` lists the input's partitions whose first messages were deleted and so are missing from the state.
    """

    messages: int
    patients: int
    cut: tuple[int, ...]


def rebuild(settings: Settings, fold: Fold, *, source: str, on_progress: OnProgress) -> Rebuilt:
    """Fold the messages that group `source` has consumed, write their state, and commit the offsets for the group of
    `settings`, all in one transaction. Neither group may have workers.

    Raises:
        SettingsError: the group already has offsets, or `source` has none.
        BrokerError: the brokers can't be reached or refuse, a topic is missing, or the state topic is not empty.
        NotAuditableError: the input can't be read.
    """
    require_state_topic(settings)
    topic, state = settings.input_topic, settings.topic(Role.STATE)
    committed = _committed(settings, source)
    cluster = Cluster(settings, patience=_PATIENCE_S, topics=[topic, state])
    if cluster.last_committed():
        raise SettingsError(f"--group {settings.group} already has committed offsets: choose a new group")
    if any(cluster.ends(state).values()):
        raise BrokerError(
            f"topic {state} is not empty: delete it and recreate it with topics create --state, or choose "
            "another --group"
        )
    starts, ends = cluster.starts(topic), {p: committed.get(p, 0) for p in cluster.ends(topic)}
    messages = 0
    for batch in read(settings, topic, starts=starts, ends=ends, stage=topic, on_progress=on_progress):
        fold.take(batch)
        messages += len(batch)
    _write(settings, fold, committed, topic_id=cluster.topic_id())
    cut = tuple(p for p, start in sorted(starts.items()) if start and p in committed)
    return Rebuilt(messages, len(fold.patients), cut)


def _committed(settings: Settings, source: str) -> Offsets:
    of_source = settings.model_copy(update={"group": source})
    cluster = Cluster(of_source, patience=_PATIENCE_S, topics=[settings.input_topic])
    committed = cluster.committed()
    if not committed:
        has = "an open transaction on" if committed is None else "no committed offsets on"
        raise SettingsError(
            f"--from-group {source} has {has} topic {settings.input_topic}: name another group"
        )
    if cluster.of_another_topic():
        raise SettingsError(
            f"--from-group {source} consumed an earlier topic named {settings.input_topic}, which was deleted"
        )
    return committed


def _write(settings: Settings, fold: Fold, committed: Offsets, *, topic_id: str) -> None:
    own = {**_PRODUCER, "transactional.id": f"{settings.group}-rebuild"}
    producer = Producer(settings.client(own), logger=kafka_logger("vitalstream.kafka"))
    try:
        producer.init_transactions(_TIMEOUT_S)
        producer.begin_transaction()
        ends = dict.fromkeys(committed, 0) | _produced(producer, settings.topic(Role.STATE), fold, committed)
        offsets = [
            TopicPartition(
                settings.input_topic, partition, offset, write_note(Note(topic_id, ends[partition]))
            )
            for partition, offset in committed.items()
        ]
        with closing(Consumer(settings.client() | {"group.id": settings.group, "log_level": 0})) as consumer:
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), _TIMEOUT_S)
        producer.commit_transaction(_TIMEOUT_S)
    except KafkaException as exception:
        error: KafkaError = exception.args[0]
        raise BrokerError(
            f"the state could not be written ({error.name()}): check this user's rights, and that group "
            f"{settings.group} has no workers; run vitalstream state check to see whether it was committed"
        ) from None


def _produced(producer: Producer, topic: str, fold: Fold, committed: Offsets) -> Offsets:
    """Where each partition's state ends once it is delivered."""
    ends: Offsets = {}
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failed.append(error)
        else:
            partition: Any = message.partition()
            offset: Any = message.offset()
            ends[partition] = max(ends.get(partition, 0), offset + 1)

    for partition in committed:
        for key, value in _records(fold, partition):
            while not _accepted(producer, topic, value, key, partition, delivered):
                producer.poll(0.1)
            producer.poll(0)
    if producer.flush(_TIMEOUT_S) or failed:
        raise KafkaException(failed[0] if failed else KafkaError(KafkaError._TIMED_OUT))
    return ends


def _records(fold: Fold, partition: int) -> Iterator[tuple[bytes, bytes]]:
    patients, rows = fold.patients.of(partition)
    yield from zip((str(one).encode() for one in patients), fold.records.encode(rows), strict=True)


def _accepted(producer: Producer, *record: Any) -> bool:
    try:
        producer.produce(*record)
    except BufferError:
        return False
    return True

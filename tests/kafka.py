"""The real Kafka that tests run on, and helpers to use it. Nothing here sleeps without a condition."""

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from broker.errors import BrokerError
from broker.jars import KAFKA_VERSION as DEFAULT_VERSION
from broker.local import SINGLE_NODE_PROPERTIES, LocalKafka, free_port

KAFKA_VERSION = os.environ.get("KAFKA_VERSION", DEFAULT_VERSION)
KAFKA_IMAGE = f"apache/kafka:{KAFKA_VERSION}"
# Tests of compacted topics wait for the log cleaner, which by default checks every 15 seconds.
PROPERTIES = {**SINGLE_NODE_PROPERTIES, "log.cleaner.backoff.ms": "200"}

T = TypeVar("T")
Row = tuple[bytes | str | None, bytes | str | None] | tuple[bytes | str | None, bytes | str | None, int]


@dataclass(frozen=True)
class Kafka:
    """A running cluster, and where it comes from."""

    bootstrap_servers: str
    source: str


@contextmanager
def running_kafka() -> Iterator[Kafka]:
    """KAFKA_BOOTSTRAP_SERVERS, else a container, else a broker from Maven's jars.

    Raises: BrokerError: none of the three is available.
    """
    if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield Kafka(servers, "KAFKA_BOOTSTRAP_SERVERS")
    elif docker_answers():
        with _container() as servers:
            yield Kafka(servers, f"testcontainers, {KAFKA_IMAGE}")
    else:
        with _local() as servers:
            yield Kafka(servers, "Apache Kafka from Maven's jars")


def docker_answers() -> bool:
    """Whether a Docker engine is available to start containers."""
    import docker

    try:
        client = docker.from_env(timeout=10)
    except docker.errors.DockerException:
        return False
    try:
        return bool(client.ping())
    except Exception:  # docker-py also lets errors of requests through
        return False
    finally:
        client.close()


@contextmanager
def _local() -> Iterator[str]:
    try:
        broker = LocalKafka(fast_start=True, version=KAFKA_VERSION, overrides=PROPERTIES)
        broker.start()
    except BrokerError as error:
        raise BrokerError(
            "the tests need a Kafka: set KAFKA_BOOTSTRAP_SERVERS, or start a Docker engine, "
            f"or install Java 17 and Maven ({error})"
        ) from error
    try:
        yield broker.bootstrap_servers
    finally:
        broker.kill()  # an orderly shutdown takes seconds, and nobody needs the data
        broker.stop()


@contextmanager
def _container() -> Iterator[str]:
    """A container on a port chosen here, because a broker must know the address it advertises."""
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"  # `with` removes the container
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    port = free_port()
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(9092, port)
    container.waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(120))
    for name, value in _container_properties(port).items():
        container.with_env("KAFKA_" + name.replace(".", "_").upper(), value)
    with container:
        yield f"localhost:{port}"


def _container_properties(port: int) -> dict[str, str]:
    # A single KAFKA_* setting drops all of the image's own, so this is the complete set. The broker reaches
    # itself through BROKER; the mapped port does not work inside, and transactions would hang.
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": "1@localhost:9093",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "BROKER",
        "listeners": "PLAINTEXT://:9092,BROKER://:9094,CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://localhost:{port},BROKER://localhost:9094",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        **PROPERTIES,
    }


def wait_until(predicate: Callable[[], T], *, timeout: float = 30, what: str = "the condition") -> T:
    """The first truthy result of `predicate`, called every 20 ms; fails with `what` after `timeout` s."""
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s (last answer: {answer!r})")
        time.sleep(0.02)
    return answer


def produce(kafka: str, topic: str, rows: Iterable[Row], *, timeout: float = 60) -> None:
    """Publish (key, value) or (key, value, partition) rows in order; all are acknowledged on return."""
    failed: list[KafkaError] = []
    # This is how `vitalstream replay` and Java clients choose a key's partition. An idempotent producer would
    # keep the order as well, but waits half a second for its ID.
    like = {"partitioner": "murmur2_random"}
    producer = Producer(_client(kafka, **{"max.in.flight": 1, "linger.ms": 5, **like}))
    for key, value, *partition in rows:
        where = {"partition": partition[0]} if partition else {}
        while not _accepts(producer, topic, key=key, value=value, on_delivery=_failures(failed), **where):
            producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(timeout)
    assert not left, f"{left} messages for {topic} were not acknowledged within {timeout:g} s"
    assert not failed, f"{len(failed)} messages for {topic} failed, the first with {failed[0]}"


def read_all(
    kafka: str, topic: str, *, isolation: str = "read_committed", timeout: float = 60
) -> list[Message]:
    """All messages of a topic that a reader with this isolation level sees now, in order within each partition.

    With read_committed, that ends before the first open transaction.
    """
    reader = Consumer(
        _client(
            kafka,
            **{
                "group.id": f"reader-{uuid.uuid4()}",
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 5,
            },
        )
    )
    try:
        return list(_until_eof(reader, topic, timeout))
    finally:
        reader.close()


def committed_offsets(kafka: str, group: str, topic: str, *, timeout: float = 30) -> dict[int, int]:
    """The group's committed offset by partition; partitions without one are omitted."""
    client = Consumer(_client(kafka, **{"group.id": group}))
    asked = [TopicPartition(topic, number) for number in partitions(kafka, topic)]
    try:
        found = wait_until(
            lambda: _committed(client, asked), timeout=timeout, what=f"committed offsets of {group}"
        )
        return {one.partition: one.offset for one in found if one.offset >= 0}
    finally:
        client.close()


def partitions(kafka: str, topic: str) -> list[int]:
    """The topic's partition numbers, as soon as the responding broker knows the topic."""
    admin = AdminClient(_client(kafka))

    def known() -> list[int]:
        found = admin.list_topics(timeout=10).topics.get(topic)
        return sorted(found.partitions) if found else []

    return wait_until(known, what=f"a broker that knows {topic}")


def alter_topic(kafka: str, topic: str, config: Mapping[str, str]) -> None:
    """Change some of a topic's settings; on return, the brokers report the new ones."""
    admin = AdminClient(_client(kafka))
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=30)

    def told() -> bool:
        (future,) = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values()
        found = future.result(timeout=30)
        return all(found[name].value == value for name, value in config.items())

    wait_until(told, what=f"the new settings of {topic}")


def is_running(pid: int) -> bool:
    """Whether the process exists and is not merely waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _client(kafka: str, **properties: Any) -> dict[str, Any]:
    return {"bootstrap.servers": kafka, "log_level": 0, **properties}


def _accepts(producer: Producer, topic: str, **message: Any) -> bool:
    try:
        producer.produce(topic, **message)
    except BufferError:
        return False
    return True


def _failures(failed: list[KafkaError]) -> Callable[[KafkaError | None, Message], None]:
    return lambda error, _: failed.append(error) if error is not None else None


def _until_eof(reader: Consumer, topic: str, timeout: float) -> Iterator[Message]:
    deadline = time.monotonic() + timeout
    numbers = reader.list_topics(topic, timeout=10).topics[topic].partitions
    reader.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in numbers])
    unread = set(numbers)
    while unread:
        assert time.monotonic() < deadline, f"{topic} was not read within {timeout:g} s; left: {unread}"
        for message in reader.consume(10_000, timeout=0.01):
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard(message.partition())
            elif not error.retriable():
                raise KafkaException(error)


def _committed(client: Consumer, asked: list[TopicPartition]) -> list[TopicPartition]:
    """The coordinator's response; empty while it is not ready, as in the first moments of a group."""
    try:
        return client.committed(asked, timeout=5)
    except KafkaException:
        return []

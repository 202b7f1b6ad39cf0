"""A worker's Kafka client configurations, each setting with its reason.

A user's own librdkafka properties (`-X`) are laid over these.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Collection
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from broker.log import kafka_logger
from broker.settings import Settings

TRANSACTION_TIMEOUT_S = 10.0
CONNECT_S = 1.0  # after which a producer continues without a connection

kafka_log = kafka_logger("vitalstream.kafka")

_CONSUMER: dict[str, Any] = {
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    # Every partition is assigned with an explicit offset; if that offset is gone we must stop, not skip it.
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "check.crcs": True,
    # With the default of 1 s, a full queue stalls the partition for a second; 0 spins.
    "fetch.queue.backoff.ms": 10,
    # Bounds memory. 4 MB is some 20,000 messages; twice as much took 11 MB more and was no faster.
    "queued.max.messages.kbytes": 4_096,
    # The lag comes from statistics.
    "statistics.interval.ms": 1_000,
}

_CLASSIC_GROUP: dict[str, Any] = {
    "partition.assignment.strategy": "cooperative-sticky",
    # A killed worker's partitions are reassigned after this long.
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 2_000,
}

_PRODUCER: dict[str, Any] = {
    "enable.idempotence": True,
    "partitioner": "murmur2_random",  # the Java client's partitioner
    # Bounds memory while a broker stalls; the default is 1 GB.
    "queue.buffering.max.kbytes": 65_536,
}

# A request holds the messages of one partition. Under load, 0 ms sends a few messages per request, and producing takes
# 1.5 times as long; with 20 ms at 4 partitions, waiting for a transaction's last messages takes 1.5 times as long. But
# at 50 partitions, 5 ms makes so many small requests that 50 ms gave 1.15 times the rows. A flush sends at once, so
# this adds no latency.
SHORTEST_LINGER_MS, LONGEST_LINGER_MS = 5, 100  # 1 ms per partition, within these limits

_TRANSACTIONAL: dict[str, Any] = {
    "transaction.timeout.ms": int(TRANSACTION_TIMEOUT_S * 1000),
    # Right after a commit the coordinator answers CONCURRENT_TRANSACTIONS for a moment; librdkafka then
    # sleeps this long (100 ms by default) before it asks again.
    "retry.backoff.ms": 1,
    "retry.backoff.max.ms": 5,
    # By default, once all connections are broken, librdkafka 2.16 starts over from bootstrap.servers and retires the
    # brokers it knew (rd_kafka_rebootstrap_tmr_cb). One of them stays in its cache as the group's coordinator, and
    # rd_kafka_coord_req_fsm waits for that one to come up, without ever looking at its timeout: the call that sends
    # offsets never returns, and its producer leaks. A producer that fails is renewed, which starts over as well.
    "metadata.recovery.strategy": "none",
}


def consumer_config(settings: Settings) -> dict[str, Any]:
    """The consumer's configuration, for the classic or the KIP-848 group protocol."""
    classic = settings.kafka.get("group.protocol", "classic").lower() == "classic"
    defaults = _CONSUMER | (_CLASSIC_GROUP if classic else {})
    return settings.client(defaults) | {"group.id": settings.group}


def is_eager(config: dict[str, Any]) -> bool:
    """Whether each rebalance revokes everything, so that assignments are complete rather than incremental."""
    strategy = str(config.get("partition.assignment.strategy", ""))
    return bool(strategy) and "cooperative" not in strategy


def make_consumer(settings: Settings, *, worker: str, on_statistics: Callable[[str], None]) -> Consumer:
    """A consumer of the group without auto-commit. It calls `on_statistics`, which must not raise.

    Its client.id is the worker's name, unless the user's properties set another.
    """
    config = {"client.id": worker} | consumer_config(settings) | {"stats_cb": on_statistics}
    return Consumer(config, logger=kafka_log)


def producer_config(
    settings: Settings,
    *,
    transactional_id: str | None,
    limits: Collection[int],
    partitions: int,
    reports: bool = False,
) -> dict[str, Any]:
    """The producer's configuration; without `transactional_id` it is idempotent only.

    `partitions` is the number of the result topic's partitions. `limits` are the output topics' max.message.bytes: the
    producer accepts what the largest of them accepts, and a batch, which counts as one message there, never exceeds
    the smallest. With `reports`, delivery callbacks also report success, not only failure.
    """
    defaults = (
        _PRODUCER
        | {"delivery.report.only.error": not reports}
        | {"linger.ms": min(max(partitions, SHORTEST_LINGER_MS), LONGEST_LINGER_MS)}
        | {"message.max.bytes": max(limits), "batch.size": min(1_000_000, *limits)}
    )
    if transactional_id is None:
        return settings.client(defaults)
    # The log must report every broken connection; see CoordinatorLog.
    told = {"transactional.id": transactional_id, "log.connection.close": True, "log_level": 6}
    return settings.client(defaults | _TRANSACTIONAL) | told


def transaction_timeout(settings: Settings) -> float:
    """Seconds after which the brokers abort an open transaction."""
    return float(settings.client(_TRANSACTIONAL)["transaction.timeout.ms"]) / 1000


def make_producer(
    settings: Settings,
    *,
    transactional_id: str | None,
    limits: Collection[int],
    partitions: int,
    reports: bool = False,
    on_trouble: Callable[[KafkaError], None],
    on_undelivered: Callable[[KafkaError], None],
    on_disturbed: Callable[[], None],
) -> Producer:
    """A producer with listeners, which are called from within its own calls.

    `on_trouble` hears of connection errors, `on_undelivered` of each lost message (not in transactions, where the
    commit fails), and `on_disturbed` when a request to the transaction coordinator may have been sent twice.
    """
    config = producer_config(
        settings, transactional_id=transactional_id, limits=limits, partitions=partitions, reports=reports
    )
    config["error_cb"] = on_trouble
    if transactional_id is None:
        # A transaction learns of lost messages from its commit. Besides, a callback that runs while a producer fails
        # turns the original error into a SystemError without a cause.
        config["on_delivery"] = lambda error, _message: on_undelivered(error) if error is not None else None
    log: Any = CoordinatorLog(kafka_log, on_disturbed=on_disturbed)
    producer = Producer(config, logger=log)
    if transactional_id is not None:
        _connect(producer, settings.output_topic)
    return producer


def _connect(producer: Producer, topic: str) -> None:
    """Wait until a connection to a broker stands.

    Without one, librdkafka (2.16) waits 500 ms before it looks for the transaction coordinator again; this affected one
    start in three. An answer from broker -1 came from a bootstrap server's connection, which is later replaced by
    another.
    """
    give_up_at = time.monotonic() + CONNECT_S
    with contextlib.suppress(KafkaException):
        while producer.list_topics(topic, timeout=CONNECT_S).orig_broker_id < 0:
            if time.monotonic() > give_up_at:
                return


class CoordinatorLog:
    """Passes on a producer's log, and detects in it that the connection to the transaction coordinator broke.

    librdkafka then repeats the request on a new connection and the call succeeds, without any callback (measured with
    2.16). Only the log says so at once; statistics come later. The first failure of a client is always logged,
    identical ones within 30 s are not, so never rely on a second line.
    """

    def __init__(self, log: logging.Logger, *, on_disturbed: Callable[[], None]) -> None:
        self._log = log
        self._on_disturbed = on_disturbed

    def log(self, level: int, form: str, facility: str, client: str, text: str) -> None:
        """Called by a client for each line; lines begin with the name of librdkafka's thread."""
        if facility in ("FAIL", "REQTMOUT") and text.startswith("[thrd:TxnCoordinator]"):
            self._on_disturbed()
        self._log.log(level, form, facility, client, text)

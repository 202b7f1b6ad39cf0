"""The worker's own client settings, for contenders that are compared with it on the same client."""

import time
from typing import Any

from confluent_kafka import Consumer, Producer
from shared import BOOTSTRAP, GROUP, INPUT, OUTPUT

from consumer import clients

_CLUSTER = {"bootstrap.servers": BOOTSTRAP}


def consumer() -> Consumer:
    """A member of the group that reads the input topic from its beginning."""
    config = clients._CONSUMER | clients._CLASSIC_GROUP | _CLUSTER
    made = Consumer(
        config | {"group.id": GROUP, "auto.offset.reset": "earliest", "statistics.interval.ms": 0}
    )
    made.subscribe([INPUT])
    return made


def transactional_producer() -> Producer:
    """A producer that has fenced its predecessor."""
    config = clients._PRODUCER | clients._TRANSACTIONAL | _CLUSTER
    made = Producer(config | {"transactional.id": GROUP})
    made.init_transactions()
    return made


class Transactions:
    """Transactions of results and the consumer's position, so everything consumed must have been sent.

    As short as possible: nothing here aborts, recovers, or handles a rebalance.
    """

    def __init__(self, reader: Consumer) -> None:
        self._reader = reader
        self._producer = transactional_producer()
        self._since: float | None = None

    def send(self, results: list[tuple[Any, Any]]) -> None:
        """Produce (value, key) into the open transaction; begin one if there is none."""
        if results and self._since is None:
            self._producer.begin_transaction()
            self._since = time.monotonic()
        produce = self._producer.produce
        for value, key in results:
            try:
                produce(OUTPUT, value, key)
            except BufferError:
                self._producer.flush()
                produce(OUTPUT, value, key)
        self._producer.poll(0)

    def commit(self, *, after: float) -> None:
        """Commit, unless the transaction is younger than `after` seconds."""
        if self._since is None or time.monotonic() - self._since < after:
            return
        self._producer.flush()
        offsets = [one for one in self._reader.position(self._reader.assignment()) if one.offset >= 0]
        self._producer.send_offsets_to_transaction(offsets, self._reader.consumer_group_metadata())
        self._producer.commit_transaction()
        self._since = None

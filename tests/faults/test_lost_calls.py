"""Sending offsets while every connection breaks: the call must return, or its producer leaks."""

import functools
import itertools
import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from broker.roles import Role
from broker.settings import Settings
from consumer.clients import make_consumer, make_producer
from consumer.commit import Transactions
from consumer.errors import KafkaCallError
from consumer.observer import Observer, Step
from consumer.sending import Output, Records, Sender
from tests.conftest import MakeSettings
from tests.faults.proxy import Proxy
from tests.kafka import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

OUTPUT = Output([Records(Role.RESULTS, [b"{}"], [b"p1"]), Records(Role.METRICS, [b"{}"])], chunks=1, rows=1)
CUTS, WARM = 10, 3
TIMEOUT_S = 20.0


class Cutter(Observer):
    """Every second time, breaks all connections once results are delivered, before the offsets are sent.

    A producer that has never sent offsets does not know the group's coordinator and would look it up first.
    """

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._cutting = itertools.cycle([False, True])

    def reached(self, step: Step) -> None:
        if step is Step.FLUSHED and next(self._cutting):
            self._proxy.cut()


def footprint() -> tuple[int, int]:
    """Open files and threads of this process, excluding the proxy's."""
    proxied = sum(
        thread.name.startswith("proxy") for thread in threading.enumerate()
    )  # it has as many sockets as threads
    files, threads = (len([*Path("/proc/self", kind).iterdir()]) for kind in ("fd", "task"))
    return files - proxied, threads - proxied


def callers() -> set[threading.Thread]:
    """The threads of bounded calls."""
    return {thread for thread in threading.enumerate() if thread.name == "bounded"}


def commit(committer: Transactions, settings: Settings, offset: int) -> None:
    """One transaction with one row; retried with a new producer if it fails."""
    while True:
        try:
            committer.add(OUTPUT)
            committer.commit(lambda: [TopicPartition(settings.input_topic, 0, offset)], TIMEOUT_S)
            return
        except KafkaCallError:
            committer.renew()
            committer.start(TIMEOUT_S)


def test_no_call_is_lost(proxy: Proxy, make_settings: MakeSettings) -> None:
    others = callers()  # left over from earlier tests
    direct = make_settings(partitions=1)
    settings = direct.model_copy(update={"bootstrap_servers": proxy.bootstrap_servers})
    make = functools.partial(
        make_producer,
        settings,
        transactional_id=f"{direct.group}-lost-calls",
        limits=[1_048_576],
        partitions=1,
    )
    consumer = make_consumer(direct, worker="w", on_statistics=lambda _: None)
    try:
        consumer.subscribe([direct.input_topic])
        wait_until(lambda: consumer.poll(0.1) is None and consumer.assignment(), timeout=30, what="a member")
        observer = Cutter(proxy)
        sender = Sender(make, topics=direct.by_role, observer=observer, clock=time.monotonic)
        committer = Transactions(consumer, sender, timeout=60, observer=observer, clock=time.monotonic)
        committer.start(TIMEOUT_S)
        for cut in range(1, CUTS + 1):
            commit(committer, settings, 2 * cut - 1)
            commit(committer, settings, 2 * cut)
            # A call that timed out may still be about to return; the last one's thread is kept.
            wait_until(
                lambda: len(callers() - others) == 1,
                timeout=TIMEOUT_S,
                what=f"no lost call after {cut} cuts",
            )
            if cut == WARM:
                before = footprint()
        committed = consumer.committed([TopicPartition(direct.input_topic, 0)], timeout=10)[0].offset
        assert committed == 2 * CUTS
        assert max(b - a for a, b in zip(before, footprint(), strict=True)) < 10, (before, footprint())
    finally:
        consumer.close()

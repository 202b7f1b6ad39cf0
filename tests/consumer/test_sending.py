"""What the worker sends arrives once and in order, even when the producer's queue is full."""

import time
from typing import Any

import pytest
from confluent_kafka import Producer

from broker.roles import Role
from broker.settings import Settings
from consumer.observer import Observer
from consumer.sending import Output, Records, Sender
from tests.conftest import MakeSettings
from tests.kafka import read_all

pytestmark = pytest.mark.kafka

COUNT = 200


def small_queue(settings: Settings, **_: Any) -> Producer:
    config = {"queue.buffering.max.messages": 7, "enable.idempotence": True, "linger.ms": 1}
    return Producer(settings.client(config))


@pytest.mark.parametrize("partitions", [None, [1] * COUNT])
def test_a_full_queue_loses_and_repeats_nothing(
    make_settings: MakeSettings, partitions: list[int] | None
) -> None:
    settings = make_settings(partitions=2)
    sender = Sender(
        lambda **listeners: small_queue(settings, **listeners),
        topics={Role.RESULTS: settings.output_topic},
        observer=Observer(),
        clock=time.monotonic,
    )
    values = [b"%d" % number for number in range(COUNT)]
    sender.send(
        Output([Records(Role.RESULTS, values, [b"one"] * COUNT, partitions=partitions)], chunks=1, rows=COUNT)
    )
    sender.flush(30.0)
    found = read_all(settings.bootstrap_servers, settings.output_topic)
    assert [message.value() for message in found] == values

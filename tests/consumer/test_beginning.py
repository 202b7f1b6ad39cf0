"""Where a new group starts: at the oldest message, or at a given time."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer

from audit.findings import Invariant
from audit.run import audit
from broker.settings import Settings
from consumer.observer import Observer
from consumer.run import run_worker
from tests.conftest import MakeSettings
from tests.consumer.accounts import read_accounts
from tests.schemas.messages import good

pytestmark = pytest.mark.kafka

# Recent enough for any retention, and a whole millisecond, as timestamps are.
MIDNIGHT = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=24)


def send(settings: Settings, *, partition: int, hour: float, count: int) -> None:
    """Send messages one second apart, starting at this hour."""
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    first = round((MIDNIGHT + timedelta(hours=hour)).timestamp() * 1000)
    for second in range(count):
        producer.produce(
            settings.input_topic, good(), b"p", partition, timestamp=first + 1000 * second, headers=[]
        )
    assert producer.flush(30) == 0


def work(settings: Settings) -> None:
    run_worker(settings, observer=Observer(), should_stop=lambda: False)


def scored(settings: Settings) -> dict[int, list[int]]:
    """The offsets of the scored messages, by partition."""
    found: dict[int, list[int]] = {}
    for partition, offset in sorted(read_accounts(settings).by_position):
        found.setdefault(partition, []).append(offset)
    return found


def test_a_new_group_starts_at_a_given_time_and_continues_from_its_commits(
    make_settings: MakeSettings, models: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    noon = MIDNIGHT + timedelta(hours=12)
    settings = make_settings(partitions=3, model=models["logistic"], until_idle=1.0, from_timestamp=noon)
    for partition, hour in ((0, 11), (0, 12), (1, 11), (2, 13)):
        send(settings, partition=partition, hour=hour, count=4)
    work(settings)
    assert scored(settings) == {0: [4, 5, 6, 7], 2: [0, 1, 2, 3]}
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]

    judged = audit(settings)
    assert judged.clean, (judged.offenders, judged.unjudged)
    assert judged.messages == 8
    from_the_first = audit(settings.model_copy(update={"from_timestamp": None}))
    assert Invariant.COMPLETE in {one.invariant for one in from_the_first.offenders}

    send(settings, partition=1, hour=14, count=2)
    send(settings, partition=0, hour=10, count=2)  # with old timestamps, but after what is committed
    work(settings)
    assert scored(settings) == {0: [4, 5, 6, 7, 8, 9], 1: [4, 5], 2: [0, 1, 2, 3]}
    assert any("already has committed offsets" in one.message for one in caplog.records)
    assert audit(settings).clean

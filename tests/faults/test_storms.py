"""Workers that come and go without a pause, under each assignment strategy, and partitions that are added."""

import signal
import time

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from broker.settings import Settings
from tests.faults.conftest import Begin
from tests.faults.load import Records
from tests.faults.trial import Trial

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

COOPERATIVE: dict[str, str] = {}
EAGER = {"partition.assignment.strategy": "range"}
KIP_848 = {"group.protocol": "consumer"}
WAYS = {"cooperative": COOPERATIVE, "eager": EAGER, "consumer": KIP_848}
MOST = 4  # workers at a time


def storm(trial: Trial, *, seconds: float) -> None:
    """Every 1 to 3 s a worker joins, leaves or is killed; at least one stays."""
    running = [trial.worker().joined()]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(trial.random.uniform(1, 3))
        if len(running) == 1 or (len(running) < MOST and trial.random.random() < 0.5):
            running.append(trial.worker())
        else:
            leaver = running.pop(trial.random.randrange(len(running)))
            leaver.signal(trial.random.choice([signal.SIGTERM, signal.SIGKILL]))
        trial.note_fault()
    for worker in trial.workers:
        if worker in running:
            worker.logged("scores with")  # a worker that has not started yet can't end cleanly
        else:
            worker.wait(timeout=60)  # otherwise it would count as running and be killed


@pytest.mark.parametrize(
    ("way", "partitions"),
    [
        ("cooperative", 4),
        *(
            pytest.param(way, partitions, marks=pytest.mark.faults)
            for way in WAYS
            for partitions in (1, 3, 50)
        ),
    ],
)
def test_a_rebalance_storm(
    begin: Begin, records: Records, way: str, partitions: int, request: pytest.FixtureRequest
) -> None:
    everything = request.config.getoption("--faults", default=False)
    trial = begin("worker joins, leaves or is killed", partitions=partitions, properties=WAYS[way])
    trial.load(records, rate=1000)
    storm(trial, seconds=40 if everything else 15)
    trial.finish()
    assert trial.log.count("revoked partitions") + trial.log.count("lost partitions") > 0


@pytest.mark.faults
@pytest.mark.parametrize("way", WAYS)
def test_a_rebalance_storm_with_a_history(begin: Begin, records: Records, way: str) -> None:
    trial = begin("worker with a history joins, leaves or is killed", model="history", properties=WAYS[way])
    trial.load(records, rate=500)
    storm(trial, seconds=40)
    trial.finish()


@pytest.mark.faults
@pytest.mark.parametrize("way", WAYS)
def test_partitions_are_added(begin: Begin, records: Records, way: str) -> None:
    refresh = {"topic.metadata.refresh.interval.ms": "1000"}
    trial = begin("partitions added under load", partitions=2, properties={**WAYS[way], **refresh})
    trial.load(records, rate=1000)
    for _ in range(2):
        trial.worker().joined()
    for partitions in (3, 8):
        trial.progressed(1000)
        setback = trial.note_fault()
        add_partitions(trial.settings, partitions)
        trial.recovered(setback)
        trial.worker()
    trial.progressed(4000)
    found = trial.finish()
    assert not [note for note in found.notes if "no committed offset" in note], "a partition was never read"


def add_partitions(settings: Settings, total: int) -> None:
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0})
    for future in admin.create_partitions([NewPartitions(settings.input_topic, total)]).values():
        future.result(30)

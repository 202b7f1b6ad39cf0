"""Workers killed by SIGKILL at each point of a transaction and at random, over and over, under load."""

import signal
import time

import pytest

from consumer.observer import Step
from tests.consumer.processes import Process
from tests.faults.conftest import Begin
from tests.faults.doomed import Doom
from tests.faults.load import Records
from tests.faults.trial import HEALTHY, PATIENCE_S, Trial
from tests.kafka import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1200)]

# A successor undoes everything up to FLUSHED; OFFSETS_SENT is the last moment before the commit.
FAILPOINTS = (
    Step.COLLECTED,
    Step.PRODUCING,
    Step.PRODUCED,
    Step.FLUSHED,
    Step.OFFSETS_SENT,
    Step.COMMITTED,
)
SLOTS = ("a", "b")


def kill_at_failpoints(trial: Trial, *, rounds: int) -> int:
    """Workers that kill themselves at each failpoint in turn, each followed by another with the same name."""
    dooms = [Doom(step=step, passes=trial.random.randint(1, 20)) for step in FAILPOINTS * rounds]
    trial.random.shuffle(dooms)
    running: dict[str, Process] = {}
    killed = 0
    while dooms or running:
        for slot in SLOTS:
            if slot not in running and dooms:
                running[slot] = trial.worker(dooms.pop(), instance=slot)
        wait_for_one(running)
        for slot, worker in [*running.items()]:
            if worker.code is not None:
                assert worker.code == -signal.SIGKILL, worker.log
                trial.note_fault()
                killed += 1
                del running[slot]
    return killed


def wait_for_one(running: dict[str, Process]) -> None:
    wait_until(
        lambda: any(worker.code is not None for worker in running.values()),
        timeout=PATIENCE_S,
        what="a worker that kills itself",
    )


def kill_at_random(trial: Trial, *, kills: int) -> None:
    """Two workers, one of which is killed and restarted at random moments, even while it starts."""
    running = [trial.worker(HEALTHY, instance=str(slot)).joined() for slot in range(2)]
    for _ in range(kills):
        time.sleep(trial.random.uniform(0.2, 4.0))
        slot = trial.random.randrange(2)
        running[slot].kill()
        trial.note_fault()
        running[slot] = trial.worker(HEALTHY, instance=str(slot))


def test_killed_at_every_failpoint(begin: Begin, records: Records) -> None:
    trial = begin("worker killed at a failpoint", chunk_size=50)
    trial.load(records, rate=1000)
    killed = kill_at_failpoints(trial, rounds=2)
    for slot in SLOTS:
        trial.worker(instance=slot)
    found = trial.finish()
    assert killed == 12
    assert sum(found.aborted.values()) > 0, "no transaction was interrupted"


def test_killed_at_every_failpoint_with_a_history(begin: Begin, records: Records) -> None:
    trial = begin("worker with a history killed at a failpoint", chunk_size=50, model="history")
    trial.load(records, rate=500)
    killed = kill_at_failpoints(trial, rounds=1)
    for slot in SLOTS:
        trial.worker(instance=slot)
    trial.finish()
    assert killed == 6


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_killed_a_hundred_and_fifty_times_with_a_history(begin: Begin, records: Records) -> None:
    trial = begin("worker with a history killed at a failpoint", chunk_size=50, model="history")
    trial.load(records, rate=500)
    killed = kill_at_failpoints(trial, rounds=23)
    kill_at_random(trial, kills=16)
    trial.finish()
    assert killed == 138


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("partitions", [1, 8])
def test_killed_a_hundred_times_at_failpoints(begin: Begin, records: Records, partitions: int) -> None:
    trial = begin("worker killed at a failpoint", chunk_size=50, partitions=partitions)
    trial.load(records, rate=1000)
    killed = kill_at_failpoints(trial, rounds=14)
    for slot in SLOTS:
        trial.worker(instance=slot)
    found = trial.finish()
    assert killed == 84
    assert sum(found.aborted.values()) > 0


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("properties", [{}, {"group.protocol": "consumer"}], ids=["classic", "consumer"])
def test_killed_at_random(begin: Begin, records: Records, properties: dict[str, str]) -> None:
    trial = begin("worker killed at random", properties=properties)
    trial.load(records, rate=1500)
    kill_at_random(trial, kills=40)
    found = trial.finish()
    assert sum(found.aborted.values()) > 0

"""Workers frozen for too long: they and the workers that take over agree when they wake up."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from consumer.observer import Step
from tests.consumer.processes import Process
from tests.faults.conftest import Begin
from tests.faults.doomed import Doom
from tests.faults.load import Records
from tests.faults.trial import Trial

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1200)]

SMALL = (Step.FLUSHED, Step.OFFSETS_SENT)
OTHERS = (Step.COLLECTED, Step.SCORED, Step.PRODUCING, Step.PRODUCED, Step.COMMITTED)
KIP_848 = {"group.protocol": "consumer"}
# As short as makes sense: if nobody returns under a dead worker's name, its messages wait that long.
SHORT_TRANSACTION = {"transaction.timeout.ms": "4000", "socket.timeout.ms": "3000"}


def stop_at(trial: Trial, step: Step, *, seen: bool = False, **changes: Any) -> Process:
    """A worker that has stopped itself at a step; with `seen`, once the brokers know of its transaction."""
    doom = Doom(step=step, passes=trial.random.randint(2, 20), signal="SIGSTOP", seen=seen)
    worker = trial.worker(doom, **changes)
    trial.stopped_itself(worker)
    return worker


def wake(worker: Process) -> None:
    worker.signal(signal.SIGCONT)


def outlive(trial: Trial, zombie: Process, *, rows: int) -> None:
    """Another worker takes over, the zombie wakes up, and both continue for that many rows."""
    setback = trial.note_fault()
    trial.worker(instance="heir")
    trial.recovered(setback)
    wake(zombie)
    zombie.logged("assigned partitions", times=2)
    trial.progressed(rows)
    trial.finish()


@pytest.mark.parametrize("step", [*SMALL, *(pytest.param(step, marks=pytest.mark.faults) for step in OTHERS)])
@pytest.mark.parametrize(
    "properties", [{}, pytest.param(KIP_848, marks=pytest.mark.faults)], ids=["classic", "consumer"]
)
def test_a_zombie_changes_nothing(
    begin: Begin, records: Records, step: Step, properties: dict[str, str]
) -> None:
    trial = begin("worker stopped beyond its session, replaced, woken", properties=properties)
    trial.load(records, rate=1000)
    zombie = stop_at(trial, step, instance="zombie")
    outlive(trial, zombie, rows=2000)


def test_a_zombie_with_a_history_changes_nothing(begin: Begin, records: Records) -> None:
    trial = begin("worker with a history stopped beyond its session, replaced, woken", model="history")
    trial.load(records, rate=500)
    zombie = stop_at(trial, Step.FLUSHED, instance="zombie", seen=True)
    outlive(trial, zombie, rows=1000)


def test_two_workers_with_one_transactional_id_do_not_duel(
    begin: Begin, records: Records, tmp_path: Path
) -> None:
    trial = begin("two workers with one transactional id")
    trial.load(records, rate=1000)
    first = trial.worker(instance="same", environment=_elsewhere(tmp_path / "one")).joined()
    trial.progressed(500)
    second = trial.worker(instance="same", environment=_elsewhere(tmp_path / "two"))
    setback = trial.note_fault()
    assert first.wait(timeout=60) == 1, first.log
    assert "another worker has taken over the transactional id" in first.log
    trial.recovered(setback)
    trial.workers.remove(first)
    trial.finish()
    assert second.code == 0


@pytest.mark.parametrize(
    "step",
    [
        Step.FLUSHED,
        *(
            pytest.param(step, marks=pytest.mark.faults)
            for step in (Step.PRODUCING, Step.PRODUCED, Step.OFFSETS_SENT)
        ),
    ],
)
def test_a_transaction_outlives_its_timeout(begin: Begin, records: Records, step: Step) -> None:
    # The session is long: nobody else gets the partitions, nothing is revoked, and only a rewind helps.
    trial = begin(
        "transaction beyond its timeout",
        session={"session.timeout.ms": "60000"},
        properties=SHORT_TRANSACTION,
    )
    trial.load(records, rate=1000)
    worker = stop_at(trial, step, seen=True)
    setback = trial.note_fault()
    trial.expired()
    wake(worker)
    trial.recovered(setback)
    found = trial.finish()
    assert "renewed the producer" in worker.log
    assert sum(found.aborted.values()) > 0


def _elsewhere(folder: Path) -> dict[str, str]:
    """Its own folder for temporary files, and so for locks, as if on another host."""
    folder.mkdir()
    return {**os.environ, "TMPDIR": str(folder)}

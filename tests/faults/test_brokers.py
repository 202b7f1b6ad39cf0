"""A broker that is killed, stopped or frozen, in each phase of a worker's transaction and at random moments."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from broker.local import LocalKafka
from consumer.observer import Step
from tests.faults.conftest import Begin
from tests.faults.load import Records
from tests.faults.test_zombies import SHORT_TRANSACTION, stop_at, wake
from tests.faults.trial import Trial

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

Outage = Callable[[LocalKafka], None]
PHASES = (Step.COLLECTED, Step.PRODUCING, Step.PRODUCED, Step.FLUSHED, Step.OFFSETS_SENT, Step.COMMITTED)


def killed(broker: LocalKafka) -> None:
    broker.restart()


def terminated(broker: LocalKafka) -> None:
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGTERM)
    broker.wait(timeout=60)
    broker.start()


@contextmanager
def standing_still(broker: LocalKafka) -> Iterator[None]:
    """Stopped by SIGSTOP while the block runs."""
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker.pid, signal.SIGCONT)


def frozen(seconds: float) -> Outage:
    """Frozen for some time."""

    def freeze(broker: LocalKafka) -> None:
        with standing_still(broker):
            time.sleep(seconds)

    return freeze


OUTAGES = {
    "broker killed": killed,
    "broker stopped with SIGTERM": terminated,
    "broker frozen for 3 s": frozen(3),
    "broker frozen for 15 s": frozen(15),  # longer than session, request and transaction timeouts
}


def require_still_up(trial: Trial) -> None:
    assert all(worker.code is None for worker in trial.workers), trial.log


def require_survived(trial: Trial, outage: Callable[[], None], *, rows: int) -> None:
    """Require that two workers survive the outage twice, each time after that many rows and a random delay."""
    for _ in range(2):
        trial.worker().joined()
    for _ in range(2):
        trial.progressed(rows)
        time.sleep(trial.random.uniform(0, 1))
        setback = trial.note_fault()
        outage()
        trial.recovered(setback)
    require_still_up(trial)
    trial.finish()


@pytest.mark.parametrize(
    "fault",
    ["broker killed", *(pytest.param(name, marks=pytest.mark.faults) for name in [*OUTAGES][1:])],
)
def test_an_outage_under_load(begin: Begin, records: Records, broker: LocalKafka, fault: str) -> None:
    trial = begin(fault)
    trial.load(records, rate=1000)
    require_survived(trial, lambda: OUTAGES[fault](broker), rows=1000)


@pytest.mark.faults
@pytest.mark.parametrize("fault", OUTAGES)
def test_an_outage_with_a_history(begin: Begin, records: Records, broker: LocalKafka, fault: str) -> None:
    trial = begin(f"{fault}, with a history", model="history")
    trial.load(records, rate=500)
    require_survived(trial, lambda: OUTAGES[fault](broker), rows=500)


@pytest.mark.faults
@pytest.mark.parametrize("step", PHASES)
@pytest.mark.parametrize("fault", OUTAGES)
def test_an_outage_in_a_phase(
    begin: Begin, records: Records, broker: LocalKafka, fault: str, step: Step
) -> None:
    trial = begin(fault)
    trial.load(records, rate=1000)
    worker = stop_at(trial, step)
    setback = trial.note_fault()
    OUTAGES[fault](broker)
    wake(worker)
    trial.recovered(setback)
    require_still_up(trial)
    trial.finish()


@pytest.mark.faults
def test_requests_time_out(begin: Begin, records: Records, broker: LocalKafka) -> None:
    trial = begin("broker frozen beyond the request timeout", properties=SHORT_TRANSACTION)
    trial.load(records, rate=1000)
    trial.worker().joined()
    for _ in range(3):
        trial.progressed(500)
        setback = trial.note_fault()
        frozen(8)(broker)
        trial.recovered(setback)
    require_still_up(trial)
    trial.finish()


@pytest.mark.faults
def test_a_worker_stops_in_time_while_the_broker_is_frozen(
    begin: Begin, records: Records, broker: LocalKafka
) -> None:
    trial = begin("SIGTERM while the broker is frozen")
    trial.load(records, rate=1000)
    worker = trial.worker().joined()
    trial.progressed(500)
    with standing_still(broker):
        time.sleep(1)
        setback = trial.note_fault()
        worker.stop()
    trial.worker()
    trial.recovered(setback)
    trial.finish()

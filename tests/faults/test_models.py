"""Models that take too long, raise, return impossible probabilities, or kill their worker."""

import os

import pytest

from schemas.contract import Reason
from tests.consumer.processes import Process
from tests.faults.conftest import Begin
from tests.faults.load import Records
from tests.faults.models import DIES, FORGETS, SLEEPS
from tests.faults.trial import PATIENCE_S, Trial
from tests.kafka import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

IMPATIENT = {"max.poll.interval.ms": "4000"}  # half as long as the model sleeps


def supervise(trial: Trial, environment: dict[str, str], *, deaths: int, code: int) -> list[Process]:
    """Restart a worker each time it ends, `deaths` times; each must exit with this code."""
    ended = []
    for _ in range(deaths):
        worker = trial.worker(environment={**os.environ, **environment})
        wait_until(lambda worker=worker: worker.code is not None, timeout=PATIENCE_S, what="a death")  # type: ignore[misc]
        assert worker.code == code, worker.log
        trial.note_fault()
        ended.append(worker)
    return ended


def test_a_model_raises_and_returns_no_probabilities(begin: Begin, records: Records) -> None:
    trial = begin("model raises, gives inf, -inf or NaN", model="erratic", chunk_size=50)
    trial.load(records, rate=500)
    worker = trial.worker().joined()
    trial.progressed(2000)
    found = trial.finish()
    trial.count(found.records[trial.settings.dead_letter_topic])
    assert f"{Reason.MODEL_REJECTED}" in worker.log
    assert found.records[trial.settings.dead_letter_topic] > found.messages / 61, (
        "only the invalid ones are rejected"
    )


@pytest.mark.faults
def test_a_model_kills_its_process(begin: Begin, records: Records) -> None:
    trial = begin("model kills its process", model="erratic", chunk_size=50)
    trial.load(records, rate=500)
    supervise(trial, {DIES: "0.02"}, deaths=10, code=-9)
    trial.worker()
    trial.finish()


@pytest.mark.faults
def test_a_model_forgets_rows_now_and_then(begin: Begin, records: Records) -> None:
    trial = begin("model gives a row too few", model="erratic", chunk_size=50)
    trial.load(records, rate=500)
    ended = supervise(trial, {FORGETS: "0.02"}, deaths=5, code=1)
    assert all("uncommitted messages are read again at the next start" in worker.log for worker in ended)
    trial.worker()
    trial.finish()


@pytest.mark.faults
@pytest.mark.parametrize("properties", [{}, {"group.protocol": "consumer"}], ids=["classic", "consumer"])
def test_a_model_takes_longer_than_the_group_waits(
    begin: Begin, records: Records, properties: dict[str, str]
) -> None:
    trial = begin(
        "model beyond max.poll.interval.ms", model="erratic", properties={**properties, **IMPATIENT}
    )
    trial.load(records, rate=300)
    slow = trial.worker(environment={**os.environ, SLEEPS: "0.005"}).joined()
    for times in range(1, 4):
        slow.logged("lost partitions", times=times, timeout=PATIENCE_S)
        trial.note_fault()
    trial.worker()
    trial.progressed(500)
    trial.finish()

"""`--delivery at-least-once`: nothing is lost, and nothing is committed before it is delivered."""

import signal
from typing import Any

import pytest

from consumer.observer import Step
from tests.consumer.accounts import read_accounts, require_order
from tests.consumer.conftest import patient_rows
from tests.consumer.stage import Stage

pytestmark = pytest.mark.kafka

ROWS = 2_000
OFTEN: dict[str, Any] = {
    "delivery": "at-least-once",
    "partitions": 2,
    "chunk_size": 50,
    "commit_interval_ms": 0,
}  # one commit per chunk


def test_after_a_kill_every_message_has_at_least_one_result(stage: Stage) -> None:
    settings = stage.settings(**OFTEN)
    stage.send_patients(settings, patient_rows(ROWS))
    worker = stage.dying(settings, Step.FLUSHED)
    assert worker.wait(timeout=60) == -signal.SIGKILL, worker.log
    assert stage.committed(settings) < ROWS

    stage.worker(settings)
    stage.wait_committed(settings, ROWS)
    found = read_accounts(settings)
    assert found.accounted.keys() == found.sources.keys()
    assert max(found.accounted.values()) == 2, "delivered but uncommitted messages did not come again"


def test_nothing_is_committed_before_it_is_delivered(stage: Stage) -> None:
    # By itself, the producer would hold its messages back for a minute.
    settings = stage.settings(**OFTEN, properties={"linger.ms": "60000"})
    stage.send_patients(settings, patient_rows(ROWS))
    worker = stage.dying(settings, Step.COMMITTED)
    assert worker.wait(timeout=60) == -signal.SIGKILL, worker.log

    found = read_accounts(settings)
    done = {position for position in found.sources if position[1] < found.committed.get(position[0], 0)}
    assert done
    assert done <= found.accounted.keys()
    require_order(found)

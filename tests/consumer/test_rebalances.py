"""Workers that come and go while messages keep arriving: the end state is that of a single worker."""

from collections import Counter
from typing import Any

import pytest

from schemas.metrics import ClosedBy
from tests.consumer.accounts import Accounts, end_offsets, require_exactly_once
from tests.consumer.conftest import patient_rows
from tests.consumer.scores import require_offline_scores
from tests.consumer.stage import Stage

pytestmark = pytest.mark.kafka


def finish(stage: Stage, settings: Any) -> Accounts:
    """Wait until everything sent is committed, then check everything."""
    rows = sum(end_offsets(settings, settings.input_topic).values())
    stage.wait_committed(settings, rows)
    found = require_exactly_once(settings, rows=rows)
    require_offline_scores(found, settings, ulp=0)
    return found


def test_two_then_three_workers_join_and_leave(stage: Stage, vitals_file: list[str]) -> None:
    settings = stage.settings(partitions=4, properties={"topic.metadata.refresh.interval.ms": "1000"})
    first = stage.worker(settings).joined()
    sender = stage.replay(settings, vitals_file, "--rate", "1500")
    second = stage.worker(settings).joined()
    third = stage.worker(settings).joined()
    committed = stage.committed(settings)
    stage.wait_committed(settings, committed + 1000)
    first.stop()
    second.stop()
    third.logged("assigned partitions", times=2)
    stage.wait_committed(settings, stage.committed(settings) + 1000)
    sender.stop()

    found = finish(stage, settings)
    rows = Counter[str]()
    for chunk in found.metrics:
        rows[chunk.worker] += chunk.rows
    assert len(rows) == 3, "one of them scored nothing"
    assert "revoked partitions" in first.log
    assert len(found.sources) > 3000


@pytest.mark.parametrize(
    "properties", [{"partition.assignment.strategy": "range"}, {"group.protocol": "consumer"}], ids=str
)
def test_other_assignment_strategies(
    stage: Stage, vitals_file: list[str], properties: dict[str, str]
) -> None:
    settings = stage.settings(partitions=4, properties=properties)
    first = stage.worker(settings).joined()
    sender = stage.replay(settings, vitals_file, "--rate", "1500")
    second = stage.worker(settings).joined()
    stage.wait_committed(settings, stage.committed(settings) + 500)
    first.stop()
    second.logged("assigned partitions", times=2)
    stage.wait_committed(settings, stage.committed(settings) + 500)
    sender.stop()

    found = finish(stage, settings)
    assert len({chunk.worker for chunk in found.metrics}) == 2
    second.stop()


def test_rows_waiting_for_their_chunk_to_fill_are_finished_on_revoke(stage: Stage) -> None:
    settings = stage.settings(partitions=2, chunk_size=3, max_wait_ms=60_000, model="fragile")
    first = stage.worker(settings).joined()
    stage.send_patients(settings, [row | {"patient_id": "p1"} for row in patient_rows(5)])
    stage.wait_committed(settings, 3)
    second = stage.worker(settings)
    stage.wait_committed(settings, 5)

    found = require_exactly_once(settings, rows=5)
    assert [(chunk.closed_by, chunk.rows) for chunk in found.metrics] == [
        (ClosedBy.FULL, 3),
        (ClosedBy.REVOKED, 2),
    ]
    assert {chunk.worker for chunk in found.metrics} == {found.metrics[0].worker}
    second.stop()
    first.stop()

"""What the options of `consume` do, seen from outside; and two workers with the same identity."""

import pytest

from consumer.tuning import SIZES
from schemas.metrics import ClosedBy
from tests.consumer.accounts import require_exactly_once
from tests.consumer.conftest import patient_rows
from tests.consumer.stage import Stage
from tests.consumer.test_operations import Endpoints, served

pytestmark = pytest.mark.kafka


def test_chunks_are_full_or_have_waited_and_an_idle_worker_ends(stage: Stage) -> None:
    settings = stage.settings(partitions=1, chunk_size=3, max_wait_ms=300, until_idle=1.5, model="fragile")
    stage.send_patients(settings, patient_rows(7))
    worker = stage.worker(settings, "--json")
    assert worker.wait(timeout=60) == 0, worker.log

    found = require_exactly_once(settings, rows=7)
    assert [(chunk.closed_by, chunk.rows) for chunk in found.metrics] == [
        (ClosedBy.FULL, 3),
        (ClosedBy.FULL, 3),
        (ClosedBy.WAITED, 1),
    ]
    report = worker.report
    assert report.pop("transactions") in (1, 2, 3)
    assert report == {
        "worker": found.metrics[0].worker,
        "rows": 7,
        "no_input": sum(result.no_input for _, result in found.results),
        "chunks": 3,
        "recoveries": 0,
        "dead_letters": {},
    }


def test_rows_waiting_for_their_chunk_to_fill_are_finished_on_a_stop(stage: Stage) -> None:
    settings = stage.settings(partitions=1, chunk_size=3, max_wait_ms=60_000, model="fragile")
    stage.send_patients(settings, patient_rows(5))
    worker = stage.worker(settings)
    stage.wait_committed(settings, 3)
    worker.stop()

    found = require_exactly_once(settings, rows=5)
    assert [(chunk.closed_by, chunk.rows) for chunk in found.metrics] == [
        (ClosedBy.FULL, 3),
        (ClosedBy.STOPPED, 2),
    ]


def test_chunk_size_auto_scores_everything_once_and_reports_its_choice(
    stage: Stage, vitals_file: list[str]
) -> None:
    settings = served(stage.settings(partitions=2, chunk_size="auto", latency_goal_ms=200))
    sender = stage.replay(settings, vitals_file, "--limit", "20000")
    assert sender.wait(timeout=120) == 0, sender.log
    worker, http = stage.worker(settings), Endpoints(settings)
    stage.wait_committed(settings, 20_000)
    stage.send_patients(settings, patient_rows(50))
    stage.wait_committed(settings, 20_050)
    gauges = http.metrics()
    worker.stop()

    found = require_exactly_once(settings, rows=20_050)
    sizes = {chunk.chunk_size for chunk in found.metrics}
    assert sizes <= {*SIZES}
    assert len(sizes) > 1, "the backlog was processed in chunks of the first size"
    last = max(found.metrics, key=lambda one: one.at)
    assert last.max_wait_ms is not None
    assert 0 < last.max_wait_ms < 200
    assert last.closed_by in (ClosedBy.WAITED, ClosedBy.STOPPED)
    assert gauges["vitalstream_chunk_size_rows",] in sizes
    assert gauges["vitalstream_max_wait_seconds",] == pytest.approx(last.max_wait_ms / 1000)
    assert "chunks take up to " in worker.log


def test_an_instance_runs_only_once_per_host(stage: Stage) -> None:
    settings = stage.settings(partitions=2, instance="icu", model="fragile")
    first = stage.worker(settings).joined()
    second = stage.worker(settings)
    assert second.wait(timeout=60) == 1
    assert second.log.splitlines()[-1] == (
        f"vitalstream: --instance icu: another worker of group {settings.group} runs under it on this host; "
        "give each worker its own, or none"
    )
    first.stop()


def test_a_second_worker_with_the_same_transactional_id_fences_the_first(stage: Stage) -> None:
    settings = stage.settings(partitions=2, instance="icu", model="fragile")
    hosts = [stage.folder / name for name in ("one", "other")]
    for host in hosts:
        host.mkdir()
    first = stage.worker(settings, environment={"TMPDIR": str(hosts[0])}).joined()
    second = stage.worker(settings, environment={"TMPDIR": str(hosts[1])}).joined()
    stage.send_patients(settings, patient_rows(1000))

    assert first.wait(timeout=30) == 1, first.log
    assert (
        f"vitalstream: another worker has taken over the transactional id {settings.group}-icu: give every "
        "worker of a group a different --instance, or none" in first.log
    )
    assert "Traceback" not in first.log
    stage.wait_committed(settings, 1000)
    second.stop()
    require_exactly_once(settings, rows=1000)
    assert "taken over" not in second.log

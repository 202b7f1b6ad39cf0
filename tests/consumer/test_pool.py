"""`--workers N`: several processes that live and end together."""

import os
import re
import shutil
import signal

import pytest

from real_time import pin_model
from tests.consumer.accounts import require_exactly_once, wait_settled
from tests.consumer.conftest import patient_rows
from tests.consumer.processes import Process, gone
from tests.consumer.stage import Stage
from tests.kafka import wait_until

pytestmark = pytest.mark.kafka

ROWS = 4_000


def joined(pool: Process) -> list[int]:
    """Wait until each of the pool's workers has partitions; returns their pids."""
    pool.logged(r"assigned partitions \d", times=2)
    children = pool.children()
    assert len(children) == 2
    return children


def test_both_workers_score_and_sigterm_to_the_parent_ends_all(stage: Stage) -> None:
    settings = stage.settings(workers=2)
    pool = stage.worker(settings, "--json")
    children = joined(pool)
    stage.send_patients(settings, patient_rows(ROWS))
    stage.wait_committed(settings, ROWS)
    pool.stop()

    assert gone(children)()
    found = require_exactly_once(settings, rows=ROWS)
    assert len({chunk.worker for chunk in found.metrics}) == 2
    reports = [line for line in pool.out.splitlines() if line]
    assert len(reports) == 2
    assert sum(int(re.findall(r'"rows":(\d+)', line)[0]) for line in reports) == ROWS


def test_sighup_to_the_parent_makes_each_worker_look_at_the_model_again(stage: Stage) -> None:
    """Without a signal, a worker looks only once at files that it refused."""
    path = stage.folder / "risk.joblib"
    settings = stage.settings(workers=2)
    shutil.copyfile(settings.model or "", path)
    settings = settings.model_copy(update={"model": path})
    pin_model(path)
    pool = stage.worker(settings)
    joined(pool)
    path.write_bytes(b"no model")
    pin_model(path)
    refusal = "refuses the pinned model and keeps the old one"
    pool.logged(refusal, times=2)
    pool.signal(signal.SIGHUP)
    pool.logged(refusal, times=4)
    pool.stop()


def test_a_worker_that_dies_takes_the_rest_down_and_nothing_is_lost(stage: Stage) -> None:
    settings = stage.settings(workers=2)
    pool = stage.worker(settings)
    children = joined(pool)
    stage.send_patients(settings, patient_rows(ROWS // 2))
    os.kill(children[0], signal.SIGKILL)
    assert pool.wait(timeout=60) == 1
    assert gone(children)()
    assert re.findall(r"vitalstream: worker-[01] ended with code -9, so all workers were stopped", pool.log)
    assert "Traceback" not in pool.log

    stage.send_patients(settings, patient_rows(ROWS // 2))
    stage.worker(settings.model_copy(update={"workers": 1}))
    stage.wait_committed(settings, ROWS)
    wait_settled(settings)
    require_exactly_once(settings, rows=ROWS)


def test_the_workers_do_not_outlive_their_parent(stage: Stage) -> None:
    settings = stage.settings(workers=2)
    pool = stage.worker(settings)
    children = joined(pool)
    pool.kill()
    wait_until(gone(children), timeout=60, what="the workers gone after their parent")

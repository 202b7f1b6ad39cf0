"""The main path: from a file of patients' rows to one risk result per message, with real processes and Kafka."""

import pytest

from tests.consumer.accounts import require_exactly_once
from tests.consumer.conftest import patient_rows
from tests.consumer.scores import require_offline_scores
from tests.consumer.stage import Stage

pytestmark = pytest.mark.kafka

ROWS = 50_000


@pytest.mark.parametrize(("model", "ulp"), [("boosting", 0), ("logistic", 4)])
def test_every_message_is_scored_exactly_once_and_as_offline(
    stage: Stage, vitals_file: list[str], model: str, ulp: int
) -> None:
    settings = stage.settings(model=model)
    worker = stage.worker(settings, "--json", fork=False)
    sender = stage.replay(settings, vitals_file, "--limit", str(ROWS))
    assert sender.wait(timeout=120) == 0, sender.log
    worker.joined()
    stage.wait_committed(settings, ROWS)
    worker.stop()

    found = require_exactly_once(settings, rows=ROWS)
    assert not found.dead_letters
    require_offline_scores(found, settings, ulp=ulp)
    assert {one.model for one in found.by_position.values()} == {found.metrics[0].model}
    assert (worker.report["rows"], worker.report["chunks"]) == (ROWS, len(found.metrics))
    assert worker.report["recoveries"] == 0
    assert worker.report["transactions"] < len(found.metrics) / 2, (
        "each chunk had its own transaction, despite the backlog"
    )


def test_a_worker_without_compiled_code_scores_the_same(stage: Stage) -> None:
    """With boosted trees, whose scores are bit for bit the same with and without compiled code."""
    (stage.folder / "numba.py").write_text("raise ModuleNotFoundError(name='numba')\n")
    settings = stage.settings(model="boosting")
    environment = {"PYTHONPATH": str(stage.folder), "VITALSTREAM_NATIVE": "0"}
    worker = stage.worker(settings, environment=environment, fork=False)
    stage.send_patients(settings, patient_rows(ROWS // 100))
    stage.wait_committed(settings, ROWS // 100)
    worker.stop()

    assert "decodes messages without the native kernel" in worker.log
    assert "scores with scikit-learn's trees: install numba to compile them" in worker.log
    require_offline_scores(require_exactly_once(settings, rows=ROWS // 100), settings, ulp=0)

"""Workers killed or stopped midway: their successors reach the same end state."""

import signal

import pytest
from confluent_kafka import IsolationLevel

from broker.settings import Settings
from consumer.observer import Step
from tests.consumer.accounts import end_offsets, hangs, read_accounts, require_exactly_once, wait_settled
from tests.consumer.conftest import patient_rows
from tests.consumer.scores import require_offline_scores
from tests.consumer.stage import Stage
from tests.consumer.state_accounts import require_state_is_fold
from tests.kafka import wait_until

pytestmark = pytest.mark.kafka

ROWS = 10_000
FEW_ROWS = 2_000
HISTORY_ROWS = 600
DELIVERED = (Step.FLUSHED, Step.OFFSETS_SENT)  # by then an open transaction's results are in the topic


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_successor_continues_a_worker_that_ended_mid_stream(
    stage: Stage, vitals_file: list[str], number: signal.Signals
) -> None:
    settings = stage.settings(chunk_size=20)
    worker = stage.worker(settings)
    sender = stage.replay(settings, vitals_file, "--limit", str(ROWS), "--rate", str(ROWS // 3))
    stage.wait_committed(settings, ROWS // 10)
    worker.signal(number)
    assert worker.wait() == (-number if number == signal.SIGKILL else 0), worker.log
    assert sender.wait(timeout=60) == 0
    assert stage.committed(settings) < ROWS, "not mid-stream"

    stage.worker(settings)
    stage.wait_committed(settings, ROWS)
    found = require_exactly_once(settings, rows=ROWS)
    assert len({chunk.worker for chunk in found.metrics}) == 1, "a restarted worker did not get its old name"
    require_offline_scores(found, settings, ulp=0)


def test_a_kill_at_any_step_loses_and_doubles_nothing(stage: Stage) -> None:
    every = {step: stage.settings(partitions=2, chunk_size=50, commit_interval_ms=0) for step in Step}
    for settings in every.values():
        stage.send_patients(settings, patient_rows(FEW_ROWS))
    killed = {step: stage.dying(settings, step) for step, settings in every.items()}
    for step, settings in every.items():
        assert killed[step].wait(timeout=60) == -signal.SIGKILL, killed[step].log
        assert stage.committed(settings) < FEW_ROWS, f"not before the end: {step}"
    for step in DELIVERED:
        seen = read_accounts(every[step]).accounted
        assert seen.keys() < read_accounts(every[step], isolation="read_uncommitted").accounted.keys(), step

    for settings in every.values():
        stage.worker(settings)
    for step, settings in every.items():
        stage.wait_committed(settings, FEW_ROWS)
        try:
            require_exactly_once(settings, rows=FEW_ROWS)
        except AssertionError as error:
            raise AssertionError(f"killed at {step}: {error}") from error
    for step in DELIVERED:
        everything = read_accounts(every[step], isolation="read_uncommitted").accounted
        assert max(everything.values()) == 2, "the log does not show the aborted transaction"


def test_a_restarted_worker_unblocks_readers_at_once(stage: Stage) -> None:
    settings = stage.settings(
        partitions=1, commit_interval_ms=0, properties={"transaction.timeout.ms": "120000"}
    )
    stage.send_patients(settings, patient_rows(FEW_ROWS))
    worker = stage.dying(settings, Step.OFFSETS_SENT, times=2)
    assert worker.wait(timeout=60) == -signal.SIGKILL, worker.log
    written = end_offsets(settings, settings.output_topic)[0]
    assert stable(settings) < written, "readers were not held up"

    stage.worker(settings).logged("worker .* scores")
    wait_until(
        lambda: stable(settings) > written,
        timeout=30,
        what="the dead worker's transaction settled, long before its timeout",
    )
    stage.wait_committed(settings, FEW_ROWS)
    require_exactly_once(settings, rows=FEW_ROWS)


def test_a_dead_worker_nobody_restarts_blocks_readers_only_until_its_transaction_times_out(
    stage: Stage,
) -> None:
    settings = stage.settings(partitions=4, commit_interval_ms=0)
    stage.worker(settings).joined()
    dying = stage.dying(settings, Step.FLUSHED, times=2).joined()
    stage.send_patients(settings, patient_rows(ROWS))
    assert dying.wait(timeout=60) == -signal.SIGKILL, dying.log
    assert hangs(settings, settings.output_topic)

    stage.wait_committed(settings, ROWS)
    wait_settled(settings)
    require_exactly_once(settings, rows=ROWS)


def stable(settings: Settings) -> int:
    """The last stable offset of partition 0 of the output topic."""
    ends = end_offsets(settings, settings.output_topic, isolation=IsolationLevel.READ_COMMITTED)
    return ends[0]


def test_after_a_kill_at_any_step_patients_state_matches_what_is_committed(stage: Stage) -> None:
    steps = (Step.SCORED, Step.PRODUCED, Step.FLUSHED, Step.OFFSETS_SENT, Step.COMMITTED)
    every = {
        step: stage.settings(model="history", partitions=2, chunk_size=20, commit_interval_ms=0)
        for step in steps
    }
    rows = [*patient_rows(HISTORY_ROWS)]
    for settings in every.values():
        stage.send_patients(settings, rows)
    killed = {step: stage.dying(settings, step) for step, settings in every.items()}
    for step, settings in every.items():
        assert killed[step].wait(timeout=120) == -signal.SIGKILL, killed[step].log
        assert stage.committed(settings) < HISTORY_ROWS, f"not before the end: {step}"
    for settings in every.values():
        stage.worker(settings)
    for step, settings in every.items():
        stage.wait_committed(settings, HISTORY_ROWS, timeout=120)
        try:
            require_state_is_fold(settings, rows=HISTORY_ROWS)
        except AssertionError as error:
            raise AssertionError(f"killed when {step}: {error}") from error

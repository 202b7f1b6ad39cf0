"""Commits whose outcome the worker does not learn, and commits that arrive too late."""

import time
from pathlib import Path
from typing import Any

import pytest

from audit.findings import Invariant
from audit.outcome import Audit
from consumer.observer import Step
from tests.faults.conftest import Begin
from tests.faults.doomed import Doom
from tests.faults.load import Records
from tests.faults.proxy import ADD_OFFSETS_TO_TXN, END_TXN, PRODUCE, TXN_OFFSET_COMMIT, Proxy
from tests.faults.test_zombies import wake
from tests.faults.trial import PATIENCE_S, Trial

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1200)]

LONG_SESSION = {"session.timeout.ms": "60000"}
ACCEPTED, OLD_EPOCH = 0, 47


def behind(proxy: Proxy) -> dict[str, Any]:
    return {"bootstrap_servers": proxy.bootstrap_servers}


@pytest.mark.parametrize(
    "api",
    [
        END_TXN,
        *(
            pytest.param(api, marks=pytest.mark.faults)
            for api in (PRODUCE, ADD_OFFSETS_TO_TXN, TXN_OFFSET_COMMIT)
        ),
    ],
)
def test_an_answer_is_lost(begin: Begin, records: Records, proxy: Proxy, api: int) -> None:
    trial = begin("answer of a request lost, connection cut", session=LONG_SESSION)
    trial.load(records, rate=500)
    worker = trial.worker(**behind(proxy)).joined()
    trial.progressed(200)
    for _ in range(4):
        prank = proxy.lose_answer(api)
        assert prank.happened.wait(PATIENCE_S)
        trial.recovered(trial.note_fault())
    if api in (
        END_TXN,
        ADD_OFFSETS_TO_TXN,
    ):  # these go to the transaction coordinator; the others do no harm if late
        assert "renewed the producer" in worker.log, worker.log
    trial.finish()


def release_into_a_later_transaction(
    trial: Trial, proxy: Proxy, cue: Path, *, without: str = "", step: Step = Step.FLUSHED
) -> int:
    """Hold a commit, let the client retry it, release it during a later transaction, and kill the worker there.

    Returns the broker's response to the late commit.
    """
    worker = trial.worker(Doom(step=step, signal="SIGSTOP", cue=cue, without=without), **behind(proxy))
    trial.progressed(200)
    prank = proxy.keep_request(END_TXN)
    assert prank.happened.wait(PATIENCE_S)
    trial.progressed(50)  # by now the client has retried it
    cue.touch()
    trial.stopped_itself(worker)
    code = proxy.release(prank)
    setback = trial.note_fault()
    worker.kill()
    trial.worker(**behind(proxy))
    trial.recovered(setback)
    return code


@pytest.mark.parametrize("step", [Step.FLUSHED, pytest.param(Step.OFFSETS_SENT, marks=pytest.mark.faults)])
def test_a_late_commit_ends_no_later_transaction(
    begin: Begin, records: Records, proxy: Proxy, tmp_path: Path, step: Step
) -> None:
    trial = begin("commit held, repeated, and released into a later transaction")
    trial.load(records, rate=500)
    assert release_into_a_later_transaction(trial, proxy, tmp_path / "cue", step=step) == OLD_EPOCH
    trial.finish()


def test_without_the_rebuild_a_late_commit_does_end_a_later_transaction(
    begin: Begin, records: Records, proxy: Proxy, tmp_path: Path
) -> None:
    trial = begin("late commit, producer kept", recorded=False)
    trial.load(records, rate=500)
    code = release_into_a_later_transaction(trial, proxy, tmp_path / "cue", without="producer rebuild")
    assert code == ACCEPTED
    assert Invariant.ONCE in disproved(trial.judge())


def release_an_abort_into_a_later_transaction(
    trial: Trial, proxy: Proxy, cue: Path, *, without: str = ""
) -> int:
    """A worker loses its session during a transaction and aborts it; the abort comes late and meets the next one."""
    worker = trial.worker(
        Doom(step=Step.FLUSHED, signal="SIGSTOP", cue=cue, without=without), **behind(proxy)
    )
    trial.progressed(200)
    cue.touch()
    trial.stopped_itself(worker)
    trial.left()
    prank = proxy.keep_request(END_TXN)
    wake(worker)
    assert prank.happened.wait(PATIENCE_S), worker.log
    cue.touch()
    trial.stopped_itself(worker)
    code = proxy.release(prank)
    trial.note_fault()
    wake(worker)
    trial.progressed(200)
    return code


@pytest.mark.parametrize("guarded", [True, pytest.param(False, marks=pytest.mark.faults)])
def test_a_late_abort_ends_no_later_transaction(
    begin: Begin, records: Records, proxy: Proxy, tmp_path: Path, guarded: bool
) -> None:
    trial = begin("abort held, repeated, and released into a later transaction", recorded=guarded)
    trial.load(records, rate=300)
    without = "" if guarded else "producer rebuild"
    code = release_an_abort_into_a_later_transaction(trial, proxy, tmp_path / "cue", without=without)
    if guarded:
        assert code == OLD_EPOCH
        trial.finish()
    else:
        assert code == ACCEPTED
        assert disproved(trial.judge())


@pytest.mark.faults
def test_a_commit_takes_longer_than_anybody_waits(begin: Begin, records: Records, proxy: Proxy) -> None:
    trial = begin("commit delayed by 12 s", session=LONG_SESSION)
    trial.load(records, rate=300)
    trial.worker(**behind(proxy)).joined()
    trial.progressed(200)
    for _ in range(2):
        setback = trial.note_fault()
        proxy.delay(END_TXN, 12)
        time.sleep(13)
        proxy.delay(END_TXN, 0)
        trial.recovered(setback)
    assert "renewed the producer" in trial.log
    trial.finish()


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_connections_that_are_cut_all_the_time(begin: Begin, records: Records, proxy: Proxy) -> None:
    trial = begin("all connections cut at random moments")
    trial.load(records, rate=1000)
    for _ in range(2):
        trial.worker(**behind(proxy)).joined()
    for _ in range(100):
        time.sleep(trial.random.uniform(0.01, 0.8))
        proxy.cut()
        trial.note_fault()
    trial.finish()


def disproved(found: Audit) -> set[Invariant]:
    return {verdict.invariant for verdict in found.verdicts if verdict.failed}

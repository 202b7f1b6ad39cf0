"""Each guard of exactly-once, switched off on purpose: the same kind of trial must then end in damage.

If nothing breaks without a guard, it is useless; if a trial does not notice, it is blind. The producer's
rebuild is tested in test_unknown_commits.
"""

import signal

import pytest
from confluent_kafka import Producer

from audit.findings import Invariant
from consumer.observer import Step
from tests.faults.conftest import Begin
from tests.faults.doomed import Doom
from tests.faults.load import Records
from tests.faults.test_unknown_commits import disproved
from tests.faults.test_zombies import SHORT_TRANSACTION, wake
from tests.faults.trial import Trial
from tests.kafka import produce

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(600)]

LONG_SESSION = {"session.timeout.ms": "60000"}
BOTH_WAYS = pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])


def require(trial: Trial, *, guarded: bool, damage: set[Invariant]) -> None:
    """With the guard all must be well; without it there must be damage of one of these kinds."""
    if guarded:
        trial.finish()
    else:
        found = disproved(trial.judge())
        assert found & damage, f"no damage of {damage}, but of {found}:\n{trial.log}"


@BOTH_WAYS
def test_rewind_after_abort(begin: Begin, records: Records, guarded: bool) -> None:
    # The transaction expires, but the partitions stay: only a rewind brings its messages again.
    trial = begin("", session=LONG_SESSION, properties=SHORT_TRANSACTION, recorded=False)
    trial.load(records, rate=300)
    doom = Doom(
        step=Step.FLUSHED, passes=5, signal="SIGSTOP", without="" if guarded else "rewind after abort"
    )
    worker = trial.worker(doom)
    trial.stopped_itself(worker)
    trial.expired()
    wake(worker)
    trial.progressed(500)
    require(trial, guarded=guarded, damage={Invariant.COMPLETE})


@BOTH_WAYS
def test_tracked_offsets(begin: Begin, records: Records, guarded: bool) -> None:
    # Messages taken from the consumer that wait for their chunk to fill are not processed yet. Meanwhile the
    # chunk before them is committed; a worker killed right after that must not have committed more.
    trial = begin("", recorded=False, chunk_size=50, partitions=1, max_wait_ms=2000, commit_interval_ms=1000)
    trial.load(records, rate=300)
    doom = Doom(step=Step.COMMITTED, passes=5, without="" if guarded else "tracked offsets")
    trial.worker(doom).wait(timeout=60)
    trial.worker()
    trial.progressed(500)
    require(trial, guarded=guarded, damage={Invariant.COMPLETE, Invariant.OFFSETS})


@BOTH_WAYS
def test_flush_before_commit(begin: Begin, records: Records, guarded: bool) -> None:
    # In a transaction librdkafka itself flushes before it commits; at-least-once depends on our flush.
    trial = begin("", recorded=False, delivery="at-least-once", properties={"linger.ms": "1000"})
    trial.load(records, rate=300)
    doom = Doom(step=Step.COMMITTED, passes=10, without="" if guarded else "flush before commit")
    trial.worker(doom).wait(timeout=60)
    trial.worker()
    trial.progressed(500)
    lost = Invariant.COMPLETE in disproved(trial.judge())
    assert lost != guarded


@BOTH_WAYS
def test_read_committed(begin: Begin, guarded: bool) -> None:
    trial = begin("", recorded=False, partitions=1)
    producer = Producer(
        {"bootstrap.servers": trial.settings.bootstrap_servers, "transactional.id": trial.settings.group}
    )
    producer.init_transactions(30)
    value = b'{"patient_id": "p", "event_time": "2026-01-05T08:30:00Z", "heart_rate": 80}'
    for end in (producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        for _ in range(100):
            producer.produce(trial.settings.input_topic, value, b"p")
        producer.flush(30)
        end(30)
    produce(trial.settings.bootstrap_servers, trial.settings.input_topic, [(b"p", value)])
    trial.worker(Doom(without="" if guarded else "read_committed"))
    require(trial, guarded=guarded, damage={Invariant.GENUINE})


@BOTH_WAYS
def test_revoke_handling(begin: Begin, records: Records, guarded: bool) -> None:
    # Messages that wait for their chunk to fill when their partition moves are either the new owner's to
    # score or ours to finish first, but not both. Here no chunk fills before its worker is asked to stop.
    trial = begin("", recorded=False, chunk_size=20_000, max_wait_ms=60_000)
    trial.load(records, rate=300)
    without = "" if guarded else "revoke handling"
    one = trial.worker(Doom(without=without)).joined()
    other = trial.worker(Doom(without=without)).joined()
    one.logged("assigned partitions none", times=2)  # once per rebalance: the group has settled
    for worker in (one, other):
        worker.signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 0, worker.log
    trial.worker(chunk_size=100, max_wait_ms=0)
    require(trial, guarded=guarded, damage={Invariant.COMPLETE, Invariant.ONCE, Invariant.ATOMIC})

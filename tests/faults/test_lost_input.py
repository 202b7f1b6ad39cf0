"""Input lost past the group's position: the worker stops loudly and skips nothing silently."""

import signal
import time

import orjson
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from audit.run import audit
from broker.admin import Admin
from broker.settings import Settings
from tests.consumer.accounts import end_offsets
from tests.faults.conftest import Begin
from tests.faults.load import Records
from tests.faults.test_zombies import wake
from tests.faults.trial import Trial
from tests.kafka import committed_offsets, produce, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

GONE = "are gone (retention, or the topic was recreated); nothing is skipped silently"


def admin(settings: Settings) -> AdminClient:
    return AdminClient({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0})


def delete_all_records(settings: Settings) -> None:
    """Delete everything there is, as retention would."""
    client = admin(settings)
    ends = end_offsets(settings, settings.input_topic)
    for future in client.delete_records(
        [TopicPartition(settings.input_topic, number, end) for number, end in ends.items()]
    ).values():
        future.result(30)


def recreate(settings: Settings, *, partitions: int = 4) -> None:
    client, topic = admin(settings), settings.input_topic
    for future in client.delete_topics([topic]).values():
        future.result(30)

    def made() -> bool:
        try:
            for future in client.create_topics([NewTopic(topic, partitions, 1)]).values():
                future.result(30)
        except Exception:  # it is still being deleted
            time.sleep(0.2)
            return False
        return True

    wait_until(made, timeout=60, what="the topic that was recreated")
    Admin(settings).wait_for([topic])


def worked_and_stopped(trial: Trial, records: Records) -> None:
    """Some messages have been scored, and more have arrived since the worker stopped."""
    load = trial.load(records, rate=2000)
    worker = trial.worker().joined()
    trial.progressed(1000)
    worker.stop()
    more_come(trial.settings)
    load.stop()


def more_come(settings: Settings) -> None:
    """Wait until every partition has some more messages than now."""
    before = end_offsets(settings, settings.input_topic)

    def came() -> bool:
        ends = end_offsets(settings, settings.input_topic)
        return all(ends[number] >= end + 100 for number, end in before.items())

    wait_until(came, timeout=60, what="more messages")


def test_retention_passes_the_committed_offsets_of_a_stopped_worker(begin: Begin, records: Records) -> None:
    trial = begin("records deleted before they were scored")
    worked_and_stopped(trial, records)
    before = committed_offsets(
        trial.settings.bootstrap_servers, trial.settings.group, trial.settings.input_topic
    )
    delete_all_records(trial.settings)
    trial.count(1)
    for _ in range(2):  # restarting must not help
        worker = trial.worker()
        assert worker.wait(timeout=60) == 1, worker.log
        assert GONE in worker.log
    after = committed_offsets(
        trial.settings.bootstrap_servers, trial.settings.group, trial.settings.input_topic
    )
    assert after == before


@pytest.mark.faults
def test_retention_passes_a_frozen_worker(begin: Begin, records: Records) -> None:
    from tests.faults.test_brokers import PHASES
    from tests.faults.test_zombies import stop_at, wake

    trial = begin(
        "records deleted before they were scored",
        session={"session.timeout.ms": "60000"},
        # So that it has to fetch more when it wakes up.
        properties={
            "queued.max.messages.kbytes": "1",
            "queued.min.messages": "1",
            "fetch.message.max.bytes": "1000",
        },
    )
    load = trial.load(records, rate=2000)
    worker = stop_at(trial, PHASES[0])
    more_come(trial.settings)
    load.stop()
    delete_all_records(trial.settings)
    trial.count(1)
    wake(worker)
    assert worker.wait(timeout=60) == 1, worker.log
    assert GONE in worker.log


def test_the_topic_is_recreated_while_the_worker_is_away(begin: Begin, records: Records) -> None:
    trial = begin("input topic deleted and recreated")
    worked_and_stopped(trial, records)
    recreate(trial.settings)
    trial.count(1)
    worker = trial.worker()
    trial.load(records, rate=1000)
    # Kafka deletes the group's offsets together with the topic, so everything in the new topic is scored from
    # its beginning. If the offsets were still there, the worker would have to stop.
    wait_until(
        lambda: worker.code is not None or committed_somewhere(trial.settings), timeout=60, what="a decision"
    )
    if worker.code is not None:
        assert worker.code == 1
        assert GONE in worker.log
    else:
        trial.progressed(500)
        assert earliest_scored(trial.settings) == 0, "the beginning was skipped"


@pytest.mark.faults
def test_the_topic_is_recreated_under_a_running_worker(begin: Begin, records: Records) -> None:
    trial = begin(
        "input topic deleted and recreated", properties={"topic.metadata.refresh.interval.ms": "1000"}
    )
    load = trial.load(records, rate=1000)
    worker = trial.worker().joined()
    trial.progressed(1000)
    load.stop()
    recreate(trial.settings)
    trial.count(1)
    trial.load(records, rate=1000)
    wait_until(lambda: worker.code is not None, timeout=120, what="a worker that stops loudly")
    assert worker.code == 1, worker.log


def test_the_topic_is_recreated_and_filled_before_the_worker_notices(begin: Begin, records: Records) -> None:
    # By the time the worker looks again, the new topic holds more than the old offsets, so they fit but refer
    # to other messages.
    trial = begin("input topic deleted and recreated", session={"session.timeout.ms": "60000"})
    load = trial.load(records, rate=1000)
    worker = trial.worker().joined()
    trial.progressed(1000)
    load.stop()
    worker.signal(signal.SIGSTOP)
    recreate(trial.settings)
    rows = [(one["patient_id"], orjson.dumps(one)) for one in records]
    produce(trial.settings.bootstrap_servers, trial.settings.input_topic, rows)
    wake(worker)
    trial.count(1)
    assert worker.wait(timeout=60) == 1, worker.log
    assert "deleted and recreated while the group read it" in worker.log
    if committed_somewhere(trial.settings):
        again = trial.worker()
        assert again.wait(timeout=60) == 1, again.log  # restarting must not help
        assert not audit(trial.settings).clean


def committed_somewhere(settings: Settings) -> bool:
    return bool(committed_offsets(settings.bootstrap_servers, settings.group, settings.input_topic))


def earliest_scored(settings: Settings) -> int:
    """The smallest source offset among the results since the topic was recreated."""
    from tests.consumer.accounts import read_accounts

    found = read_accounts(settings)
    return min(offset for _, offset in found.accounted)

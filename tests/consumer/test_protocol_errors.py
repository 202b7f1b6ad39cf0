"""What the committer does with each error a broker can return, injected one by one."""

import functools
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from broker.roles import Role
from broker.settings import Settings
from consumer.clients import make_consumer, make_producer
from consumer.commit import Transactions
from consumer.errors import Action, KafkaCallError
from consumer.observer import Observer, Step
from consumer.sending import Output, Records, Sender
from tests.consumer.mock_cluster import (
    ADD_OFFSETS,
    ADD_PARTITIONS,
    END_TXN,
    PRODUCE,
    TXN_OFFSET_COMMIT,
    MockCluster,
)
from tests.consumer.processes import Process
from tests.kafka import produce, wait_until
from tests.schemas.messages import TIME
from vitalstream import cli

OUTPUT = Output([Records(Role.RESULTS, [b"{}"], [b"p1"]), Records(Role.METRICS, [b"{}"])], chunks=1, rows=1)
TIMEOUT_S = 5.0

# Which request fails, how, and the action that follows; None means the commit succeeds anyway.
CASES = [
    (END_TXN, KafkaError.CONCURRENT_TRANSACTIONS, None),
    (ADD_PARTITIONS, KafkaError.CONCURRENT_TRANSACTIONS, None),
    (ADD_OFFSETS, KafkaError.COORDINATOR_NOT_AVAILABLE, None),
    (TXN_OFFSET_COMMIT, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, None),
    (PRODUCE, KafkaError.KAFKA_STORAGE_ERROR, None),
    (PRODUCE, KafkaError.UNKNOWN_PRODUCER_ID, Action.ABORT),
    (TXN_OFFSET_COMMIT, KafkaError.ILLEGAL_GENERATION, Action.ABORT),
    (TXN_OFFSET_COMMIT, KafkaError.UNKNOWN_MEMBER_ID, Action.ABORT),
    (TXN_OFFSET_COMMIT, KafkaError.REBALANCE_IN_PROGRESS, Action.ABORT),
    (END_TXN, KafkaError.INVALID_PRODUCER_ID_MAPPING, Action.ABORT),
    (PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, Action.REBUILD),
    (END_TXN, KafkaError.INVALID_TXN_STATE, Action.REBUILD),
    (PRODUCE, KafkaError.INVALID_PRODUCER_EPOCH, Action.FENCED),
    (ADD_PARTITIONS, KafkaError.PRODUCER_FENCED, Action.FENCED),
    (ADD_OFFSETS, KafkaError.PRODUCER_FENCED, Action.FENCED),
    (TXN_OFFSET_COMMIT, KafkaError.INVALID_PRODUCER_EPOCH, Action.FENCED),
    (END_TXN, KafkaError.PRODUCER_FENCED, Action.FENCED),
    (PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED, Action.STOP),
    (END_TXN, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, Action.STOP),
]


class Commits(Observer):
    def __init__(self) -> None:
        self.count = 0

    def reached(self, step: Step) -> None:
        self.count += step is Step.COMMITTED


@dataclass(frozen=True)
class Scene:
    """A committer working against a mock cluster."""

    cluster: MockCluster
    committer: Transactions
    sender: Sender
    consumer: Consumer
    commits: Commits
    settings: Settings

    def commit(self, *, timeout: float = TIMEOUT_S) -> None:
        self.committer.add(OUTPUT)
        self.committer.commit(lambda: [TopicPartition(self.settings.input_topic, 0, 1)], timeout)

    def failure(self, *, timeout: float = TIMEOUT_S) -> Action:
        """The action that a failed commit leads to."""
        with pytest.raises(KafkaCallError) as raised:
            self.commit(timeout=timeout)
        return raised.value.action


@pytest.fixture(scope="module")
def cluster() -> Iterator[MockCluster]:
    with MockCluster(Settings().topics) as cluster:
        yield cluster


@pytest.fixture
def scene(cluster: MockCluster) -> Iterator[Scene]:
    settings = Settings(bootstrap_servers=cluster.bootstrap_servers)
    commits = Commits()
    consumer = make_consumer(settings, worker="w", on_statistics=lambda _: None)
    sender = Sender(
        functools.partial(
            make_producer, settings, transactional_id=f"w-{uuid.uuid4()}", limits=[1_000_000], partitions=1
        ),
        topics=settings.by_role,
        observer=commits,
        clock=time.monotonic,
    )
    committer = Transactions(consumer, sender, timeout=60, observer=commits, clock=time.monotonic)
    committer.start(TIMEOUT_S)
    try:
        yield Scene(cluster, committer, sender, consumer, commits, settings)
    finally:
        consumer.close()
        cluster.forget()


@pytest.mark.parametrize(("request_", "error", "action"), CASES)
def test_each_error_response_leads_to_its_action(
    scene: Scene, request_: int, error: int, action: Action | None
) -> None:
    scene.cluster.answer(request_, error)
    if action is None:
        scene.commit()
        assert scene.commits.count == 1
        return
    assert scene.failure() is action
    assert scene.commits.count == 0

    # The abort fixes it.
    if action is Action.ABORT:
        scene.committer.abort(TIMEOUT_S)
    else:
        scene.committer.renew()
        scene.committer.start(TIMEOUT_S)
    assert scene.committer.chunks == 0
    scene.commit()
    assert scene.commits.count == 1


def test_a_commit_without_a_response_has_an_unknown_outcome(scene: Scene) -> None:
    scene.committer.add(OUTPUT)
    scene.sender.flush(TIMEOUT_S)
    scene.sender.producer.send_offsets_to_transaction(
        [TopicPartition(scene.settings.input_topic, 0, 1)],
        scene.consumer.consumer_group_metadata(),
        TIMEOUT_S,
    )
    scene.cluster.down()
    with pytest.raises(KafkaCallError) as raised:
        scene.committer._end(0.5)
    assert raised.value.action is Action.REBUILD

    scene.cluster.up()
    scene.committer.renew()
    scene.committer.start(2 * TIMEOUT_S)
    scene.commit()
    assert scene.commits.count == 1


def test_a_producer_fenced_between_two_chunks_says_so(scene: Scene) -> None:
    scene.cluster.answer(ADD_PARTITIONS, KafkaError.PRODUCER_FENCED)
    scene.committer.add(OUTPUT)

    def dead() -> bool:
        try:  # unlike poll, this does not consume the reason
            scene.sender.producer.produce(scene.settings.output_topic, b"{}")
        except KafkaException as exception:
            return bool(exception.args[0].code() == KafkaError._FATAL)
        return False

    wait_until(dead, what="the producer dead")
    with pytest.raises(KafkaCallError) as raised:
        scene.committer.add(OUTPUT)
    assert raised.value.action is Action.FENCED


def test_a_slow_commit_renews_the_producer(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    before = scene.sender.producer
    scene.commit()
    assert scene.sender.producer is before
    monkeypatch.setattr("consumer.commit.SLOW_S", 0.0)
    scene.commit()
    assert scene.sender.producer is not before
    scene.commit()
    assert scene.commits.count == 3


def test_a_worker_refused_many_times_by_its_group_carries_on(
    cluster: MockCluster, models: dict[str, Path], tmp_path: Path
) -> None:
    """Like a member that its group has excluded and that has not heard of it yet."""
    cluster.answer(TXN_OFFSET_COMMIT, *[KafkaError.UNKNOWN_MEMBER_ID] * 12)
    consume = ["consume", "--bootstrap-servers", cluster.bootstrap_servers, "--until-idle", "5"]
    consume += ["--model", str(models["fragile"])]
    worker = Process.fork(cli.main, consume, files=tmp_path / "worker", environment={})
    try:
        worker.joined()
        produce(cluster.bootstrap_servers, Settings().input_topic, [("p", signal())])
        assert worker.wait(timeout=120) == 0, worker.log
        assert worker.log.count("failed with UNKNOWN_MEMBER_ID") == 12
        assert "1 rows committed" in worker.log
    finally:
        worker.end()
        cluster.forget()


def signal() -> bytes:
    return orjson.dumps({"patient_id": "p", "event_time": TIME, "signal": 1.0})

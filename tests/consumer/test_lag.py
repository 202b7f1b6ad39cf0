"""Lag: in the log, on /metrics, in the metrics messages, and its effect on how long a transaction gathers."""

import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from broker.settings import Settings
from consumer.clients import make_consumer
from consumer.positions import Positions
from tests.consumer.accounts import read_accounts
from tests.consumer.conftest import save
from tests.consumer.fakes import identity
from tests.consumer.processes import Process
from tests.consumer.sleepy import PAUSES, Sleepy
from tests.consumer.stage import Stage
from tests.consumer.test_operations import Endpoints, lags, served, signals
from tests.kafka import wait_until
from tests.schemas.messages import good

pytestmark = pytest.mark.kafka

Ending = Literal["committed", "aborted", "open"]
Send = Callable[[Settings, int, Ending], None]

FOUR_ABORTED: list[tuple[int, Ending]] = [(20, "aborted")] * 4
ABORTED_TAIL: list[tuple[int, Ending]] = [(6, "committed"), *FOUR_ABORTED]
TRANSACTIONS: dict[str, list[tuple[int, Ending]]] = {
    "aborted tail": ABORTED_TAIL,
    "aborted, then committed": [*ABORTED_TAIL, (3, "committed")],
    "open before the end": [(6, "committed"), (20, "open"), (3, "committed")],
    "open, and aborted before and after it": [
        (20, "aborted"),
        (6, "committed"),
        (5, "open"),
        (20, "aborted"),
    ],
}


@pytest.fixture
def send(kafka: str) -> Iterator[Send]:
    """Send `count` messages to all partitions in one transaction, which is committed, aborted or left open."""
    producers: list[Producer] = []

    def sent(settings: Settings, count: int, ending: Ending) -> None:
        producer = Producer(
            {"bootstrap.servers": kafka, "transactional.id": f"lag-{uuid.uuid4()}", "log_level": 0}
        )
        producer.init_transactions(30)
        producer.begin_transaction()
        numbers = len(
            producer.list_topics(settings.input_topic, timeout=10).topics[settings.input_topic].partitions
        )
        for row in range(count):
            producer.produce(settings.input_topic, good(), f"p{row}".encode(), partition=row % numbers)
        assert producer.flush(30) == 0
        if ending == "committed":
            producer.commit_transaction(30)
        elif ending == "aborted":
            producer.abort_transaction(30)
        else:
            producers.append(producer)

    yield sent
    for producer in producers:
        producer.abort_transaction(30)


def last_numbers(worker: Process) -> str:
    return str(re.findall(r"\d+ rows committed, lag \d+", worker.log)[-1])


@pytest.mark.parametrize("partitions", [1, 2])
@pytest.mark.parametrize("case", TRANSACTIONS)
def test_lag_counts_only_readable_messages(stage: Stage, send: Send, case: str, partitions: int) -> None:
    settings = served(stage.settings(partitions=partitions))
    for count, ending in TRANSACTIONS[case]:
        send(settings, count, ending)
    readable = (
        6 if "open" in case else sum(count for count, ending in TRANSACTIONS[case] if ending == "committed")
    )
    worker, http = stage.worker(settings), Endpoints(settings)
    http.until("/readyz", 200)
    scored = ("vitalstream_rows_total", "scored")
    wait_until(lambda: http.metrics()[scored] == readable, what="all rows in the metrics")
    wait_until(lambda: lags(http.metrics()) == {0}, what="no lag on /metrics")
    worker.stop()
    assert last_numbers(worker) == f"{readable} rows committed, lag 0"
    # The first chunk of two partitions may not know yet that only aborted messages are left in the other one.
    assert min(chunk.lag for chunk in read_accounts(settings).metrics) == 0


def test_messages_aborted_while_a_worker_waits_are_no_lag(stage: Stage, send: Send) -> None:
    settings = served(stage.settings(partitions=2))
    worker, http = stage.worker(settings).joined(), Endpoints(settings)
    for count, ending in ABORTED_TAIL:
        send(settings, count, ending)
    wait_until(
        lambda: http.metrics()["vitalstream_rows_total", "scored"] == 6, what="all rows in the metrics"
    )
    wait_until(lambda: lags(http.metrics()) == {0}, what="no lag on /metrics")
    worker.stop()
    assert last_numbers(worker) == "6 rows committed, lag 0"


def test_each_chunk_reports_how_many_messages_are_left(stage: Stage) -> None:
    settings = stage.settings(partitions=1, chunk_size=2, until_idle=0.5)
    stage.send(settings, [("p", good())] * 10)
    assert stage.worker(settings).wait(timeout=60) == 0
    assert [chunk.lag for chunk in read_accounts(settings).metrics] == [8, 6, 4, 2, 0]


def test_a_worker_that_stops_logs_how_many_messages_are_left(stage: Stage, tmp_path: Path) -> None:
    model = save(Sleepy(), tmp_path / "sleepy.joblib")
    settings = served(stage.settings(partitions=1, chunk_size=1), model=model)
    worker, http = stage.worker(settings).joined(), Endpoints(settings)
    stage.send(settings, signals(*[PAUSES] * 5_000))
    heard = set[float]()

    def heard_of_all() -> bool:
        heard.update(lags(http.metrics()))
        return len(heard) >= 4  # the first few may date from before all messages were sent

    wait_until(heard_of_all, what="lags on /metrics")
    worker.stop()
    (numbers,) = re.findall(r"(\d+) rows committed, lag (\d+)", worker.log)[-1:]
    assert sum(map(int, numbers)) == 5_000


def test_a_worker_with_a_long_backlog_gathers_chunks_in_a_transaction(stage: Stage, tmp_path: Path) -> None:
    """Without a backlog every chunk is committed by itself, because it takes longer than the interval."""
    model = save(Sleepy(), tmp_path / "sleepy.joblib")
    settings = stage.settings(partitions=1, chunk_size=1, commit_interval_ms=1, until_idle=0.5)
    settings = settings.model_copy(update={"model": model})
    stage.send(settings, signals(*[PAUSES] * 200))
    worker = stage.worker(settings, "--json")
    assert worker.wait(timeout=60) == 0
    assert worker.report["rows"] == worker.report["chunks"] == 200
    assert worker.report["transactions"] < 150


@pytest.fixture
def consumer(settings: Settings) -> Iterator[Consumer]:
    made = make_consumer(settings, worker="w", on_statistics=lambda _: None)
    yield made
    made.close()


def read(consumer: Consumer, count: int) -> None:
    while count:
        count -= len(consumer.consume(count, 0.1))


def test_the_lag_follows_the_positions(stage: Stage, settings: Settings, consumer: Consumer) -> None:
    topic = settings.input_topic
    positions = Positions(consumer, topic=topic, identity=identity(""), keep_trying=lambda: True)
    stage.send(settings, [("p", good(), number) for number in (0, 1) for _ in range(10)])
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0})
    for future in admin.delete_records([TopicPartition(topic, 1, 3)]).values():
        future.result(30)

    consumer.incremental_assign(positions.add([0]))
    assert positions.lags() == {0: 10}, "before the first read and the first statistics"
    read(consumer, 4)
    assert positions.lags() == {0: 6}
    consumer.incremental_assign(positions.add([1]))
    assert positions.lags() == {0: 6, 1: 7}, "messages that retention has deleted do not count"

    read(consumer, 13)
    assert positions.lags() == {0: 0, 1: 0}
    positions.reaches({0: 15})
    assert positions.lags() == {0: 5, 1: 0}
    positions.rewind()
    assert positions.lags() == {0: 15, 1: 7}, "nothing is committed, so everything is read again"
    positions.drop([0])
    assert positions.lags() == {1: 7}

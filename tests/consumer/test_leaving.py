"""A worker that leaves its group while it is being assigned partitions."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from broker.settings import Settings
from consumer.chunks import Pace
from consumer.errors import ModelFailedError
from consumer.observer import Observer
from consumer.worker import Worker
from tests.consumer.fakes import FakeMessage, identity


class Leaving:
    """Is assigned a partition while closing and then, like librdkafka's consumer, answers nothing any more."""

    def __init__(self, *handed_out: FakeMessage) -> None:
        self.handed_out = list(handed_out)
        self.closed = False
        self._on_assign: Callable[..., None] | None = None

    def subscribe(self, _topics: list[str], *, on_assign: Callable[..., None], **_callbacks: Any) -> None:
        on_assign(self, [TopicPartition("vitals", 0)])
        self._on_assign = on_assign

    def consume(self, count: int, timeout: float) -> list[FakeMessage]:
        taken, self.handed_out = self.handed_out, []
        return taken

    def committed(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self.closed:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return [TopicPartition(one.topic, one.partition, OFFSET_INVALID) for one in asked]

    def incremental_assign(self, _partitions: list[TopicPartition]) -> None: ...

    def get_watermark_offsets(self, _partition: TopicPartition, **_how: Any) -> tuple[int, int]:
        return 0, 0

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return partitions

    def close(self) -> None:
        self.closed = True
        assert self._on_assign is not None
        self._on_assign(self, [TopicPartition("vitals", 1)])


class Nothing:
    """A committer with nothing to commit."""

    chunks = rows = 0
    timed_out = False

    def start(self, timeout: float) -> None: ...
    def abort(self, timeout: float) -> None: ...


class Failing:
    """A scorer that always fails."""

    doubts_names = False

    def __call__(self, _block: object, *, lag: int) -> None:
        raise ModelFailedError("the model failed")

    def change(self) -> None: ...


def worker(consumer: Leaving) -> Worker:
    anything: Any = consumer
    committer: Any = Nothing()
    score: Any = Failing()
    return Worker(
        Settings(until_idle=0.05),
        consumer=anything,
        committer=committer,
        score=score,
        observer=Observer(),
        should_stop=lambda: False,
        pace=lambda: Pace(100, 0.0),
        identity=identity("now"),
        transactional_id="one",
    )


@pytest.mark.timeout(20)
def test_partitions_assigned_while_leaving_do_not_delay_the_end() -> None:
    consumer = Leaving()
    worker(consumer).run()
    assert consumer.closed


@pytest.mark.timeout(20)
def test_partitions_assigned_while_leaving_do_not_hide_the_cause_of_death() -> None:
    with pytest.raises(ModelFailedError):
        worker(Leaving(FakeMessage())).run()

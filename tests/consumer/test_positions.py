"""Rewinding to the committed offsets when the group has excluded the worker in the meantime."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer.errors import Action, InputLostError, KafkaCallError
from consumer.positions import Positions
from tests.consumer.fakes import FakeMessage, identity


class Excluded:
    """A consumer that its group has excluded, and that learns of it only when polled."""

    def __init__(self, *, hands_out: FakeMessage | None = None) -> None:
        self.hands_out = hands_out or FakeMessage(offset=12)
        self.positions: Positions | None = None
        self.sought: list[tuple[int, int]] = []
        self.excluded = False
        self.noted = ""  # the metadata of the committed offsets
        self.done: list[tuple[str, int]] = []

    def committed(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self.excluded:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return [TopicPartition(one.topic, one.partition, 10, self.noted) for one in asked]

    def consume(self, count: int, timeout: float) -> list[Any]:
        self.excluded = False
        assert self.positions is not None
        self.positions.drop([0, 1])  # on_lost
        self.positions.add([1])  # on_assign
        return [self.hands_out]

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        self.done.append(("ask", partition.partition))
        return 0, 10

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.done += [("resume", one.partition) for one in partitions]

    def seek(self, partition: TopicPartition) -> None:
        self.done.append(("seek", partition.partition))
        self.sought.append((partition.partition, partition.offset))


def positions_of(consumer: Excluded) -> Positions:
    tries = iter(range(100))  # ends what would otherwise loop forever
    fake: Any = consumer
    positions = consumer.positions = Positions(
        fake, topic="vitals", identity=identity("now"), keep_trying=lambda: next(tries, None) is not None
    )
    positions.add([0, 1])
    consumer.excluded = True
    return positions


def test_a_rewind_polls_the_consumer_and_uses_the_new_assignment() -> None:
    consumer = Excluded()
    positions = positions_of(consumer)
    positions.rewind()
    assert positions.partitions == [1]
    assert consumer.sought == [(1, 10)], "messages returned in the meantime are not read again"


def test_a_rewind_stops_on_an_error_that_waiting_does_not_fix() -> None:
    refused = FakeMessage(error=KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    with pytest.raises(KafkaCallError) as failure:
        positions_of(Excluded(hands_out=refused)).rewind()
    assert failure.value.action is Action.STOP


def test_committed_offsets_carry_the_topic_id() -> None:
    positions = positions_of(Excluded())
    assert [(one.offset, one.metadata) for one in positions.offsets()] == [(10, "now"), (10, "now")]


@pytest.mark.parametrize("noted", ["", "now"])
def test_offsets_of_this_topic_or_without_a_topic_id_are_accepted(noted: str) -> None:
    consumer = Excluded()
    consumer.noted = noted
    positions_of(consumer)


def test_offsets_of_an_earlier_topic_are_refused() -> None:
    consumer = Excluded()
    consumer.noted = "before"
    with pytest.raises(InputLostError, match="recreated"):
        positions_of(consumer)


@pytest.mark.parametrize("silent", [False, True])
def test_whether_a_leader_answers_is_noticed(silent: bool) -> None:
    class Leader(Excluded):
        def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
            if silent:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return super().get_watermark_offsets(partition, timeout)

    assert positions_of(Leader()).answered() is not silent


def test_a_resumed_partition_is_read_at_once() -> None:
    """librdkafka only notices it when a request wakes its broker's thread, or up to a second later."""
    consumer = Excluded()
    positions = positions_of(consumer)
    consumer.done.clear()
    positions.resume([1, 7])  # 7 was revoked meanwhile
    assert consumer.done == [("resume", 1), ("seek", 1), ("ask", 1)]

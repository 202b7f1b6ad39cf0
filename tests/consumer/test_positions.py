"""Going back to what is committed, with a group that has excluded us meanwhile."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer.errors import Action, InputLostError, KafkaCallError
from consumer.positions import Positions
from tests.consumer.fakes import FakeMessage, identity


class Excluded:
    """A consumer that the group has excluded: it learns nothing of the group until it is served."""

    def __init__(self, *, hands_out: FakeMessage | None = None) -> None:
        self.hands_out = hands_out or FakeMessage(offset=12)
        self.positions: Positions | None = None
        self.sought: list[tuple[int, int]] = []
        self.excluded = False
        self.noted = ""  # beside the committed offsets

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
        return 0, 10

    def seek(self, partition: TopicPartition) -> None:
        self.sought.append((partition.partition, partition.offset))


def positions_of(consumer: Excluded) -> Positions:
    tries = iter(range(100))  # an end to what would go on for ever
    fake: Any = consumer
    positions = consumer.positions = Positions(
        fake, topic="vitals", identity=identity("now"), keep_trying=lambda: next(tries, None) is not None
    )
    positions.add([0, 1])
    consumer.excluded = True
    return positions


def test_going_back_serves_the_consumer_and_goes_on_with_the_partitions_of_then() -> None:
    consumer = Excluded()
    positions = positions_of(consumer)
    positions.rewind()
    assert positions.partitions == [1]
    assert consumer.sought == [(1, 10)], "what was handed out meanwhile is read again"


def test_going_back_stops_for_what_waiting_does_not_cure() -> None:
    refused = FakeMessage(error=KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    with pytest.raises(KafkaCallError) as failure:
        positions_of(Excluded(hands_out=refused)).rewind()
    assert failure.value.action is Action.STOP


def test_what_is_committed_names_the_topic() -> None:
    positions = positions_of(Excluded())
    assert [(one.offset, one.metadata) for one in positions.offsets()] == [(10, "now"), (10, "now")]


@pytest.mark.parametrize("noted", ["", "now"])
def test_offsets_of_this_topic_or_of_nobody_knows_which_are_fine(noted: str) -> None:
    consumer = Excluded()
    consumer.noted = noted
    positions_of(consumer)


def test_offsets_of_an_earlier_topic_say_nothing_about_this_one() -> None:
    consumer = Excluded()
    consumer.noted = "before"
    with pytest.raises(InputLostError, match="recreated"):
        positions_of(consumer)


@pytest.mark.parametrize("silent", [False, True])
def test_a_leader_answers_now_or_does_not(silent: bool) -> None:
    class Leader(Excluded):
        def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
            if silent:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return super().get_watermark_offsets(partition, timeout)

    assert positions_of(Leader()).answered() is not silent

"""Noticing, without waiting, that the input topic was deleted and recreated."""

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from broker.embedded import EmbeddedBroker, touch_topics
from broker.settings import Settings
from consumer.errors import InputLostError
from consumer.identity import ASK_EVERY_S, Identity, identity_of
from tests.consumer.fakes import Clock, described


def refused() -> "Future[Any]":
    answer: Future[Any] = Future()
    answer.set_exception(KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
    return answer


def checked(*answers: "Future[Any]") -> None:
    """Check once per second, with these answers in turn."""
    left, clock = [*answers], Clock()
    identity = Identity(lambda: left.pop(0), topic="vitals", clock=clock)
    while left:
        clock.now += ASK_EVERY_S
        identity.check()  # sends the question
        identity.check()  # reads the answer


def test_the_same_topic_or_a_broker_without_an_answer_is_fine() -> None:
    checked(described("a"), described("a"), refused(), described("a"))
    checked(refused(), described("a"))


def test_another_topic_with_the_same_name_is_noticed() -> None:
    with pytest.raises(InputLostError, match="vitals was deleted and recreated"):
        checked(described("a"), described("a"), refused(), described("b"))


def test_it_never_waits_for_an_answer_and_asks_at_most_once_per_second() -> None:
    asked: list[Future[Any]] = [described("a")]
    clock = Clock()

    def ask() -> "Future[Any]":
        asked.append(asked[0] if len(asked) == 1 else Future())
        return asked[-1]

    identity = Identity(ask, topic="vitals", clock=clock)
    for _ in range(50):
        identity.check()
    assert len(asked) == 2
    clock.now += ASK_EVERY_S
    for _ in range(50):
        identity.check()
    assert len(asked) == 3


@pytest.mark.timeout(30)  # half the time librdkafka waits for an answer
def test_the_embedded_broker_has_no_topic_ids_and_is_not_waited_for() -> None:
    with EmbeddedBroker() as broker:
        settings = Settings(bootstrap_servers=broker.bootstrap_servers)
        touch_topics(settings, settings.topics)
        found = identity_of(settings, clock=Clock())
        assert found.id == ""
        found.check()

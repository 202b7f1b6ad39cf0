"""Which action each class of Kafka error leads to."""

import time
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from broker.roles import Role
from consumer.errors import Action, FencedError, KafkaCallError, action_for, stops_consumer
from consumer.observer import Observer
from consumer.sending import Sender, kafka_call

# error code, then its flags: fatal, retriable, txn_requires_abort
TABLE = [
    # a fenced worker is out, whatever flags the client reports
    (KafkaError._FENCED, (True, False, False), Action.FENCED),
    (KafkaError._FENCED, (False, False, True), Action.FENCED),
    (KafkaError.PRODUCER_FENCED, (False, False, True), Action.FENCED),
    (KafkaError.INVALID_PRODUCER_EPOCH, (True, False, False), Action.FENCED),
    # a dead producer is replaced
    (KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, (True, False, False), Action.REBUILD),
    (KafkaError.INVALID_TXN_STATE, (True, False, False), Action.REBUILD),
    (KafkaError.INVALID_PRODUCER_ID_MAPPING, (True, False, False), Action.REBUILD),
    # a transaction that can't go on is aborted
    (KafkaError.UNKNOWN_PRODUCER_ID, (False, False, True), Action.ABORT),
    (KafkaError.INVALID_PRODUCER_ID_MAPPING, (False, False, True), Action.ABORT),
    (KafkaError.ILLEGAL_GENERATION, (False, False, True), Action.ABORT),
    (KafkaError.UNKNOWN_MEMBER_ID, (False, False, True), Action.ABORT),
    (KafkaError.FENCED_INSTANCE_ID, (False, False, True), Action.ABORT),
    (KafkaError.REBALANCE_IN_PROGRESS, (False, False, True), Action.ABORT),
    (KafkaError._TIMED_OUT, (False, True, True), Action.ABORT),
    # what may be retried is retried
    (KafkaError._TIMED_OUT, (False, True, False), Action.RETRY),
    (KafkaError.CONCURRENT_TRANSACTIONS, (False, True, False), Action.RETRY),
    (KafkaError.NOT_COORDINATOR, (False, True, False), Action.RETRY),
    # no flag is set: the outcome is unknown
    (KafkaError._TIMED_OUT, (False, False, False), Action.REBUILD),
    (KafkaError._STATE, (False, False, False), Action.REBUILD),
    # what no retry fixes ends the worker
    (KafkaError.TOPIC_AUTHORIZATION_FAILED, (False, False, True), Action.STOP),
    (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, (True, False, False), Action.STOP),
    (KafkaError.MSG_SIZE_TOO_LARGE, (False, False, True), Action.STOP),
    (KafkaError._AUTHENTICATION, (False, True, False), Action.STOP),
]


@pytest.mark.parametrize(("code", "flags", "action"), TABLE)
def test_each_error_leads_to_its_action(code: int, flags: tuple[bool, bool, bool], action: Action) -> None:
    fatal, retriable, requires_abort = flags
    error = KafkaError(code, fatal=fatal, retriable=retriable, txn_requires_abort=requires_abort)
    assert action_for(error) is action


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (KafkaError(KafkaError._TRANSPORT), False),
        (KafkaError(KafkaError._ALL_BROKERS_DOWN), False),
        (KafkaError(KafkaError._MAX_POLL_EXCEEDED), False),
        (KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), False),
        (KafkaError(KafkaError._TRANSPORT, fatal=True), True),
        (KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), True),
        (KafkaError(KafkaError.UNRELEASED_INSTANCE_ID), True),
        (KafkaError(KafkaError._AUTO_OFFSET_RESET), True),
    ],
    ids=str,
)
def test_a_consumer_carries_on_unless_the_error_is_permanent(error: KafkaError, stops: bool) -> None:
    assert stops_consumer(error) is stops


def test_a_failed_call_shows_kafkas_error_name_but_not_its_text() -> None:
    error = KafkaError(KafkaError._TIMED_OUT, "canary in the text")
    told = KafkaCallError("committing", error, Action.REBUILD)
    assert "canary" not in str(told)
    assert str(told).startswith("committing failed with _TIMED_OUT: renew the producer")
    assert "outcome unknown" in str(KafkaCallError("committing", None, Action.REBUILD))


def test_a_fenced_worker_says_what_to_do() -> None:
    assert "transactional id g-0" in str(FencedError("g-0"))
    assert "different --instance" in str(FencedError("g-0"))


def test_a_producers_fatal_error_is_found_even_when_raised_inside_a_callback() -> None:
    death = KafkaError(KafkaError._FENCED, fatal=True)
    first = SystemError("returned a result with an exception set")
    first.__cause__ = KafkaException(death)
    with pytest.raises(KafkaCallError) as caught, kafka_call("delivering"):
        raise first
    assert caught.value.action is Action.FENCED
    with pytest.raises(KafkaCallError) as caught, kafka_call("delivering"):
        raise SystemError("returned a result with an exception set") from first
    assert caught.value.action is Action.FENCED
    with pytest.raises(SystemError, match="another"), kafka_call("delivering"):
        raise SystemError("another")


@pytest.mark.parametrize(
    ("codes", "action"),
    [
        ([KafkaError._MSG_TIMED_OUT], Action.REBUILD),
        ([KafkaError.INVALID_PRODUCER_EPOCH], Action.REBUILD),  # there is no transactional ID to be fenced by
        ([KafkaError.TOPIC_AUTHORIZATION_FAILED], Action.STOP),
        ([KafkaError._MSG_TIMED_OUT, KafkaError.TOPIC_AUTHORIZATION_FAILED], Action.STOP),
        ([KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._MSG_TIMED_OUT], Action.STOP),
    ],
    ids=str,
)
def test_an_undelivered_message_stops_the_worker_if_the_error_is_permanent(
    codes: list[int], action: Action
) -> None:
    made: list[dict[str, Any]] = []
    left = [*codes]

    class Losing:
        def flush(self, _: float) -> int:
            while left:
                made[0]["on_undelivered"](KafkaError(left.pop(0)))
            return 0

    def make(**listeners: Any) -> Any:
        made.append(listeners)
        return Losing()

    sender = Sender(
        make, topics={role: role.value for role in Role}, observer=Observer(), clock=time.monotonic
    )
    with pytest.raises(KafkaCallError) as caught:
        sender.flush(1)
    assert caught.value.action is action
    assert ("WRITE on the other three" in str(caught.value)) == (action is Action.STOP)
    sender.clear()
    sender.flush(1)

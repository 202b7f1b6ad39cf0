"""What to do on each class of Kafka error.

The order of the questions is librdkafka's: is the client dead, must the transaction be aborted, may the same
call be repeated. Whatever is left has an unknown outcome: the producer is then renewed, because its successor
with the same transactional id settles the old transaction one way or the other, and the group's committed
offsets tell which.
"""

from enum import Enum

from confluent_kafka import KafkaError

from broker.errors import VitalstreamError


class Action(Enum):
    """What the worker does after an error."""

    RETRY = "repeat the same call with the same arguments"
    ABORT = "abort the transaction and read its messages again"
    REBUILD = "renew the producer and read again from the committed offsets"
    FENCED = "another producer holds the transactional id, or the broker aborted our transaction"
    STOP = "stop with exit code 1"


# Retrying never helps. Names as in librdkafka's rdkafka.h.
_HOPELESS = frozenset({
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError._INVALID_ARG,
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    KafkaError.MSG_SIZE_TOO_LARGE,
})  # fmt: skip

# A broker may answer a fenced producer in either way (KIP-588, KAFKA-9911).
_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


def action_for(error: KafkaError) -> Action:
    """The action for an error of a transactional or producing call."""
    if error.code() in _FENCED:
        return Action.FENCED
    if error.code() in _HOPELESS:
        return Action.STOP
    if error.fatal():
        return Action.REBUILD
    if error.txn_requires_abort():
        return Action.ABORT
    if error.retriable():
        return Action.RETRY
    return Action.REBUILD


# Errors that a consumer reports but recovers from on its own.
_CONSUMER_STOPS = _HOPELESS | {
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError._NO_OFFSET,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._FATAL,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.UNRELEASED_INSTANCE_ID,
    KafkaError.INCONSISTENT_GROUP_PROTOCOL,
    KafkaError.INVALID_SESSION_TIMEOUT,
    KafkaError.UNSUPPORTED_ASSIGNOR,
    KafkaError.GROUP_MAX_SIZE_REACHED,
}


def stops_consumer(error: KafkaError) -> bool:
    """Whether an error that `consume` returned as a message is permanent."""
    return error.fatal() or error.code() in _CONSUMER_STOPS


_CREDENTIALS = "check sasl.mechanism, sasl.username and sasl.password"
_REMEDIES = {
    KafkaError._AUTHENTICATION: _CREDENTIALS,
    KafkaError.SASL_AUTHENTICATION_FAILED: _CREDENTIALS,
    KafkaError._SSL: "check security.protocol and the ssl.* properties",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this user needs READ on the input topic and WRITE on the other three",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "this user needs READ on the consumer group (--group)",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
        "this user needs WRITE on the transactional ids that begin with the group's name and a hyphen"
    ),
}


class KafkaCallError(VitalstreamError):
    """A Kafka call failed; `action` says what the worker does, `error_name` is Kafka's name for the error."""

    def __init__(self, operation: str, error: KafkaError | None, action: Action) -> None:
        self.operation = operation
        self.error_name = error.name() if error is not None else "outcome unknown"
        self.action = action
        remedy = _REMEDIES.get(error.code()) if error is not None and action is Action.STOP else None
        super().__init__(f"{operation} failed with {self.error_name}: {remedy or action.value}")


class FencedError(VitalstreamError):
    """Another live producer uses this worker's transactional id."""

    def __init__(self, transactional_id: str) -> None:
        self.transactional_id = transactional_id
        super().__init__(
            f"another worker has taken over the transactional id {transactional_id}: "
            "give every worker of a group a different --instance, or none"
        )


class NoProgressError(VitalstreamError):
    """Several recoveries in a row committed nothing."""


class ModelFailedError(VitalstreamError):
    """The model failed in a way that no single message explains; the open transaction is not committed."""


class InputLostError(VitalstreamError):
    """The input topic no longer holds the messages at the committed offset."""

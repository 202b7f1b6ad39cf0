"""What a producer's log reveals about the connection to its transaction coordinator."""

import logging

import pytest

from consumer.clients import CoordinatorLog

OTHERS = "[thrd:127.0.0.1:9092/1]: 127.0.0.1:9092/1: Disconnected"
COORDINATORS = "[thrd:TxnCoordinator]: TxnCoordinator: 127.0.0.1:9092: Disconnected"


@pytest.mark.parametrize(
    ("facility", "text", "heard"),
    [
        ("FAIL", COORDINATORS, True),
        ("REQTMOUT", "[thrd:TxnCoordinator]: TxnCoordinator/1: Timed out 1 in-flight", True),
        (
            "FAIL",
            OTHERS,
            False,
        ),  # one of three brokers being down must not make the worker renew its producer forever
        ("GETPID", "[thrd:main]: Failed to acquire transactional PID from broker TxnCoordinator/1", False),
    ],
)
def test_a_broken_connection_to_the_coordinator_is_noticed(
    facility: str, text: str, heard: bool, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[None] = []
    log = CoordinatorLog(logging.getLogger("a-client"), on_disturbed=lambda: calls.append(None))
    log.log(logging.WARNING, "%s [%s] %s", facility, "rdkafka#producer-1", text)
    assert bool(calls) == heard
    assert text in caplog.text, "the line is logged all the same"

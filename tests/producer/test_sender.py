"""What the sender says when nothing is acknowledged, without a broker."""

import pytest

from broker.errors import SettingsError
from broker.settings import Settings
from producer.sender import DeliveryError, Sender

NOWHERE = "127.0.0.1:1"


def sender(**properties: str) -> Sender:
    kafka = {name.replace("_", "."): value for name, value in properties.items()} | {"log_level": "0"}
    return Sender(Settings(bootstrap_servers=NOWHERE, kafka=kafka), topic="vitals")


def test_only_the_broker_acknowledges_a_message() -> None:
    one = sender()
    assert one.send(b"p", b"{}")
    assert (one.sent, one.acknowledged) == (1, 0)
    with pytest.raises(DeliveryError, match=r"not acknowledged within 0.2 s") as error:
        one.flush(0.2)
    assert (error.value.sent, error.value.acknowledged) == (1, 0)


def test_messages_not_acknowledged_in_time_are_abandoned() -> None:
    one = sender()
    assert all(one.send(b"p", b"{}") for _ in range(50))
    for _ in range(2):  # the second time at once, with the same error
        with pytest.raises(DeliveryError, match=r"not acknowledged within 0.2 s"):
            one.flush(0.2)
        assert (one.sent, one.acknowledged, one.acknowledged_first) == (50, 0, 0)


def test_invalid_producer_properties_are_refused_with_one_sentence() -> None:
    with pytest.raises(SettingsError, match=r"librdkafka refuses the -X properties: .*linger.ms"):
        sender(linger_ms="60000")


def test_a_stop_is_noticed_while_the_queue_is_full() -> None:
    one = sender(queue_buffering_max_messages="3")
    asked = iter([False, True])
    assert all(one.send(b"p", b"{}") for _ in range(3))
    assert not one.send(b"p", b"{}", stopped=lambda: next(asked))
    assert one.sent == 3


def test_a_failed_delivery_stops_sending() -> None:
    one = sender(queue_buffering_max_messages="3", message_timeout_ms="200")
    assert all(one.send(b"SECRET", b"SECRET") for _ in range(3))
    with pytest.raises(DeliveryError, match="_MSG_TIMED_OUT"):
        one.send(b"SECRET", b"SECRET")
    with pytest.raises(DeliveryError) as error:
        one.flush(1)
    assert "SECRET" not in str(error.value)

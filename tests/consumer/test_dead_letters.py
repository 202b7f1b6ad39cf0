"""Dead letters end to end: for every reason, the exact bytes, in between good messages, on a real Kafka."""

from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from broker.settings import Settings
from broker.topics import message_limits
from schemas.contract import MAX_MESSAGE_BYTES, Reason
from schemas.dead_letters import POINTER, dead_letter_headers
from tests.consumer.accounts import Position, require_exactly_once
from tests.consumer.models import RAISES
from tests.consumer.stage import Stage
from tests.kafka import wait_until
from tests.schemas.messages import ACCEPTED, OF_OTHER_FORMATS, REJECTED, Rejected, good

pytestmark = pytest.mark.kafka

OWN: Any = [("trace", b"\x00\xff"), ("none", None), ("dlq.reason", b"of an earlier life")]
FOR_THE_MODEL = {
    "the model raises": good(heart_rate=RAISES),
    **{name: ACCEPTED[name] for name in ("large integers", "extreme floats")},  # scored, though far above 1
}
KEY = b"\xff\x00key"


def send(settings: Settings, values: dict[str, bytes | None], *, key: bytes | None = KEY) -> dict[str, Any]:
    """Send each value with headers to partition 0, in order; returns the acknowledged messages by name."""
    sent: dict[str, Any] = {}
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "linger.ms": 5, "log_level": 0})
    for name, value in values.items():

        def note(error: Any, message: Any, name: str = name) -> None:
            assert error is None
            sent[name] = message

        producer.produce(settings.input_topic, value, key, partition=0, headers=[*OWN], on_delivery=note)
    assert producer.flush(30) == 0
    assert sent.keys() == values.keys()
    return sent


def headers(message: Any) -> list[tuple[str, bytes | None]]:
    return list(message.headers())


def position(message: Any) -> Position:
    return message.partition(), message.offset()


def test_every_reason_ends_in_a_dead_letter_with_the_exact_bytes(stage: Stage) -> None:
    settings = stage.settings(model="fragile_vitals", partitions=1, ranges="off", max_dead_letter_ratio=1.0)
    bad = {
        **REJECTED,
        **{
            name: Rejected(Reason.MODEL_REJECTED, "risk_probability", value)
            for name, value in FOR_THE_MODEL.items()
        },
    }
    values: dict[str, bytes | None] = {}
    for number, (name, one) in enumerate(bad.items()):
        values[name] = one.value
        values[f"neighbour {number}"] = good(heart_rate=number)
    values |= {name: value for name, value in ACCEPTED.items() if name not in bad}
    sent = send(settings, values)
    stage.worker(settings)
    stage.wait_committed(settings, len(values))

    found = require_exactly_once(settings, rows=len(values))
    assert found.letters.keys() == {position(sent[name]) for name in bad}
    for name, one in bad.items():
        letter, origin = found.letters[position(sent[name])]
        assert (origin.reason, origin.field) == (one.reason, one.field), name
        assert (letter.key(), letter.value()) == (KEY, one.value), name
        assert origin.timestamp == sent[name].timestamp()[1], name
        assert (origin.topic, origin.pointer) == (settings.input_topic, False)
        assert headers(letter) == [*OWN[:2], *dead_letter_headers(origin)], name
    for number in range(len(bad)):
        result = found.by_position[position(sent[f"neighbour {number}"])]
        assert result.risk_probability == number / 256
    assert {origin.reason for _, origin in found.dead_letters} == {*Reason} - OF_OTHER_FORMATS


def test_a_dead_letter_too_large_for_its_topic_becomes_a_pointer(stage: Stage) -> None:
    settings = stage.settings(model="fragile", partitions=1, max_dead_letter_ratio=1.0)
    limit_topic(settings, settings.dead_letter_topic, 100_000)
    large = b"x" * (MAX_MESSAGE_BYTES + 1)
    sent = send(settings, {"large": large, "small": b"x", "good": good(signal=64)})
    stage.worker(settings)
    stage.wait_committed(settings, 3)

    found = require_exactly_once(settings, rows=3)
    letter, origin = found.letters[position(sent["large"])]
    assert (origin.reason, origin.pointer) == (Reason.TOO_LARGE, True)
    assert (letter.key(), letter.value()) == (KEY, b"")
    assert (POINTER, b"1") in headers(letter)
    letter, origin = found.letters[position(sent["small"])]
    assert (letter.value(), origin.pointer) == (b"x", False)
    assert found.by_position[position(sent["good"])].risk_probability == 0.25


def test_a_model_that_fails_on_everything_stops_the_worker_and_loses_nothing(stage: Stage) -> None:
    settings = stage.settings(model="fragile", partitions=1, chunk_size=20)
    send(settings, {str(number): good(signal=number) for number in range(20)})
    send(settings, {str(number): good(signal=RAISES) for number in range(20)})
    worker = stage.worker(settings)
    assert worker.wait(timeout=60) == 1, worker.log
    last = worker.log.splitlines()[-1]
    assert last.startswith("vitalstream: the model raised ValueError on all 20 rows of a chunk")
    assert "canary" not in worker.log
    assert "Traceback" not in worker.log
    assert stage.committed(settings) in (0, 20), "part of the bad chunk was committed"


def test_a_result_that_fits_its_topic_is_published(stage: Stage) -> None:
    settings = stage.settings(model="fragile", partitions=1, max_dead_letter_ratio=1.0)
    limit_topic(
        settings, settings.output_topic, 1_100
    )  # the result has some 400 bytes, and Kafka adds up to 512
    sent = send(settings, {"good": good(signal=64)})
    stage.worker(settings)
    stage.wait_committed(settings, 1)
    assert position(sent["good"]) in require_exactly_once(settings, rows=1).by_position


def limit_topic(settings: Settings, topic: str, limit: int) -> None:
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0})
    entry = ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)
    wait_until(
        lambda: message_limits(settings, [topic])[topic] == limit, what=f"the limit of {topic} changed"
    )

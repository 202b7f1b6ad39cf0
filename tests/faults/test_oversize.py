"""Messages at, just below and just above each limit: each ends as a result or a dead letter; none gets stuck."""

from collections.abc import Iterator

import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from broker.settings import Settings
from schemas.contract import MAX_MESSAGE_BYTES
from tests.faults.conftest import Begin
from tests.faults.load import Records
from tests.kafka import is_running

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

INPUT, RESULT, DEAD_LETTER = 1_048_588, 4_000, 6_000  # max.message.bytes of the topics
AROUND = (-1200, -700, -600, -520, -513, -512, -511, -400, -200, -100, -50, -1, 0, 1, 50, 100, 400, 1000)

Headers = list[tuple[str, str | bytes | None]]
Sent = tuple[bytes, bytes, Headers]  # key, value, headers


def document(**more: object) -> bytes:
    return orjson.dumps({"patient_id": "p", "event_time": "2026-01-05T08:30:00Z", "heart_rate": 80.0, **more})


def oversized() -> Iterator[Sent]:
    """Around each limit, by key, value and headers; good messages in between."""
    for step in AROUND:
        yield b"k" * (RESULT + step - 300), document(), []  # the result has the same key
        yield b"k" * (RESULT + step), document(), []
        yield b"k" * (DEAD_LETTER + step - 300), b"{", []  # so does the dead letter
        yield b"k", b"[" * (DEAD_LETTER + step), []
        yield b"k", b"{", [("h", b"x" * (DEAD_LETTER + step - 200))]
        yield b"k", document(note="x" * (MAX_MESSAGE_BYTES + step - 100)), []
        yield b"k", document(), []
    for size in (INPUT - 1200, INPUT - 200, INPUT - 100):
        yield b"k", document(note="x" * (size - 100)), []
        yield b"k" * (size - 100), document(), []
        yield b"k", document(), [("h", b"x" * (size - 100))]
        yield b"k", b"{", [("h", b"x" * (size - 100))]
        yield b"k" * (size // 2), b"{", [("h", b"x" * (size // 3))]


def send(settings: Settings, messages: Iterator[Sent]) -> tuple[int, int]:
    """Send what the brokers accept; returns how many they accepted and refused."""
    refused: list[object] = []
    producer = Producer({
        "bootstrap.servers": settings.bootstrap_servers,
        "message.max.bytes": INPUT + 10_000,
        "batch.num.messages": 1,
        "log_level": 0,
    })  # fmt: skip
    count = 0
    for key, value, headers in messages:
        count += 1
        producer.produce(
            settings.input_topic,
            value,
            key,
            headers=headers,
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    return count - len(refused), len(refused)


def limit(settings: Settings, limits: dict[str, int]) -> None:
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers, "log_level": 0})
    for topic, most in limits.items():
        entry = ConfigEntry("max.message.bytes", str(most), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)


@pytest.mark.parametrize(
    "limits",
    [{"output_topic": RESULT, "dead_letter_topic": DEAD_LETTER}, pytest.param({}, marks=pytest.mark.faults)],
    ids=["small", "default"],
)
def test_oversized_messages_do_not_stop_a_worker(
    begin: Begin, records: Records, limits: dict[str, int]
) -> None:
    trial = begin("message around a size limit", max_dead_letter_ratio=1)
    limit(trial.settings, {getattr(trial.settings, name): most for name, most in limits.items()})
    sent, _ = send(trial.settings, oversized())
    assert sent > len(AROUND) * 6
    trial.count(sent)
    trial.load(records, rate=300)
    worker = trial.worker(max_dead_letter_ratio=1).joined()
    trial.progressed(sent)
    assert is_running(worker.pid), worker.log
    found = trial.finish()
    assert found.accounted > sent
    assert "failed with" not in worker.log, "sizes should be known before anything is sent"

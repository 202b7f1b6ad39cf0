"""A topic of Avro, through real processes and a real Kafka: the worker, the audit, and the dead-letter tools."""

import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from audit.run import audit
from broker.settings import Settings
from tests.consumer.accounts import read_accounts
from tests.consumer.stage import Stage
from tests.schemas.avro import record, written
from vitalstream.cli import app

pytestmark = pytest.mark.kafka

SCHEMA = record(
    ("pid", "long"),
    ("ts", {"type": "long", "logicalType": "timestamp-millis"}),
    ("signal", ["null", "int", "boolean"]),
)
MAPPING = """
patient_id = { path = "pid", integer = true }
event_time = { path = "ts", as = "epoch_ms" }
[features]
signal = { path = "signal" }
spo2 = { absent = true }
"""
ROWS = 300


def reading(number: int) -> bytes:
    signal = True if number % 10 == 1 else number % 256
    value = written(SCHEMA, {"pid": 1000 + number % 7, "ts": 1767601800000 + number, "signal": signal})
    return value + b"\x00" if number % 10 == 2 else value


def avro(stage: Stage) -> Settings:
    schema, mapping = stage.folder / "ward.avsc", stage.folder / "ward.toml"
    schema.write_text(json.dumps(SCHEMA))
    mapping.write_text(MAPPING)
    return stage.settings(
        model="fragile", partitions=2, value_format="avro", schema_file=schema, mapping=mapping, chunk_size=50
    )


def test_every_message_is_a_result_or_a_dead_letter_that_the_tools_can_show(stage: Stage) -> None:
    settings = avro(stage)
    stage.send(settings, ((str(number % 7), reading(number), 0) for number in range(ROWS)))
    worker = stage.worker(settings)
    stage.wait_committed(settings, ROWS)
    worker.stop()

    found = read_accounts(settings)
    assert {result.patient_id for result in found.by_position.values()} == {str(1000 + n) for n in range(7)}
    reasons = Counter((str(origin.reason), origin.field) for _, origin in found.letters.values())
    assert reasons == {("wrong_type", "signal"): ROWS // 10, ("not_decodable", ""): ROWS // 10}
    judged = audit(settings)
    assert judged.clean, judged.offenders
    assert judged.accounted == ROWS

    told = shown(settings, offset=11)
    assert json.loads(told) == {"pid": 1000 + 11 % 7, "ts": 1767601800011, "signal": True}
    assert shown(settings, offset=12) == f"hex of {len(reading(12))} bytes: {reading(12).hex()}"


def shown(settings: Settings, *, offset: int) -> str:
    line = ["dead-letters", "show", "0", str(offset), "--payload", "--json", "--value-format", "avro"]
    line += ["--bootstrap-servers", settings.bootstrap_servers, "--schema-file", str(settings.schema_file)]
    done = CliRunner().invoke(app, [*line, "--dead-letter-topic", settings.dead_letter_topic])
    (letter,) = json.loads(done.stdout)["dead_letters"]
    return str(letter["value"])

"""An Avro topic through real processes, Kafka and a registry: worker, audit and dead-letter tools."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from typer.testing import CliRunner

from audit.run import audit
from broker.settings import Settings
from consumer.stop import Stop
from schemas.results import RiskResult
from tests.consumer.accounts import read_accounts
from tests.consumer.stage import Stage
from tests.kafka import read_all
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


class Ward:
    """A topic, and the schemas of its messages in a registry."""

    def __init__(self, stage: Stage, url: str) -> None:
        self.mapping = stage.folder / "ward.toml"
        self.mapping.write_text(MAPPING)
        self.settings = stage.settings(
            model="fragile",
            partitions=1,
            value_format="avro",
            schema_registry=url,
            mapping=self.mapping,
            result_format="avro",
            chunk_size=50,
        )
        self._client = SchemaRegistryClient({"url": url, "timeout": 10})
        # Schemas that no other test registers: a registry gives the same text the same id.
        self.schemas = {which: {**SCHEMA, "doc": f"{self.topic} {which}"} for which in ("ours", "new")}
        self.marks = {
            "ours": self.register("ours", f"{self.topic}-value"),
            "new": self.register("new", f"{self.topic}-new"),
        }

    @property
    def topic(self) -> str:
        return self.settings.input_topic

    def register(self, which: str, subject: str) -> bytes:
        number = self._client.register_schema(subject, Schema(json.dumps(self.schemas[which]), "AVRO"))
        return b"\x00" + number.to_bytes(4, "big")

    def message(self, number: int) -> bytes:
        kind = number % 10
        mark = self.marks["new" if kind == 3 else "ours"] if kind != 4 else b"\x00\x7f\xff\xff\xff"
        signal = True if kind == 1 else number % 256
        value = written(SCHEMA, {"pid": 1000 + number % 7, "ts": 1767601800000 + number, "signal": signal})
        return mark + value + (b"\x00" if kind == 2 else b"")

    def run(self, *arguments: str) -> Any:
        names = ["dead_letter_topic", "value_format"]
        names += ["input_topic", "mapping"] if arguments[0] == "replay" else []
        return json.loads(self.output("dead-letters", *arguments, "--json", names=names))

    def output(self, *arguments: str, names: Sequence[str]) -> str:
        line = [
            part
            for name in ("bootstrap_servers", "schema_registry", *names)
            for part in (f"--{name.replace('_', '-')}", str(getattr(self.settings, name)))
        ]
        return CliRunner().invoke(app, [*arguments, *line]).stdout

    def shown(self, offset: int) -> str:
        (letter,) = self.run("show", "0", str(offset), "--payload")["dead_letters"]
        return str(letter["value"])


def test_every_message_becomes_a_result_or_a_dead_letter_that_the_tools_can_show(
    stage: Stage, schema_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stop, "listen", lambda *_, **__: None)  # keep pytest's own signal handlers
    ward = Ward(stage, schema_registry)
    settings: Settings = ward.settings
    stage.send(settings, ((str(number % 7), ward.message(number)) for number in range(ROWS)))
    worker = stage.worker(settings)
    stage.wait_committed(settings, ROWS)
    worker.stop()

    found = read_accounts(settings)
    assert {result.patient_id for result in found.by_position.values()} == {str(1000 + n) for n in range(7)}
    reasons = Counter((str(origin.reason), origin.field) for _, origin in found.letters.values())
    tenth = ROWS // 10
    assert reasons == {
        ("wrong_type", "signal"): tenth,
        ("not_decodable", ""): tenth,
        ("unknown_schema", ""): 2 * tenth,
    }
    judged = audit(settings)
    assert judged.clean, judged.offenders
    assert judged.accounted == ROWS

    values = [
        message.value() or b"" for message in read_all(settings.bootstrap_servers, settings.output_topic)
    ]
    assert {value[:1] for value in values} == {b"\x00"}
    assert {value[:5] for value in values} == {values[0][:5]}
    of_results = ["output_topic", "result_format"]
    watched = ward.output("watch", "--from-beginning", "--limit", "6", "--json", names=of_results)
    first = found.by_position[0, json.loads(watched.splitlines()[0])["source_offset"]]
    assert RiskResult(**json.loads(watched.splitlines()[0])) == first
    assert len(watched.splitlines()) == 6
    seen = ward.output("status", "--json", names=[*of_results, "input_topic", "dead_letter_topic", "group"])
    assert [one["model"] for one in json.loads(seen)["results"]["models"]] == [first.model]

    assert json.loads(ward.shown(11)) == {"pid": 1000 + 11 % 7, "ts": 1767601800011, "signal": True}
    trailing, unknown = ward.message(12), ward.message(13)
    assert ward.shown(12) == f"hex of {len(trailing)} bytes: {trailing.hex()}"
    assert ward.shown(13) == f"hex of {len(unknown)} bytes: {unknown.hex()}"

    # The schema is registered later: that the worker did not know it is no fault.
    assert ward.register("new", f"{ward.topic}-value") == ward.marks["new"]
    assert audit(settings).clean
    replayed = ward.run("replay", "--reason", "unknown_schema", "--dry-run")
    assert replayed["replayed"] == tenth

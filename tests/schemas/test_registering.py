"""Registering schemas: once, never over a sender's own; messages written with them can be read."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from broker.errors import SettingsError
from schemas.contract import BOOLEAN, CATEGORY
from schemas.decoding import make_decoder
from schemas.encoding import make_encoder
from schemas.messages import Plain
from schemas.registering import register_schemas, vitals_avro
from schemas.result_format import make_result_writer, result_schema
from schemas.vitals import vitals_schema
from tests.schemas.avro import record, written
from tests.schemas.messages import Wanted
from tests.schemas.test_registry import asking

MODEL = Wanted(("heart_rate", "ventilated", "ward"), {"ventilated": BOOLEAN, "ward": CATEGORY})
ROW = {"patient_id": "p1", "event_time": "2026-01-05T08:30:00Z", "heart_rate": 84.0}


def topics(url: str, **given: Any) -> Any:
    number = uuid.uuid4().hex[:8]
    return asking(url, input_topic=f"vitals-{number}", output_topic=f"risk-{number}", **given)


def test_messages_with_the_registered_schema_are_read(schema_registry: str) -> None:
    settings = topics(schema_registry, result_format="avro")
    subjects = f"{settings.input_topic}-value", f"{settings.output_topic}-value"
    assert [*register_schemas(settings, MODEL)] == [(one, "registered") for one in subjects]
    assert [*register_schemas(settings, MODEL)] == [(one, "exists") for one in subjects]

    client = SchemaRegistryClient({"url": schema_registry, "timeout": 10})
    number = client.get_latest_version(subjects[0]).schema_id or 0
    row = {**ROW, "ventilated": True, "ward": None}
    value = b"\x00" + number.to_bytes(4, "big") + written(vitals_avro(MODEL), row)
    found = make_decoder(settings, MODEL)([Plain(value)])
    assert found.frame.iloc[0].tolist() == [84.0, True, None]
    # The worker finds the results' schema there and registers no other.
    make_result_writer(settings)
    assert client.get_versions(subjects[1]) == [1]
    assert json.loads(client.get_latest_version(subjects[1]).schema.schema_str or "") == json.loads(
        result_schema()
    )


def test_a_senders_own_schemas_are_left_alone(schema_registry: str, tmp_path: Path) -> None:
    settings = topics(schema_registry)
    subject = f"{settings.input_topic}-value"
    client = SchemaRegistryClient({"url": schema_registry, "timeout": 10})
    client.register_schema(subject, Schema(json.dumps(record(("pulse", "double"))), "AVRO"))
    assert [*register_schemas(settings)] == [(subject, "differs")]
    assert client.get_versions(subject) == [1]
    mapped = topics(schema_registry, mapping=tmp_path / "m.toml")
    assert not [*register_schemas(mapped)]


def test_json_schemas_are_registered_as_published(schema_registry: str) -> None:
    settings = topics(schema_registry).model_copy(update={"value_format": "json-schema"})
    ((subject, outcome),) = register_schemas(settings, MODEL)
    assert outcome == "registered"
    client = SchemaRegistryClient({"url": schema_registry, "timeout": 10})
    schema = client.get_latest_version(subject).schema
    assert schema.schema_type == "JSON"
    assert json.loads(schema.schema_str or "") == vitals_schema(MODEL.features, dtypes=MODEL.dtypes)


def test_a_name_invalid_in_avro_is_refused() -> None:
    with pytest.raises(SettingsError, match="Avro allows no field named 'heart rate'"):
        vitals_avro(Wanted(("heart rate",)))


@pytest.mark.parametrize("value_format", ["avro", "json-schema"])
def test_rows_are_written_with_the_newest_schema(schema_registry: str, value_format: str) -> None:
    settings = topics(schema_registry).model_copy(update={"value_format": value_format})
    with pytest.raises(
        SettingsError, match=f"no subject {settings.input_topic}-value; vitalstream topics create"
    ):
        make_encoder(settings)
    [*register_schemas(settings, MODEL)]
    row = {**ROW, "heart_rate": 84, "ventilated": True, "ward": "ICU", "note": "not of the schema"}
    value = make_encoder(settings)(row)
    assert value[:1] == b"\x00"
    found = make_decoder(settings, MODEL)([Plain(value)])
    assert found.patient_ids == ["p1"]
    assert found.frame.iloc[0].tolist() == [84.0, True, "ICU"]


def test_rows_are_not_written_with_a_schema_of_another_format(schema_registry: str) -> None:
    settings = topics(schema_registry)
    [*register_schemas(settings, MODEL)]
    with pytest.raises(SettingsError, match="the newest schema of the topic is AVRO, not JSON"):
        make_encoder(settings.model_copy(update={"value_format": "json-schema"}))

"""The shapes that topics have, each through a worker and the audit on a real Kafka, with the docs' mappings."""

import json
import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import pytest
from confluent_kafka import Producer
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from audit.outcome import Audit
from audit.run import audit
from broker.settings import Settings
from broker.topics import create_topics
from consumer.observer import Observer
from consumer.run import run_worker
from real_time.model_file import pin_model
from tests.conftest import fresh_settings
from tests.consumer.accounts import Accounts, read_accounts
from tests.consumer.models import Summing
from tests.consumer.processes import ROOT
from tests.schemas.avro import written
from tests.schemas.pages import BOTH, DOCS, EXPECTED, HR, UTC, block, sections

pytestmark = pytest.mark.kafka

Headers = list[tuple[str, str | bytes | None]]
NO_HEADERS: Headers = []


class Shape(NamedTuple):
    """A message, the mapping that reads it (None if none is needed), and what it contains."""

    message: bytes
    mapping: str | None
    patient_id: str
    event_time: str
    features: Mapping[str, float]
    value_format: str = "json"
    headers: Headers = NO_HEADERS
    schema: tuple[str, str] | None = None  # type and text of the schema registered for it

    @property
    def is_ready(self) -> bool:
        """Whether its mapping is built in and used by name."""
        return self.mapping is not None and "\n" not in self.mapping


def _page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def _of_json() -> dict[str, Shape]:
    texts = sections()
    return {
        heading: Shape(
            block(texts[heading], "json").encode(),
            ready or block(texts[heading], "toml"),
            patient,
            time,
            features,
        )
        for heading, (patient, time, features, ready) in EXPECTED.items()
    }


def _avro(page: str, value: dict[str, Any], patient: str, time: str, features: dict[str, float]) -> Shape:
    schema = block(page, "json")
    text = written(json.loads(schema), value)
    return Shape(text, block(page, "toml"), patient, time, features, "avro", schema=("AVRO", schema))


SENT = (1, 0.3, 1)  # the whole message, its beginning, and the whole message again
OBJECT = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Vitals", "type": "object"}
OURS = {"patient_id": "p-17", "event_time": UTC, **BOTH}
OBSERVATION = json.loads(block(_page("fhir.md"), "json"))["entry"][0]["resource"]
PCD_01 = """MSH|^~\\&|MONITOR||||20260105083001+0000||ORU^R01^ORU_R01|M7|P|2.6|||NE|AL|||||IHE_PCD_001
PID|||p-17^^^HOSP^MR
OBR|1|||69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC|||20260105083000+0000
OBX|1||69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC|1.0.0.0|||||||X
OBX|2|NM|147842^MDC_ECG_HEART_RATE^MDC|1.1.1.1|84|264864^MDC_DIM_BEAT_PER_MIN^MDC|||||R|||20260105083000+0000"""
BINARY = Shape(
    b'{"heart_rate":84}',
    block(sections()["CloudEvents, structured"], "toml"),
    "p-17",
    UTC,
    HR,
    headers=[("ce_subject", b"p-17"), ("ce_time", UTC.encode())],
)
HL7 = block(_page("hl7.md"), "hl7")
SHAPES = {
    "Flat": Shape(json.dumps(OURS).encode(), None, "p-17", UTC, BOTH),
    **_of_json(),
    "CloudEvents, binary": BINARY,
    "JSON behind the ID of a schema": Shape(
        json.dumps(OURS).encode(),
        None,
        "p-17",
        UTC,
        BOTH,
        "json-schema",
        schema=("JSON", json.dumps(OBJECT)),
    ),
    "Avro": _avro(
        _page("avro.md"),
        {"patient": {"id": 4711}, "taken": 1767601800250, "pulse": 84, "temp": 98.6},
        "4711",
        "2026-01-05T08:30:00.250Z",
        {"heart_rate": 84, "temperature": 37},
    ),
    "Avro, one sensor per topic": _avro(
        _page("avro.md").split("## One sensor per topic")[1],
        {"userId": "p-17", "time": 1767601800.25, "timeReceived": 1767601801.0, "heartRate": 84.0},
        "p-17",
        "2026-01-05T08:30:00.250Z",
        HR,
    ),
    "FHIR, a Bundle with a blood-pressure panel": Shape(
        block(_page("fhir.md"), "json").encode(),
        block(_page("fhir.md"), "toml"),
        "p-17",
        UTC,
        {"heart_rate": 84, "systolic_bp": 120.00992, "temperature": 37},
        "fhir",
    ),
    "FHIR, one Observation": Shape(
        json.dumps(OBSERVATION).encode(), "fhir", "p-17", "2026-01-05T08:29:40Z", HR, "fhir"
    ),
    "HL7, ORU^R01": Shape(
        HL7.replace("\n", "\r").encode(),
        block(_page("hl7.md"), "toml"),
        "p-17",
        "2026-01-05T08:30:00+00:00",
        {"heart_rate": 84, "temperature": 37, "respiratory_rate": 17},
        "hl7v2",
    ),
    "HL7, PCD-01": Shape(
        PCD_01.replace("\n", "\r").encode(), "hl7v2", "p-17", "2026-01-05T08:30:00+00:00", HR, "hl7v2"
    ),
}


Scored = tuple[Accounts, Audit]


class Committed(Observer):
    """Counts the committed rows."""

    rows = 0

    def committed(self, *, chunks: int, rows: int, seconds: float) -> None:
        self.rows += rows


@pytest.fixture(scope="module")
def scored(kafka: str, schema_registry: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scored]:
    """The topics of each shape, after a worker has handled its message twice whole and once truncated."""
    client = SchemaRegistryClient({"url": schema_registry, "timeout": 60})
    producer = Producer({"bootstrap.servers": kafka})

    def score(shape: Shape, folder: Path) -> Scored:
        settings, mark = _settings(kafka, shape, folder), b""
        if shape.schema:
            settings = settings.model_copy(update={"schema_registry": schema_registry})
            kind, text = shape.schema
            number = client.register_schema(f"{settings.input_topic}-value", Schema(text, kind))
            mark = b"\x00" + number.to_bytes(4, "big")
        create_topics(settings, partitions=1, replication_factor=1)
        for share in SENT:
            value = mark + shape.message[: int(share * len(shape.message))]
            producer.produce(settings.input_topic, value, key=shape.patient_id, headers=shape.headers)
        assert not producer.flush(60)
        committed = Committed()
        run_worker(settings, observer=committed, should_stop=lambda: committed.rows == len(SENT))
        return read_accounts(settings), audit(settings)

    folders = [tmp_path_factory.mktemp("shape") for _ in SHAPES]  # pytest's factory is not thread-safe
    with ThreadPoolExecutor(len(SHAPES)) as pool:  # all at once, because they mostly wait
        return dict(zip(SHAPES, pool.map(score, SHAPES.values(), folders), strict=True))


def _settings(kafka: str, shape: Shape, folder: Path) -> Settings:
    model = folder / "model.joblib"
    joblib.dump(Summing(_features(shape)), model)
    pin_model(model)
    mapping = None
    if shape.mapping is not None:
        mapping = Path(shape.mapping) if shape.is_ready else folder / "ward.toml"
        if not shape.is_ready:
            mapping.write_text(shape.mapping, "utf-8")
    return fresh_settings(kafka, model=model, mapping=mapping, value_format=shape.value_format)


def _features(shape: Shape) -> tuple[str, ...]:
    """The features of its mapping."""
    if shape.mapping is None:
        return tuple(shape.features)
    ready = ROOT / "schemas" / "mappings" / f"{shape.mapping}.toml"
    text = ready.read_text("utf-8") if shape.is_ready else shape.mapping
    assert len(text.splitlines()) <= 25
    return tuple(tomllib.loads(text)["features"])


@pytest.mark.parametrize("name", SHAPES)
def test_a_topic_of_this_shape_is_scored_and_its_audit_is_clean(name: str, scored: dict[str, Scored]) -> None:
    shape, (found, judged) = SHAPES[name], scored[name]
    assert judged.clean, judged.offenders
    assert judged.accounted == judged.messages == len(SENT)
    assert list(found.letters) == [(0, 1)]
    assert list(found.by_position) == [(0, 0), (0, 2)]
    expected = Summing.risk(_features(shape), shape.features)
    for result in found.by_position.values():
        assert (result.patient_id, result.event_time) == (shape.patient_id, shape.event_time)
        assert result.risk_probability == pytest.approx(expected)

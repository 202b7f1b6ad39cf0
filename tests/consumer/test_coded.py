"""Topics whose readings are identified by codes, through real processes, a real Kafka and all the tools."""

import json
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from typer.testing import CliRunner

from audit.run import audit
from broker.settings import Settings
from producer.publish import PublishSummary, Refusal, publish
from producer.replay import replay
from tests.consumer.accounts import read_accounts
from tests.consumer.stage import Stage
from vitalstream.cli import app

pytestmark = pytest.mark.kafka

MAPPING = """
[features]
signal = { codes = ["LOINC 1-8"], model_unit = "1" }
spo2 = { codes = ["LOINC 59408-5"] }
"""
ROWS, SENT = 300, 20
KEYED_OTHERWISE = "the messages' keys are not the patients' ids"


def observation(number: int, code: str, value: float, unit: str, status: str = "final") -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": status,
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": f"Patient/{1000 + number % 7}"},
        "effectiveDateTime": "2026-01-05T08:30:00Z",
        "valueQuantity": {"value": value, "system": "http://unitsofmeasure.org", "code": unit},
    }


def fhir(number: int) -> bytes:
    """Of every ten messages one is retracted, one has an unknown unit, one has two patients, and one is for others."""
    kind = number % 10
    status = "entered-in-error" if kind == 1 else "final"
    spo2 = observation(number + (kind == 3), "59408-5", 0.97, "mm[Hg]" if kind == 2 else "1", status)
    signal = observation(number, "1-8", number % 256, "1", status)
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": signal}, {"resource": spo2}],
    }
    return json.dumps({"resourceType": "Patient", "id": "1"} if kind == 4 else bundle).encode()


def hl7v2(number: int) -> bytes:
    """The same in HL7 v2, encoded as Latin-1."""
    kind = number % 10
    status = "D" if kind == 1 else "F"
    segments = [
        f"MSH|^~\\&|||||20260105083000+0000||{'ADT^A01' if kind == 4 else 'ORU^R01'}|{number}|P|2.6||||||8859/1",
        f"PID|1||{1000 + number % 7}^^^HOSP^MR||Müller",
        f"OBX|1|NM|1-8^^LN||{number % 256}|1|||||{status}",
        f"PID|1||{1000 + (number + (kind == 3)) % 7}^^^HOSP^MR||Müller",
        f"OBX|1|NM|59408-5^^LN||0.97|{'mm[Hg]' if kind == 2 else '1'}^^UCUM|||||{status}",
    ]
    return "\r".join(segments).encode("latin-1")


@pytest.mark.parametrize(
    ("value_format", "message", "status", "kind"),
    [("fhir", fhir, "status", "resourceType"), ("hl7v2", hl7v2, "OBX-11", "MSH-9")],
)
def test_every_message_becomes_a_result_or_a_dead_letter(
    stage: Stage, value_format: str, message: Callable[[int], bytes], status: str, kind: str
) -> None:
    mapping = stage.folder / "ward.toml"
    mapping.write_text(MAPPING)
    settings = stage.settings(
        model="fragile", partitions=2, value_format=value_format, mapping=mapping, chunk_size=50
    )
    messages = [message(number) for number in range(ROWS)]
    refused: list[Refusal] = []
    sent = publish(settings, BytesIO(b"\n".join(messages)), on_refused=refused.append)
    assert sent == PublishSummary(ROWS * 6 // 10, ROWS * 4 // 10)
    rows = [
        {"patient_id": "1000", "event_time": "2026-01-05T08:30:00Z", "signal": n, "spo2": 97}
        for n in range(SENT)
    ]
    assert replay(settings, rows).acknowledged == SENT
    worker = stage.worker(settings)
    stage.wait_committed(settings, sent.sent + SENT)
    assert KEYED_OTHERWISE not in worker.log
    stage.send(settings, (("key", messages[one.line - 1], 0) for one in refused))
    stage.wait_committed(settings, ROWS + SENT)
    worker.stop()

    found = read_accounts(settings)
    assert {result.patient_id for result in found.by_position.values()} == {str(1000 + n) for n in range(7)}
    assert {result.features_present for result in found.by_position.values()} == {2}
    reasons = Counter((str(origin.reason), origin.field) for _, origin in found.letters.values())
    fields = {"retracted": status, "unknown_unit": "spo2", "conflicting": "patient_id", "not_for_us": kind}
    assert reasons == dict.fromkeys(fields.items(), ROWS // 10)
    judged = audit(settings)
    assert judged.clean, judged.offenders
    assert judged.accounted == ROWS + SENT

    partition, offset = next(
        position for position, (_, origin) in found.letters.items() if origin.partition == 0
    )
    assert shown(settings, partition, offset) in [one.decode("latin-1") for one in messages]


def shown(settings: Settings, partition: int, offset: int) -> str:
    line = ["dead-letters", "show", str(partition), str(offset), "--payload", "--json"]
    line += ["--bootstrap-servers", settings.bootstrap_servers, "--value-format", settings.value_format]
    done = CliRunner().invoke(app, [*line, "--dead-letter-topic", settings.dead_letter_topic])
    (letter,) = json.loads(done.stdout)["dead_letters"]
    return str(letter["value"])

"""Topics whose readings say by codes what they are, through real processes and a real Kafka: publish, worker, audit."""

import json
from collections import Counter
from io import BytesIO
from typing import Any

import pytest

from audit.run import audit
from producer.publish import PublishSummary, Refusal, publish
from tests.consumer.accounts import read_accounts
from tests.consumer.stage import Stage

pytestmark = pytest.mark.kafka

MAPPING = """
[features]
signal = { codes = ["LOINC 1-8"], model_unit = "1" }
spo2 = { codes = ["LOINC 59408-5"] }
"""
ROWS = 300
REASONS = {
    1: ("retracted", "status"),
    2: ("unknown_unit", "spo2"),
    3: ("conflicting", "patient_id"),
    4: ("not_for_us", "resourceType"),
}


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


def test_every_message_is_a_result_or_a_dead_letter(stage: Stage) -> None:
    mapping = stage.folder / "ward.toml"
    mapping.write_text(MAPPING)
    settings = stage.settings(
        model="fragile", partitions=2, value_format="fhir", mapping=mapping, chunk_size=50
    )
    messages = [fhir(number) for number in range(ROWS)]
    refused: list[Refusal] = []
    sent = publish(settings, BytesIO(b"\n".join(messages)), on_refused=refused.append)
    assert sent == PublishSummary(ROWS * 6 // 10, ROWS * 4 // 10)
    stage.send(settings, (("key", messages[one.line - 1]) for one in refused))
    worker = stage.worker(settings)
    stage.wait_committed(settings, ROWS)
    worker.stop()

    found = read_accounts(settings)
    assert {result.patient_id for result in found.by_position.values()} == {str(1000 + n) for n in range(7)}
    assert {result.features_present for result in found.by_position.values()} == {2}
    reasons = Counter((str(origin.reason), origin.field) for _, origin in found.letters.values())
    assert reasons == dict.fromkeys(REASONS.values(), ROWS // 10)
    judged = audit(settings)
    assert judged.clean, judged.offenders
    assert judged.accounted == ROWS

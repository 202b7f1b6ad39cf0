"""A topic of another shape through real processes and a real Kafka, with a mapping for worker and audit."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from audit.findings import Invariant
from audit.run import audit
from broker.settings import Settings
from tests.consumer.accounts import read_accounts
from tests.consumer.stage import Stage

pytestmark = pytest.mark.kafka

MAPPING = """
root = "payload"
when = { "op" = ["c"] }
retracted = { "op" = ["d"] }
patient_id = { path = "pid", integer = true }
event_time = { path = "ts", as = "epoch_ms" }

[features]
signal = { path = "s" }
spo2 = { path = "sat.value", unit_path = "sat.unit", units = { pct = "%" } }
age = { path = "years" }
"""
ROWS = 400


def message(number: int, op: str = "c", unit: str = "pct") -> dict[str, Any]:
    sat = {"value": 97, "unit": unit}
    return {
        "op": op,
        "payload": {"pid": 1000 + number % 7, "ts": 1767601800000 + number, "s": number % 256, "sat": sat},
    }


def sent(stage: Stage, settings: Settings) -> Counter[str]:
    """Send messages of every kind; returns how many there are of each."""
    kinds: Counter[str] = Counter()
    rows = []
    for number in range(ROWS):
        kind = {0: "foreign", 1: "retracted", 2: "unit"}.get(number % 10, "good")
        value = {
            "foreign": message(number, op="x"),
            "retracted": message(number, op="d"),
            "unit": message(number, unit="kPa"),
            "good": message(number),
        }[kind]
        kinds[kind] += 1
        rows.append((str(number % 7), orjson.dumps(value)))
    stage.send(settings, rows)
    return kinds


def mapped(stage: Stage, **changes: Any) -> Settings:
    file = stage.folder / "mapping.toml"
    file.write_text(MAPPING)
    return stage.settings(model="fragile", mapping=file, **changes)


@pytest.mark.parametrize("skip_foreign", [False, True])
def test_every_message_is_scored_dead_lettered_or_skipped(stage: Stage, skip_foreign: bool) -> None:
    settings = mapped(stage, partitions=2, skip_foreign=skip_foreign, chunk_size=50)
    kinds = sent(stage, settings)
    worker = stage.worker(settings)
    stage.wait_committed(settings, ROWS)
    worker.stop()

    found = read_accounts(settings)
    sha256 = hashlib.sha256(MAPPING.encode()).hexdigest()
    assert f"reads messages by mapping {settings.mapping} (sha256 {sha256[:12]})" in worker.log
    assert "the model does not use these features of the mapping: age" in worker.log
    assert {result.mapping for result in found.by_position.values()} == {sha256}
    assert {result.patient_id for result in found.by_position.values()} == {str(1000 + n) for n in range(7)}
    assert len(found.by_position) == kinds["good"]
    reasons = Counter((str(origin.reason), origin.field) for _, origin in found.letters.values())
    assert reasons == {
        ("retracted", "op"): kinds["retracted"],
        ("unknown_unit", "spo2"): kinds["unit"],
        **({} if skip_foreign else {("not_for_us", "op"): kinds["foreign"]}),
    }
    skipped = sum(chunk.skipped for chunk in found.metrics)
    assert skipped == (kinds["foreign"] if skip_foreign else 0)
    assert sum(chunk.rows for chunk in found.metrics) == ROWS

    for model in (settings.model, None):
        judged = audit(settings.model_copy(update={"model": model}))
        assert judged.clean, judged.offenders
        assert judged.accounted == judged.messages == ROWS
        assert any("skipped" in note for note in judged.notes) == skip_foreign


def test_the_audit_notices_a_different_mapping(stage: Stage) -> None:
    settings = mapped(stage, partitions=1, skip_foreign=True)
    sent(stage, settings)
    worker = stage.worker(settings)
    stage.wait_committed(settings, ROWS)
    worker.stop()

    assert settings.mapping
    settings.mapping.write_text(MAPPING.replace('["c"]', '["c", "x"]'))
    problems = {one.problem for one in audit(settings).offenders}
    assert "its result was made with a different mapping" in problems
    settings.mapping.write_text(MAPPING)
    assert audit(settings).clean
    foreign = MAPPING.replace('"op" = ["c"]', '"op" = ["c", "x"]')
    (other := Path(stage.folder / "other.toml")).write_text(foreign)
    judged = audit(settings.model_copy(update={"mapping": other}))
    assert {one.invariant for one in judged.offenders} == {Invariant.CORRECT}


def test_a_mapping_without_a_feature_of_the_model_is_refused(stage: Stage) -> None:
    settings = mapped(stage, partitions=1)
    assert settings.mapping
    settings.mapping.write_text(MAPPING.replace("signal", "signals"))
    worker = stage.worker(settings)
    assert worker.wait(timeout=60) == 2
    assert "the model wants signal, which has no [features.signal]" in worker.log


def test_skipped_messages_are_counted_and_never_stop_the_worker(stage: Stage) -> None:
    """Even chunks made up entirely of messages for others."""
    settings = mapped(stage, partitions=1, skip_foreign=True, max_dead_letter_ratio=0.01)
    stage.send(settings, (("p", orjson.dumps(message(n, op="x"))) for n in range(1500)))
    worker = stage.worker(settings)
    stage.wait_committed(settings, 1500)
    worker.stop()
    found = read_accounts(settings)
    assert not found.by_position
    assert not found.letters
    assert sum(chunk.skipped for chunk in found.metrics) == 1500
    assert audit(settings).clean

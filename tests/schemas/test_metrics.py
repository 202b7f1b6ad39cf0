"""Chunk metrics: encoded as their schema says, and decoded again."""

import json
from dataclasses import fields, replace
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from broker.errors import VitalstreamError
from schemas import load_schema
from schemas.metrics import ChunkMetrics, ClosedBy, decode_metrics, encode_metrics

SCHEMA = load_schema("risk-metrics")
LATER = ("chunk_size", "max_wait_ms", "no_input", "skipped")  # fields added in later versions
METRICS = ChunkMetrics(
    chunk_id="w1-42",
    worker="w1",
    closed_by=ClosedBy.DRAINED,
    rows=25,
    scored=24,
    dead_lettered=1,
    latency_ms=0.1 + 0.2,
    throughput_rows_per_s=32051.28,
    end_to_end_ms_p50=4.1,
    end_to_end_ms_p99=None,
    end_to_end_ms_max=-7.25,
    lag=0,
    offsets={"vitals-0": [981, 995], "vitals-3": [1207, 1216]},
    model="ab" * 32,
    at="2026-01-05T08:30:00.412Z",
    chunk_size=500,
    max_wait_ms=27.5,
    no_input=3,
)
(VALUE,) = encode_metrics([METRICS])


@pytest.mark.parametrize("closed_by", ClosedBy)
def test_metrics_validate_and_survive_a_round_trip(closed_by: ClosedBy) -> None:
    metrics = replace(METRICS, closed_by=closed_by)
    (value,) = encode_metrics([metrics])

    Draft202012Validator(SCHEMA).validate(json.loads(value))
    assert decode_metrics(value) == metrics
    assert isinstance(decode_metrics(value).closed_by, ClosedBy)


def test_each_chunk_has_its_own_value_whatever_its_strings_contain() -> None:
    hostile = ('},{"chunk_id":', ',{"chunk_id":"x"},', '\\"},{"chunk_id":"', '[{"chunk_id":1}]', "", "ü\n")
    chunks = [
        replace(METRICS, chunk_id=text, worker=text, offsets={text: [1, 2], "chunk_id": [3, 4]})
        for text in (*hostile, "plain")
    ]
    values = encode_metrics(chunks)
    assert [*map(decode_metrics, values)] == chunks
    assert values == [orjson.dumps(chunk) for chunk in chunks]


def test_fields_are_in_the_contracts_order() -> None:
    names = (
        "chunk_id, worker, closed_by, rows, scored, dead_lettered, latency_ms, throughput_rows_per_s, "
        "end_to_end_ms_p50, end_to_end_ms_p99, end_to_end_ms_max, lag, offsets, model, at"
    )
    later = ", " + ", ".join(LATER)
    assert ", ".join(json.loads(VALUE)) == names + later
    assert ", ".join(SCHEMA["required"]) == names
    assert ", ".join(SCHEMA["properties"]) == names + later
    assert ", ".join(field.name for field in fields(METRICS)) == names + later


def test_metrics_of_older_versions_are_read() -> None:
    earlier = {name: value for name, value in json.loads(VALUE).items() if name not in LATER}
    assert decode_metrics(orjson.dumps(earlier)) == replace(
        METRICS, chunk_size=None, max_wait_ms=None, no_input=0
    )


@pytest.mark.parametrize(
    "change", [{"closed_by": "bored"}, {"rows": 1.5}, {"lag": None}, {"offsets": []}, {"at": 1}], ids=str
)
def test_invalid_metrics_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(VitalstreamError, match=next(iter(change))):
        decode_metrics(orjson.dumps(orjson.loads(VALUE) | change))

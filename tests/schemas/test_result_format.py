"""Results in Avro: nothing is lost, and every Avro reader can read them."""

import io
import json
from typing import Any

import fastavro
import orjson
import pytest

from broker.errors import SettingsError
from broker.settings import load_settings
from schemas import load_schema
from schemas.reading import MessageError, reader
from schemas.registry import RegistryError
from schemas.result_format import make_result_loader, make_result_writer, result_schema
from schemas.results import RiskResult, decode_result
from tests.registry import Answers, answering
from tests.schemas.test_registry import NO_SUCH, asking

EXAMPLES: list[dict[str, Any]] = load_schema("risk")["examples"]
RESULTS = [
    *map(orjson.dumps, EXAMPLES),
    orjson.dumps(EXAMPLES[0] | {"risk_probability": 0.1 + 0.2, "implausible": ["spo2"], "mapping": "f" * 64}),
    orjson.dumps(EXAMPLES[0] | {"patient_id": "Zoë 🫀", "source_offset": 2**62}),
]


def test_the_schema_is_registered_once_and_results_survive_a_round_trip(schema_registry: str) -> None:
    settings = asking(schema_registry, result_format="avro", output_topic="risk-written")
    values = make_result_writer(settings)(RESULTS)
    assert make_result_writer(settings)(RESULTS) == values  # with the same ID
    read = reader(RiskResult, make_result_loader(settings))
    assert [*map(read, values)] == [*map(decode_result, RESULTS)]
    # JSON results, from before the setting, can be read too.
    assert read(RESULTS[0]) == decode_result(RESULTS[0])
    # Another Avro library sees the same.
    (found,) = {
        json.dumps(fastavro.schemaless_reader(io.BytesIO(values[0][5:]), json.loads(result_schema()), None))
    }
    assert json.loads(found) == {"mapping": None, "history": None, **EXAMPLES[0]}


@pytest.mark.parametrize("value", [None, b"", b"\x00", b"\x00\x7f\xff\xff\xff\x00", b"{", b"\x02"])
def test_values_that_are_no_results_are_refused(schema_registry: str, value: bytes | None) -> None:
    settings = asking(schema_registry, result_format="avro", output_topic="risk-none")
    with pytest.raises(MessageError, match="is not a RiskResult"):
        reader(RiskResult, make_result_loader(settings))(value)


def test_a_value_with_another_topics_schema_is_no_result(schema_registry: str) -> None:
    one, other = (
        asking(schema_registry, result_format="avro", output_topic=name) for name in ("risk-a", "risk-b")
    )
    (value,) = make_result_writer(one)(RESULTS[:1])
    with pytest.raises(MessageError):
        reader(RiskResult, make_result_loader(other))(value)


def test_a_missing_or_extra_byte_is_noticed(schema_registry: str) -> None:
    settings = asking(schema_registry, result_format="avro", output_topic="risk-cut")
    (value,) = make_result_writer(settings)(RESULTS[:1])
    for broken in (value[:-1], value + b"\x00"):
        with pytest.raises(MessageError):
            reader(RiskResult, make_result_loader(settings))(broken)


def test_the_avro_schema_matches_the_json_schema() -> None:
    told, avro = load_schema("risk"), json.loads(result_schema())
    assert [one["name"] for one in avro["fields"]] == [*told["properties"]]
    assert {one["name"] for one in avro["fields"] if "default" not in one} == {
        name for name in told["required"] if name not in {"features_present", "no_input", "mapping"}
    }


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (409, r"refuses \(409\) vitalstream's schema for subject risk-value"),
        (403, r"refuses the login \(403\)"),
        (500, "answers 500"),
    ],
)
def test_a_registry_that_refuses_the_schema_stops_the_start(status: int, words: str) -> None:
    answers = Answers(lambda path: (status, b"{}") if "/versions" in path else NO_SUCH)
    with answering(answers) as url, pytest.raises(RegistryError, match=words):
        make_result_writer(asking(url, result_format="avro"))


def test_avro_needs_a_registry() -> None:
    with pytest.raises(SettingsError, match="--result-format avro needs a registry for the results"):
        load_settings(result_format="avro")

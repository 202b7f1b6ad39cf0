"""The published documents: valid, with valid examples, and in line with the code."""

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator

import schemas
from schemas import load_schema
from schemas.clock import rfc3339
from schemas.contract import RFC3339, STANDARD_FEATURES
from schemas.vitals import vitals_schema
from tests.schemas.messages import decoder

NAMES = ["vitals", "risk", "risk-metrics", "dead-letter-headers"]
ASYNCAPI = yaml.safe_load(files(schemas).joinpath("asyncapi.yaml").read_text("utf-8"))


@pytest.mark.parametrize("name", [*NAMES, "model-card"])
def test_each_schema_and_its_examples_are_valid(name: str) -> None:
    schema = load_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["examples"]
    for example in schema["examples"]:
        Draft202012Validator(schema).validate(example)


def test_the_vitals_schema_file_matches_the_generated_one() -> None:
    assert load_schema("vitals") == vitals_schema(STANDARD_FEATURES)


def test_examples_of_any_models_schema_are_accepted() -> None:
    for features in (["lactate"], ["lactate", "heart_rate"], list(STANDARD_FEATURES)):
        schema = vitals_schema(features)
        Draft202012Validator(schema).validate(schema["examples"][0])
        assert not decoder(features)([json.dumps(e).encode() for e in schema["examples"]]).rejects


@pytest.mark.parametrize(
    ("name", "field"), [("risk", "event_time"), ("risk", "scored_at"), ("risk-metrics", "at")]
)
def test_times_are_described_the_same_everywhere(name: str, field: str) -> None:
    assert load_schema(name)["properties"][field]["pattern"] == RFC3339


@pytest.mark.parametrize(
    ("probability", "label", "valid"),
    [
        (0.5, 1, True),
        (0.0, 0, True),
        (None, None, True),
        (0.5, None, False),
        (None, 0, False),
        (1.1, 1, False),
    ],
)
def test_probability_and_label_are_null_together(probability: Any, label: Any, valid: bool) -> None:
    schema = load_schema("risk")
    example = schema["examples"][0] | {"risk_probability": probability, "risk_label": label}
    assert Draft202012Validator(schema).is_valid(example) == valid


def test_a_message_without_input_has_no_probability() -> None:
    validator = Draft202012Validator(load_schema("risk"))
    scored, without = load_schema("risk")["examples"]
    assert validator.is_valid(without)
    assert not validator.is_valid(scored | {"no_input": True})
    assert validator.is_valid(without | {"no_input": False, "features_present": 3})  # the model returned NaN


def _asyncapi_schema() -> Draft7Validator:
    path = Path(__file__).parent / "asyncapi" / "3.0.0.json"
    return Draft7Validator(json.loads(path.read_bytes()))


def _with_files(node: Any) -> Any:
    """The document with references replaced by the schema files."""
    if isinstance(node, dict):
        if str(node.get("$ref", "")).startswith("./"):
            return load_schema(node["$ref"].removeprefix("./").removesuffix(".schema.json"))
        return {key: _with_files(child) for key, child in node.items()}
    return [_with_files(child) for child in node] if isinstance(node, list) else node


def _references(node: Any) -> Iterator[str]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        if key == "$ref":
            yield child
        else:
            yield from _references(child)


def test_the_asyncapi_document_is_valid() -> None:
    validator = _asyncapi_schema()
    validator.validate(ASYNCAPI)
    validator.validate(_with_files(ASYNCAPI))


@pytest.mark.parametrize(
    "place", ["operations.sendRisk.action", "channels.risk.bindings.kafka.topic", "info"]
)
def test_the_validator_notices_mistakes(place: str) -> None:
    broken = json.loads(json.dumps(ASYNCAPI))
    *way, last = place.split(".")
    node = broken
    for step in way:
        node = node[step]
    node[last] = 42
    assert not _asyncapi_schema().is_valid(broken)


def test_the_asyncapi_documents_references_resolve() -> None:
    references = [*_references(ASYNCAPI)]
    for reference in (r for r in references if r.startswith("#/")):
        node = ASYNCAPI
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
    assert {r for r in references if not r.startswith("#/")} == {f"./{name}.schema.json" for name in NAMES}


def test_the_asyncapi_document_has_the_four_topics() -> None:
    channels = ASYNCAPI["channels"]
    assert {c["address"] for c in channels.values()} == {
        "vitals",
        "risk",
        "risk-metrics",
        "vitals-dead-letter",
    }
    assert all(c["bindings"]["kafka"]["topic"] == c["address"] for c in channels.values())
    actions = {o["channel"]["$ref"].rsplit("/", 1)[1]: o["action"] for o in ASYNCAPI["operations"].values()}
    assert actions == {"vitals": "receive", "risk": "send", "riskMetrics": "send", "vitalsDeadLetter": "send"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "1970-01-01T00:00:00.000Z"), (1767601800.4129, "2026-01-05T08:30:00.412Z")]
)
def test_timestamps_are_utc_to_the_millisecond(seconds: float, text: str) -> None:
    assert rfc3339(seconds) == text

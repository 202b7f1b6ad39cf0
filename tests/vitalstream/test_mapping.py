"""`vitalstream mapping`: what it says about a mapping before a worker uses it."""

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner, Result

from broker.errors import BrokerError, SettingsError
from tests.conftest import MakeSettings
from tests.schemas.pages import DOCS, block
from vitalstream.cli import app
from vitalstream.mapping import IncompleteMappingError

CANARY = "canary-51c9"
FHIR = block((DOCS / "fhir.md").read_text("utf-8"), "json")
HL7 = block((DOCS / "hl7.md").read_text("utf-8"), "hl7")
MAPPING = """
when = { "op" = ["c"] }
patient_id = { path = "patient.id" }
event_time = { path = "ts", as = "epoch_s" }
[features.temperature]
path = "vitals.temp.value"
unit_path = "vitals.temp.unit"
units = { F = "[degF]" }
[features.heart_rate]
path = "vitals.pulse"
[features.age]
absent = true
"""


def message(patient: Any = "p1", *, op: str = "c", ts: Any = 1767601800, **vitals: Any) -> dict[str, Any]:
    vitals = {"temp": {"value": 98.6, "unit": "F"}, "pulse": 80} | vitals
    return {"op": op, "patient": {"id": patient}, "ts": ts, "vitals": vitals}


GOOD = [message(), message("p2", ts=1767605400, temp={"value": 310.05, "unit": "K"}), message(pulse=None)]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["mapping", *arguments], catch_exceptions=False)


class Files:
    """A mapping and a sample of messages."""

    def __init__(self, folder: Path) -> None:
        self.mapping = folder / "ward.toml"
        self.sample = folder / "sample.ndjson"
        self.mapping.write_text(MAPPING)

    def check(self, documents: list[Any], *arguments: str, code: int = 0) -> str:
        self.sample.write_text("".join(json.dumps(one) + "\n" for one in documents))
        result = invoke("check", str(self.mapping), "--sample", str(self.sample), *arguments)
        assert result.exit_code == code, result.output
        assert not result.stderr
        return result.stdout

    def told(self, documents: list[Any], *arguments: str, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.check(documents, "--json", *arguments, code=code))
        return found


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_each_feature_is_shown_with_share_values_and_units(files: Files) -> None:
    found = files.told([*GOOD, message(CANARY, op="x", pulse=99)])
    assert (found["complete"], found["messages"], found["scored"], found["patients"]) == (True, 4, 3, 2)
    assert (found["first_time"], found["last_time"]) == ("2026-01-05T08:30:00Z", "2026-01-05T09:30:00Z")
    temperature, heart_rate = found["features"]
    assert temperature == {
        "name": "temperature",
        "messages": 3,
        "share": 1.0,
        "lowest": pytest.approx(36.9),
        "highest": pytest.approx(37),
        "unit": "Cel",
        "sent_in": {"F": 2, "K": 1},
        "implausible": 0,
    }
    assert (heart_rate["messages"], heart_rate["share"], heart_rate["sent_in"]) == (2, 2 / 3, {})
    assert found["rejected"] == [{"reason": "not_for_us", "field": "op", "messages": 1, "first": "message 4"}]
    assert found["notes"] == []

    said = files.check([*GOOD, message(op="x")])
    assert "temperature         3   100 %  36.9 to 37  Cel   F 2, K 1" in said
    assert "heart_rate          2  66.7 %  80          /min" in said
    assert "not_for_us  op            1  message 4" in said
    assert said.endswith(
        "3 of 4 messages would be scored: 2 patients, from 2026-01-05T08:30:00Z to 2026-01-05T09:30:00Z\n"
    )


BAD = [
    message(temp={"value": 37, "unit": CANARY}),
    message(temp={"value": 37}),
    message(temp={"value": 37, "unit": f"{CANARY}\x1b[2J"}),
    message(4711),
    message(pulse=f">{CANARY}"),
    message(ts=f"at {CANARY}"),
    {"op": "c", "name": CANARY},
]


def test_rejects_are_counted_by_reason_and_their_payloads_shown_only_on_request(files: Files) -> None:
    found = files.told([*GOOD, *BAD], code=1)
    assert {(one["reason"], one["field"]): (one["messages"], one["first"]) for one in found["rejected"]} == {
        ("unknown_unit", "temperature"): (3, "message 4"),
        ("wrong_type", "patient_id"): (1, "message 7"),
        ("wrong_type", "heart_rate"): (1, "message 8"),
        ("wrong_type", "event_time"): (1, "message 9"),
        ("missing_field", "patient_id"): (1, "message 10"),
    }
    assert found["features"][0]["sent_in"] == {"F": 5, "K": 1}
    for said in (json.dumps(found), files.check([*GOOD, *BAD], code=1)):
        assert CANARY not in said
        assert "4711" not in said

    asked = files.told([*GOOD, *BAD], "--payload", code=1)
    there = {(one["reason"], one["field"]): one["there"] for one in asked["rejected"]}
    assert there["unknown_unit", "temperature"] == [f"'{CANARY}'", "no unit", f"'{CANARY}\\x1b[2J'"]
    assert there["wrong_type", "patient_id"] == ["4711"]
    assert there["wrong_type", "heart_rate"] == [f"'>{CANARY}'"]
    assert there["wrong_type", "event_time"] == [f"'at {CANARY}'"]
    assert there["missing_field", "patient_id"] == []
    said = files.check([*GOOD, *BAD], "--payload", code=1)
    assert f"'{CANARY}', no unit" in said
    assert "\x1b" not in said


def test_units_in_brackets_are_not_taken_for_markup(files: Files) -> None:
    documents = [message(temp={"value": 98.6, "unit": unit}) for unit in ("[degF]", "[/degF]")]
    said = files.check(documents, "--payload", code=1)
    assert "[degF] 1" in said
    assert "'[/degF]'" in said


def without(name: str, **vitals: Any) -> dict[str, Any]:
    document = message(**vitals)
    del document["vitals"][name]
    return document


@pytest.mark.parametrize(
    ("documents", "note"),
    [
        ([message(pulse=None)], "no message has heart_rate: correct the path or code, or set absent = true"),
        (
            [without("temp", Temp={"value": 37})],
            "the messages' vitals.Temp.value only looks like the mapping's vitals.temp.value (T in place of t)",
        ),
        ([*GOOD, message(temp=None, pulse=None)], "1 message would be scored with no features"),
        ([*GOOD, message(pulse=800)], "heart_rate is outside its limits in 1 message, and so missing"),
    ],
)
def test_what_needs_a_second_look_is_noted(files: Files, documents: list[Any], note: str) -> None:
    code = 0 if len(documents) > 1 else 1
    assert any(note in one for one in files.told(documents, code=code)["notes"])
    assert f"note: {note}" in files.check(documents, code=code)


def test_a_sample_may_be_one_message_on_several_lines(files: Files) -> None:
    files.sample.write_text(json.dumps(GOOD[0], indent=2))
    arguments = ("check", str(files.mapping), "--sample", str(files.sample), "--json")
    assert json.loads(invoke(*arguments).stdout)["scored"] == 1
    files.sample.write_text("\ufeff" + json.dumps(GOOD[0]) + "\r\n\r\n" + json.dumps(GOOD[1]) + "\n")
    assert json.loads(invoke(*arguments).stdout)["scored"] == 2
    assert json.loads(invoke(*arguments, "--limit", "1").stdout)["messages"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give the messages to read: either --sample FILE or --topic NAME"),
        (("--sample", "{here}/s.ndjson", "--topic", "vitals"), "give the messages to read: either"),
        (("--sample", "{here}/none.ndjson"), "--sample .*: no such file or directory; check the path"),
        (("--sample", "{here}"), "--sample .*: is a directory; check the path"),
        (("--sample", "{here}/empty.ndjson"), "has no messages; write one a line"),
        (
            ("--sample", "{here}/empty.ndjson", "--value-format", "hl7v2"),
            "has no messages; each begins with MSH",
        ),
    ],
)
def test_without_messages_there_is_nothing_to_check(
    files: Files, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty.ndjson").write_text("\n \n")
    files.mapping.write_text(MAPPING if "hl7v2" not in arguments else "[features]\nage = { absent = true }\n")
    with pytest.raises(SettingsError, match=said):
        invoke("check", str(files.mapping), *(one.format(here=tmp_path) for one in arguments))


BUNDLE = json.loads(FHIR)
OBSERVATION = BUNDLE["entry"][0]["resource"]
ORU = HL7.replace("\n", "\r")


@pytest.mark.parametrize(
    ("value_format", "content", "messages"),
    [
        ("fhir", FHIR, 1),
        ("fhir", f"{json.dumps(BUNDLE)}\n{json.dumps(OBSERVATION)}\n", 2),
        ("hl7v2", HL7, 1),
        ("hl7v2", HL7 + HL7, 2),
        ("hl7v2", ORU + ORU, 2),
        ("hl7v2", f"\x0b{ORU}\x1c\r" * 3, 3),
    ],
)
def test_messages_of_other_formats_are_checked(
    files: Files, value_format: str, content: str, messages: int
) -> None:
    files.sample.write_text(content, newline="")
    files.mapping.write_text(
        'patient_id = { type = "MR" }\n[features]\nheart_rate = { codes = ["LOINC 8867-4"] }\n'
        if value_format == "hl7v2"
        else '[features]\nheart_rate = { codes = ["LOINC 8867-4"] }\n'
    )
    arguments = (str(files.mapping), "--value-format", value_format, "--sample", str(files.sample), "--json")
    result = invoke("check", *arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["messages"], found["scored"], found["patients"]) == (messages, messages, 1)
    assert (found["features"][0]["lowest"], found["features"][0]["sent_in"]) == (84, {"/min": messages})


def test_an_invalid_mapping_is_bad_usage(files: Files) -> None:
    files.mapping.write_text("[features]\nspo2 = 1\n")
    with pytest.raises(SettingsError, match=r"--mapping .*: features.spo2 must be a table"):
        files.check(GOOD)


# --- suggest


def test_a_suggestion_passes_the_check_on_its_own_sample(files: Files) -> None:
    documents = [message(temp={"value": 98.6, "unit": unit}) for unit in ("F", "degF", "[degF]")]
    files.sample.write_text("\n".join(map(json.dumps, documents)))
    result = invoke("suggest", "--sample", str(files.sample))
    assert result.exit_code == 0
    assert not result.stderr
    files.mapping.write_text(result.stdout)
    assert files.told(documents)["features"][1]["lowest"] == pytest.approx(37)


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (
            '{"at": "2026-01-05T08:30:00Z"}',
            IncompleteMappingError,
            "no patient_id, no features found by name",
        ),
        ("nonsense", SettingsError, "has no message that is an object; see --value-format"),
    ],
)
def test_what_can_not_be_suggested_is_named(
    files: Files, content: str, error: type[Exception], said: str
) -> None:
    files.sample.write_text(content)
    with pytest.raises(error, match=said):
        invoke("suggest", "--sample", str(files.sample))


def test_formats_with_codes_have_built_in_mappings(files: Files) -> None:
    with pytest.raises(
        SettingsError, match="use the built-in mapping by codes; begin with vitalstream mapping"
    ):
        invoke("suggest", "--value-format", "fhir", "--sample", str(files.sample))


# --- on a real Kafka


@pytest.mark.kafka
def test_the_newest_messages_of_a_topic_are_checked_with_headers_and_keys(
    files: Files, make_settings: MakeSettings
) -> None:
    settings = make_settings(partitions=2)
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    rows = [
        ("p1", message("p1", pulse=1000)),
        ("p1", message("p1")),
        ("x", message("p2", pulse=90)),
        ("p1", {}),
    ]
    for second, (key, value) in enumerate(rows):
        headers: Any = [("at", b"2026-01-05T08:30:00Z")]
        producer.produce(
            settings.input_topic, json.dumps(value), key, headers=headers, timestamp=1767600000000 + second
        )
    assert not producer.flush(30)
    files.mapping.write_text(MAPPING.replace('path = "ts", as = "epoch_s"', 'header = "at"'))
    arguments = ("check", str(files.mapping), "--bootstrap-servers", settings.bootstrap_servers, "--topic")
    found = json.loads(invoke(*arguments, settings.input_topic, "--limit", "3", "--json").stdout)
    assert (found["complete"], found["messages"], found["scored"]) == (True, 3, 2)
    assert (found["features"][1]["lowest"], found["features"][1]["highest"]) == (80, 90)
    (note,) = found["notes"]
    assert note.startswith("the key of 1 message is not the patient's id")

    with pytest.raises(SettingsError, match=f"--topic {settings.output_topic} has no messages"):
        invoke(*arguments, settings.output_topic)
    with pytest.raises(BrokerError, match="--topic no-such-topic: there is no such topic"):
        invoke(*arguments, "no-such-topic")


def test_several_ids_of_one_patient_are_noted_with_the_remedy(tmp_path: Path) -> None:
    (sample := tmp_path / "ward.hl7").write_text(HL7)
    done = invoke("check", "hl7v2", "--sample", str(sample), "--value-format", "hl7v2")
    assert done.exit_code == 1
    assert 'choose one by patient_id = { type = "..." }' in done.stdout

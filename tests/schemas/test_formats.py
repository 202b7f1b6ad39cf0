"""The format pages of the docs: each message is read by the mapping that follows it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.errors import SettingsError
from broker.settings import Settings
from schemas.decoding import make_decoder
from schemas.encoding import make_encoder, make_splitter
from schemas.mapping import load_mapping
from schemas.messages import Plain
from schemas.vitals import Decoded, Decoder
from tests.schemas.avro import written
from tests.schemas.pages import DOCS, EXPECTED, HR, UTC, block, sections


def decoded(mapping: Path, *messages: Plain) -> tuple[Decoder, Decoded]:
    loaded = load_mapping(mapping, value_format="json")
    decoder = Decoder([*loaded.features], mapping=loaded)
    return decoder, decoder(messages)


def check(found: Decoded, patient: str, time: str, features: dict[str, float]) -> None:
    assert not found.rejects
    assert found.patient_ids == [patient]
    assert found.event_times == [time]
    (row,) = found.frame.to_dict("records")
    assert {name: value for name, value in row.items() if name in features} == pytest.approx(
        features, nan_ok=True
    )
    assert np.isnan([value for name, value in row.items() if name not in features]).all()


def test_every_section_is_tested() -> None:
    assert sections().keys() == EXPECTED.keys()


@pytest.mark.parametrize("heading", EXPECTED)
def test_each_message_of_the_docs_is_read_by_its_mapping(heading: str, tmp_path: Path) -> None:
    patient, time, features, ready = EXPECTED[heading]
    section = sections()[heading]
    file = tmp_path / "mapping.toml"
    if ready is None:
        file.write_text(block(section, "toml"), "utf-8")
        assert len(block(section, "toml").splitlines()) <= 25
    message = Plain(block(section, "json").encode())
    _, found = decoded(Path(ready) if ready else file, message)
    check(found, patient, time, features)


def test_cloud_events_in_binary_mode_are_read_from_their_headers(tmp_path: Path) -> None:
    file = tmp_path / "mapping.toml"
    file.write_text(block(sections()["CloudEvents, structured"], "toml"), "utf-8")
    headers = [("ce_subject", b"p-17"), ("ce_time", UTC.encode())]
    _, found = decoded(file, Plain(b'{"heart_rate":84}', headers))
    check(found, "p-17", UTC, HR)
    _, ready = decoded(Path("cloudevents-binary"), Plain(b'{"heart_rate":84}', headers))
    check(ready, "p-17", UTC, HR)


@pytest.mark.parametrize("name", ["connect", "debezium", "cloudevents", "cloudevents-binary"])
def test_built_in_mappings_load(name: str) -> None:
    assert len(load_mapping(Path(name), value_format="json").features) == 8


def test_debeziums_deletions_are_retracted() -> None:
    value: dict[str, Any] = {"payload": {"op": "d", "before": {"patient_id": "p"}, "after": None}}
    _, found = decoded(Path("debezium"), Plain(json.dumps(value).encode()))
    assert [(one.reason, one.field) for one in found.rejects] == [("retracted", "payload.op")]


def test_fhir_is_read_by_the_mapping_in_the_docs(tmp_path: Path) -> None:
    section = (DOCS / "fhir.md").read_text("utf-8")
    (mapping := tmp_path / "ward.toml").write_text(block(section, "toml"))
    assert len(block(section, "toml").splitlines()) <= 25
    decode = make_decoder(Settings(value_format="fhir", mapping=mapping))
    found = decode([Plain(block(section, "json").encode())])
    expected = {"heart_rate": 84, "systolic_bp": 120.00992, "diastolic_bp": math.nan, "temperature": 37}
    check(found, "p-17", UTC, expected)


def test_hl7_is_read_by_the_mapping_in_the_docs(tmp_path: Path) -> None:
    section = (DOCS / "hl7.md").read_text("utf-8")
    (mapping := tmp_path / "ward.toml").write_text(block(section, "toml"))
    assert len(block(section, "toml").splitlines()) <= 25
    decode = make_decoder(Settings(value_format="hl7v2", mapping=mapping))
    found = decode([Plain(block(section, "hl7").replace("\n", "\r").encode())])
    expected = {"heart_rate": 84, "temperature": 37, "spo2": math.nan, "respiratory_rate": 17}
    check(found, "p-17", "2026-01-05T08:30:00+00:00", expected)


def test_avro_is_read_by_the_schema_and_mapping_in_the_docs(tmp_path: Path) -> None:
    section = (DOCS / "avro.md").read_text("utf-8")
    (schema := tmp_path / "ward.avsc").write_text(block(section, "json"))
    (mapping := tmp_path / "ward.toml").write_text(block(section, "toml"))
    settings = Settings(value_format="avro", schema_file=schema, mapping=mapping)
    value = {"patient": {"id": 4711}, "taken": 1767601800250, "pulse": 84, "temp": 98.6}
    found = make_decoder(settings)([Plain(written(json.loads(schema.read_text()), value))])
    check(found, "4711", "2026-01-05T08:30:00.250Z", {"heart_rate": 84, "temperature": 37})


@pytest.mark.parametrize("heading", EXPECTED)
def test_each_mapping_of_the_docs_also_writes_what_it_reads(heading: str, tmp_path: Path) -> None:
    patient, time, features, ready = EXPECTED[heading]
    file = tmp_path / "mapping.toml"
    if ready is None:
        file.write_text(block(sections()[heading], "toml"), "utf-8")
    given = Settings(mapping=Path(ready) if ready else file)
    write, split = make_encoder(given), make_splitter(given)
    for missing in (None, *features):
        row = (
            {"patient_id": patient, "event_time": time}
            | features
            | ({} if missing is None else {missing: None})
        )
        (message,) = split([row])
        found = make_decoder(given)([Plain(write(message))])
        kept = {name: math.nan if _with(name, missing) else value for name, value in features.items()}
        check(found, patient, time, kept)


def _with(name: str, missing: str | None) -> bool:
    """Whether `name` is missing together with `missing`: two numbers in one string are missing together."""
    pair = {"systolic_bp", "diastolic_bp"}
    return missing is not None and (name == missing or {name, missing} <= pair)


def test_a_row_is_written_as_messages_of_one_feature_each(tmp_path: Path) -> None:
    toml = block(sections()["One metric per message"], "toml").replace(
        "[features]", 'unit = "of.unit"\n\n[features]'
    )
    (file := tmp_path / "one.toml").write_text(toml + 'age = { codes = ["AGE"] }\n', "utf-8")
    given = Settings(mapping=file)
    write, split = make_encoder(given), make_splitter(given)
    same: dict[str, Any] = {"patient_id": "p-17", "event_time": UTC}
    rows = [
        same | {"age": 64, "heart_rate": 84, "spo2": 97.5, "ward": "A"},
        same | {"spo2": None},
        {"spo2": 96},
    ]
    measured: list[tuple[str, dict[str, Any]]] = [
        ("HR", {"value": 84, "of": {"unit": "/min"}}),
        ("SPO2", {"value": 97.5, "of": {"unit": "%"}}),
        ("AGE", {"value": 64, "of": {"unit": "a"}}),
        ("HR", {"value": None}),
    ]
    expected = [{"patient": "p-17", "time": UTC, "type": code} | value for code, value in measured]
    expected.append({"patient": None, "time": None, "type": "SPO2", "value": 96, "of": {"unit": "%"}})
    assert [json.loads(write(row)) for row in split(rows)] == expected
    found = make_decoder(given)([Plain(write(row)) for row in split(rows[:2])])
    assert not found.rejects
    values = [[84, None, None], [None, 97.5, None], [None, None, 64], [None] * 3]
    np.testing.assert_array_equal(found.frame.to_numpy(), np.array(values, dtype=float))


def test_rows_cannot_be_written_by_a_mapping_with_headers_or_without_codes(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="reads headers, which are not sent"):
        make_encoder(Settings(mapping=Path("cloudevents-binary")))
    toml = block(sections()["One metric per message"], "toml").split("[features]")[0]
    (file := tmp_path / "one.toml").write_text(toml + "[features]\nspo2 = { absent = true }\n")
    with pytest.raises(SettingsError, match=r"one.toml: no feature has a code to be sent with"):
        make_splitter(Settings(mapping=file))


def test_avro_can_be_written_by_the_mapping_in_the_docs(tmp_path: Path) -> None:
    section = (DOCS / "avro.md").read_text("utf-8")
    (schema := tmp_path / "ward.avsc").write_text(block(section, "json"))
    (mapping := tmp_path / "ward.toml").write_text(block(section, "toml"))
    given = Settings(value_format="avro", schema_file=schema, mapping=mapping)
    write, decode = make_encoder(given), make_decoder(given)
    row = {
        "patient_id": "4711",
        "event_time": "2026-01-05T08:30:00.250Z",
        "heart_rate": 84.0,
        "temperature": 37.0,
    }
    found = decode([Plain(write(row)), Plain(write(row | {"heart_rate": None}))])
    assert found.patient_ids == ["4711", "4711"]
    assert found.event_times == ["2026-01-05T08:30:00.250Z"] * 2
    assert found.frame["heart_rate"].tolist() == pytest.approx([84, math.nan], nan_ok=True)
    assert found.frame["temperature"].tolist() == pytest.approx([37, 37])
    for odd in ({"heart_rate": "84"}, {"heart_rate": 84.5}, {"patient_id": "p-17"}, {"patient_id": None}):
        with pytest.raises(SettingsError, match="a row does not match the schema"):
            write(row | odd)

"""Encoding: rows become messages, and the reader with the same format and mapping gets the rows back."""

import math
from datetime import datetime
from pathlib import Path
from typing import Any

import hl7
import numpy as np
import pytest
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import SettingsError
from broker.settings import Settings
from schemas.contract import STANDARD_FEATURES
from schemas.decoding import make_decoder
from schemas.encoding import make_encoder
from schemas.messages import plain
from schemas.vitals import Decoded

TIME = "2026-01-05T08:30:00.25+01:00"
ROW: dict[str, Any] = {"patient_id": "p|1 & Söhne", "event_time": TIME, "heart_rate": 84, "spo2": 96.5}
ROW |= {"age": None, "ward": "ICU"}
FORMATS = ("fhir", "hl7v2")


def given_settings(value_format: str, mapping: Path | None = None) -> Settings:
    return Settings(value_format=value_format, mapping=mapping or Path(value_format), ranges="off")


def there_and_back(given: Settings, *rows: dict[str, Any]) -> Decoded:
    return make_decoder(given)(plain(map(make_encoder(given), rows)))


@pytest.mark.parametrize("value_format", FORMATS)
def test_a_row_survives_a_round_trip(value_format: str) -> None:
    bad = {**ROW, "spo2": "96,5"}, {**ROW, "event_time": "yesterday"}, {**ROW, "patient_id": None}
    nothing = {"patient_id": "p2", "event_time": "2026-01-05T08:30:00Z", "heart_rate": math.nan}
    decoded = there_and_back(given_settings(value_format), ROW, *bad, nothing)
    assert decoded.patient_ids == [ROW["patient_id"], "p2"]
    assert [*map(datetime.fromisoformat, decoded.event_times)] == [
        datetime.fromisoformat(TIME),
        datetime.fromisoformat("2026-01-05T08:30:00Z"),
    ]
    assert decoded.frame.iloc[0].dropna().to_dict() == {"heart_rate": 84, "spo2": 96.5}
    assert decoded.frame.iloc[1].isna().all()
    assert [(str(one.reason), one.field) for one in decoded.rejects] == [
        ("wrong_type", "spo2"),
        ("bad_time", "event_time"),
        ("missing_field", "patient_id"),
    ]


@pytest.mark.parametrize("value_format", FORMATS)
def test_units_codes_and_ids_come_from_the_mapping(value_format: str, tmp_path: Path) -> None:
    mapping = tmp_path / "ward.toml"
    mapping.write_text(
        'patient_id = { type = "MR" }\n[features]\nlactate = { codes = ["99WARD L A"], model_unit = "mmol/L" }\n'
        'temperature = { codes = ["T"], unit = "[degF]" }\n'
    )
    row = {"patient_id": "p1", "event_time": "2026-01-05T08:30:00Z", "lactate": 1.5, "temperature": 37.5}
    decoded = there_and_back(given_settings(value_format, mapping), row)
    assert decoded.patient_ids == ["p1"]
    assert decoded.frame.iloc[0].to_dict() == {"lactate": 1.5, "temperature": 37.5}


def test_independent_parsers_read_the_messages() -> None:
    whole: Any = Bundle.model_validate_json(
        make_encoder(given_settings("fhir"))({**ROW, "patient_id": "p-1"})
    )
    assert [float(entry.resource.valueQuantity.value) for entry in whole.entry] == [84, 96.5]
    message = hl7.parse(make_encoder(given_settings("hl7v2"))(ROW).decode())
    assert message.unescape(str(message.segment("PID")[3][0][0])) == ROW["patient_id"]
    assert [str(one[5]) for one in message.segments("OBX")] == ["84", "96.5"]


_numbers = st.none() | st.floats() | st.integers(-(2**53), 2**53)
_rows = st.fixed_dictionaries(
    {"patient_id": st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=30)}
    | {
        "event_time": st.datetimes(datetime(1950, 1, 1), datetime(2199, 1, 1)).map(
            lambda time: f"{time.isoformat()}Z"
        )
    }
    | dict.fromkeys(STANDARD_FEATURES, _numbers)
)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(FORMATS), st.lists(_rows, min_size=1, max_size=4))
def test_every_row_survives_a_round_trip(value_format: str, rows: list[dict[str, Any]]) -> None:
    decoded = there_and_back(given_settings(value_format), *rows)
    assert not decoded.rejects
    assert decoded.patient_ids == [row["patient_id"] for row in rows]
    sent = np.array([[row[name] for name in STANDARD_FEATURES] for row in rows], dtype=np.float64)
    sent[~np.isfinite(sent)] = np.nan
    np.testing.assert_array_equal(decoded.frame.to_numpy(), sent)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"value_format": "avro"}, "--value-format avro needs --schema-registry, or --schema-file"),
        ({"value_format": "json-schema"}, "--schema-registry is missing"),
        ({"value_format": "fhir"}, "--value-format fhir needs --mapping"),
    ],
)
def test_unwritable_rows_are_refused_with_one_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        make_encoder(Settings(**given))


def test_a_mapping_without_codes_is_refused(tmp_path: Path) -> None:
    (mapping := tmp_path / "ward.toml").write_text("[features]\nspo2 = { absent = true }\n")
    with pytest.raises(SettingsError, match="no feature has a code to be sent with"):
        make_encoder(given_settings("fhir", mapping))

"""FHIR: what is read, what is refused and why. Every number that comes out is one that `fhir.resources` sees too."""

import copy
import json
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.observation import Observation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from typing_extensions import override

from broker.errors import SettingsError
from broker.settings import Settings, load_settings
from schemas.contract import BOOLEAN, CATEGORY, MAX_MESSAGE_BYTES, Reason
from schemas.decoding import make_decoder
from schemas.formats.fhir import FhirReader
from schemas.mapping import Mapping, load_mapping
from schemas.messages import Plain, plain
from schemas.vitals import Decoded, Decoder, Reject

TIME = "2026-01-05T08:30:00+01:00"
UCUM = "http://unitsofmeasure.org"
FEATURES: dict[str, Any] = {
    "heart_rate": {"codes": ["LOINC 8867-4", "MDC 147842", "HR"]},
    "systolic_bp": {"codes": ["LOINC 8480-6"]},
    "diastolic_bp": {"codes": ["LOINC 8462-4"]},
    "temperature": {"codes": ["LOINC 8310-5", "http://ward.example/codes T"], "units": {"Grad C": "Cel"}},
}


def fhir(**given: Any) -> Decoder:
    mapping = Mapping(**{"features": FEATURES, **given})
    names = [*mapping.features]
    return Decoder(names, mapping=mapping, read=FhirReader(names, mapping, max_bytes=MAX_MESSAGE_BYTES))


DECODE = fhir()


def read(*documents: Any, decode: Decoder = DECODE) -> Decoded:
    return decode(plain(one if isinstance(one, bytes) else json.dumps(one).encode() for one in documents))


def quantity(value: Any = 80, code: str = "/min", **more: Any) -> dict[str, Any]:
    return {"value": value, "unit": code, "system": UCUM, "code": code} | more


def coded(code: str, system: str | None = "http://loinc.org") -> dict[str, Any]:
    return {"coding": [{"code": code} | ({"system": system} if system else {})]}


def observation(**changes: Any) -> dict[str, Any]:
    """A heart rate, with some fields changed or added; `...` omits one."""
    whole = {
        "resourceType": "Observation",
        "status": "final",
        "code": coded("8867-4"),
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": TIME,
        "valueQuantity": quantity(),
    }
    return {name: value for name, value in (whole | changes).items() if value is not ...}


def temperature(**changes: Any) -> dict[str, Any]:
    given = {"code": coded("8310-5"), "valueQuantity": quantity(36.9, "Cel")}
    return observation(**(given | changes))


def pressure(**changes: Any) -> dict[str, Any]:
    components = [
        {"code": coded("8480-6"), "valueQuantity": quantity(120, "mm[Hg]")},
        {"code": coded("8462-4"), "valueQuantity": quantity(80, "mm[Hg]")},
    ]
    given = {"code": coded("85354-9"), "valueQuantity": ..., "component": components}
    return observation(**(given | changes))


def bundle(*resources: Any, **more: Any) -> dict[str, Any]:
    entries = [{"resource": one} for one in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries} | more


PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [
        {"type": coded("MR", "http://terminology.hl7.org/CodeSystem/v2-0203"), "value": "4711"},
        {"system": "http://insurer.example", "value": "A1"},
    ],
}
NEWBORN = {"fullUrl": "urn:uuid:1", "resource": PATIENT}


def of_newborn(*observations: Any, patient: dict[str, Any] = NEWBORN) -> dict[str, Any]:
    return bundle(
        entry=[
            patient,
            *({"resource": one | {"subject": {"reference": "urn:uuid:1"}}} for one in observations),
        ]
    )


HR: dict[str, float] = {"heart_rate": 80}
BP: dict[str, float] = {"systolic_bp": 120, "diastolic_bp": 80}
NOTHING: dict[str, float] = {}

READ: dict[str, tuple[Any, dict[str, float]]] = {
    "one": (observation(), HR),
    "a panel": (pressure(), BP),
    "a panel with a value of its own": (
        pressure(code=coded("8867-4"), valueQuantity=quantity(80)),
        HR | BP,
    ),
    "a Bundle": (bundle(observation(), pressure(), temperature()), HR | BP | {"temperature": 36.9}),
    "a Bundle with others": (bundle(PATIENT, observation(), observation(code=coded("2951-2"))), HR),
    "a Bundle with others of a device": (
        bundle(observation(), observation(code=coded("2951-2"), subject={"reference": "Device/1"})),
        HR,
    ),
    "one feature twice with the same value": (bundle(observation(), observation(id="o2")), HR),
    "twice, but once missing": (bundle(observation(), observation(valueQuantity=...)), HR),
    "several codings": (
        observation(
            code={
                "coding": [
                    {"code": "x"},
                    *coded("8867-4")["coding"],
                    *coded("147842", "urn:iso:std:iso:11073:10101")["coding"],
                ]
            }
        ),
        HR,
    ),
    "a code of a device": (observation(code=coded("147842", "urn:iso:std:iso:11073:10101")), HR),
    "a code without a system": (observation(code=coded("HR", None)), HR),
    "a code of a ward": (temperature(code=coded("T", "http://ward.example/codes")), {"temperature": 36.9}),
    "another unit": (temperature(valueQuantity=quantity(98.6, "[degF]")), {"temperature": 37}),
    "a unit of a device": (
        observation(valueQuantity=quantity(80, "264864", system="urn:iso:std:iso:11073:10101")),
        HR,
    ),
    "a unit with an annotation": (observation(valueQuantity=quantity(80, "{beats}/min")), HR),
    "only the text of a unit, which is UCUM": (observation(valueQuantity={"value": 80, "unit": "/min"}), HR),
    "a unit that the mapping explains": (
        temperature(valueQuantity={"value": 36.9, "unit": "Grad C"}),
        {"temperature": 36.9},
    ),
    "absent data": (observation(valueQuantity=..., dataAbsentReason={"text": "error"}), NOTHING),
    "absent data of a component": (
        pressure(
            component=[
                *pressure()["component"][:1],
                {"code": coded("8462-4"), "dataAbsentReason": {"text": "error"}},
            ]
        ),
        {"systolic_bp": 120},
    ),
    "a quantity without a value": (observation(valueQuantity={"unit": "/min"}), NOTHING),
    "a null": (observation(valueQuantity=None, component=None), NOTHING),
    "a limit": (observation(valueQuantity=quantity(100, comparator=">")), NOTHING),
    "preliminary": (observation(status="preliminary"), HR),
    "amended": (observation(status="amended"), HR),
    "corrected": (observation(status="corrected"), HR),
    "one of two retracted": (bundle(observation(), temperature(status="entered-in-error")), HR),
    "a retracted one next to the right one": (
        bundle(observation(status="entered-in-error", valueQuantity=quantity(200)), observation()),
        HR,
    ),
    "one of two not there yet": (bundle(observation(), temperature(status="registered")), HR),
    "one without a patient that is not read": (
        bundle(observation(), observation(code=coded("2951-2"), subject=...)),
        HR,
    ),
}


@pytest.mark.parametrize("name", READ)
def test_readable_messages(name: str) -> None:
    document, expected = READ[name]
    decoded = read(observation(), document, observation())
    assert not decoded.rejects
    assert decoded.patient_ids == ["p1"] * 3
    assert decoded.event_times == [TIME] * 3
    row = decoded.frame.iloc[1]
    assert {name: value for name, value in row.items() if not math.isnan(value)} == pytest.approx(expected)


LATER = "2026-01-05T08:31:01+01:00"

REFUSED: dict[str, tuple[Any, str, str]] = {
    "no JSON": (b"MSH|^~\\&|", "not_json", ""),
    "lines of JSON": (b'{"resourceType":"Observation"}\n{"resourceType":"Observation"}', "not_json", ""),
    "XML": (b'<Observation xmlns="http://hl7.org/fhir"/>', "not_json", ""),
    "a list": ([observation()], "not_object", ""),
    "nothing": (b"", "empty", ""),
    "too many bytes": (b" " * (MAX_MESSAGE_BYTES + 1), "too_large", ""),
    "a name twice": (
        json.dumps(observation()).replace('"value": 80', '"value": 80, "value": 90').encode(),
        "not_json",
        "value",
    ),
    "a name twice, once in other letters": (
        json.dumps(observation()).replace('"value": 80', '"value": 80, "valu\\u0065": 90').encode(),
        "not_json",
        "value",
    ),
    "no resource": ({"heart_rate": 80}, "not_decodable", "resourceType"),
    "another resource": ({"resourceType": "Patient"}, "not_for_us", "resourceType"),
    "another code": (observation(code=coded("2951-2")), "not_for_us", ""),
    "the code of another system": (
        observation(code=coded("8867-4", "http://ward.example")),
        "not_for_us",
        "",
    ),
    "our code without its system": (observation(code=coded("8867-4", None)), "not_for_us", ""),
    "a code given as text": (observation(code={"text": "Heart rate"}), "not_for_us", ""),
    "no code": (observation(code=...), "not_for_us", ""),
    "an empty Bundle": (bundle(), "not_for_us", ""),
    "a Bundle without entries": ({"resourceType": "Bundle", "type": "collection"}, "not_for_us", ""),
    "codes of two features": (
        observation(code={"coding": [*coded("8867-4")["coding"], *coded("8310-5")["coding"]]}),
        "conflicting",
        "temperature",
    ),
    "entered in error": (observation(status="entered-in-error"), "retracted", "status"),
    "cancelled": (observation(status="cancelled"), "retracted", "status"),
    "all in error": (
        bundle(observation(status="entered-in-error"), temperature(status="cancelled")),
        "retracted",
        "status",
    ),
    "deleted": (
        bundle(entry=[{"request": {"method": "DELETE", "url": "Observation/1"}}]),
        "retracted",
        "request",
    ),
    "a deleted patient": (
        bundle(entry=[{"request": {"method": "DELETE", "url": "Patient/1"}}]),
        "not_for_us",
        "",
    ),
    "registered": (observation(status="registered"), "not_for_us", "status"),
    "no status": (observation(status=...), "missing_field", "status"),
    "an invalid status": (observation(status="bogus"), "wrong_type", "status"),
    "an unknown status": (observation(status="unknown"), "wrong_type", "status"),
    "an unknown status in a Bundle": (
        bundle(temperature(), observation(status="unknown")),
        "wrong_type",
        "status",
    ),
    "a value and a reason for its absence": (
        observation(dataAbsentReason={"text": "error"}),
        "conflicting",
        "dataAbsentReason",
    ),
    "a modifier": (observation(modifierExtension=[{"url": "x"}]), "not_decodable", "modifierExtension"),
    "a modifier of a panel": (
        pressure(modifierExtension=[{"url": "x"}]),
        "not_decodable",
        "modifierExtension",
    ),
    "implicit rules": (observation(implicitRules="http://x"), "not_decodable", "modifierExtension"),
    "a text as value": (observation(valueQuantity=quantity("80")), "wrong_type", "heart_rate"),
    "a limit as text": (observation(valueQuantity=quantity(">100")), "wrong_type", "heart_rate"),
    "a decimal comma": (temperature(valueQuantity=quantity("36,9", "Cel")), "wrong_type", "temperature"),
    "a boolean as value": (observation(valueQuantity=quantity(True)), "wrong_type", "heart_rate"),
    "too large in the model's unit": (
        observation(valueQuantity=quantity(3e306, "Hz")),
        "wrong_type",
        "heart_rate",
    ),
    "a text": (observation(valueQuantity=..., valueString="80"), "wrong_type", "heart_rate"),
    "a range": (observation(valueQuantity=..., valueRange={"low": quantity()}), "wrong_type", "heart_rate"),
    "a number without a unit": (
        observation(valueQuantity=..., valueInteger=80),
        "unknown_unit",
        "heart_rate",
    ),
    "no unit": (observation(valueQuantity={"value": 80}), "unknown_unit", "heart_rate"),
    "no code of the unit": (
        observation(valueQuantity={"value": 80, "system": UCUM, "unit": "/min"}),
        "unknown_unit",
        "heart_rate",
    ),
    "a unit that is no UCUM": (observation(valueQuantity=quantity(80, "bpm")), "unknown_unit", "heart_rate"),
    "mmHg is no UCUM": (
        pressure(component=[{"code": coded("8480-6"), "valueQuantity": quantity(120, "mmHg")}]),
        "unknown_unit",
        "systolic_bp",
    ),
    "farad": (temperature(valueQuantity=quantity(98.6, "F")), "unknown_unit", "temperature"),
    "a code from another system of units": (
        observation(valueQuantity=quantity(80, "/min", system="http://ward.example/units")),
        "unknown_unit",
        "heart_rate",
    ),
    "a unit of another quantity": (
        observation(valueQuantity=quantity(80, "Cel")),
        "unknown_unit",
        "heart_rate",
    ),
    "two values": (
        bundle(observation(), observation(valueQuantity=quantity(81))),
        "conflicting",
        "heart_rate",
    ),
    "a value and another in a component": (
        observation(component=[{"code": coded("8867-4"), "valueQuantity": quantity(81)}]),
        "conflicting",
        "heart_rate",
    ),
    "two patients": (
        bundle(observation(), temperature(subject={"reference": "Patient/p2"})),
        "conflicting",
        "patient_id",
    ),
    "two patients, of whom one is not read": (
        bundle(observation(), observation(code=coded("2951-2"), subject={"reference": "Patient/p2"})),
        "conflicting",
        "patient_id",
    ),
    "one reading without a patient": (
        bundle(observation(), temperature(subject=...)),
        "conflicting",
        "patient_id",
    ),
    "two times": (bundle(observation(), temperature(effectiveDateTime=LATER)), "conflicting", "event_time"),
    "no patient": (observation(subject=...), "missing_field", "patient_id"),
    "a patient given as text": (observation(subject={"display": "Jane"}), "missing_field", "patient_id"),
    "a patient elsewhere": (observation(subject={"reference": "urn:uuid:1"}), "missing_field", "patient_id"),
    "a patient without an id": (
        of_newborn(observation(), patient={"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Patient"}}),
        "missing_field",
        "patient_id",
    ),
    "a patient inside": (
        observation(subject={"reference": "#p"}, contained=[{"resourceType": "Patient", "id": "p"}]),
        "missing_field",
        "patient_id",
    ),
    "an empty id": (observation(subject={"reference": "Patient/"}), "missing_field", "patient_id"),
    "no patient but a device": (observation(subject={"reference": "Device/1"}), "not_for_us", "subject"),
    "a name twice, hidden behind quotes": (
        json.dumps(observation())
        .replace('"value": 80', '"x": "\\u0022\\u0022", "value": 80, "value": 90')
        .encode(),
        "not_json",
        "value",
    ),
    "no time": (observation(effectiveDateTime=...), "missing_field", "event_time"),
    "only when it was issued": (
        observation(effectiveDateTime=..., issued=TIME),
        "missing_field",
        "event_time",
    ),
    "a period without an end": (
        observation(effectiveDateTime=..., effectivePeriod={"start": TIME}),
        "missing_field",
        "event_time",
    ),
    "a day": (observation(effectiveDateTime="2026-01-05"), "bad_time", "event_time"),
    "a month": (observation(effectiveDateTime="2026-01"), "bad_time", "event_time"),
    "no zone": (observation(effectiveDateTime="2026-01-05T08:30:00"), "bad_time", "event_time"),
    "an impossible year": (
        observation(effectiveDateTime="1826-01-05T08:30:00Z"),
        "bad_time",
        "event_time",
    ),
    "a bad time next to a good one": (
        bundle(observation(), temperature(effectiveDateTime="2026-01-05")),
        "bad_time",
        "event_time",
    ),
    "a time that is a number": (observation(effectiveDateTime=1767601800), "wrong_type", "event_time"),
    "codings without a list": (
        observation(code={"coding": {"system": "http://loinc.org", "code": "8867-4"}}),
        "not_decodable",
        "coding",
    ),
    "a value that is no object": (observation(valueQuantity=80), "not_decodable", "valueQuantity"),
    "a subject that is no object": (observation(subject="Patient/p1"), "not_decodable", "subject"),
    "components without a list": (pressure(component="120/80"), "not_decodable", "component"),
    "entries without a list": (bundle(entry="x"), "not_decodable", "entry"),
    "an invalid entry": (bundle(entry=[5]), "not_decodable", ""),
    "a code that is a text": (observation(code="8867-4"), "not_decodable", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_messages(name: str) -> None:
    document, reason, field = REFUSED[name]
    decoded = read(observation(), document, observation())
    assert [(one.position, str(one.reason), one.field) for one in decoded.rejects] == [(1, reason, field)]
    assert decoded.frame["heart_rate"].tolist() == [80, 80]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"effectiveDateTime": "2026-01-05T08:30:00.25Z"}, "2026-01-05T08:30:00.25Z"),
        ({"effectiveDateTime": ..., "effectiveInstant": TIME}, TIME),
        ({"effectiveDateTime": ..., "effectivePeriod": {"start": "2026-01-05", "end": TIME}}, TIME),
    ],
    ids=str,
)
def test_times(changes: dict[str, Any], expected: str) -> None:
    assert read(observation(**changes)).event_times == [expected]


def test_times_within_the_tolerance_count_as_one_the_latest() -> None:
    near = [TIME, "2026-01-05T07:31:00Z", "2026-01-05T08:30:59+01:00"]
    both = [bundle(observation(), temperature(effectiveDateTime=time), pressure()) for time in near]
    assert read(*both).event_times == near
    leap = bundle(
        observation(effectiveDateTime="2016-12-31T23:59:60Z"),
        temperature(effectiveDateTime="2016-12-31T23:59:59.5Z"),
    )
    assert read(leap).event_times == ["2016-12-31T23:59:59.5Z"]
    exact = fhir(event_time={"tolerance_s": 0})
    apart = bundle(observation(), temperature(effectiveDateTime="2026-01-05T08:30:01+01:00"))
    assert [one.reason for one in read(apart, decode=exact).rejects] == ["conflicting"]
    assert read(bundle(observation(), temperature()), decode=exact).event_times == [TIME]


def test_times_without_a_zone_are_read_if_the_mapping_names_the_zone() -> None:
    decode = fhir(event_time={"zone": "Europe/Berlin"})
    decoded = read(observation(effectiveDateTime="2026-01-05T08:30:00"), observation(), decode=decode)
    assert decoded.event_times == [TIME, TIME]


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ({"reference": "Patient/p-1.2"}, "p-1.2"),
        ({"reference": "https://fhir.example/r4/Patient/p1"}, "p1"),
        ({"reference": "Patient/p1/_history/3"}, "p1"),
        ({"reference": "Patient/p1", "identifier": {"value": "4711"}}, "p1"),
        ({"identifier": {"value": "4711"}}, "4711"),
        ({"reference": "Patient?identifier=http://insurer.example|A%201"}, "A 1"),
        ({"reference": "Patient?identifier=A1"}, "A1"),
    ],
    ids=str,
)
def test_patients(subject: dict[str, Any], expected: str) -> None:
    assert read(observation(subject=subject)).patient_ids == [expected]


def test_a_patient_in_the_bundle() -> None:
    assert read(of_newborn(observation(), temperature())).patient_ids == ["p1"]


MEDICAL_RECORD, INSURANCE = PATIENT["identifier"]
OTHER_RECORD = {**MEDICAL_RECORD, "value": "4712"}
OF_TWO_RECORDS = {**PATIENT, "identifier": [MEDICAL_RECORD, OTHER_RECORD]}


@pytest.mark.parametrize(
    ("type_", "document", "expected"),
    [
        ("MR", of_newborn(observation()), "4711"),
        ("http://insurer.example", of_newborn(observation()), "A1"),
        ("MR", bundle(observation(), PATIENT), "4711"),
        ("MR", observation(subject={"reference": "#p1"}, contained=[PATIENT]), "4711"),
        ("MR", observation(subject={"identifier": MEDICAL_RECORD}), "4711"),
        ("http://x", observation(subject={"reference": "Patient?identifier=http://x|7"}), "7"),
        ("SS", of_newborn(observation()), "missing_field"),
        ("MR", observation(), "missing_field"),
        (
            "MR",
            bundle(
                observation(subject={"reference": "#p"}, contained=[PATIENT | {"id": "p"}]),
                temperature(
                    subject={"reference": "#p"}, contained=[{"id": "p", "identifier": [OTHER_RECORD]}]
                ),
            ),
            "conflicting",
        ),
        ("MR", bundle(observation(), OF_TWO_RECORDS), "conflicting"),
    ],
    ids=str,
)
def test_patients_by_an_identifier(type_: str, document: dict[str, Any], expected: str) -> None:
    decoded = read(document, decode=fhir(patient_id={"type": type_}))
    assert [*decoded.patient_ids, *(str(one.reason) for one in decoded.rejects)] == [expected]


def test_values_without_a_unit_are_read_if_the_mapping_names_the_unit() -> None:
    decode = fhir(features={"gcs": {"codes": ["LOINC 9269-2"], "unit": "1", "model_unit": "1"}})
    score = observation(code=coded("9269-2"), valueQuantity=..., valueInteger=15)
    decoded = read(score, observation(code=coded("9269-2"), valueQuantity={"value": 14}), decode=decode)
    assert decoded.frame["gcs"].tolist() == [15, 14]


def test_a_senders_word_may_be_another_units_code() -> None:
    decode = fhir(features={"temperature": FEATURES["temperature"] | {"units": {"Cel": "[degF]"}}})
    assert read(temperature(valueQuantity=quantity(98.6, "Cel")), decode=decode).frame[
        "temperature"
    ].tolist() == [37]


def test_units_may_differ_from_message_to_message() -> None:
    decoded = read(temperature(), temperature(valueQuantity=quantity(98.6, "[degF]")), observation())
    np.testing.assert_array_equal(decoded.frame["temperature"], [36.9, 37, np.nan])


def test_texts_and_booleans_are_read_for_a_model_that_uses_them() -> None:
    features: dict[str, Any] = {
        name: {"codes": [name, f"ward {name}"], "model_unit": "1"} for name in ("unit", "ventilated")
    }
    mapping = Mapping(features=features)
    decode = Decoder(
        [*features],
        mapping=mapping,
        dtypes={"unit": CATEGORY, "ventilated": BOOLEAN},
        read=FhirReader([*features], mapping, max_bytes=MAX_MESSAGE_BYTES),
    )
    unit = observation(code=coded("unit", None), valueQuantity=..., valueString="ICU")
    ventilated = observation(code=coded("ventilated", None), valueQuantity=..., valueBoolean=False)
    other = observation(code=coded("unit", None), valueQuantity=..., valueDateTime=TIME)
    odd = observation(code=coded("unit", "ward"), valueQuantity=quantity("ICU") | {"code": ["1"]})
    decoded = read(bundle(unit, ventilated), other, odd, decode=decode)
    assert decoded.frame["unit"].tolist() == ["ICU", "ICU"]
    assert decoded.frame["ventilated"].tolist() == [False, None]
    assert [(one.reason, one.field) for one in decoded.rejects] == [("wrong_type", "unit")]


def test_the_built_in_mapping_loads() -> None:
    assert len(load_mapping(Path("fhir"), value_format="fhir").features) == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('patient_id = { path = "p" }', "patient_id.path is not for --value-format fhir"),
        ('event_time = { as = "epoch_s" }', "event_time.as is not for"),
        ('root = "r"', "root is not for"),
        ('[features.age]\npath = "a"', "features.age has a path; --value-format fhir wants codes"),
        (
            '[features.age]\ncodes = ["LOINC 8867-4"]',
            "features.heart_rate and features.age have the same code LOINC 8867-4",
        ),
        ('[features.gcs]\ncodes = ["LOINC 9269-2"]', "features.gcs comes with units; say in model_unit"),
    ],
)
def test_an_unsuitable_mapping_is_refused_with_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "ward.toml"
    file.write_text(f'{text}\n[features.heart_rate]\ncodes = ["LOINC 8867-4"]\n')
    with pytest.raises(SettingsError, match=said.replace("[", r"\[")):
        make_decoder(Settings(value_format="fhir", mapping=file))


def test_a_missing_mapping_is_refused_with_one_sentence() -> None:
    with pytest.raises(SettingsError, match="--value-format fhir needs --mapping"):
        make_decoder(Settings(value_format="fhir"))


# Values inserted somewhere into a good message.
_JUNK: list[Any] = [
    None,
    True,
    0,
    84,
    -1.5,
    "",
    "84",
    ">100",
    [],
    {},
    [[]],
    [{}],
    {"value": 1},
    "Cel",
    "final",
    "cancelled",
]
_FHIR: list[Any] = [
    quantity(90),
    coded("8867-4"),
    coded("8310-5")["coding"],
    TIME,
    LATER,
    "2026-01",
    "Patient/p2",
]
_odd = st.sampled_from(_JUNK + _FHIR) | st.floats(allow_nan=False, allow_infinity=False)
_names = st.sampled_from(
    [
        "value",
        "valueQuantity",
        "valueInteger",
        "code",
        "coding",
        "component",
        "status",
        "subject",
        "comparator",
    ]
)
_WHOLE = [
    *[observation(), temperature(), pressure(), of_newborn(observation())],
    bundle(observation(), pressure(), temperature()),
]


def _places(element: Any) -> Iterator[tuple[Any, Any]]:
    """Every object or list in it, with each of its names or positions."""
    inner = (
        element.items()
        if isinstance(element, dict)
        else enumerate(element)
        if isinstance(element, list)
        else ()
    )
    for name, content in [*inner]:
        yield element, name
        yield from _places(content)


@st.composite
def _mutated(draw: st.DrawFn) -> Any:
    document = copy.deepcopy(draw(st.sampled_from(_WHOLE)))
    for _ in range(draw(st.integers(1, 3))):
        place, name = draw(st.sampled_from([*_places(document)]))
        match draw(st.sampled_from(["put", "remove", "add"])):
            case "put":
                place[name] = copy.deepcopy(draw(_odd))
            case "remove":
                del place[name]
            case _ if isinstance(place, dict):
                place[draw(_names)] = copy.deepcopy(draw(_odd))
        if not [*_places(document)]:
            break
    return document


def _seen(document: dict[str, Any]) -> set[float] | None:
    """The numbers that `fhir.resources` sees as quantities; None if it does not accept the message."""
    kind: Any = {"Observation": Observation, "Bundle": Bundle}[document["resourceType"]]
    try:
        whole = kind.model_validate(document)
    except (ValidationError, ValueError, TypeError, AttributeError, KeyError):
        return None
    resources = [entry.resource for entry in whole.entry or ()] if isinstance(whole, Bundle) else [whole]
    observations = [one for one in resources if isinstance(one, Observation)]
    parts = [part for one in observations for part in (one, *(one.component or ()))]
    quantities = [part.valueQuantity.value for part in parts if part.valueQuantity is not None]
    integers = [part.valueInteger for part in parts]
    return {float(value) for value in (*quantities, *integers) if value is not None}


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_mutated(), min_size=1, max_size=3))
def test_every_number_read_is_one_the_oracle_sees(documents: list[Any]) -> None:
    together, alone = read(*documents), [read(one) for one in documents]
    assert together.rejects == [
        Reject(i, r.reason, r.field) for i, each in enumerate(alone) for r in each.rejects
    ]
    rows = [each.frame.to_numpy() for each in alone]
    np.testing.assert_array_equal(together.frame.to_numpy(), np.vstack(rows))
    for document, each in zip(documents, alone, strict=True):
        if each.rejects or (seen := _seen(document)) is None:
            continue
        numbers = each.frame.to_numpy().ravel()
        assert {*numbers[~np.isnan(numbers)].tolist()} <= seen
        assert datetime.fromisoformat(each.event_times[0])


class _OneByOne(FhirReader):
    """Takes no message for a plain one."""

    @override
    def _plain(self, observations: list[Any]) -> Any:
        raise ValueError


_ONE_BY_ONE = Decoder(
    [*FEATURES],
    mapping=Mapping(features=FEATURES),
    read=_OneByOne([*FEATURES], Mapping(features=FEATURES), max_bytes=MAX_MESSAGE_BYTES),
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(_mutated())
def test_plain_messages_are_read_as_all_others_are(document: Any) -> None:
    one, other = (read(document, decode=decode) for decode in (DECODE, _ONE_BY_ONE))
    np.testing.assert_array_equal(one.frame.to_numpy(), other.frame.to_numpy())
    assert (one.patient_ids, one.event_times) == (other.patient_ids, other.event_times)
    assert one.rejects == other.rejects


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60) | st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=3)))
def test_no_bytes_raise(change: Any) -> None:
    value = json.dumps(pressure()).encode()
    if isinstance(change, tuple):
        at, put = change
        value = value[:at] + put + value[at + len(put) :]
    else:
        value = change
    decoded = read(value)
    assert len(decoded.rejects) + len(decoded.frame) == 1


@pytest.mark.parametrize("deep", ['{"a":' * 1000 + "1" + "}" * 1000, "[" * 1000 + "1" + "]" * 1000])
@pytest.mark.parametrize(
    "text",
    [
        '{"x": %s, "resourceType": "Observation", "code": [1]}',
        '{"x": %s, "resourceType": "Bundle", "entry": [1]}',
        '{"resourceType": "Observation", "code": {"coding": [%s]}}',
    ],
)
def test_nesting_deeper_than_the_stack_does_no_harm(text: str, deep: str) -> None:
    """The parser accepts 1,024 levels and Python 1,000 calls, so an error here would end every restarted worker."""
    message = Plain((text % deep).encode())
    decode = make_decoder(load_settings(value_format="fhir", mapping=Path("fhir")))
    (reject,) = decode([message]).rejects
    assert reject.reason in (Reason.NOT_DECODABLE, Reason.NOT_FOR_US)
    assert len([*decode.names.of(message)]) <= 1

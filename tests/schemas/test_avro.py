"""Avro with a schema file: exact bytes for each trap, and fastavro's writer as the oracle."""

import io
import json
import math
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import SettingsError
from broker.settings import Settings, load_settings
from schemas.contract import MAX_MESSAGE_BYTES, Reason
from schemas.decoding import make_decoder
from schemas.formats.avro import AvroDocuments, AvroSchema, FiniteReader
from schemas.formats.framing import Bare, UnusableSchemaError
from schemas.formats.mapped import object_reader
from schemas.messages import plain
from schemas.vitals import Decoded, Decoder, Reject
from tests.schemas.avro import record, without_times, written
from tests.schemas.messages import Wanted

TIME = "2026-01-05T08:30:00Z"
FEATURES = ("heart_rate", "spo2")
WANTED = Wanted(FEATURES)
OPTIONAL = ["null", "double"]


def ours(heart_rate: Any = OPTIONAL, spo2: Any = OPTIONAL) -> dict[str, Any]:
    return record(
        ("patient_id", "string"), ("event_time", "string"), ("heart_rate", heart_rate), ("spo2", spo2)
    )


def message(**fields: Any) -> dict[str, Any]:
    return {"patient_id": "p1", "event_time": TIME, "heart_rate": None, "spo2": None} | fields


def decoder(schema: dict[str, Any], **given: Any) -> Decoder:
    documents = AvroDocuments(Bare(AvroSchema(json.dumps(schema))))
    return Decoder(FEATURES, read=FiniteReader(object_reader(FEATURES, None, documents)), **given)


def decoded(schema: dict[str, Any], *values: bytes | None) -> Decoded:
    return decoder(schema)(plain(values))


IDENTITY = b"\x04p1" + bytes([2 * len(TIME)]) + TIME.encode()  # "p1" and the time, each after its length
HR_84 = b"\x02" + struct.pack("<d", 84)
ODD = ["null", "double", "boolean", "string", "long"]


def test_the_bytes_are_those_the_oracle_writes() -> None:
    assert written(ours(), message(heart_rate=84.0)) == IDENTITY + HR_84 + b"\x00"


@pytest.mark.parametrize(
    ("heart_rate", "expected"),
    [
        (HR_84, 84.0),
        (b"\x00", math.nan),
        (b"\x02" + struct.pack("<d", 0), 0.0),  # zero is a value, unlike null
        (b"\x08\xa8\x01", 84.0),  # a long
    ],
)
def test_a_number_is_read(heart_rate: bytes, expected: float) -> None:
    found = decoded(ours(ODD), IDENTITY + heart_rate + b"\x00")
    assert not found.rejects
    assert (found.patient_ids, found.event_times) == (["p1"], [TIME])
    np.testing.assert_array_equal(found.frame.to_numpy(), [[expected, math.nan]])


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        (None, Reason.EMPTY, ""),
        (b"", Reason.EMPTY, ""),
        (b"\x00" * (MAX_MESSAGE_BYTES + 1), Reason.TOO_LARGE, ""),
        (IDENTITY + HR_84, Reason.NOT_DECODABLE, ""),  # a field is missing
        (IDENTITY + HR_84 + b"\x00\x00", Reason.NOT_DECODABLE, ""),  # one byte too many
        (IDENTITY + HR_84 + b"\x00" + IDENTITY + HR_84 + b"\x00", Reason.NOT_DECODABLE, ""),
        (b"\x00\x00\x00\x00\x07" + IDENTITY + HR_84 + b"\x00", Reason.NOT_DECODABLE, ""),  # preceded by an id
        (IDENTITY + b"\x0c", Reason.NOT_DECODABLE, ""),  # no such branch of the union
        (b"\x04\xff\xff" + IDENTITY[3:] + HR_84 + b"\x00", Reason.NOT_DECODABLE, ""),  # not UTF-8
        (b"\xff" * 12, Reason.NOT_DECODABLE, ""),  # a length that never ends
        (b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", Reason.NOT_DECODABLE, ""),  # a length of 2**63 bytes
        (json.dumps(message()).encode(), Reason.NOT_DECODABLE, ""),
        (b"\x00" + IDENTITY[3:] + HR_84 + b"\x00", Reason.WRONG_TYPE, "patient_id"),  # an empty id
        (b"\x04p1\x00" + HR_84 + b"\x00", Reason.BAD_TIME, "event_time"),
        (
            IDENTITY + b"\x04\x01\x00",
            Reason.WRONG_TYPE,
            "heart_rate",
        ),  # true, in a union of numbers and booleans
        (IDENTITY + b"\x04\x00\x00", Reason.WRONG_TYPE, "heart_rate"),  # false
        (IDENTITY + b"\x06\x0484\x00", Reason.WRONG_TYPE, "heart_rate"),  # "84"
        (IDENTITY + b"\x02" + struct.pack("<d", math.nan) + b"\x00", Reason.WRONG_TYPE, "heart_rate"),
        (IDENTITY + b"\x02" + struct.pack("<d", math.inf) + b"\x00", Reason.WRONG_TYPE, "heart_rate"),
        (IDENTITY + HR_84 + b"\x02" + struct.pack("<d", -math.inf), Reason.WRONG_TYPE, "spo2"),
    ],
)
def test_only_unreadable_messages_are_rejected(value: bytes | None, reason: Reason, field: str) -> None:
    good = IDENTITY + HR_84 + b"\x00"
    found = decoded(ours(ODD), good, value, good)
    assert found.rejects == [Reject(1, reason, field)]
    assert found.frame["heart_rate"].tolist() == [84, 84]


def test_a_four_byte_float_keeps_its_value() -> None:
    found = decoded(
        ours("float", "double"), written(ours("float", "double"), message(heart_rate=36.9, spo2=97.0))
    )
    assert found.frame["heart_rate"].tolist() == [36.900001525878906]


def test_decimals_and_integers_are_numbers() -> None:
    price = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
    fixed = {"type": "fixed", "name": "F", "size": 4, "logicalType": "decimal", "precision": 6, "scale": 3}
    schema = ours(["null", price], fixed)
    value = written(schema, message(heart_rate=Decimal("84.25"), spo2=Decimal("-96.125")))
    found = decoder(schema, ranges={})(plain([value]))
    assert found.frame.to_numpy().tolist() == [[84.25, -96.125]]
    assert decoded(
        ours("int", "long"), written(ours("int", "long"), message(heart_rate=84, spo2=97))
    ).frame.to_numpy().tolist() == [[84, 97]]


def test_a_field_absent_from_the_writers_schema_is_missing_whatever_its_default() -> None:
    schema = record(("patient_id", "string"), ("event_time", "string"), ("HR", "double"))
    schema["fields"][2] |= {"aliases": ["heart_rate"], "default": 70.0}
    found = decoded(schema, IDENTITY + struct.pack("<d", 84))
    assert found.frame.isna().all(axis=None)


LINKED = record(("patient_id", "string"), ("next", ["null", "Vitals"]))


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (
            LINKED,
            "has the type Vitals inside itself",
        ),  # 250,000 bytes of it are as many calls, and end the process
        (record(("a", {"type": "array", "items": "null"})), "has an array of items that take no bytes"),
        (
            record(("a", {"type": "array", "items": record(name="Empty")})),
            "has an array of items that take no bytes",
        ),
        (
            record(("a", {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}})),
            "take no bytes",
        ),
        (
            record(("a", {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 10**9})),
            "a scale",
        ),
        ("double", "does not describe a record"),
        (["null", "string"], "does not describe a record"),
        ({"type": "object"}, "is no Avro schema"),
        (record(("a", "Unknown")), "is no Avro schema"),
        ({"fields": []}, "is no Avro schema"),
        (17, "is no Avro schema"),
    ],
)
def test_unusable_schemas_are_refused(schema: Any, why: str) -> None:
    with pytest.raises(UnusableSchemaError, match=why):
        AvroSchema(json.dumps(schema))


def test_a_schema_that_doubles_at_each_level_is_refused_at_once() -> None:
    schema: Any = record(("a", "int"), name="T0")
    for level in range(1, 40):
        schema = record(("a", schema), ("b", f"T{level - 1}"), name=f"T{level}")
    with pytest.raises(UnusableSchemaError, match="more than 10,000 parts"):
        AvroSchema(json.dumps(schema))


MAPPING = """
root = "body"
patient_id = { path = "subject.id" }
event_time = { path = "at", as = "epoch_ms" }
[features]
heart_rate = { path = "values.hr" }
spo2 = { path = "readings.0.value", unit_path = "readings.0.unit" }
"""
READING = record(
    ("value", "double"), ("unit", {"type": "enum", "name": "U", "symbols": ["pct", "Hz"]}), name="Reading"
)
BODY = record(
    ("subject", record(("id", {"type": "string", "logicalType": "uuid"}), name="Subject")),
    ("at", {"type": "long", "logicalType": "timestamp-millis"}),
    ("values", {"type": "map", "values": ["null", "float", "long"]}),
    ("readings", {"type": "array", "items": READING}),
    name="Body",
)
NESTED = record(("body", ["null", BODY]))


def nested(at: int = 1767601800250, **values: Any) -> dict[str, Any]:
    readings = [{"value": 96.5, "unit": "pct"}]
    return {"body": {"subject": {"id": "p1"}, "at": at, "values": values, "readings": readings}}


def settings(folder: Path, schema: Any = None, mapping: str | None = None, **given: Any) -> Settings:
    if schema is not None:
        given["schema_file"] = folder / "vitals.avsc"
        given["schema_file"].write_text(json.dumps(schema))
    if mapping is not None:
        given["mapping"] = folder / "mapping.toml"
        given["mapping"].write_text(mapping)
    return load_settings(value_format="avro", **given)


def test_a_mapping_reads_nested_records_maps_and_lists(tmp_path: Path) -> None:
    told = settings(tmp_path, NESTED, MAPPING.replace('unit"', 'unit", units = { pct = "%" }'))
    raw = [written(NESTED, value) for value in (nested(hr=84), nested(at=1767601800, hr=84))]
    found = make_decoder(told, WANTED)(plain([*raw, written(NESTED, {"body": None})]))
    assert found.frame.to_numpy().tolist() == [[84, 96.5]]
    assert (found.patient_ids, found.event_times) == (["p1"], ["2026-01-05T08:30:00.250Z"])
    # Seconds in place of milliseconds; and an implausible value.
    assert found.rejects == [
        Reject(1, Reason.BAD_TIME, "event_time"),
        Reject(2, Reason.MISSING_FIELD, "body"),
    ]


def test_a_local_timestamp_is_not_a_time(tmp_path: Path) -> None:
    """Its milliseconds look the same as those in UTC; only the schema's type shows the difference."""
    local = json.loads(json.dumps(NESTED).replace("timestamp-millis", "local-timestamp-millis"))
    found = make_decoder(settings(tmp_path, local, MAPPING), WANTED)(plain([written(local, nested(hr=84))]))
    assert [(one.reason, one.field) for one in found.rejects] == [(Reason.WRONG_TYPE, "event_time")]


def test_bad_settings_are_refused_with_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="needs --schema-registry, or --schema-file"):
        make_decoder(settings(tmp_path))
    with pytest.raises(SettingsError, match="avsc: no such file or directory; check the path"):
        make_decoder(settings(tmp_path, schema_file=tmp_path / "no.avsc"))
    with pytest.raises(SettingsError, match="avsc: it has the type Vitals inside itself; messages can't be"):
        make_decoder(settings(tmp_path, LINKED))
    with pytest.raises(SettingsError, match="--schema-file is only for Avro"):
        load_settings(schema_file=tmp_path / "vitals.avsc")
    with pytest.raises(SettingsError, match=r"--value-format .* must be json"):
        load_settings(value_format="xml")


ODD_TYPES: dict[str, tuple[Any, bytes]] = {
    "boolean": ("boolean", b"\x01"),
    "bytes": ("bytes", b"\x02a"),
    "date": ({"type": "int", "logicalType": "date"}, b"\x02"),
    "decimal": ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, b"\x02\x7f"),
    "duration": ({"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"}, b"a" * 12),
    "enum": ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x00"),
    "fixed uuid": ({"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"}, b"a" * 16),
    "list": ({"type": "array", "items": "int"}, b"\x02\x02\x00"),
    "local time": (
        {"type": "long", "logicalType": "local-timestamp-micros"},
        b"\xfe" + 8 * b"\xff" + b"\x01",
    ),
    "long": ("long", b"\xfe" + 8 * b"\xff" + b"\x01"),
    "map": ({"type": "map", "values": "int"}, b"\x02\x02a\x02\x00"),
    "null": ("null", b""),
    "string": ({"type": "string", "logicalType": "uuid"}, b"\x02x"),
}
BY_PATH = """
patient_id = { path = "p" }
event_time = { path = "t", as = "rfc3339" }
[features]
heart_rate = { path = "f", unit_path = "u" }
spo2 = { absent = true }
"""
BY_CODE = """
patient_id = { path = "p", integer = true }
event_time = { path = "t", as = "epoch_ms" }
[readings]
code = "c"
value = "f"
unit = "u"
[features]
heart_rate = { codes = ["A", "1"] }
spo2 = { codes = ["x"] }
"""


@pytest.mark.parametrize("mapping", [BY_PATH, BY_CODE], ids=["by path", "by code"])
@pytest.mark.parametrize("kind", ODD_TYPES)
def test_an_unexpected_type_is_a_reject_and_never_an_exception(
    kind: str, mapping: str, tmp_path: Path
) -> None:
    odd, value = ODD_TYPES[kind]
    named = odd if isinstance(odd, str) else odd.get("name", odd)
    schema = record(("p", odd), *((name, named) for name in "tfuc"))
    found = make_decoder(settings(tmp_path, schema, mapping))(plain([5 * value]))
    assert len(found.rejects) == 1


NUMBERS = st.one_of(
    st.none(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63 - 1)
)
TEXT = st.text(min_size=1, max_size=20)


@given(st.lists(st.tuples(TEXT, NUMBERS, st.floats(width=32) | st.none()), max_size=5))
def test_everything_the_oracle_writes_is_read(rows: list[tuple[str, Any, Any]]) -> None:
    schema = ours(["null", "double", "long"], ["null", "float"])
    values = [written(schema, message(patient_id=id_, heart_rate=hr, spo2=spo2)) for id_, hr, spo2 in rows]
    found = decoder(schema, ranges={})(plain(values))
    finite = [row for row in rows if row[2] is None or math.isfinite(row[2])]
    assert len(found.rejects) == len(rows) - len(finite)
    assert found.patient_ids == [id_ for id_, _, _ in finite]
    expected = [[math.nan if cell is None else float(cell) for cell in row[1:]] for row in finite]
    np.testing.assert_array_equal(found.frame.to_numpy(), np.array(expected).reshape(-1, 2))


DAMAGED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (ours(ODD), message(heart_rate=84.0)),
    (NESTED, nested(hr=1.5)),
    (ours("float", {"type": "map", "values": ODD}), message(heart_rate=84.0, spo2={"a": 97.0, "b": "x"})),
]


@given(st.data())
def test_damaged_bytes_never_raise_or_give_numbers_the_oracle_does_not_see(
    data: st.DataObject,
) -> None:
    schema, good = data.draw(st.sampled_from(DAMAGED))
    whole = bytearray(written(schema, good))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    value = bytes(whole[: data.draw(st.integers(0, len(whole)))]) + data.draw(st.binary(max_size=3))
    documents = AvroDocuments(Bare(AvroSchema(json.dumps(schema))))
    _, found, problems = documents(plain([value]))
    assert bool(found) != bool(problems)
    if found:
        assert repr(found[0]) == repr(
            fastavro.schemaless_reader(
                io.BytesIO(value), fastavro.parse_schema(without_times(schema), {}), None
            )
        )
    decoder(schema)(plain([value]))

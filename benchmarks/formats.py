"""What decoding costs per message, by shape and by what is wrong with one of them, compared with flat JSON."""

import gc
import io
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import truediv
from pathlib import Path
from typing import Any, Final, NamedTuple

import fastavro
import orjson

from benchmarks.rows import Rows
from broker.settings import Settings
from schemas.contract import EVENT_TIME, FEATURES, PATIENT_ID, STANDARD_FEATURES
from schemas.decoding import make_decoder
from schemas.encoding import make_encoder
from schemas.formats.avro import AvroDocuments, AvroSchema, FiniteReader
from schemas.formats.framing import ByReference, Frame
from schemas.formats.mapped import json_reader, object_reader
from schemas.kernel import native
from schemas.mapping import Mapping
from schemas.messages import Plain, plain
from schemas.units import STANDARD_UNITS
from schemas.vitals import Decoder

CHUNK: Final = 500
SIZES: Final = (100, 1000, 4000)  # messages decoded at once: chunks, and blocks of chunks
ROUNDS: Final = 60
KERNEL: Final = "native kernel"
_FLAT: Final = "flat JSON"
_WHOLE: Final = "flat JSON, nothing missing"
_RENAMED: Final = {name: f"vital_{number}" for number, name in enumerate(STANDARD_FEATURES)}
_MARK: Final = b"\x00\x00\x00\x00\x07"
Document = dict[str, Any]


class Case(NamedTuple):
    """Messages, and the decoder for them; `of` names the flat JSON of the same values."""

    name: str
    decode: Decoder
    messages: Sequence[Plain]
    of: str = _FLAT


def measure(rows: Rows, step: Callable[[str], None]) -> list[dict[str, Any]]:
    """One record per case: µs of CPU per message, and the ratio to flat JSON of the same values, read in Python.

    They are medians of interleaved rounds.
    """
    step("formats: decoding alone")
    found = cases(rows)
    spent: dict[str, list[float]] = {case.name: [] for case in found}
    gc.collect()
    for number in range(ROUNDS):
        for case in found[number % len(found) :] + found[: number % len(found)]:
            spent[case.name].append(_once(case))
    return [
        {
            "case": case.name,
            "us": round(statistics.median(spent[case.name]), 3),
            "ratio": round(statistics.median(map(truediv, spent[case.name], spent[case.of])), 3),
        }
        for case in found
    ]


def _once(case: Case) -> float:
    start = time.thread_time_ns()
    case.decode(case.messages)
    return (time.thread_time_ns() - start) / 1e3 / len(case.messages)


def cases(rows: Rows) -> list[Case]:
    """All cases on the same readings; JSON in Python and, if it is installed, in the native kernel."""
    flat = [orjson.loads(value) for _, value in rows.messages(CHUNK)]
    whole = [*map(_whole, flat)]
    return [
        *_json("flat JSON", (value for _, value in rows.messages(CHUNK))),
        *(
            case
            for size in SIZES
            for case in _json(f"flat JSON, {size} at a time", (value for _, value in rows.messages(size)))
        ),
        *_json(
            "an unread nested object",
            (orjson.dumps({**one, "device": {"id": "a", "slots": [1, 2]}}) for one in flat),
        ),
        *_json(
            "an escaped quote in an unread text",
            (orjson.dumps({**one, "note": 'says "fine"'}) for one in flat),
        ),
        *(case for what, bad in _BAD.items() for case in _json(f"one of {CHUNK}: {what}", _with(bad, flat))),
        *_json("renamed fields", map(orjson.dumps, map(_rename, flat)), _renamed()),
        *_json("nested, with units", map(orjson.dumps, map(nest, flat)), _nested()),
        *_json("nested, units of the mapping", map(orjson.dumps, map(nest, flat)), _nested(units=False)),
        _avro("Avro, fields that may be null", ["null", "double"], flat),
        _avro(
            "Avro, fields that may not", "double", [{name: one[name] or 1.0 for name in one} for one in flat]
        ),
        *_json(_WHOLE, map(orjson.dumps, whole)),
        _coded("FHIR, one Observation", "fhir", whole, _first_observation),
        _coded("FHIR, a Bundle of 8 Observations", "fhir", whole),
        _coded("HL7, an ORU^R01 of 8 OBX", "hl7v2", whole),
    ]


def _json(name: str, values: Iterable[bytes], mapping: Mapping | None = None) -> Iterator[Case]:
    messages = plain(values)
    read = json_reader(STANDARD_FEATURES, mapping)
    yield Case(name, Decoder(STANDARD_FEATURES, mapping=mapping, read=read), messages)
    if native():
        yield Case(f"{name}, {KERNEL}", Decoder(STANDARD_FEATURES, mapping=mapping), messages)


def _avro(name: str, kind: Any, rows: Iterable[Document]) -> Case:
    """With a schema ID in front, as serializers write it; the registry has been asked already."""
    types = {PATIENT_ID: "string", EVENT_TIME: "string", **dict.fromkeys(STANDARD_FEATURES, kind)}
    fields = [{"name": field, "type": type_} for field, type_ in types.items()]
    schema = {"type": "record", "name": "Vitals", "fields": fields}
    documents = AvroDocuments(Known(AvroSchema(orjson.dumps(schema))))
    read = FiniteReader(object_reader(STANDARD_FEATURES, None, documents))
    return Case(
        name, Decoder(STANDARD_FEATURES, read=read), plain(_MARK + _written(schema, row) for row in rows)
    )


class Known(ByReference[AvroSchema]):
    """A registry with one known schema."""

    def __init__(self, schema: AvroSchema) -> None:
        self._known = {_MARK: Frame(schema, len(_MARK))}


def _written(schema: Document, row: Document) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema, {}), row)
    return stream.getvalue()


def _coded(
    name: str, value_format: str, rows: Iterable[Document], change: Callable[[bytes], bytes] = bytes
) -> Case:
    """A format with codes, as `replay` sends it."""
    settings = Settings(value_format=value_format, mapping=Path(value_format))
    messages = plain(map(change, map(make_encoder(settings), rows)))
    return Case(name, make_decoder(settings), messages, of=_WHOLE)


def _first_observation(bundle: bytes) -> bytes:
    return orjson.dumps(orjson.loads(bundle)["entry"][0]["resource"])


def _whole(row: Document) -> Document:
    """The row with a value for every feature."""
    return {name: FEATURES[name].typical if value is None else value for name, value in row.items()}


_BAD: Final[dict[str, Callable[[Document], bytes]]] = {
    "without an id": lambda one: orjson.dumps({name: one[name] for name in one if name != PATIENT_ID}),
    "a text as a number": lambda one: orjson.dumps({**one, "spo2": "97"}),
    "a field twice": lambda one: orjson.dumps(one)[:-1] + b',"spo2":97}',
    "no JSON": lambda one: orjson.dumps(one)[:-1],
}


def _with(bad: Callable[[Document], bytes], flat: list[Document]) -> list[bytes]:
    values = [*map(orjson.dumps, flat)]
    values[CHUNK // 2] = bad(flat[CHUNK // 2])
    return values


def _rename(one: Document) -> Document:
    return {"pid": one[PATIENT_ID], "at": one[EVENT_TIME]} | {new: one[old] for old, new in _RENAMED.items()}


def _renamed() -> Mapping:
    return _mapping("pid", {name: {"path": new} for name, new in _RENAMED.items()})


def nest(one: Document) -> Document:
    """The message with each reading in an object that names its unit; the temperature in °F."""
    vitals = {
        name: None if one[name] is None else {"value": one[name], "unit": STANDARD_UNITS[name]}
        for name in STANDARD_FEATURES
    }
    temperature = vitals["temperature"]
    if temperature is not None:
        vitals["temperature"] = {"value": round(temperature["value"] * 1.8 + 32, 2), "unit": "F"}
    return {"patient": {"id": one[PATIENT_ID]}, "at": one[EVENT_TIME], "vitals": vitals}


def _nested(*, units: bool = True) -> Mapping:
    features: dict[str, Any] = {}
    for name in STANDARD_FEATURES:
        features[name] = {"path": f"vitals.{name}.value"}
        features[name] |= {"unit_path": f"vitals.{name}.unit"} if units else {}
    features["temperature"] |= {"units": {"F": "[degF]"}} if units else {"unit": "[degF]"}
    return _mapping("patient.id", features)


def _mapping(patient: str, features: dict[str, Any]) -> Mapping:
    content: dict[str, Any] = {
        "patient_id": {"path": patient},
        "event_time": {"path": "at"},
        "features": features,
    }
    return Mapping(**content)

"""Assembles encoders, which turn rows into messages of any format that `decoding` reads.

For load tests. A mapping is reversed: each feature is written where the mapping reads it, or under its first code, in
the mapping's unit or else with the model's.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as Named
from decimal import Decimal
from functools import partial
from itertools import count
from typing import Any, Final

import orjson

from broker.errors import SettingsError
from broker.settings import Settings
from schemas.contract import EVENT_TIME, PATIENT_ID, RFC3339
from schemas.formats import fhir, hl7v2
from schemas.mapping import BY_CODE, Mapping, load_mapping
from schemas.registry import WrittenWith, make_registry
from schemas.turned_round import Objects, by_feature


class UnwritableRowError(SettingsError):
    """A row does not match the topic's schema."""


Encoder = Callable[[Named[str, Any]], bytes]
"""Turns a row into a message: patient_id, event_time and features by name, None if missing."""

Splitter = Callable[[Iterable[dict[str, Any]]], Iterator[dict[str, Any]]]
"""Divides rows into those of one message each."""

_NO_CODE: Final = "no feature has a code to be sent with"
_is_fhir_id = re.compile(r"[A-Za-z0-9.-]{1,64}").fullmatch
_time_parts = re.compile(r"(.{4})-(..)-(..).(..):(..):(..)([.][0-9]{1,4})?[0-9]*(.*)").fullmatch
_is_time = re.compile(RFC3339).fullmatch


def make_encoder(settings: Settings) -> Encoder:
    """What writes --value-format.

    Raises:
        SettingsError: nothing does, or the mapping or the schema does not fit.
        RegistryError: the schema registry can't be asked.
    """
    if settings.value_format in BY_CODE:
        return _coded(settings)
    document: Callable[[Named[str, Any]], Any] = dict
    if settings.mapping is not None:
        mapping = load_mapping(settings.mapping, value_format=settings.value_format)
        document = Objects(mapping, hl7_time=_in_hl7)
    if settings.value_format == "avro":
        from schemas.formats.avro_writing import make_avro_writer

        write = make_avro_writer(settings)
        return lambda row: write(document(row))
    mark = _mark(settings) if settings.value_format == "json-schema" else b""
    return lambda row: mark + orjson.dumps(document(row))


def make_splitter(settings: Settings) -> Splitter:
    """What divides rows into those of one message each.

    They are the same, unless the mapping reads one feature per message. Raises SettingsError if it can't be used.
    """
    if settings.mapping is not None and settings.value_format not in BY_CODE:
        mapping = load_mapping(settings.mapping, value_format=settings.value_format)
        if mapping.readings is not None and mapping.readings.path is None:
            if not any(one.codes for one in mapping.features.values()):
                raise SettingsError(f"--mapping {settings.mapping}: {_NO_CODE}")
            return partial(by_feature, mapping)
    return iter


def _mark(settings: Settings) -> bytes:
    """The prefix of a value: the ID of the topic's newest schema."""
    number, schema = newest_schema(settings)
    if schema.kind != "JSON":
        raise SettingsError(
            f"--value-format json-schema: the newest schema of the topic is {schema.kind}, not JSON; give its format"
        )
    return b"\x00" + number.to_bytes(4, "big")


def newest_schema(settings: Settings) -> tuple[int, WrittenWith]:
    """The ID of the newest schema of the input topic's subject, and the schema.

    Raises:
        SettingsError: there is no registry, or no such subject.
        RegistryError: the registry can't be asked.
    """
    registry = make_registry(settings)
    found = registry.newest()
    if found is None:
        raise SettingsError(
            f"the schema registry has no subject {registry.subject}; vitalstream topics create --schema-registry "
            f"{settings.schema_registry} --value-format {settings.value_format} registers one, or give --schema-subject"
        )
    return found


def _coded(settings: Settings) -> Encoder:
    if settings.mapping is None:
        raise SettingsError(
            f"--value-format {settings.value_format} needs --mapping, such as {settings.value_format}"
        )
    mapping = load_mapping(settings.mapping, value_format=settings.value_format)
    codes = {name: one.codes[0].rpartition(" ") for name, one in mapping.features.items() if one.codes}
    if not codes:
        raise SettingsError(f"--mapping {settings.mapping}: {_NO_CODE}")
    return _Fhir(mapping, codes) if settings.value_format == "fhir" else _Hl7(mapping, codes)


class _ByCode:
    def __init__(self, mapping: Mapping, codes: dict[str, tuple[str, str, str]]) -> None:
        self._type = mapping.patient_id.type
        self._codes = {name: (system, code) for name, (system, _, code) in codes.items()}
        self._units = {name: mapping.features[name].wanted(name) for name in codes}

    def _present(self, row: Named[str, Any]) -> Iterator[tuple[str, Any]]:
        """The features that have a value; if none has, the first one, so that each row becomes a message."""
        present = [(name, row.get(name)) for name in self._codes if not _is_missing(row.get(name))]
        yield from present or [(next(iter(self._codes)), None)]


class _Fhir(_ByCode):
    """A Bundle with one Observation per feature."""

    def __call__(self, row: Named[str, Any]) -> bytes:
        same = {"resourceType": "Observation", "status": "final", "effectiveDateTime": row.get(EVENT_TIME)}
        same["subject"] = self._subject(row.get(PATIENT_ID))
        entries = [{"resource": same | self._measured(name, value)} for name, value in self._present(row)]
        return orjson.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries})

    def _subject(self, patient: Any) -> dict[str, Any]:
        if self._type is not None:
            return {"identifier": {"system": self._type, "value": patient}}
        if isinstance(patient, str) and _is_fhir_id(patient):
            return {"reference": f"Patient/{patient}"}
        return {"identifier": {"value": patient}}

    def _measured(self, name: str, value: Any) -> dict[str, Any]:
        system, code = self._codes[name]
        coding = {"code": code} | ({"system": fhir.SYSTEMS.get(system, system)} if system else {})
        content: dict[str, Any] = {"dataAbsentReason": {"text": "unknown"}}
        if isinstance(value, str):
            content = {"valueString": value}
        elif value is not None:
            content = {"valueQuantity": {"value": value, "system": fhir.UCUM, "code": self._units[name]}}
        return {"code": {"coding": [coding]}, **content}


class _Hl7(_ByCode):
    """ORU^R01 with one OBX per feature."""

    def __init__(self, mapping: Mapping, codes: dict[str, tuple[str, str, str]]) -> None:
        super().__init__(mapping, codes)
        self._numbers = count(1)

    def __call__(self, row: Named[str, Any]) -> bytes:
        time = _in_hl7(row.get(EVENT_TIME))
        number = next(self._numbers)
        patient = "" if row.get(PATIENT_ID) is None else _escaped(row[PATIENT_ID])
        segments = [
            f"MSH|^~\\&|vitalstream||||{time}||ORU^R01^ORU_R01|{number}|P|2.6||||||UNICODE UTF-8",
            f"PID|1||{patient}^^^^{_escaped(self._type or '')}",
            f"OBR|1||||||{time}",
            *(
                self._measured(place, name, value, time)
                for place, (name, value) in enumerate(self._present(row), 1)
            ),
        ]
        return "\r".join(segments).encode()

    def _measured(self, place: int, name: str, value: Any, time: str) -> str:
        system, code = (_escaped(text) for text in self._codes[name])
        is_number = type(value) in (int, float)
        kind, text = ("NM", format(Decimal(repr(value)), "f")) if is_number else ("ST", _escaped(value or ""))
        status = "X" if value is None else "F"
        code = f"{code}^^{hl7v2.SYSTEMS.get(system, system)}"
        return f"OBX|{place}|{kind}|{code}||{text}|{_escaped(self._units[name])}^^UCUM|||||{status}|||{time}"


_ESCAPES: Final = str.maketrans(
    {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\r": " ", "\n": " "}
)


def _escaped(text: Any) -> str:
    return str(text).translate(_ESCAPES)


def _in_hl7(time: Any) -> str:
    """RFC 3339 in HL7's notation; anything else, which is not a time, unchanged."""
    parts = _time_parts(time) if isinstance(time, str) and _is_time(time) else None
    if parts is None:
        return "" if time is None else _escaped(time)
    *digits, fraction, zone = parts.groups()
    return "".join(digits) + (fraction or "") + ("+0000" if zone in "Zz" else zone.replace(":", ""))


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))

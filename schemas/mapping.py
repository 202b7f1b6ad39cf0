"""A mapping: where a topic's messages have patient, time and features, and in which units. Declared in TOML.

Paths are dotted names and list positions (`vitals.temp.value`, `readings.0.value`). There is no expression language.
"""

import hashlib
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path as File
from typing import Annotated, Any, Final, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from broker.errors import SettingsError
from schemas.fields import Path
from schemas.lookalike import difference, look_alikes
from schemas.printable import printable
from schemas.times import TimeKind
from schemas.units import STANDARD_UNITS, Conversions, conversion, known_code

BY_CODE: Final = frozenset({"fhir", "hl7v2"})
"""Formats whose readings are identified by codes; in all others, paths say where readings are."""


def _path(text: object) -> object:
    if not isinstance(text, str):
        raise ValueError("must be a path such as vitals.temp.value")
    names = tuple(text.split("."))
    if not all(names):
        raise ValueError("must be a path of names with single dots between, such as vitals.temp.value")
    return names


Dotted = Annotated[Path, BeforeValidator(_path)]
Text = Annotated[str, Field(min_length=1)]
Conditions = dict[str, list[str | int | bool]]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class _Source(_Part):
    """A field of the message, or one of its headers."""

    path: Dotted | None = None
    header: Text | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.path and self.header:
            raise ValueError("has a path and a header; give one of them")
        return self


class PatientId(_Source):
    """Where the patient's ID is. `type` chooses among several identifiers of a FHIR or HL7 message."""

    integer: bool = False
    type: Text | None = None


class EventTime(_Source):
    """Where the time is, how it is written, and the zone of times without one."""

    kind: TimeKind = Field(TimeKind.RFC3339, alias="as", strict=False)
    zone: Text | None = None
    tolerance_s: float = Field(60, ge=0, strict=False)

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError("must be a zone's name such as Europe/Berlin, as the IANA has it") from None
        return name

    @property
    def zone_info(self) -> ZoneInfo | None:
        """The zone."""
        return None if self.zone is None else ZoneInfo(self.zone)


class Readings(_Part):
    """Readings that are identified by a code: each message is one, or has a list of them at `path`."""

    path: Dotted | None = None
    code: Dotted
    value: Dotted
    unit: Dotted | None = None


class Feature(_Part):
    """Where a feature is, and in which unit."""

    path: Dotted | None = None
    codes: tuple[Text, ...] = Field((), strict=False)
    unit: Text | None = None
    unit_path: Dotted | None = None
    units: dict[str, str] = {}
    model_unit: Text | None = None
    split: tuple[Text, Annotated[int, Field(ge=0)]] | None = Field(None, strict=False)
    absent: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(map(bool, (self.path, self.codes, self.absent))) != 1:
            raise ValueError("must have a path, or codes, or absent = true")
        if not self.path and (self.split or self.unit_path):
            raise ValueError("has split or unit_path, which need a path")
        return self

    @field_validator("units")
    @classmethod
    def _known_units(cls, units: dict[str, str]) -> dict[str, str]:
        for word, code in units.items():
            if known_code(code) is None:
                raise ValueError(f"says that {word} is {code}, which is not a supported UCUM code")
        return units

    def wanted(self, name: str) -> str | None:
        """The unit in which the model wants this feature; None if unspecified."""
        return STANDARD_UNITS.get(name) or self.model_unit or self.unit


class Mapping(_Part):
    """The content of `--mapping`. `sha256` is the file's, '' if there is none."""

    root: Dotted | None = None
    when: Conditions = {}
    retracted: Conditions = {}
    patient_id: PatientId = PatientId()
    event_time: EventTime = EventTime()
    readings: Readings | None = None
    features: dict[str, Feature]
    sha256: str = ""

    @field_validator("when", "retracted")
    @classmethod
    def _paths(cls, conditions: Conditions) -> Conditions:
        for path in conditions:
            _path(path)
        return conditions

    def in_hl7_times(self) -> Self:
        """The same for messages of HL7 v2, whose times are written in one way."""
        return self.model_copy(
            update={"event_time": self.event_time.model_copy(update={"kind": TimeKind.HL7})}
        )

    def conditions(self, which: Conditions) -> list[tuple[Path, list[Any]]]:
        """Each condition's path, and the values that satisfy it."""
        return [(tuple(path.split(".")), values) for path, values in which.items()]

    @property
    def reads_headers(self) -> bool:
        """Whether the patient or the time is in a header."""
        return bool(self.patient_id.header or self.event_time.header)

    def reads_units(self, feature: Feature) -> bool:
        """Whether each message names the unit of this feature."""
        by_code = feature.codes and (self.readings is None or self.readings.unit)
        return bool(feature.unit_path or by_code)

    def conversions(self, name: str) -> Conversions:
        """Converts values of a feature to the model's unit.

        If neither messages nor the mapping give a unit, values are assumed to be in the model's.
        """
        feature = self.features[name]
        wanted = feature.wanted(name)
        assumed = None if self.reads_units(feature) else wanted
        return Conversions(wanted, feature.unit or assumed, feature.units)


def load_mapping(file: File, *, value_format: str, features: Sequence[str] | None = None) -> Mapping:
    """Load a mapping from a TOML file, or the ready-made one of this name, for a model with these features, if any.

    Raises SettingsError if it can't be read, contradicts itself, or lacks one of the features.
    """
    try:
        content = _content(file)
        found = tomllib.loads(content.decode("utf-8-sig"))
        if "sha256" in found:
            raise SettingsError(f"--mapping {file}: there is no key sha256; leave it out")
        mapping = Mapping(**found, sha256=hashlib.sha256(content).hexdigest())
    except OSError as error:
        raise SettingsError(f"--mapping {file}: {(error.strerror or '').lower()}; check the path") from None
    except ValidationError as error:
        raise SettingsError(f"--mapping {file}: {'; '.join(_sentences(error))}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "not UTF-8 text"
        raise SettingsError(f"--mapping {file}: {reason[:1].lower()}{reason[1:]}") from None
    for problem in _misfits(mapping, value_format, features):
        raise SettingsError(f"--mapping {file}: {problem}")
    return mapping.in_hl7_times() if value_format == "hl7v2" else mapping


def _content(file: File) -> bytes:
    """The bytes of a file, or of the ready-made mapping of this name."""
    ready = resources.files("schemas").joinpath("mappings", f"{file}.toml")
    return (
        ready.read_bytes()
        if file.name == str(file) and not file.exists() and ready.is_file()
        else file.read_bytes()
    )


def _sentences(error: ValidationError) -> list[str]:
    return [_sentence(one) for one in error.errors()]


_KINDS: Final = {
    "bool": "true or false",
    "string": "a text",
    "dict": "a table",
    "model": "a table",
    "tuple": "a list",
}


def _sentence(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"] if not str(part).startswith("function-"))
    if error["type"] == "extra_forbidden":
        return f"there is no key {where}; docs/mapping-reference.md lists all keys"
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "value_error":
        return f"{where} {error['msg'].removeprefix('Value error, ')}"
    if error["type"] == "enum":
        return f"{where} must be {error['ctx']['expected'].replace(chr(39), '')}"
    kind = error["type"].removesuffix("_type")
    return f"{where} must be {_KINDS.get(kind, error['msg'].lower())}"


def _misfits(mapping: Mapping, value_format: str, features: Sequence[str] | None) -> list[str]:
    """What is wrong with the mapping as a whole, each in a sentence."""
    problems = [*_missing_places(mapping, value_format)]
    for name, feature in mapping.features.items():
        problems += _unit_problems(
            name, feature, by_message=value_format in BY_CODE or mapping.reads_units(feature)
        )
    given = {wanted: name for name, wanted in look_alikes(mapping.features, features or ())}
    for name in features or ():
        if name in given:
            problems.append(
                f"the model wants {name}, and [features.{printable(given[name])}] only looks like it "
                f"({difference(given[name], name)}); rename that to {name}"
            )
        elif name not in mapping.features:
            problems.append(
                f"the model wants {name}, which has no [features.{name}]; add it, with absent = true if no message "
                "ever has it"
            )
    return problems


def _missing_places(mapping: Mapping, value_format: str) -> list[str]:
    if value_format in BY_CODE:
        placed = [name for name, one in mapping.features.items() if one.path]
        return [
            *(f"{name} is not for --value-format {value_format}; leave it out" for name in _places(mapping)),
            *(f"features.{name} has a path; --value-format {value_format} wants codes" for name in placed),
            *_shared_codes(mapping),
        ]
    if mapping.patient_id.type:
        return ["patient_id.type is for --value-format fhir or hl7v2; leave it out"]
    problems = _shared_codes(mapping) + [
        f"{name} needs a path (or a header) that says where messages have it"
        for name, source in (("patient_id", mapping.patient_id), ("event_time", mapping.event_time))
        if not (source.path or source.header)
    ]
    if any(one.codes for one in mapping.features.values()) and mapping.readings is None:
        problems.append(
            "features by codes need [readings], which says where a reading has its code and its value"
        )
    return problems


def _places(mapping: Mapping) -> list[str]:
    """The keys that say where something is, or in which form."""
    id_, time = mapping.patient_id, mapping.event_time
    keys = {name: getattr(mapping, name) for name in ("root", "when", "retracted", "readings")}
    keys |= {f"patient_id.{name}": getattr(id_, name) for name in ("path", "header", "integer")}
    keys |= {f"event_time.{name}": getattr(time, name) for name in ("path", "header")}
    keys["event_time.as"] = "kind" in time.model_fields_set
    return [name for name, given in keys.items() if given]


def _shared_codes(mapping: Mapping) -> list[str]:
    """Codes that belong to two features."""
    owners: dict[str, str] = {}
    return [
        f"features.{name} and features.{owners[code]} have the same code {code}; leave it out of one"
        for name, one in mapping.features.items()
        for code in dict.fromkeys(one.codes)
        if owners.setdefault(code, name) != name
    ]


def _unit_problems(name: str, feature: Feature, *, by_message: bool) -> list[str]:
    at = f"features.{name}"
    if name in STANDARD_UNITS and feature.model_unit not in (None, STANDARD_UNITS[name]):
        return [f"{at}.model_unit must be {STANDARD_UNITS[name]}, the unit of every feature with this name"]
    wanted = feature.wanted(name)
    if by_message and wanted is None and not feature.absent:
        return [f"{at} comes with units; say in model_unit which of them the model was fitted with"]
    given = [("unit", feature.unit)] if feature.unit else []
    given += [(f"units.{word}", code) for word, code in feature.units.items()]
    return [
        f"{at}.{key} is {code}, which can't be made {wanted}"
        for key, code in given
        if wanted is not None and conversion(known_code(code) or code, wanted) is None
    ]

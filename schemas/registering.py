"""Registers the schemas of the topics: a model's messages, and results."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import orjson

from broker.errors import SettingsError
from broker.settings import Settings
from schemas.contract import (
    ALL_NUMBERS,
    BOOLEAN,
    CATEGORY,
    EVENT_TIME,
    PATIENT_ID,
    STANDARD_FEATURES,
    Dtypes,
    Wanted,
)
from schemas.registry import make_registry
from schemas.result_format import result_schema
from schemas.vitals import vitals_schema

_KINDS: Final = {BOOLEAN: "boolean", CATEGORY: "string"}
_is_avro_name = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII).fullmatch


class Registered(NamedTuple):
    """The outcome for a subject; a subject with other schemas is not changed."""

    subject: str
    outcome: Literal["registered", "exists", "differs"]


def vitals_avro(model: Wanted | None = None) -> dict[str, Any]:
    """The Avro schema of the messages for a model, or for the standard features; equivalent to the JSON Schema.

    Raises SettingsError if a feature's name is not allowed in Avro.
    """
    features, dtypes = _wanted(model)
    told = vitals_schema(features, dtypes=dtypes)["properties"]
    if odd := next((name for name in features if not _is_avro_name(name)), None):
        raise SettingsError(
            f"--value-format avro: Avro allows no field named {odd!r}, which the model needs; rename the "
            "feature, or register your own schema and read it with a --mapping"
        )
    fields: list[dict[str, Any]] = [{"name": name, "type": "string"} for name in (PATIENT_ID, EVENT_TIME)]
    fields += [
        {"name": name, "type": ["null", _KINDS.get(dtypes.get(name, ""), "double")], "default": None}
        for name in features
    ]
    return {
        "type": "record",
        "name": "Vitals",
        "namespace": "vitalstream",
        "fields": [one | {"doc": told[one["name"]]["description"]} for one in fields],
    }


def _wanted(model: Wanted | None) -> tuple[Sequence[str], Dtypes]:
    return (STANDARD_FEATURES, ALL_NUMBERS) if model is None else (model.features, model.dtypes)


def register_schemas(settings: Settings, model: Wanted | None = None) -> Iterator[Registered]:
    """Register the schemas for --value-format and --result-format with the settings' registry.

    Messages read with a mapping have their sender's schema, which is not ours to register.

    Raises:
        SettingsError: the client or fastavro is missing, or a name does not fit.
        RegistryError: the registry can't be asked, or refuses a schema.
    """
    if settings.schema_registry is None:
        return
    if settings.mapping is None and settings.value_format == "avro":
        yield _registered(settings, None, "AVRO", orjson.dumps(vitals_avro(model)).decode())
    if settings.mapping is None and settings.value_format == "json-schema":
        features, dtypes = _wanted(model)
        told = vitals_schema(features, dtypes=dtypes)
        yield _registered(settings, None, "JSON", orjson.dumps(told).decode())
    if settings.result_format == "avro":
        yield _registered(settings, settings.output_topic, "AVRO", result_schema())


def _registered(settings: Settings, topic: str | None, kind: str, schema: str) -> Registered:
    registry = make_registry(settings, topic=topic)
    if registry.knows(schema, kind):
        return Registered(registry.subject, "exists")
    if registry.require():
        return Registered(registry.subject, "differs")
    registry.register(schema, kind)
    return Registered(registry.subject, "registered")

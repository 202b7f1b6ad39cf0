"""The format of results: JSON, or Avro after the ID of their schema in a registry."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from importlib.util import find_spec
from io import BytesIO
from types import NoneType
from typing import Any, Final, TypeAlias, get_args, get_origin, get_type_hints

import orjson

from broker.errors import SettingsError
from broker.settings import Settings
from schemas import load_schema
from schemas.registry import make_registry
from schemas.results import RiskResult

Write: TypeAlias = Callable[[list[bytes]], list[bytes]]
"""Converts results in JSON to values of a format."""
Load: TypeAlias = Callable[[Any], Any]
"""The object in a value of the risk topic; raises ValueError or TypeError if there is none."""

RESULT_NAME: Final = "vitalstream.RiskResult"
_AVRO: Final = {str: "string", int: "long", float: "double", bool: "boolean", NoneType: "null"}
_HISTORY: Final = {
    "type": "record",
    "name": "History",
    "fields": [
        {"name": "rows_seen", "type": "long"},
        {"name": "hours_since_first_seen", "type": "double"},
        {"name": "carried_forward", "type": {"type": "map", "values": "double"}},
    ],
}
_NEEDS: Final = "--result-format avro needs fastavro: install vitalstream with the extra avro"


def as_json(results: list[bytes]) -> list[bytes]:
    """Return them unchanged."""
    return results


def result_schema() -> str:
    """The Avro schema of a result, from `RiskResult` and the descriptions in risk.schema.json."""
    told = load_schema("risk")
    hints = get_type_hints(RiskResult)
    return orjson.dumps(
        {
            "type": "record",
            "name": RESULT_NAME.rpartition(".")[2],
            "namespace": RESULT_NAME.rpartition(".")[0],
            "doc": told["description"],
            "fields": [
                {"name": one.name, "type": _avro(hints[one.name]), "doc": _doc(told["properties"][one.name])}
                | ({} if one.default is MISSING else {"default": one.default})
                for one in fields(RiskResult)
            ],
        }
    ).decode()


def _avro(hint: Any) -> Any:
    """The Avro type of an annotation; null comes first in a union, so that it can be the default."""
    if get_origin(hint) is list:
        return {"type": "array", "items": _AVRO[get_args(hint)[0]]}
    if get_origin(hint) is dict:
        return _HISTORY
    kinds = (
        [_AVRO[hint]]
        if hint in _AVRO
        else sorted(map(_avro, get_args(hint)), key=lambda kind: kind != "null")
    )
    return kinds if len(kinds) > 1 else kinds[0]


def _doc(described: dict[str, Any]) -> str:
    return str(described["description"])


def make_result_writer(settings: Settings) -> Write:
    """A writer of --result-format. For Avro it registers the schema unless it is registered already.

    Raises:
        SettingsError: fastavro or the registry's client is missing, or its properties make no sense.
        RegistryError: the registry can't be asked, or refuses the schema.
    """
    if settings.result_format == "json":
        return as_json
    _require_fastavro()
    registry = make_registry(settings, topic=settings.output_topic)
    return _AvroWriter(registry.register(result_schema()))


class _AvroWriter:
    def __init__(self, schema_id: int) -> None:
        from fastavro import parse_schema, schemaless_writer

        self._mark = b"\x00" + schema_id.to_bytes(4, "big")
        self._schema = parse_schema(orjson.loads(result_schema()), {})
        self._write = schemaless_writer

    def __call__(self, results: list[bytes]) -> list[bytes]:
        return [*map(self._one, results)]

    def _one(self, result: bytes) -> bytes:
        stream = BytesIO(self._mark)
        stream.seek(len(self._mark))
        self._write(stream, self._schema, orjson.loads(result))
        return stream.getvalue()


def make_result_loader(settings: Settings) -> Load:
    """A reader of --result-format. With Avro it also reads JSON, because results may be older than the setting.

    The reader raises RegistryError if the registry can't be asked. Raises SettingsError.
    """
    if settings.result_format == "json":
        return orjson.loads
    _require_fastavro()
    from schemas.formats.avro import written_with
    from schemas.formats.framing import ByReference
    from schemas.messages import Plain

    framing = ByReference(make_registry(settings, topic=settings.output_topic), written_with)

    def load(value: bytes | None) -> Any:
        if not value or value[0] != 0:
            return orjson.loads(value or b"")
        (frame,) = framing([Plain(value)], [value])
        document = frame.schema.read(value, frame.begin) if isinstance(frame, tuple) else None
        if document is None:
            raise ValueError
        return document

    return load


def _require_fastavro() -> None:
    if find_spec("fastavro") is None:
        raise SettingsError(_NEEDS)

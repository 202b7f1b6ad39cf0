"""Avro: each value is read with the schema it was written with and no other, so no field is renamed or filled in."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from math import isfinite
from typing import Any, Final

import orjson
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.read import LOGICAL_READERS
from fastavro.schema import SchemaParseException, UnknownType
from fastavro.validation import validate

from schemas.columns import Columns, Read, Reader, unfit
from schemas.contract import MAX_MESSAGE_BYTES, Reason
from schemas.formats.framing import Framing, UnusableSchemaError
from schemas.messages import Message
from schemas.registry import WrittenWith

# What fastavro raises on bytes that do not match the schema.
_UNDECODABLE: Final = (EOFError, IndexError, KeyError, OverflowError, ValueError, TypeError, ArithmeticError)

# And on objects that do not.
_UNWRITABLE: Final = (*_UNDECODABLE, AttributeError)

_PRIMITIVES: Final = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
_DECIMAL: Final = "vitalstream-decimal"
# Numbers with a time unit in the schema; the mapping gives a field's unit instead.
_AS_WRITTEN: Final = {"timestamp-millis", "timestamp-micros", "timestamp-nanos"}
_MAX_PARTS: Final = 10_000
_MAX_SCALE: Final = 300


class AvroSchema:
    """A writer's schema, ready for reading; `references` are schemas of types that it names.

    Raises UnusableSchemaError with a phrase that says why: it is not Avro, describes no record, or could keep the
    reader busy forever.
    """

    def __init__(self, text: str | bytes, references: Sequence[str] = ()) -> None:
        named: dict[str, Any] = {}
        try:
            for one in (*references, text):
                self._schema: Any = parse_schema(_plain(orjson.loads(one)), named)
            _Shape(named).require_record(self._schema)
        except (SchemaParseException, UnknownType, ValueError, KeyError, TypeError, RecursionError):
            raise UnusableSchemaError("is no Avro schema") from None

    def write(self, document: Any) -> bytes | None:
        """The bytes of an object; None if it does not match the schema."""
        stream = BytesIO()
        try:
            if not validate(document, self._schema, raise_errors=False):
                return None  # which the writer would convert: 84.5 to an int, a text to true
            schemaless_writer(stream, self._schema, document)
        except _UNWRITABLE:
            return None
        return stream.getvalue()

    def read(self, value: bytes, begin: int) -> Any:
        """The object in `value` from byte `begin` to its end; None if there is none, or something after it."""
        stream = BytesIO(value)
        stream.seek(begin)
        try:
            document = schemaless_reader(stream, self._schema, None)
        except _UNDECODABLE:
            return None
        return document if stream.tell() == len(value) and type(document) is dict else None


def _plain(schema: Any) -> Any:
    """The schema with values as written, except decimals, which become floats."""
    if isinstance(schema, list):
        return [*map(_plain, schema)]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _plain(part) for name, part in schema.items()}
    kind = plain.get("logicalType")
    if kind == "decimal":
        if not 0 <= int(plain.get("scale", 0)) <= _MAX_SCALE:
            raise UnusableSchemaError(f"has a decimal with a scale above {_MAX_SCALE}")
        plain["logicalType"] = _DECIMAL
    elif kind in _AS_WRITTEN or (kind == "uuid" and plain.get("type") == "string"):
        del plain["logicalType"]
    return plain


def _decimal(content: bytes, schema: Any, *_: object) -> float:
    unscaled = int.from_bytes(content, "big", signed=True)
    return float(unscaled / 10 ** int(schema.get("scale", 0)))


LOGICAL_READERS[f"bytes-{_DECIMAL}"] = LOGICAL_READERS[f"fixed-{_DECIMAL}"] = _decimal


class _Shape:
    """Finds schemas with which a few bytes take forever to read, or overflow the stack."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._parts = 0

    def require_record(self, schema: Any) -> None:
        """Raise UnusableSchemaError unless values are objects whose size is bounded by their bytes."""
        self._may_be_nothing(schema, frozenset())
        kinds = [schema] if not isinstance(schema, list) else [one for one in schema if one != "null"]
        if not all(self._is_record(one) for one in kinds):
            raise UnusableSchemaError("does not describe a record")

    def _is_record(self, schema: Any) -> bool:
        found = self._named.get(schema, schema) if isinstance(schema, str) else schema
        return isinstance(found, dict) and found["type"] in ("record", "error", "map")

    def _may_be_nothing(self, schema: Any, inside: frozenset[str]) -> bool:
        """Whether some values of this type take no bytes."""
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise UnusableSchemaError(f"has more than {_MAX_PARTS:,} parts")
        if isinstance(schema, list):
            for one in schema:
                self._may_be_nothing(one, inside)
            return False
        if isinstance(schema, str):
            return schema == "null" if schema in _PRIMITIVES else self._named_type(schema, inside)
        return self._complex(schema, inside)

    def _named_type(self, name: str, inside: frozenset[str]) -> bool:
        if name in inside:
            raise UnusableSchemaError(f"has the type {name} inside itself")
        return self._may_be_nothing(self._named[name], inside)

    def _complex(self, schema: Any, inside: frozenset[str]) -> bool:
        kind = schema["type"]
        if kind in ("record", "error"):
            within = inside | {schema["name"]}
            fields = [
                self._may_be_nothing(field["type"], within) for field in schema["fields"]
            ]  # all of them
            return all(fields)
        if kind in ("array", "map"):
            if (
                self._may_be_nothing(schema["items" if kind == "array" else "values"], inside)
                and kind == "array"
            ):
                raise UnusableSchemaError("has an array of items that take no bytes")
            return False
        if kind == "fixed":
            return bool(schema["size"] == 0)
        return kind != "enum" and self._may_be_nothing(kind, inside)


def written_with(schema: WrittenWith) -> AvroSchema:
    """A registry's schema, ready for reading.

    Raises UnusableSchemaError.
    """
    if schema.kind != "AVRO":
        raise UnusableSchemaError("is no Avro schema")
    return AvroSchema(schema.text, schema.references)


class AvroDocuments:
    """Reads Avro objects."""

    def __init__(self, framing: Framing[AvroSchema], *, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._framing = framing
        self._max_bytes = max_bytes

    def __call__(self, messages: Sequence[Message]) -> Read:
        """Read a chunk."""
        values: list[Any] = [message.value() for message in messages]
        problems = unfit(values, self._max_bytes)
        positions: list[int] = []
        documents: list[dict[str, Any]] = []
        for position, frame in enumerate(self._framing(messages, values)):
            if position in problems:
                continue
            if isinstance(frame, Reason):
                problems[position] = frame, ""
            elif (document := frame.schema.read(values[position], frame.begin)) is None:
                problems[position] = Reason.NOT_DECODABLE, ""
            else:
                positions.append(position)
                documents.append(document)
        return positions, documents, problems


class FiniteReader:
    """Reads like `read`, except for numbers that are not finite: Avro has them, but they are not measurements."""

    def __init__(self, read: Reader) -> None:
        self._read = read

    def __call__(self, messages: Sequence[Message]) -> Columns:
        """Read a chunk."""
        columns = self._read(messages)
        if not _all_finite(columns.cells):
            columns.cells = [_or_text(cell) for cell in columns.cells]
        return columns


def _all_finite(cells: list[Any]) -> bool:
    try:
        return isfinite(sum(filter(None, cells)))
    except (TypeError, OverflowError):
        return False


def _or_text(cell: Any) -> Any:
    return cell if type(cell) is not float or isfinite(cell) else str(cell)

"""Avro messages, written by fastavro."""

import io
from typing import Any

import fastavro


def record(*fields: tuple[str, Any], name: str = "Vitals") -> dict[str, Any]:
    """The schema of a record."""
    return {"type": "record", "name": name, "fields": [{"name": name, "type": kind} for name, kind in fields]}


def written(schema: Any, value: Any) -> bytes:
    """A value as Avro bytes; times are given as numbers."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(without_times(schema), {}), value)
    return stream.getvalue()


def without_times(schema: Any) -> Any:
    """The schema without the logical types that fastavro would convert."""
    if isinstance(schema, list):
        return [*map(without_times, schema)]
    if not isinstance(schema, dict):
        return schema
    timed = "timestamp" in str(schema.get("logicalType")) or schema.get("logicalType") == "uuid"
    return {
        name: without_times(part) for name, part in schema.items() if not (timed and name == "logicalType")
    }

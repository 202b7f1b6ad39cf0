"""Writes objects as Avro, with the topic's newest schema in a registry, or with a file's."""

from collections.abc import Callable
from typing import Any

from broker.errors import SettingsError
from broker.settings import Settings
from schemas.decoding import avro_schema_of
from schemas.encoding import UnwritableRowError, newest_schema
from schemas.formats.avro import written_with
from schemas.formats.framing import UnusableSchemaError


def make_avro_writer(settings: Settings) -> Callable[[Any], bytes]:
    """A writer of objects; it raises UnwritableRowError for one that does not match the schema.

    Raises:
        SettingsError: there is no schema, or it can't be used.
        RegistryError: the registry can't be asked.
    """
    mark, schema = b"", None
    if settings.schema_registry is None:
        schema = avro_schema_of(settings)
    else:
        number, found = newest_schema(settings)
        mark = b"\x00" + number.to_bytes(4, "big")
        try:
            schema = written_with(found)
        except UnusableSchemaError as error:
            raise SettingsError(f"--value-format avro: the newest schema of the topic {error}") from None

    def write(document: Any) -> bytes:
        value = schema.write(_whole_numbers(document))
        if value is None:
            raise UnwritableRowError(
                "--value-format avro: a row does not match the schema, such as text in place of a number; "
                "correct the row, or give a --mapping or schema that matches"
            )
        return mark + value

    return write


def _whole_numbers(content: Any) -> Any:
    """Turn whole numbers into ints: a schema may want an int for the row's 84.0, and accepts 84 as a double."""
    if isinstance(content, dict):
        return {name: _whole_numbers(one) for name, one in content.items()}
    if isinstance(content, list):
        return [*map(_whole_numbers, content)]
    return int(content) if isinstance(content, float) and content.is_integer() else content

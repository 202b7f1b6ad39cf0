"""Reads our own results, metrics and dead letters."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from enum import StrEnum
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import orjson

from broker.errors import VitalstreamError

Message = TypeVar("Message")


class MessageError(VitalstreamError):
    """A message on one of our output topics does not belong there."""


def reader(
    kind: type[Message], load: Callable[[bytes], Any] = orjson.loads
) -> Callable[[bytes | None], Message]:
    """A function that reads an object as the dataclass `kind`, checking types by its annotations.

    `load` parses a value's object or raises ValueError; by default values are JSON. Unknown fields are ignored;
    absent ones take their default, if they have one. It raises MessageError, which names the field and never shows its
    content.
    """
    types = {name: _json_types(hint) for name, hint in get_type_hints(kind).items()}
    described: Any = kind
    defaults = {field.name: field.default for field in fields(described) if field.default is not MISSING}

    def read(value: bytes | None) -> Message:
        try:
            doc = load(value or b"")
        except ValueError:
            doc = None
        if not isinstance(doc, dict):
            raise MessageError(f"a message is not a {kind.__name__}: it is not a JSON object")
        doc = defaults | doc
        for name, allowed in types.items():
            if type(doc.get(name, ...)) not in allowed:
                raise MessageError(
                    f"a message is not a {kind.__name__}: {name} is missing or of the wrong type"
                )
        return kind(**{name: doc[name] for name in types})

    return read


def _json_types(hint: Any) -> set[type]:
    if isinstance(hint, UnionType):
        return set[type]().union(*map(_json_types, get_args(hint)))
    plain = get_origin(hint) or hint
    if issubclass(plain, StrEnum):
        return {str}
    return {float, int} if plain is float else {plain}  # a float may be written without a point

"""The names in messages, and which of them identify a model's features."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import orjson

from schemas.fields import at
from schemas.mapping import Mapping
from schemas.messages import Message

_MOST: Final = 1000  # names of a message
_ENTRIES: Final = 50  # of a list
_LEVELS: Final = 100


@dataclass(frozen=True)
class Names:
    """The names that identify features, and how to find all names in a message, including unread ones.

    With `mapped` they are a mapping's paths; with `coded` its codes: messages with none of these are for others.
    """

    wanted: tuple[str, ...]
    of: Callable[[Message], Iterable[str]]
    mapped: bool = False
    coded: bool = False


def json_object(message: Message) -> Any:
    """A message's JSON; None if it is not JSON."""
    try:
        return orjson.loads(message.value() or b"")
    except ValueError:
        return None


def names_for(
    features: Sequence[str], mapping: Mapping | None, load: Callable[[Message], Any] = json_object
) -> Names:
    """The names in messages that are objects: fields or, with a mapping, the paths of fields or the codes of readings.

    `load` parses a message's object.
    """
    if mapping is None:
        return Names(tuple(features), lambda message: _fields(load(message)))
    if mapping.readings is not None:
        return coded_names(features, mapping, lambda message: _codes(load(message), mapping))
    root = mapping.root or ()
    places = [mapping.features[name] for name in features]
    paths = tuple(".".join((*root, *place.path)) for place in places if place.path)
    return Names(paths, lambda message: _paths(load(message)), mapped=True)


def coded_names(features: Sequence[str], mapping: Mapping, of: Callable[[Message], Iterable[str]]) -> Names:
    """The codes of a mapping, and how to find the codes in a message."""
    codes = tuple(code for name in features for code in mapping.features[name].codes)
    return Names(codes, of, mapped=True, coded=True)


def walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Everything inside an object or list, with its path, outermost first.

    Of a long list only the first entries, and limited in depth: parsers accept more levels than the stack allows.
    """
    if len(path) == _LEVELS:
        return
    inside: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = ((str(number), entry) for number, entry in enumerate(value[:_ENTRIES]))
    for name, one in inside:
        yield (*path, name), one
        yield from walk(one, (*path, name))


def _fields(document: Any) -> list[str]:
    return [*document] if isinstance(document, dict) else []


def _paths(document: Any) -> list[str]:
    inside = walk(document) if isinstance(document, dict) else ()
    return [".".join(path) for path, _ in islice(inside, _MOST)]


def _codes(document: Any, mapping: Mapping) -> list[str]:
    readings = mapping.readings
    if readings is None or not isinstance(document, dict):
        return []
    (entries,) = at((*(mapping.root or ()), *(readings.path or ())), [document])
    found = at(readings.code, entries if type(entries) is list else [entries])
    return [str(code) for code in found if type(code) in (str, int)]

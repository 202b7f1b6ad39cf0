"""The names in messages, and those among them by which a model's features are known."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import orjson

from schemas.fields import at
from schemas.mapping import Mapping

_MOST: Final = 1000  # names of a message
_ENTRIES: Final = 50  # of a list


@dataclass(frozen=True)
class Names:
    """By which names features are known, and what finds the names in a message, those that nobody reads included.

    `wanted` is empty where no message can be looked at for names. With `mapped` they are a mapping's paths or codes.
    """

    wanted: tuple[str, ...]
    of: Callable[[bytes | None], Iterable[str]]
    mapped: bool = False


def names_for(features: Sequence[str], mapping: Mapping | None) -> Names:
    """Those of JSON messages: fields or, with a mapping, the paths of fields or the codes of readings."""
    if mapping is None:
        return Names(tuple(features), _fields)
    places = [mapping.features[name] for name in features]
    if mapping.readings is not None:
        codes = tuple(code for place in places for code in place.codes)
        return Names(codes, lambda value: _codes(value, mapping), mapped=True)
    root = mapping.root or ()
    paths = tuple(".".join((*root, *place.path)) for place in places if place.path)
    return Names(paths, _paths, mapped=True)


def walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Everything inside an object or list, with its path, the outer first; of a long list only the first entries."""
    inside: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = ((str(number), entry) for number, entry in enumerate(value[:_ENTRIES]))
    for name, one in inside:
        yield (*path, name), one
        yield from walk(one, (*path, name))


def _loaded(value: bytes | None) -> Any:
    try:
        return orjson.loads(value or b"")
    except ValueError:  # no JSON
        return None


def _fields(value: bytes | None) -> list[str]:
    document = _loaded(value)
    return [*document] if isinstance(document, dict) else []


def _paths(value: bytes | None) -> list[str]:
    document = _loaded(value)
    inside = walk(document) if isinstance(document, dict) else ()
    return [".".join(path) for path, _ in islice(inside, _MOST)]


def _codes(value: bytes | None, mapping: Mapping) -> list[str]:
    document, readings = _loaded(value), mapping.readings
    if readings is None or not isinstance(document, dict):
        return []
    (entries,) = at((*(mapping.root or ()), *(readings.path or ())), [document])
    found = at(readings.code, entries if type(entries) is list else [entries])
    return [str(code) for code in found if type(code) in (str, int)]

"""Columns out of documents: for each field, what every message has there.

Paths are made into plain getters once. Fields beside each other are read together, and what is above them once.
"""

from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

Path = tuple[str, ...]
"""The names on the way to a field, and numbers in lists."""

ABSENT: Final = object()
"""What a message has in a field it does not have at all."""


class _Misplaced(dict[str, Any]):
    """Stands where a path wants an object and the message has something else: all that is read of it is wrong, too."""

    def __getitem__(self, name: str) -> Any:
        return self

    def get(self, name: str, default: Any = None) -> Any:
        return self


_MISPLACED: Final = _Misplaced()


def at(path: Path, documents: list[Any]) -> list[Any]:
    """What every document has at a path; ABSENT where there is nothing, or null on the way."""
    for name in path:
        documents = _step(name, documents)
    return documents


def _step(name: str, parents: list[Any]) -> list[Any]:
    try:
        return [parent[name] for parent in parents]
    except (KeyError, TypeError):
        if set(map(type, parents)) == {dict}:
            return [parent.get(name, ABSENT) for parent in parents]
        return [_inside(parent, name) for parent in parents]


def _inside(parent: Any, name: str) -> Any:
    if isinstance(parent, dict):
        return parent.get(name, ABSENT)
    if parent is None or parent is ABSENT:
        return ABSENT
    if type(parent) is list and name.isdecimal():
        return parent[int(name)] if int(name) < len(parent) else ABSENT
    return _MISPLACED


class Fields:
    """Reads several fields of all documents; absent and null are the same here: None."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._groups: dict[Path, list[str]] = {}
        for *above, name in paths:
            self._groups.setdefault(tuple(above), []).append(name)

    def cells(self, documents: list[Any]) -> list[Any]:
        """The fields of the first document, then those of the next."""
        if len(self._groups) == 1:
            ((above, names),) = self._groups.items()
            return _cells(names, at(above, documents))
        return [*chain.from_iterable(zip(*self.columns(documents), strict=True))]

    def columns(self, documents: list[Any]) -> list[list[Any]]:
        """A column for each field."""
        above: dict[Path, list[Any]] = {(): documents}
        columns: dict[Path, list[Any]] = {}
        for path, names in self._groups.items():
            cells = _cells(names, _reach(path, above))
            columns |= {(*path, name): cells[number :: len(names)] for number, name in enumerate(names)}
        return [columns[path] for path in self._paths]


def _reach(path: Path, known: dict[Path, list[Any]]) -> list[Any]:
    """What every document has at a path; what was found on the way is kept in `known`."""
    if path not in known:
        known[path] = _step(path[-1], _reach(path[:-1], known))
    return known[path]


def _cells(names: Sequence[str], parents: list[Any]) -> list[Any]:
    try:
        if len(names) == 1:
            return [parent[names[0]] for parent in parents]
        return [*chain.from_iterable(map(itemgetter(*names), parents))]
    except (KeyError, TypeError):
        if set(map(type, parents)) == {dict}:
            return [parent.get(name) for parent in parents for name in names]
        found = (_inside(parent, name) for parent in parents for name in names)
        return [None if one is ABSENT else one for one in found]

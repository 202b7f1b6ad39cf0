"""Extracts columns from documents: for each field, its value in every message.

Paths are compiled to plain getters once. Sibling fields are read together, and their parents only once.
"""

from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from types import NoneType
from typing import Any, Final

from typing_extensions import override

Path = tuple[str, ...]
"""The names that lead to a field, and positions in lists."""

ABSENT: Final = object()
"""The value of a field that a message lacks."""


class _Misplaced(dict[str, Any]):
    """Stands for a value that is not an object although a path needs one: all fields below it are wrong, too."""

    @override
    def __getitem__(self, name: str) -> Any:
        return self

    @override
    def get(self, name: str, default: Any = None) -> Any:
        return self


_MISPLACED: Final = _Misplaced()


def at(path: Path, documents: list[Any]) -> list[Any]:
    """Every document's value at a path; ABSENT if there is none, or a null above it."""
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


def interleaved(columns: Sequence[list[Any]]) -> list[Any]:
    """The first of each column, then the second."""
    cells: list[Any] = [None] * (len(columns) * len(columns[0]))
    for number, column in enumerate(columns):
        cells[number :: len(columns)] = column
    return cells


class Fields:
    """Reads several fields of all documents; absent and null both give None."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._groups: dict[Path, list[str]] = {}
        for *above, name in paths:
            self._groups.setdefault(tuple(above), []).append(name)

    def cells(self, documents: list[Any]) -> list[Any]:
        """The fields of the first document, then those of the next."""
        if len(self._groups) == 1 and len(self._paths) > 1:
            ((above, names),) = self._groups.items()
            return _cells(names, _reach(above, {(): documents}))
        return interleaved(self.columns(documents))

    def columns(self, documents: list[Any]) -> list[list[Any]]:
        """A column for each field."""
        above: dict[Path, list[Any]] = {(): documents}
        columns: dict[Path, list[Any]] = {}
        for path, names in self._groups.items():
            parents = _reach(path, above)
            columns |= zip(((*path, name) for name in names), _columns(names, parents), strict=True)
        return [columns[path] for path in self._paths]


def _reach(path: Path, known: dict[Path, list[Any]]) -> list[Any]:
    """Every document's value at a path; objects found on the way are kept in `known`."""
    if path not in known:
        known[path] = _columns(path[-1:], _reach(path[:-1], known))[0]
    return known[path]


def _columns(names: Sequence[str], parents: list[Any]) -> list[list[Any]]:
    """For each name, every parent's value; None if it is absent or null."""
    try:
        return [[parent[name] for parent in parents] for name in names]
    except (KeyError, TypeError):
        pass
    try:
        return [[None if parent is None else parent[name] for parent in parents] for name in names]
    except (KeyError, TypeError):
        kinds = set(map(type, parents))
    if kinds == {dict, NoneType}:
        nothing = dict.fromkeys(names)
        return _columns(names, [parent or nothing for parent in parents])
    if kinds == {dict}:
        return [[parent.get(name) for parent in parents] for name in names]
    return [_uneven(name, parents) for name in names]


def _cells(names: Sequence[str], parents: list[Any]) -> list[Any]:
    """The fields of the first parent, then those of the next."""
    try:
        return [*chain.from_iterable(map(itemgetter(*names), parents))]
    except (KeyError, TypeError):
        return interleaved(_columns(names, parents))


def _uneven(name: str, parents: list[Any]) -> list[Any]:
    found = (_inside(parent, name) for parent in parents)
    return [None if one is ABSENT else one for one in found]

"""Objects of any shape, read with a mapping: by paths, or by codes if each reading says what it is."""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from schemas.columns import Columns, Documents, Reader
from schemas.contract import EVENT_TIME, MAX_MESSAGE_BYTES, PATIENT_ID, Problem, Reason, RefusedError
from schemas.fields import ABSENT, Fields, Path, at, interleaved
from schemas.formats.json import FlatReader, JsonDocuments
from schemas.mapping import EventTime, Feature, Mapping, PatientId, Readings
from schemas.messages import Message
from schemas.readings import OneRow, Reading, Row, codes_of
from schemas.units import NO_VALUE

_number = re.compile(r"\s*([+-]?[0-9]+(?:[.][0-9]+)?)\s*").fullmatch

Cells = tuple[list[Any], dict[int, list[Any]], dict[int, Problem]]
"""The values of all features row by row, the units sent with them by feature, and problems by row."""


class MappedReader:
    """Reads objects as a mapping says."""

    def __init__(self, features: Sequence[str], mapping: Mapping, documents: Documents) -> None:
        self._mapping = mapping
        self._when = mapping.conditions(mapping.when)
        self._retracted = mapping.conditions(mapping.retracted)
        self._cells = (
            _ByCode(features, mapping, mapping.readings) if mapping.readings else _ByPath(features, mapping)
        )
        self._documents = documents

    def __call__(self, messages: Sequence[Message]) -> Columns:
        """Read a chunk."""
        positions, documents, problems = self._documents(messages)
        roots = at(self._mapping.root or (), documents)
        ids = self._source(self._mapping.patient_id, roots, messages, positions)
        times = self._source(self._mapping.event_time, roots, messages, positions)
        if self._mapping.patient_id.integer:
            ids = [str(one) if type(one) is int else one if one is ABSENT else None for one in ids]
        cells, units, wrong = self._cells(roots)
        for row, problem in chain(self._foreign(documents), self._rootless(roots), wrong.items()):
            problems.setdefault(positions[row], problem)
        return Columns(positions, [*ids], [*times], cells, problems, units)

    def _source(
        self,
        source: PatientId | EventTime,
        roots: list[Any],
        messages: Sequence[Message],
        positions: Sequence[int],
    ) -> list[Any]:
        if source.header is None:
            return at(source.path or (), roots)
        return [_header(messages[position], source.header) for position in positions]

    def _foreign(self, documents: list[Any]) -> Iterator[tuple[int, Problem]]:
        """Retractions, and messages that are not for us."""
        for path, values in self._retracted:
            yield from _rows(path, documents, values, there=True, reason=Reason.RETRACTED)
        for path, values in self._when:
            yield from _rows(path, documents, values, there=False, reason=Reason.NOT_FOR_US)

    def _rootless(self, roots: list[Any]) -> Iterator[tuple[int, Problem]]:
        if set(map(type, roots)) <= {dict}:
            return
        name = ".".join(self._mapping.root or ())
        for row, root in enumerate(roots):
            if root is ABSENT or root is None:
                yield row, (Reason.MISSING_FIELD, name)
            elif type(root) is not dict:
                yield row, (Reason.WRONG_TYPE, name)


class _ByPath:
    """Each feature has its own path."""

    def __init__(self, features: Sequence[str], mapping: Mapping) -> None:
        places = [mapping.features[name] for name in features]
        self._paths = [place.path for place in places]
        self._splits = {number: place.split for number, place in enumerate(places) if place.split}
        with_units = {number: place.unit_path for number, place in enumerate(places) if place.unit_path}
        self._with_units = [*with_units]
        self._values = [number for number, path in enumerate(self._paths) if path]
        self._fields = Fields([*filter(None, self._paths), *with_units.values()])
        self._plain = not with_units and not self._splits and None not in self._paths
        self._in_objects = _InObjects.of(places)

    def __call__(self, roots: list[Any]) -> Cells:
        if self._plain:
            return self._fields.cells(roots), {}, {}
        if self._in_objects:
            try:
                return self._in_objects(roots)
            except (KeyError, TypeError):  # one lacks a name, or is no object
                pass
        found = self._fields.columns(roots)
        units = dict(zip(self._with_units, found[len(self._values) :], strict=True))
        columns: list[list[Any]] = [[None] * len(roots) for _ in self._paths]
        for number, column in zip(self._values, found, strict=False):
            columns[number] = column
        for number, (separator, part) in self._splits.items():
            columns[number] = [_part(text, separator, part) for text in columns[number]]
        return interleaved(columns), units, {}


class _InObjects:
    """Each feature is an object of its own, all with the same names for the value and its unit."""

    def __init__(self, paths: Sequence[Path], names: tuple[str, str]) -> None:
        self._objects = Fields(paths)
        self._width = len(paths)
        self._names = names

    @classmethod
    def of(cls, places: Sequence[Feature]) -> "_InObjects | None":
        """What reads features in these places; None if they are not so."""
        pairs = [(place.path or (), place.unit_path or ()) for place in places if not place.split]
        objects = [path[:-1] for path, unit_path in pairs if path[:-1] == unit_path[:-1]]
        names = {(path[-1], unit_path[-1]) for path, unit_path in pairs if path and unit_path}
        if not all(objects) or len(objects) < len(places) or len(names) > 1:
            return None
        return cls(objects, names.pop())

    def __call__(self, roots: list[Any]) -> Cells:
        """Raises KeyError or TypeError if an object lacks one of the names, or is something else."""
        objects = self._objects.cells(roots)
        (value, unit), width = self._names, self._width
        values = [None if one is None else one[value] for one in objects]
        units = [NO_VALUE if one is None else one[unit] for one in objects]
        return values, {number: units[number::width] for number in range(width)}, {}


class _ByCode:
    """A message is one reading, or holds a list of them."""

    def __init__(self, features: Sequence[str], mapping: Mapping, readings: Readings) -> None:
        self._readings = readings
        self._width = len(features)
        self._codes = codes_of(features, mapping)
        self._row = OneRow(features, mapping)

    def __call__(self, roots: list[Any]) -> Cells:
        cells: list[Any] = []
        units: list[Any] = []
        wrong: dict[int, Problem] = {}
        for number, entries in enumerate(at(self._readings.path, roots) if self._readings.path else roots):
            try:
                row = self._one_row(entries if type(entries) is list else [entries])
            except RefusedError as refused:
                row = self._row.empty()
                wrong[number] = refused.problem
            cells += row[0]
            units += row[1]
        return cells, {number: units[number :: self._width] for number in range(self._width)}, wrong

    def _one_row(self, entries: list[Any]) -> Row:
        known = [*self._known(entries)]
        if not known:
            raise RefusedError(Reason.NOT_FOR_US)
        return self._row(known)

    def _known(self, entries: list[Any]) -> Iterator[Reading]:
        codes = at(self._readings.code, entries)
        values = at(self._readings.value, entries)
        units = at(self._readings.unit, entries) if self._readings.unit else [None] * len(entries)
        for code, value, unit in zip(codes, values, units, strict=True):
            number = self._codes.get(("", str(code))) if type(code) in (str, int) else None
            if number is not None:
                yield number, None if value is ABSENT else value, None if unit is ABSENT else unit


def object_reader(features: Sequence[str], mapping: Mapping | None, documents: Documents) -> Reader:
    """A reader of objects: with a mapping, or flat ones without."""
    return MappedReader(features, mapping, documents) if mapping else FlatReader(features, documents)


def json_reader(
    features: Sequence[str], mapping: Mapping | None, *, max_bytes: int = MAX_MESSAGE_BYTES
) -> Reader:
    """A reader of JSON: flat objects with our names, or any shape with a mapping."""
    return object_reader(features, mapping, json_documents(features, mapping, max_bytes=max_bytes))


def json_documents(
    features: Sequence[str], mapping: Mapping | None, *, max_bytes: int = MAX_MESSAGE_BYTES
) -> JsonDocuments:
    """A reader of JSON objects that finds repeated names among those that are read."""
    names = names_read(mapping) if mapping else (PATIENT_ID, EVENT_TIME, *features)
    return JsonDocuments(names, nested=mapping is not None, max_bytes=max_bytes)


def names_read(mapping: Mapping) -> list[str]:
    """Every name on a path that is read."""
    readings = mapping.readings
    paths: list[Path | None] = [mapping.root, mapping.patient_id.path, mapping.event_time.path]
    paths += [path for path, _ in (*mapping.conditions(mapping.when), *mapping.conditions(mapping.retracted))]
    paths += [path for one in mapping.features.values() for path in (one.path, one.unit_path)]
    if readings:
        paths += [readings.path, readings.code, readings.value, readings.unit]
    return [*dict.fromkeys(name for path in paths for name in path or ())]


def _rows(
    path: Path, documents: list[Any], values: Sequence[Any], *, there: bool, reason: Reason
) -> Iterator[tuple[int, Problem]]:
    """The documents that have one of these values at the path, or those that have none of them."""
    wanted = {(type(value), value) for value in values}
    for row, found in enumerate(at(path, documents)):
        is_one = type(found) in (str, int, bool) and (type(found), found) in wanted
        if is_one is there:
            yield row, (reason, ".".join(path))


def _header(message: Message, name: str) -> Any:
    """A header as text; bytes if it is not text, ABSENT if there is no such header."""
    for key, content in message.headers() or ():
        if key == name:
            try:
                return content.decode()
            except (AttributeError, UnicodeDecodeError):
                return content
    return ABSENT


def _part(text: Any, separator: str, part: int) -> Any:
    """A number from a text such as 120/80; the value unchanged if it has no number there."""
    if type(text) is not str:
        return None if text is None else ""
    parts = text.split(separator)
    match = _number(parts[part]) if part < len(parts) else None
    number = float(match[1]) if match else math.inf
    return number if math.isfinite(number) else text

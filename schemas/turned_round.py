"""A reversed mapping: turns a row into an object from which the mapping reads the same row."""

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from broker.errors import SettingsError
from schemas.contract import EVENT_TIME, PATIENT_ID
from schemas.fields import Path
from schemas.mapping import Feature, Readings
from schemas.mapping import Mapping as Declared
from schemas.times import TimeKind, is_rfc3339
from schemas.units import conversion, known_code

Row = Mapping[str, Any]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PER_SECOND: Final = {TimeKind.EPOCH_S: 1, TimeKind.EPOCH_MS: 1_000, TimeKind.EPOCH_US: 1_000_000}


class Objects:
    """Turns rows into objects. Values are written in the mapping's unit, or labelled with the model's.

    Where the mapping reads one feature per message, a row has one (`by_feature`). Raises SettingsError if the
    mapping reads headers.
    """

    def __init__(self, mapping: Declared, *, hl7_time: Callable[[Any], str]) -> None:
        if mapping.reads_headers:
            raise SettingsError("--mapping reads headers, which are not sent; give a mapping with paths")
        self._mapping = mapping
        self._root = mapping.root or ()
        self._hl7_time = hl7_time
        self._fixed = [(path, values[0]) for path, values in mapping.conditions(mapping.when) if values]
        self._features = mapping.features
        self._convert = {name: _back(name, one) for name, one in mapping.features.items()}

    def __call__(self, row: Row) -> dict[str, Any]:
        """The object for a row: patient_id, event_time and features by name, None if missing."""
        document: dict[str, Any] = {}
        for path, value in self._fixed:
            _put(document, path, value)
        mapping = self._mapping
        _put(document, (*self._root, *(mapping.patient_id.path or ())), self._id(row.get(PATIENT_ID)))
        _put(document, (*self._root, *(mapping.event_time.path or ())), self._time(row.get(EVENT_TIME)))
        values = {
            name: self._convert[name](row[name]) for name in self._features if not _missing(row.get(name))
        }
        if mapping.readings is None:
            self._by_path(document, values)
        elif mapping.readings.path is None:
            (reading,) = self._readings(mapping.readings, values)
            for path, value in reading:
                _put(document, (*self._root, *path), value)
        else:
            entries = [_object(reading) for reading in self._readings(mapping.readings, values)]
            _put(document, (*self._root, *mapping.readings.path), entries)
        return document

    def _id(self, patient: Any) -> Any:
        is_number = self._mapping.patient_id.integer and isinstance(patient, str) and patient.isdecimal()
        return int(patient) if is_number else patient

    def _time(self, time: Any) -> Any:
        """The time in the mapping's notation; anything that is not a time stays unchanged."""
        kind = self._mapping.event_time.kind
        if kind is TimeKind.RFC3339 or not (isinstance(time, str) and is_rfc3339(time)):
            return time
        if kind is TimeKind.HL7:
            return self._hl7_time(time)
        try:
            moment = datetime.fromisoformat(time.upper())
        except ValueError:  # a leap second
            return time
        since, scale = moment - _EPOCH, _PER_SECOND[kind]
        whole = (
            timedelta(seconds=1) / scale
            if scale < _PER_SECOND[TimeKind.EPOCH_US]
            else timedelta(microseconds=1)
        )
        return since // whole if not since % whole else since / whole

    def _by_path(self, document: dict[str, Any], values: dict[str, Any]) -> None:
        parts: dict[Path, dict[int, Any]] = {}
        for name, place in self._features.items():
            if place.path is None:
                continue
            path = (*self._root, *place.path)
            if place.split:
                parts.setdefault(path, {})[place.split[1]] = values.get(name)
            elif name in values:
                _put(document, path, values[name])
                if place.unit_path:
                    _put(document, (*self._root, *place.unit_path), place.wanted(name))
        separators = {
            (*self._root, *one.path): one.split[0]
            for one in self._features.values()
            if one.path and one.split
        }
        for path, found in parts.items():
            if None not in found.values():  # a text that lacks a part would be a number for none of them
                texts = [str(found.get(number, "")) for number in range(max(found) + 1)]
                _put(document, path, separators[path].join(texts))

    def _readings(self, readings: Readings, values: dict[str, Any]) -> Iterator[list[tuple[Path, Any]]]:
        """Code, value and unit of each feature, with their paths."""
        for name in _coded(self._mapping, values):
            yield [
                (readings.code, self._features[name].codes[0]),
                (readings.value, values.get(name)),
                *(
                    [(readings.unit, self._features[name].wanted(name))]
                    if readings.unit and name in values
                    else []
                ),
            ]


def by_feature(mapping: Declared, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Divide rows into those of one feature each, for a mapping that reads one feature per message.

    Features without a value are omitted; a row without any becomes one of the first feature, without a value.
    """
    for row in rows:
        same = {name: row[name] for name in (PATIENT_ID, EVENT_TIME) if name in row}
        for name in _coded(mapping, {name for name, value in row.items() if not _missing(value)}):
            yield same | {name: row.get(name)}


def _coded(mapping: Declared, present: Container[str]) -> list[str]:
    """The features that are present, with their codes; the first one if none is, so that the message counts as ours."""
    coded = [name for name, place in mapping.features.items() if place.codes]
    return [name for name in coded if name in present] or coded[:1]


def _object(fields: Iterable[tuple[Path, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, value in fields:
        _put(found, path, value)
    return found


def _back(name: str, place: Feature) -> Callable[[Any], Any]:
    """Convert from the model's unit to the mapping's; texts stay as they are."""
    wanted = place.wanted(name)
    if place.unit is None or wanted is None or place.unit_path:
        return _as_it_is
    code = place.units.get(place.unit) or known_code(place.unit) or place.unit
    way = conversion(wanted, code)
    if way is None or code == wanted:
        return _as_it_is

    def convert(value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return (value - way.zero) * way.factor if is_number else value

    return convert


def _as_it_is(value: Any) -> Any:
    return value


def _put(document: dict[str, Any], path: Path, value: Any) -> None:
    """Put a value at a path, in which numbers are list positions."""
    inside: Any = document
    for name, following in zip(path, (*path[1:], None), strict=True):
        key: Any = name
        if isinstance(inside, list):
            key = int(name)
            inside += [None] * (key + 1 - len(inside))
        if following is None:
            inside[key] = value
            return
        known = inside[key] if isinstance(inside, list) else inside.get(key)
        if not isinstance(known, dict | list):
            inside[key] = [] if following.isdecimal() else {}
        inside = inside[key]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))

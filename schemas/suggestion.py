"""Drafts a mapping for a sample of messages from known names, codes and units, for a person to correct.

Unknown and assumed parts are written as comments, so that every guess is visible.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson

from schemas.contract import EVENT_TIME, PATIENT_ID, STANDARD_FEATURES
from schemas.fields import Path
from schemas.known_names import PRESSURES, UNITS, VALUES, fold, known, known_as, unit_of
from schemas.names import walk
from schemas.ranges import PHYSIOLOGIC
from schemas.times import TimeKind, times_of
from schemas.units import STANDARD_UNITS, conversion, known_code
from schemas.units import UNITS as UCUM

_ANY_ZONE: Final = ZoneInfo("UTC")
_OTHERS: Final = 30  # fields listed in comments
_OPERATIONS: Final = {"c", "u", "r", "d"}  # Debezium's: create, update, read, delete
Leaves = dict[Path, list[Any]]
"""The texts and numbers of messages, by path."""


@dataclass(frozen=True)
class Suggestion:
    """A mapping as TOML, and which parts were not found: `patient_id`, `event_time` or `features`."""

    text: str
    missing: tuple[str, ...]


def suggest(documents: Sequence[dict[str, Any]]) -> Suggestion:
    """A mapping for messages like these."""
    leaves = _leaves(documents)
    root = _changed_row(leaves)
    inside = {
        path[len(root) :]: values
        for path, values in leaves.items()
        if path[: len(root)] == root and path != root  # some messages may have a plain value there
    }
    readings = _readings(documents) if not root else None
    patient = _best(inside, PATIENT_ID, lambda values: set(map(type, values)) <= {str, int})
    time = _best(inside, EVENT_TIME, lambda values: _kind(values) is not None)
    features = [*readings.lines()] if readings else [*_by_path(inside)]
    lines = [
        *_envelope(root),
        *(_patient(patient, inside) if patient else ['# patient_id = { path = "" }  # not found']),
        *(_time(time, inside[time]) if time else ['# event_time = { path = "" }  # not found']),
        "",
        *(readings.head() if readings else ()),
        "[features]",
        *features,
        *([] if readings else _others(inside)),
    ]
    found = {PATIENT_ID: patient, EVENT_TIME: time, "features": any(line[0] != "#" for line in features)}
    return Suggestion("\n".join(lines) + "\n", tuple(name for name, there in found.items() if not there))


def _leaves(documents: Iterable[Any]) -> Leaves:
    """The values that a path can reach."""
    found: Leaves = {}
    for document in documents:
        for path, value in walk(document):
            if type(value) in (str, int, float) and not any("." in name or not name for name in path):
                found.setdefault(path, []).append(value)
    return found


def _best(leaves: Leaves, name: str, fits: Any) -> Path | None:
    """The most likely path for this field."""
    found = [
        (one.rank, -len(values), len(path), path)
        for path, values in leaves.items()
        if (one := known(path)) is not None and one.name == name and fits(values)
    ]
    return min(found)[-1] if found else None


def _text(value: object) -> str:
    """A text in TOML's notation."""
    return orjson.dumps(value).decode().replace("\x7f", "\\u007f")


def _path(path: Path) -> str:
    return _text(".".join(path))


# --- envelope, patient, time


def _changed_row(leaves: Leaves) -> Path:
    """The path of the changed row in Debezium's messages."""
    for path, values in leaves.items():
        after = (*path[:-1], "after")
        if path[-1] == "op" and {*values} <= _OPERATIONS and any(one[:-1] == after for one in leaves):
            return after
    return ()


def _envelope(root: Path) -> Iterator[str]:
    if root:
        operation = _path((*root[:-1], "op"))
        yield f"root = {_path(root)}"
        yield f'when = {{ {operation} = ["c", "u", "r"] }}'
        yield f'retracted = {{ {operation} = ["d"] }}'


def _patient(path: Path, leaves: Leaves) -> Iterator[str]:
    whole = ", integer = true" if set(map(type, leaves[path])) == {int} else ""
    yield f"patient_id = {{ path = {_path(path)}{whole} }}"


def _time(path: Path, values: list[Any]) -> Iterator[str]:
    kind = _kind(values)
    how = "" if kind is TimeKind.RFC3339 else f', as = "{kind}"'
    yield f"event_time = {{ path = {_path(path)}{how} }}"
    if kind is not None and times_of(kind, None)(values)[1]:
        yield '# Some of these times have no zone. Say whose they are: zone = "Europe/Berlin"'


def _kind(values: list[Any]) -> TimeKind | None:
    """The common notation of these times. A number can be an epoch of only one kind."""
    for kind in TimeKind:
        _, wrong = times_of(kind, _ANY_ZONE)(values)
        if not wrong:
            return kind
    return None


# --- features


@dataclass(frozen=True)
class _Readings:
    """Where the readings with codes are, and the codes of each feature."""

    path: Path
    code: Path
    value: Path
    unit: Path | None
    codes: dict[str, list[str]]
    units: dict[str, list[Any]]

    def head(self) -> Iterator[str]:
        yield "[readings]"
        if self.path:
            yield f"path = {_path(self.path)}"
        yield f"code = {_path(self.code)}"
        yield f"value = {_path(self.value)}"
        if self.unit:
            yield f"unit = {_path(self.unit)}"
        yield ""

    def lines(self) -> Iterator[str]:
        for name, codes in self.codes.items():
            words, remarks = _aliases(name, self.units.get(name, [])) if self.unit else ("", [])
            yield f"{name} = {{ codes = {_text(codes)}{words} }}"
            yield from remarks


def _readings(documents: Sequence[dict[str, Any]]) -> _Readings | None:
    """The list, or the message itself, whose items have a known code next to a value."""
    lists = {path for one in documents for path, value in walk(one) if type(value) is list}
    lists = {path for path in lists if not any(name.isdecimal() or "." in name for name in path)}
    for path in [*sorted(lists, key=len), ()]:
        entries = [entry for one in documents for entry in _entries(one, path) if type(entry) is dict]
        if (found := _coded(path, entries)) is not None:
            return found
    return None


def _entries(document: Any, path: Path) -> list[Any]:
    for name in path:
        document = document.get(name) if type(document) is dict else None
    return document if type(document) is list else [] if path else [document]


def _coded(path: Path, entries: list[dict[str, Any]]) -> _Readings | None:
    leaves = _leaves(entries)
    coded = {one: sum(known_as(str(value)) is not None for value in values) for one, values in leaves.items()}
    values = [one for one, numbers in leaves.items() if fold(one[-1]) in VALUES and _are_numbers(numbers)]
    code = max(coded, key=lambda one: coded[one], default=())
    if not values or not code or not coded[code]:
        return None
    units = [one for one in leaves if fold(one[-1]) in UNITS and one != code]
    found = _Readings(path, code, values[0], units[0] if units else None, {}, {})
    for entry in entries:
        told = {one: value[0] for one, value in _leaves([entry]).items()}
        name = known_as(str(told.get(code, "")))
        if name is not None:
            codes = found.codes.setdefault(name, [])
            codes += [] if str(told[code]) in codes else [str(told[code])]
            if found.unit in told:
                found.units.setdefault(name, []).append(told[found.unit])
    return found


def _by_path(leaves: Leaves) -> Iterator[str]:
    for name in STANDARD_FEATURES:
        path = _best(leaves, name, _are_numbers)
        if path is not None:
            yield from _feature(name, path, leaves)
    for path, values in leaves.items():
        if fold(path[-1]) in PRESSURES and all(type(one) is str and one.count("/") == 1 for one in values):
            yield f'systolic_bp = {{ path = {_path(path)}, split = ["/", 0] }}'
            yield f'diastolic_bp = {{ path = {_path(path)}, split = ["/", 1] }}'
            return


def _feature(name: str, path: Path, leaves: Leaves) -> Iterator[str]:
    beside = [one for one in leaves if one[:-1] == path[:-1] and _is_unit_of(one[-1], path[-1])]
    told = known(path)
    if beside and all(type(word) is str for word in leaves[beside[0]]):
        words, remarks = _aliases(name, leaves[beside[0]])
        yield f"{name} = {{ path = {_path(path)}, unit_path = {_path(beside[0])}{words} }}"
        yield from remarks
    elif told is not None and told.unit and conversion(told.unit, STANDARD_UNITS[name]) is not None:
        yield f"{name} = {{ path = {_path(path)}, unit = {_text(told.unit)} }}"
    else:
        yield f"{name} = {{ path = {_path(path)} }}"
        yield from _supposed_unit(name, leaves[path])


def _is_unit_of(name: str, value: str) -> bool:
    word = fold(name)
    return word in UNITS if fold(value) in VALUES else any(word == fold(value) + unit for unit in UNITS)


def _aliases(name: str, told: Iterable[Any]) -> tuple[str, list[str]]:
    """The part of a feature's table that explains a sender's unit words, and remarks on the others."""
    words = dict.fromkeys(word for word in told if type(word) is str)
    codes = {word: unit_of(word) for word in words}
    wanted = STANDARD_UNITS[name]
    fit = {word: code for word, code in codes.items() if code and conversion(code, wanted) is not None}
    aliases = [f"{_text(word)} = {_text(code)}" for word, code in fit.items() if known_code(word) is None]
    remarks = (
        []
        if len(fit) == len(words)
        else [f"# Some units of {name} are not known: see mapping check --payload"]
    )
    return (f", units = {{ {', '.join(aliases)} }}" if aliases else ""), remarks


def _supposed_unit(name: str, values: list[Any]) -> Iterator[str]:
    """The unit in which the values would be plausible, if most of them are not in the standard unit."""
    lowest, highest = PHYSIOLOGIC[name]
    middle = statistics.median(values)
    if lowest <= middle <= highest:
        return
    for code in sorted(UCUM):
        convert = conversion(code, STANDARD_UNITS[name])
        if convert and lowest <= (middle - convert.zero) * convert.factor <= highest:
            yield f"# Most are no {name} in {STANDARD_UNITS[name]}. If they are in {code}, add: unit = {_text(code)}"
            return


def _others(leaves: Leaves) -> list[str]:
    """Numbers with unknown names, which may be features of a model."""
    names = [path for path, values in leaves.items() if known(path) is None and _are_numbers(values)]
    lines = [f"# {_text('_'.join(path))} = {{ path = {_path(path)} }}" for path in names[:_OTHERS]]
    return ["# Other numbers:", *lines] if lines else []


def _are_numbers(values: list[Any]) -> bool:
    return set(map(type, values)) <= {int, float}

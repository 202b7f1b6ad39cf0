"""Patient messages: a chunk becomes one frame, and every rejected message has a reason.

Valid messages are checked a chunk at a time, at C speed. A message with a problem is examined alone and slows no other.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Named
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from broker.errors import SettingsError
from schemas.columns import Columns, Reader
from schemas.contract import (
    ALL_NUMBERS,
    BOOLEAN,
    CATEGORY,
    EVENT_TIME,
    FEATURES,
    MAX_MESSAGE_BYTES,
    MAX_PATIENT_ID,
    NO_CATEGORIES,
    PATIENT_ID,
    RFC3339,
    STANDARD_FEATURES,
    Categories,
    Dtypes,
    Problem,
    Reason,
)
from schemas.fields import ABSENT
from schemas.formats.mapped import json_reader
from schemas.mapping import Mapping
from schemas.messages import Message
from schemas.names import Names, names_for
from schemas.ranges import PHYSIOLOGIC, RangeCheck, Ranges
from schemas.scanning import make_scanner
from schemas.times import Times, as_received, times_of
from schemas.units import Conversions

if TYPE_CHECKING:
    from vitalstream_native import Scanner

Floats = np.ndarray[Any, np.dtype[np.float64]]
_NUMBERS = {float, int, type(None)}  # compared by exact type, because bool is a subclass of int
_OTHERS = {BOOLEAN: {bool, type(None)}, CATEGORY: {str, type(None)}}


@dataclass(frozen=True, slots=True)
class Reject:
    """A rejected message: its position in the chunk, the reason, and the field at fault ('' if none)."""

    position: int
    reason: Reason
    field: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """A chunk's accepted messages, and the rejected ones.

    `frame` has one column per feature in model order: float64, or objects where booleans or text are wanted. Its index
    is each message's position in the chunk (a RangeIndex when none is rejected). `patient_ids`, `event_times` (as
    received) and `implausible` (the features whose values were out of range, and are NaN in `frame`) go with its rows;
    `rejects` are in order of position.
    """

    frame: pd.DataFrame
    patient_ids: list[str]
    event_times: list[str]
    implausible: list[list[str]]
    rejects: list[Reject]

    def without(self, problems: Named[int, Problem]) -> "Decoded":
        """A copy with these rows rejected."""
        kept = [row for row in range(len(self.frame)) if row not in problems]
        positions = self.frame.index
        rejects = [Reject(int(positions[row]), *problem) for row, problem in problems.items()]
        return Decoded(
            self.frame.iloc[kept],
            [self.patient_ids[row] for row in kept],
            [self.event_times[row] for row in kept],
            [self.implausible[row] for row in kept],
            sorted([*self.rejects, *rejects], key=lambda reject: reject.position),
        )


class Decoder:
    """Decodes chunks of messages for a model with the given features.

    Without `mapping` a message is a flat object with fields of the features' names. A feature that is absent, null, or
    outside of `ranges` is NaN, or None if it is not a number according to `dtypes`. `read` reads the messages; by
    default they are JSON, which the native kernel scans if it can. Raises SettingsError if `features` cannot be field
    names beside `patient_id` and `event_time`.

    `mapping` is the SHA-256 of the mapping, `unread` its features that are not read, `names` what the names in messages
    are to be compared with; without it those of JSON.
    """

    def __init__(
        self,
        features: Sequence[str],
        *,
        dtypes: Dtypes = ALL_NUMBERS,
        ranges: Ranges = PHYSIOLOGIC,
        max_bytes: int = MAX_MESSAGE_BYTES,
        mapping: Mapping | None = None,
        read: Reader | None = None,
        names: Names | None = None,
    ) -> None:
        _check_features(features)
        self.mapping = mapping.sha256 if mapping else None
        self.names = names or names_for(features, mapping)
        self.reads_headers = mapping is not None and mapping.reads_headers
        self.unread = tuple(name for name in (mapping.features if mapping else ()) if name not in features)
        self.features = tuple(features)
        self.read = read or json_reader(features, mapping, max_bytes=max_bytes)
        scanner = None if read else make_scanner(features, mapping, dtypes=dtypes, max_bytes=max_bytes)
        self._chunk = self._checked if scanner is None else partial(self._scanned, scanner)
        self._types = [_OTHERS[dtypes[name]] if name in dtypes else _NUMBERS for name in features]
        self._others = [number for number, name in enumerate(features) if name in dtypes]
        self._names = pd.Index(self.features)
        self._clear = RangeCheck(features, ranges).clear
        if mapping is None:
            self._times: Times = as_received
            self.conversions: dict[int, Conversions] = {}
        else:
            self._times = times_of(mapping.event_time.kind, mapping.event_time.zone_info)
            self.conversions = {n: mapping.conversions(name) for n, name in enumerate(features)}
        self._with_units = [
            n for n, name in enumerate(features) if mapping and mapping.features[name].unit_path
        ]

    def __call__(self, messages: Sequence[Message]) -> Decoded:
        """Decode a chunk: every message becomes either a row or a reject."""
        columns, array = self._chunk(messages)
        if self.conversions:
            array = self._converted(columns, array)
        implausible = self._clear(array)
        problems = columns.problems
        index = (
            pd.Index(np.array(columns.positions, dtype=np.int64)) if problems else pd.RangeIndex(len(array))
        )
        frame = pd.DataFrame(array, index=index, columns=self._names, copy=False)
        for number, values in columns.others.items():
            frame.isetitem(number, pd.Series(values, index=frame.index, dtype=object))
        return Decoded(
            frame,
            columns.patient_ids,
            columns.event_times,
            implausible,
            [Reject(position, *problems[position]) for position in sorted(problems)],
        )

    def _converted(self, columns: Columns, array: Floats) -> Floats:
        """The numbers in the model's units. A message with a number that exceeds a double there is rejected."""
        for number, convert in self.conversions.items():
            if columns.units.get(number) != []:
                convert.column(array[:, number], columns.units.get(number))
        excessive = np.isinf(array)
        if not excessive.any():
            return array
        for row, number in np.argwhere(excessive).tolist():
            problem = Reason.WRONG_TYPE, self.features[number]
            columns.problems.setdefault(columns.positions[row], problem)
        rows = np.flatnonzero(excessive.any(axis=1)).tolist()
        columns.drop(rows[::-1])
        return np.delete(array, rows, axis=0)

    def _scanned(self, scanner: "Scanner", messages: Sequence[Message]) -> tuple[Columns, Floats]:
        """The messages of a chunk that the kernel accepts, and the rest as decoded by Python."""
        array = np.empty((len(messages), len(self.features)))
        ids, times, left = scanner.scan([message.value() for message in messages], array)
        # Values with a unit are converted here, the others with the frame.
        converted: dict[int, list[Any]] = {number: [] for number in self._with_units}
        columns = Columns([*range(len(messages))], ids, times, [], {}, converted)
        if not left:
            return columns, array
        rest, cells = self._checked([messages[position] for position in left])
        for number, units in rest.units.items():
            if units:
                self.conversions[number].column(cells[:, number], units)
        rows = [left[row] for row in rest.positions]
        array[rows] = cells
        for row, id_, time in zip(rows, rest.patient_ids, rest.event_times, strict=True):
            ids[row], times[row] = id_, time
        columns.problems = {left[row]: problem for row, problem in rest.problems.items()}
        if rest.problems:
            columns.drop(sorted(columns.problems, reverse=True))
            array = array[columns.positions]
        return columns, array

    def _checked(self, messages: Sequence[Message]) -> tuple[Columns, Floats]:
        """The valid messages of a chunk, and their numbers."""
        columns = self.read(messages)
        problems = columns.problems
        columns.event_times, bad_times = self._times(columns.event_times)
        for row, problem in chain(
            _id_problems(columns.patient_ids),
            ((row, (reason, EVENT_TIME)) for row, reason in bad_times.items()),
            self._feature_problems(columns),
        ):
            problems.setdefault(columns.positions[row], problem)
        if len(columns.positions) > len(messages) - len(problems):
            rows = enumerate(columns.positions)
            columns.drop([row for row, position in rows if position in problems][::-1])
        for number in self._others:
            columns.others[number] = columns.take(number, len(self.features))
            columns.units[number] = []  # which only numbers have
        return columns, np.fromiter(columns.cells, np.float64, len(columns.cells)).reshape(
            -1, len(self.features)
        )

    def _feature_problems(self, columns: Columns) -> Iterator[tuple[int, Problem]]:
        """By feature, the values of a wrong type, and the unknown units."""
        only_numbers = not self._others and set(map(type, columns.cells)) <= _NUMBERS
        if only_numbers and not columns.units:
            return
        for number, name in enumerate(self.features):
            cells = columns.cells[number :: len(self.features)]
            types = self._types[number]
            if not only_numbers and not set(map(type, cells)) <= types:
                wrong = (row for row, cell in enumerate(cells) if type(cell) not in types)
                yield from ((row, (Reason.WRONG_TYPE, name)) for row in wrong)
            if number in columns.units and number not in self._others:
                unknown = self.conversions[number].unknown(cells, columns.units[number])
                yield from ((row, (Reason.UNKNOWN_UNIT, name)) for row in unknown)


def vitals_schema(
    features: Sequence[str] = STANDARD_FEATURES,
    *,
    dtypes: Dtypes = ALL_NUMBERS,
    categories: Categories = NO_CATEGORIES,
) -> dict[str, Any]:
    """JSON Schema (2020-12) of the messages that a Decoder for these features accepts.

    `categories` are the values that the model knows; others are accepted too, and the model decides what to do with
    them.
    """
    _check_features(features)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Vitals",
        "description": "One patient's measurements at one time. The text is UTF-8 JSON as defined by RFC 8259, "
        f"at most {MAX_MESSAGE_BYTES} bytes, numbers within the range of a double, and none of the fields "
        "named here twice. Other fields are ignored.",
        "type": "object",
        "properties": {
            PATIENT_ID: {
                "description": "Identifies the patient; also the message's key.",
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_PATIENT_ID,
            },
            EVENT_TIME: {
                "description": "When it was measured: RFC 3339 with a zone. Passed on as received.",
                "type": "string",
                "pattern": RFC3339,
            },
            **{name: _feature_schema(name, dtypes.get(name), categories.get(name)) for name in features},
        },
        "required": [PATIENT_ID, EVENT_TIME],
        "examples": [
            {
                PATIENT_ID: "patient-0042",
                EVENT_TIME: "2026-01-05T08:30:00+01:00",
                **{name: _example(name, dtypes.get(name), categories.get(name)) for name in features},
            },
            {PATIENT_ID: "patient-0007", EVENT_TIME: "2026-01-05T07:30:00.250Z", features[0]: None},
        ],
    }


def _feature_schema(name: str, dtype: str | None, values: Sequence[str] | None) -> dict[str, Any]:
    absent = "Absent or null: not measured."
    if dtype == BOOLEAN:
        return {"description": absent, "type": ["boolean", "null"]}
    if dtype == CATEGORY:
        known = f" The model was fitted with {', '.join(values)}." if values else ""
        return {"description": absent + known, "type": ["string", "null"]}
    unit = f" Unit: {FEATURES[name].unit}." if name in FEATURES else ""
    return {"description": absent + unit, "type": ["number", "null"]}


def _example(name: str, dtype: str | None, values: Sequence[str] | None) -> Any:
    if dtype is not None:
        return values[0] if values else None
    return FEATURES[name].typical if name in FEATURES else None


def _check_features(features: Sequence[str]) -> None:
    if not features:
        raise SettingsError("the model has no feature names; fit it on a DataFrame with named columns")
    for name in features:
        if not isinstance(name, str) or not name:
            raise SettingsError(f"the model's feature name {name!r} must be a non-empty string")
        if name in (PATIENT_ID, EVENT_TIME):
            raise SettingsError(f"the model's feature {name!r} has the name of a message field; rename it")
    if len({*features}) < len(features):
        raise SettingsError("the model has two features of the same name; rename one")


def _id_problems(ids: list[Any]) -> Iterator[tuple[int, Problem]]:
    if set(map(type, ids)) <= {str} and "" not in ids and max(map(len, ids), default=0) <= MAX_PATIENT_ID:
        return
    for row, value in enumerate(ids):
        if value is ABSENT:
            yield row, (Reason.MISSING_FIELD, PATIENT_ID)
        elif type(value) is not str or not 0 < len(value) <= MAX_PATIENT_ID:
            yield row, (Reason.WRONG_TYPE, PATIENT_ID)

"""Patient messages: raw bytes to one frame a chunk, and a reason for every message left out.

A chunk is first decoded as a whole, at C speed. Only where something in it is amiss is each message looked
at by itself; both ways give the same answer.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import orjson
import pandas as pd

from broker.errors import SettingsError
from schemas.contract import (
    EVENT_TIME,
    FEATURES,
    MAX_MESSAGE_BYTES,
    MAX_PATIENT_ID,
    PATIENT_ID,
    RFC3339,
    STANDARD_FEATURES,
    TIMESTAMP,
    Reason,
)
from schemas.ranges import PHYSIOLOGIC, RangeCheck, Ranges

_is_time = re.compile(RFC3339).fullmatch
_are_times = re.compile(rf"(?:{TIMESTAMP}\n)*+").fullmatch  # one a line
_NUMBERS = {float, int, type(None)}  # of exact type: a bool is an int to Python, not to us
_QUOTE = ord('"')
# In valid JSON a string before a colon is a name; brackets inside strings are swallowed by the first branch.
_NAMES_AND_BRACKETS = re.compile(rb'("(?:[^"\\]++|\\.)*+")(?:[ \t\r\n]*+(:))?|[{}\[\]]')

_Problem = tuple[Reason, str]


@dataclass(frozen=True, slots=True)
class Reject:
    """A message left out: its position in the chunk, why, and the field concerned ('' where none is)."""

    position: int
    reason: Reason
    field: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """A chunk's accepted messages, and the rejected ones.

    `frame` is float64, one column a feature in model order; its index is each message's position in the chunk
    (a RangeIndex when none is rejected). `patient_ids`, `event_times` (as received) and `implausible` (the
    features whose values were out of range, and are NaN in `frame`) go with its rows; `rejects` are in order
    of position.
    """

    frame: pd.DataFrame
    patient_ids: list[str]
    event_times: list[str]
    implausible: list[list[str]]
    rejects: list[Reject]


class Decoder:
    """Decodes chunks of message values for a model with the given features.

    A feature that is absent, null, or outside of `ranges` is NaN. Raises SettingsError where `features`
    cannot be field names beside `patient_id` and `event_time`.
    """

    def __init__(
        self,
        features: Sequence[str],
        *,
        ranges: Ranges = PHYSIOLOGIC,
        max_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        _check_features(features)
        self._clear = RangeCheck(features, ranges).clear
        self._features = tuple(features)
        self._max_bytes = max_bytes
        self._columns = pd.Index(self._features)
        self._row = itemgetter(*features) if len(features) > 1 else lambda doc: (doc[features[0]],)
        self._read = (PATIENT_ID, EVENT_TIME, *features)
        self._quoted = [orjson.dumps(name) for name in self._read]

    def __call__(self, values: Sequence[bytes | None]) -> Decoded:
        """Decode a chunk: every value ends up either as a row or as a reject."""
        return self._together(values) or self._one_by_one(values)

    def _together(self, values: Sequence[Any]) -> Decoded | None:
        """The whole chunk at once, or None where any message needs a closer look."""
        try:
            if max(map(len, values), default=0) > self._max_bytes:
                return None
            docs = [*map(orjson.loads, values)]
            ids = [doc[PATIENT_ID] for doc in docs]
            times = [doc[EVENT_TIME] for doc in docs]
        except (TypeError, ValueError, KeyError):  # a tombstone, no JSON, no object, a field missing
            return None
        flat = self._flatten(docs)
        fine = (
            set(map(type, flat)) <= _NUMBERS
            and _all_ids(ids)
            and _all_times(times)
            and not self._any_repeats(values, docs)
        )
        if not fine:
            return None
        frame, implausible = self._frame(flat, None)
        return Decoded(frame, ids, times, implausible, [])

    def _one_by_one(self, values: Sequence[bytes | None]) -> Decoded:
        docs: dict[int, dict[str, Any]] = {}
        rejects = []
        for position, value in enumerate(values):
            outcome = self._inspect(value)
            if isinstance(outcome, dict):
                docs[position] = outcome
            else:
                rejects.append(Reject(position, *outcome))
        frame, implausible = self._frame(self._flatten(docs.values()), pd.Index([*docs], dtype=np.int64))
        return Decoded(
            frame,
            [doc[PATIENT_ID] for doc in docs.values()],
            [doc[EVENT_TIME] for doc in docs.values()],
            implausible,
            rejects,
        )

    def _inspect(self, value: bytes | None) -> dict[str, Any] | _Problem:
        """One message's object, or the first thing wrong with it."""
        if not value:
            return Reason.EMPTY, ""
        if len(value) > self._max_bytes:
            return Reason.TOO_LARGE, ""
        try:
            doc = orjson.loads(value)
        except ValueError:
            return Reason.NOT_JSON, ""
        if not isinstance(doc, dict):
            return Reason.NOT_OBJECT, ""
        if repeated := self._repeated(value):
            return Reason.NOT_JSON, repeated
        return _identity_problem(doc) or self._feature_problem(doc) or doc

    def _feature_problem(self, doc: dict[str, Any]) -> _Problem | None:
        for name in self._features:
            if type(doc.get(name)) not in _NUMBERS:
                return Reason.WRONG_TYPE, name
        return None

    def _flatten(self, docs: Collection[dict[str, Any]]) -> list[Any]:
        """All features of all messages in one list, row by row."""
        try:
            return [*chain.from_iterable(map(self._row, docs))]
        except KeyError:  # absent somewhere, which is the same as null
            return [doc.get(name) for doc in docs for name in self._features]

    def _frame(self, flat: list[Any], index: pd.Index | None) -> tuple[pd.DataFrame, list[list[str]]]:
        array = np.fromiter(flat, np.float64, len(flat)).reshape(-1, len(self._features))
        implausible = self._clear(array)
        return pd.DataFrame(array, index=index, columns=self._columns, copy=False), implausible

    def _any_repeats(self, values: Sequence[bytes], docs: list[dict[str, Any]]) -> bool:
        """Whether any message has a field twice that we read, of which the parser silently kept the last.

        Counting quotes settles nearly all chunks: in flat messages without escapes there are two for each
        name and each string value the parser kept, and a repeated field adds more. Only what has more is
        looked at message by message.
        """
        quotes = np.count_nonzero(np.frombuffer(b"".join(values), np.uint8) == _QUOTE)
        expected = 2 * sum(map(len, docs)) + 4 * len(docs)
        if quotes == expected:  # patient_id and event_time are the only strings
            return False
        kept = list(map(type, chain.from_iterable(map(dict.values, docs))))
        if quotes == 2 * (len(kept) + kept.count(str)):
            return False
        return any(map(self._repeated, values))

    def _repeated(self, value: bytes) -> str:
        """The first field that we read and that valid JSON `value` holds twice at its top level, or ''."""
        if b"\\" not in value and not any(value.count(name) > 1 for name in self._quoted):
            return ""
        names = Counter(_top_level_names(value))
        return next((name for name in self._read if names[name] > 1), "")


def vitals_schema(features: Sequence[str] = STANDARD_FEATURES) -> dict[str, Any]:
    """JSON Schema (2020-12) of the messages that a Decoder for these features accepts."""
    _check_features(features)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Vitals",
        "description": "One patient's measurements at one time. The text is UTF-8 JSON as RFC 8259 has it, "
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
            **{name: _feature_schema(name) for name in features},
        },
        "required": [PATIENT_ID, EVENT_TIME],
        "examples": [
            {
                PATIENT_ID: "patient-0042",
                EVENT_TIME: "2026-01-05T08:30:00+01:00",
                **{name: FEATURES[name].typical if name in FEATURES else None for name in features},
            },
            {PATIENT_ID: "patient-0007", EVENT_TIME: "2026-01-05T07:30:00.250Z", features[0]: None},
        ],
    }


def _feature_schema(name: str) -> dict[str, Any]:
    unit = f" Unit: {FEATURES[name].unit}." if name in FEATURES else ""
    return {"description": f"Absent or null: not measured.{unit}", "type": ["number", "null"]}


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


def _all_ids(ids: list[Any]) -> bool:
    return set(map(type, ids)) <= {str} and "" not in ids and max(map(len, ids), default=0) <= MAX_PATIENT_ID


def _all_times(times: list[Any]) -> bool:
    if not set(map(type, times)) <= {str}:
        return False
    each = {*times}  # messages that come together are often of one time
    lines = "\n".join([*each, ""])
    return lines.count("\n") == len(each) and _are_times(lines) is not None


def _identity_problem(doc: dict[str, Any]) -> _Problem | None:
    for name, problem in ((PATIENT_ID, _id_problem), (EVENT_TIME, _time_problem)):
        reason = problem(doc[name]) if name in doc else Reason.MISSING_FIELD
        if reason:
            return reason, name
    return None


def _id_problem(value: object) -> Reason | None:
    fine = isinstance(value, str) and 0 < len(value) <= MAX_PATIENT_ID
    return None if fine else Reason.WRONG_TYPE


def _time_problem(value: object) -> Reason | None:
    if not isinstance(value, str):
        return Reason.WRONG_TYPE
    return None if _is_time(value) else Reason.BAD_TIME


def _top_level_names(value: bytes) -> Iterator[str]:
    """The names of a valid JSON object as they stand in its text, repeated ones too."""
    depth = 0
    for token in _NAMES_AND_BRACKETS.finditer(value):
        text, colon = token.groups()
        if text is None:
            depth += 1 if token[0] in b"{[" else -1
        elif colon and depth == 1:
            yield orjson.loads(text)

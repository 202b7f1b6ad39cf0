"""Rows for a history, out of a frame: whose they are, when they were, and their numbers."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import pandas as pd
from pandas.api.types import is_datetime64_any_dtype

from real_time.compiled import Floats
from real_time.history.recipe import HistoryError

PATIENT_ID: Final = "patient_id"
EVENT_TIME: Final = "event_time"
ENCOUNTER_ID: Final = "encounter_id"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in log order."""

    patients: Sequence[Any]
    times: Floats
    """Microseconds since 1970, which float64 holds exactly."""
    values: Floats
    """Rows by columns, NaN is missing."""
    encounters: Floats
    """Of each row, what `encounter_number` gives."""

    def __len__(self) -> int:
        return len(self.patients)


def rows_of(X: Any, columns: Sequence[str], *, has_encounters: bool) -> Rows:
    """The rows of a frame. Raises HistoryError where a row has no patient or no time, or a column can't be used."""
    require_frame(X)
    if X[PATIENT_ID].isna().any():
        raise HistoryError(f"a row has no {PATIENT_ID}, so it is not known whose history it belongs to")
    if has_encounters and ENCOUNTER_ID not in X.columns:
        raise HistoryError(f"the history was fitted with {ENCOUNTER_ID}, and the frame has none")
    patients, times = X[PATIENT_ID].tolist(), times_of(X[EVENT_TIME])
    return rows_in(X, columns, patients, times, has_encounters=has_encounters)


def rows_in(
    frame: pd.DataFrame,
    columns: Sequence[str],
    patients: Sequence[Any],
    times: Floats,
    *,
    has_encounters: bool,
) -> Rows:
    """The rows of a frame of numbers, and of encounters where they count, whose patients and times are given."""
    encounters = [*map(encounter_number, frame[ENCOUNTER_ID])] if has_encounters else np.zeros(len(frame))
    return Rows(patients, times, _numbers(frame, columns), np.asarray(encounters, np.float64))


def require_frame(X: Any) -> None:
    """Raise HistoryError unless X is a frame that says whose and when its rows are."""
    if not isinstance(X, pd.DataFrame):
        raise HistoryError(
            f"a history needs a DataFrame with {PATIENT_ID}, {EVENT_TIME} and columns of numbers"
        )
    for name in (PATIENT_ID, EVENT_TIME):
        if (X.columns == name).sum() != 1:
            raise HistoryError(f"a history needs one column {name}, whose patient and when each row is")


def time_of(text: str) -> float:
    """Microseconds since 1970 of an ISO 8601 time. One without a zone is UTC. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = datetime.fromisoformat(text.upper())  # RFC 3339 allows t and z
    since = (found if found.tzinfo else found.replace(tzinfo=UTC)) - _EPOCH
    return float(since // _MICROSECOND)


def times_or_nan(texts: Sequence[str]) -> Floats:
    """The same of each text, NaN where it is no time."""
    read = datetime.fromisoformat
    try:
        return np.array([(read(text) - _EPOCH) // _MICROSECOND for text in texts], np.float64)
    except (ValueError, TypeError):  # one that is no time, or is in small letters, or has no zone
        return np.array([*map(_time_or_nan, texts)], np.float64)


def _time_or_nan(text: str) -> float:
    try:
        return time_of(text)
    except ValueError:
        return np.nan


def times_of(times: pd.Series) -> Floats:
    """Microseconds since 1970. A time without a zone is UTC."""
    if not is_datetime64_any_dtype(times):
        with suppress(ValueError, TypeError, AttributeError):
            return np.array([*map(time_of, times)])
    try:
        found = pd.to_datetime(times, utc=True, format=None if is_datetime64_any_dtype(times) else "ISO8601")
    except (ValueError, TypeError):
        raise HistoryError(
            f"{EVENT_TIME} holds something other than times: write 2026-01-05T08:30:00Z"
        ) from None
    if found.isna().any():
        raise HistoryError(f"a row has no {EVENT_TIME}")
    microseconds: Floats = found.dt.as_unit("us").astype("int64").to_numpy(np.float64)
    return microseconds


def encounter_number(encounter: Any) -> float:
    """A number for an encounter, so that a patient's state is numbers only; 0 where there is none.

    Two encounters share one with a probability of 1 in 2**48.
    """
    if pd.isna(encounter):
        return 0.0
    return 1.0 + int.from_bytes(blake2b(str(encounter).encode(), digest_size=6).digest())


def _numbers(X: pd.DataFrame, columns: Sequence[str]) -> Floats:
    missing = [name for name in columns if name not in X.columns]
    if missing:
        raise HistoryError(f"the frame misses columns that the history is of: {', '.join(missing)}")
    try:
        return np.ascontiguousarray(X[[*columns]].to_numpy(np.float64, na_value=np.nan))
    except (ValueError, TypeError):
        raise HistoryError("the columns that a history is of must hold numbers") from None

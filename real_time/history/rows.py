"""The rows of a frame as a history takes them: patient, time and numbers."""

from collections.abc import Callable, Sequence
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
    """Rows by columns; NaN is missing."""
    encounters: Floats
    """Each row's `encounter_number`."""

    def __len__(self) -> int:
        return len(self.patients)


def rows_of(X: Any, columns: Sequence[str], *, has_encounters: bool) -> Rows:
    """The rows of a frame. Raises HistoryError if a row has no patient or time, or a column cannot be used."""
    require_frame(X)
    if X[PATIENT_ID].isna().any():
        raise HistoryError(f"a row has no {PATIENT_ID}: a history needs the patient of every row")
    if has_encounters and ENCOUNTER_ID not in X.columns:
        raise HistoryError(
            f"the history was fitted with {ENCOUNTER_ID}, but the frame has no such column: add it"
        )
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
    """The rows of a frame whose patients and times are already known; it holds numbers and, if used, encounters."""
    encounters = [*map(encounter_number, frame[ENCOUNTER_ID])] if has_encounters else np.zeros(len(frame))
    return Rows(patients, times, _numbers(frame, columns), np.asarray(encounters, np.float64))


def require_frame(X: Any) -> None:
    """Raise HistoryError unless X is a frame with one patient column and one time column."""
    if not isinstance(X, pd.DataFrame):
        raise HistoryError(f"a history needs a DataFrame with {PATIENT_ID}, {EVENT_TIME} and numeric columns")
    for name in (PATIENT_ID, EVENT_TIME):
        if (X.columns == name).sum() != 1:
            raise HistoryError(f"a history needs exactly one column {name}")


def time_of(text: str) -> float:
    """Microseconds since 1970 of an ISO 8601 time. One without a zone is UTC. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = datetime.fromisoformat(text.upper())  # RFC 3339 allows t and z
    since = (found if found.tzinfo else found.replace(tzinfo=UTC)) - _EPOCH
    return float(since // _MICROSECOND)


def time_reader() -> Callable[[list[str]], Floats]:
    """Return what gives `time_of` for each text, NaN if it is not a time."""
    try:
        from vitalstream_native import microseconds
    except ImportError:
        return _times_or_nan

    def in_native_code(texts: list[str]) -> Floats:
        found = np.empty(len(texts))
        left = microseconds(texts, found)
        if left:
            found[left] = _times_or_nan([texts[row] for row in left])
        return found

    return in_native_code


def _times_or_nan(texts: Sequence[str]) -> Floats:
    read = datetime.fromisoformat
    try:
        return np.array([(read(text) - _EPOCH) // _MICROSECOND for text in texts], np.float64)
    except (ValueError, TypeError):  # some text is not a time, is in lower case or has no zone
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
        raise HistoryError(f"{EVENT_TIME} must hold ISO 8601 times such as 2026-01-05T08:30:00Z") from None
    if found.isna().any():
        raise HistoryError(f"a row has no {EVENT_TIME}: a history needs the time of every row")
    microseconds: Floats = found.dt.as_unit("us").astype("int64").to_numpy(np.float64)
    return microseconds


def encounter_number(encounter: Any) -> float:
    """An encounter's ID as a number, because a patient's state holds only numbers; 0 if there is none.

    Two encounters get the same number with a probability of 1 in 2**48.
    """
    if pd.isna(encounter):
        return 0.0
    return 1.0 + int.from_bytes(blake2b(str(encounter).encode(), digest_size=6).digest())


def _numbers(X: pd.DataFrame, columns: Sequence[str]) -> Floats:
    if [*X.columns] == [*columns]:
        values = X.to_numpy()
        if values.dtype == np.float64:
            return np.ascontiguousarray(values)
    missing = [name for name in columns if name not in X.columns]
    if missing:
        raise HistoryError(f"the frame lacks columns that the history needs: {', '.join(missing)}")
    try:
        return np.ascontiguousarray(X[[*columns]].to_numpy(np.float64, na_value=np.nan))
    except (ValueError, TypeError):
        raise HistoryError("the columns of a history must hold numbers") from None

"""Folds a row into its patient's state and writes the features that follow. Runs compiled by numba, or as plain Python.

It is written for numba: plain loops over numbers. Without numba the same code runs as Python and gives the same bits,
25 to 80 times slower (docs/history-semantics.md). The order of the additions is part of the definition.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from real_time.compiled import Floats
from real_time.history.recipe import (
    CLOCK,
    COUNT,
    ENCOUNTER,
    FIRST,
    HEAD,
    LAST,
    LAST_TIME,
    LATE,
    MAX,
    MICROSECONDS_PER_HOUR,
    MIN,
    OF_BUCKET,
    OF_COLUMN,
    PREVIOUS,
    ROWS,
    SUM,
)

AGE, DELTA, SINCE_FIRST_SEEN, ROWS_SEEN = range(4)

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    """Compile `function` with numba at its first call; return it unchanged if numba is not installed."""
    try:
        from numba import njit
    except ModuleNotFoundError:
        return function
    try:
        return cast(_Function, njit(nogil=True, cache=True)(function))
    except (RuntimeError, OSError):  # the cache directory is missing, read-only or full
        return cast(_Function, njit(nogil=True)(function))


@_compiled
def _start(patient: Floats, time: float, columns: int, rings: Any) -> None:
    patient[ROWS] = 0
    patient[FIRST] = time
    patient[CLOCK] = time
    patient[LATE] = 0
    for cell in range(HEAD, HEAD + columns * OF_COLUMN):
        patient[cell] = np.nan
    for ring in range(len(rings)):
        for bucket in range(columns * rings[ring, 1]):
            patient[rings[ring, 2] + bucket * OF_BUCKET + COUNT] = 0


@_compiled
def _advance(patient: Floats, time: float, columns: int, rings: Any) -> None:
    """Move the clock forward and empty the buckets it enters."""
    for ring in range(len(rings)):
        step, buckets, start = rings[ring, 0], rings[ring, 1], rings[ring, 2]
        before, now = int(np.floor(patient[CLOCK] / step)), int(np.floor(time / step))
        for ahead in range(min(now - before, buckets)):
            place = (now - ahead) % buckets
            for column in range(columns):
                patient[start + (column * buckets + place) * OF_BUCKET + COUNT] = 0
    patient[CLOCK] = time


@_compiled
def _keep_last(patient: Floats, time: float, values: Floats, limits: Floats) -> None:
    for column in range(len(values)):
        value = values[column]
        at = HEAD + column * OF_COLUMN
        last_time = patient[at + LAST_TIME]
        if np.isnan(value) or time < last_time:
            continue
        if time != last_time:  # a value at the same time is a correction: the previous value stays
            recent = time - last_time <= limits[column]
            patient[at + PREVIOUS] = patient[at + LAST] if recent else np.nan
        patient[at + LAST_TIME] = time
        patient[at + LAST] = value


@_compiled
def _fill_buckets(patient: Floats, time: float, values: Floats, rings: Any) -> int:
    """Return 1 if the row is too late for some bucket, else 0."""
    too_late = False
    for ring in range(len(rings)):
        step, buckets, start = rings[ring, 0], rings[ring, 1], rings[ring, 2]
        bucket = int(np.floor(time / step))
        if bucket <= int(np.floor(patient[CLOCK] / step)) - buckets:
            too_late = True
            continue
        place = bucket % buckets
        for column in range(len(values)):
            value = values[column]
            if np.isnan(value):
                continue
            at = start + (column * buckets + place) * OF_BUCKET
            first = patient[at + COUNT] == 0
            patient[at + COUNT] = 1 if first else patient[at + COUNT] + 1
            patient[at + SUM] = value if first else patient[at + SUM] + value
            patient[at + MIN] = value if first or value < patient[at + MIN] else patient[at + MIN]
            patient[at + MAX] = value if first or value > patient[at + MAX] else patient[at + MAX]
    patient[LATE] += too_late
    return int(too_late)


@_compiled
def _write(  # noqa: PLR0917
    patient: Floats, limits: Floats, rings: Any, windows: Any, flags: Any, out: Floats
) -> None:
    columns = len(limits)
    place = 0
    for column in range(columns):
        at = HEAD + column * OF_COLUMN
        waited = patient[CLOCK] - patient[at + LAST_TIME]
        known = waited <= limits[column]
        out[place] = patient[at + LAST] if known else np.nan
        place += 1
        if flags[AGE]:
            out[place] = waited / MICROSECONDS_PER_HOUR
            place += 1
        if flags[DELTA]:
            out[place] = patient[at + LAST] - patient[at + PREVIOUS] if known else np.nan
            place += 1
    for window in range(len(windows)):
        for column in range(columns):
            place = _write_window(patient, rings[windows[window, 0]], windows[window], column, out, place)
    if flags[SINCE_FIRST_SEEN]:
        out[place] = (patient[CLOCK] - patient[FIRST]) / MICROSECONDS_PER_HOUR
        place += 1
    if flags[ROWS_SEEN]:
        out[place] = patient[ROWS]


@_compiled
def _write_window(  # noqa: PLR0917
    patient: Floats, ring: Any, window: Any, column: int, out: Floats, place: int
) -> int:
    """Write a column's window statistics, adding oldest bucket first; return the next free place in `out`."""
    step, buckets, start = ring[0], ring[1], ring[2]
    now = int(np.floor(patient[CLOCK] / step))
    bucket = (now - window[1] + 1) % buckets
    count, total, least, most = 0.0, 0.0, np.nan, np.nan
    for _ in range(window[1]):
        at = start + (column * buckets + bucket) * OF_BUCKET
        bucket = 0 if bucket + 1 == buckets else bucket + 1
        if patient[at + COUNT] == 0:
            continue
        least = patient[at + MIN] if count == 0 or patient[at + MIN] < least else least
        most = patient[at + MAX] if count == 0 or patient[at + MAX] > most else most
        total = patient[at + SUM] if count == 0 else total + patient[at + SUM]
        count += patient[at + COUNT]
    mean = total / count if count else np.nan
    for number, value in enumerate((least, most, mean, count)):
        if window[2 + number]:
            out[place] = value
            place += 1
    return place


@_compiled
def fold(  # noqa: PLR0917 - numba's arrays come one by one
    state: Floats,
    patients: Any,
    times: Floats,
    values: Floats,
    encounters: Floats,
    limits: Floats,
    rings: Any,
    windows: Any,
    flags: Any,
    forget_after: float,
    out: Floats,
    ages: Floats,
    seen: Floats,
) -> int:
    """Fold rows into `state` in order, and write each row's history features to the same row of `out`.

    `state` is patients by cells, all zeros for a new patient; `patients` holds each row's index in it. `times` are
    microseconds since 1970, `values` is rows by columns (NaN is missing), and `encounters` are numbers (0 is missing);
    a different encounter resets the patient. `limits`, `rings`, `windows` and `flags` come from Layout.arrays(). Fills
    `ages` (rows by columns) with the microseconds since each column's last value, NaN if there was none, and `seen`
    with the patient's row count and the microseconds since its first row. Returns how many rows were too late for a
    bucket.
    """
    late = 0
    for row in range(len(patients)):
        patient = state[patients[row]]
        time, encounter = times[row], encounters[row]
        another = encounter != 0 and patient[ENCOUNTER] != 0 and encounter != patient[ENCOUNTER]
        if patient[ROWS] == 0 or another or time > patient[CLOCK] + forget_after:
            _start(patient, time, values.shape[1], rings)
        elif time > patient[CLOCK]:
            _advance(patient, time, values.shape[1], rings)
        elif patient[CLOCK] - time <= forget_after:
            patient[FIRST] = min(patient[FIRST], time)
        if encounter != 0:
            patient[ENCOUNTER] = encounter
        patient[ROWS] += 1
        _keep_last(patient, time, values[row], limits)
        late += _fill_buckets(patient, time, values[row], rings)
        _write(patient, limits, rings, windows, flags, out[row])
        for column in range(values.shape[1]):
            ages[row, column] = patient[CLOCK] - patient[HEAD + column * OF_COLUMN + LAST_TIME]
        seen[row, 0], seen[row, 1] = patient[ROWS], patient[CLOCK] - patient[FIRST]
    return late

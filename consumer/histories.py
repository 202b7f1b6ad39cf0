"""The step between decoding and scoring for a model with a history: adds rows to their patients' state."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from consumer.chunks import Block
from consumer.observer import Observer
from real_time.compiled import Floats
from real_time.history import Past, Patients
from real_time.history.recipe import MICROSECONDS_PER_HOUR
from real_time.history.rows import Rows, rows_in, times_or_nan
from schemas.histories import fit_for_history
from schemas.results import Told
from schemas.vitals import Decoded

_DECIMALS: Final = 4  # of hours: a third of a second


@dataclass(frozen=True, slots=True)
class Known:
    """The rows of a block that were added to their patients' state, and what is known at each."""

    decoded: Decoded
    features: pd.DataFrame
    """The model's input, with the index of `decoded.frame`."""
    told: Told
    """What the results report about it."""


class Histories:
    """Adds the rows of blocks to the patients' state, where they stay only if they are committed."""

    def __init__(
        self,
        patients: Patients,
        *,
        observer: Observer,
        require_room: Callable[[], None] = lambda: None,
    ) -> None:
        """`require_room` is called after each block, and may raise."""
        self._patients = patients
        self._columns = patients.layout.columns
        self._limits = np.array(patients.layout.limits, np.float64)
        self._names = pd.Index(patients.layout.names)
        self._observer = observer
        self._require_room = require_room
        _compile(Patients(patients.layout, has_encounters=False))

    def __call__(self, decoded: Decoded, block: Block) -> Known:
        """Add the rows, except those that `fit_for_history` rejects."""
        times = times_or_nan(decoded.event_times)
        decoded, times = fit_for_history(decoded, block.messages, times, key_must_match=True)
        positions = decoded.frame.index.tolist()
        rows = rows_in(
            decoded.frame,
            self._columns,
            decoded.patient_ids,
            times,
            has_encounters=self._patients.has_encounters,
        )
        past = self._patients.apply(rows, [block.partitions[position] for position in positions])
        self._require_room()
        if past.late:
            self._observer.late(past.late)
        features = pd.DataFrame(past.features, index=decoded.frame.index, columns=self._names, copy=False)
        return Known(decoded, features, self._told(past))

    def _told(self, past: Past) -> Told:
        carried = (past.ages > 0) & (past.ages <= self._limits)
        return Told(
            rows_seen=past.seen[:, 0].astype(np.int64),
            hours_since_first_seen=_hours(past.seen[:, 1]),
            columns=self._columns,
            carried_forward=_hours(np.where(carried, past.ages, np.nan)),
        )


def _compile(patients: Patients) -> None:
    """Compile now, not while the first message waits: numba takes seconds without a cache."""
    columns = len(patients.layout.columns)
    patients.apply(Rows(["a"], np.zeros(1), np.full((1, columns), np.nan), np.zeros(1)))


def _hours(microseconds: Floats) -> Floats:
    return np.round(microseconds / MICROSECONDS_PER_HOUR, _DECIMALS)

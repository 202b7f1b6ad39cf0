"""The step between decoding and scoring for a model with a history: adds rows to their patients' state."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from consumer.chunks import Block
from consumer.observer import Observer
from real_time.history import Patients
from real_time.history.rows import Rows, rows_in, time_reader
from schemas.histories import fit_for_history
from schemas.results import Told
from schemas.vitals import Decoded


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
        self._times = time_reader()
        self._observer = observer
        self._require_room = require_room
        _compile(Patients(patients.layout, has_encounters=False))

    def __call__(self, decoded: Decoded, block: Block) -> Known:
        """Add the rows, except those that `fit_for_history` rejects."""
        decoded, times = fit_for_history(
            decoded, self._times(decoded.event_times), keys=block.keys, timestamps=block.timestamps
        )
        rows = rows_in(
            decoded.frame,
            self._columns,
            decoded.patient_ids,
            times,
            has_encounters=self._patients.has_encounters,
        )
        counted = block.only(decoded.frame.index.tolist())
        past = self._patients.apply(rows, counted.partitions)
        self._require_room()
        if past.late:
            self._observer.late(past.late)
        features = pd.DataFrame(past.features, index=decoded.frame.index, columns=self._names, copy=False)
        told = Told(seen=past.seen, ages=past.ages, limits=self._limits, columns=self._columns)
        return Known(decoded, features, told)


def _compile(patients: Patients) -> None:
    """Compile now, not while the first message waits: numba takes seconds without a cache."""
    columns = len(patients.layout.columns)
    patients.apply(Rows(["a"], np.zeros(1), np.full((1, columns), np.nan), np.zeros(1)))

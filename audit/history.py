"""The patients' states, folded again from the messages that the group consumed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final

import numpy as np
import pandas as pd

from audit.bitmap import Bools, Ints
from audit.model import OfflineModel
from audit.reading import Batch
from audit.saved import SavedState
from real_time.compiled import Floats
from real_time.history import Past, Patients
from real_time.history.records import StateRecords
from real_time.history.rows import Rows, rows_in, time_reader
from schemas.histories import fit_for_history
from schemas.vitals import Decoded, Decoder

_TIMES: Final = time_reader()
_HOUR: Final = 3_600_000_000  # microseconds
_DECIMALS: Final = 4  # of the hours in a result


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about the patient at each message that has a patient and a time, by position in the batch."""

    features: pd.DataFrame
    """The history's features."""
    told: pd.Series
    """What results report about it."""


class Fold:
    """Folds messages from where the group started. Memory grows with the number of patients, not of messages."""

    def __init__(self, model: OfflineModel, decode: Decoder) -> None:
        """Raises ValueError if the model has no history."""
        history = model.scorer.history
        if history is None:
            raise ValueError("the model has no history")
        self.patients = history.start()
        self.records = StateRecords(self.patients.layout, history.recipe_sha256)
        self.begins: dict[int, int] = {}
        """The offset of each partition that begins with a saved state."""
        self._earlier = history.start()
        self._decode = decode

    def begin_with(self, saved: SavedState, partitions: Collection[int]) -> None:
        """Start these partitions from a saved state.

        Messages before its offsets are folded for themselves, as if nothing had been known before.
        """
        for partition in partitions:
            states = saved.states.get(partition, {})
            self.patients.restore(partition, [*states], self.records.decode([*states.values()]))
            self.begins[partition] = saved.offsets[partition]

    def take(self, batch: Batch) -> Known:
        """Fold a batch; returns what is known at each of its messages."""
        decoded, times = _fit(self._decode(batch.messages), batch)
        patients, layout, positions = self.patients, self.patients.layout, decoded.frame.index
        rows = rows_in(
            decoded.frame,
            layout.columns,
            decoded.patient_ids,
            times,
            has_encounters=patients.has_encounters,
        )
        past = self._apply(rows, batch.partitions[positions], batch.offsets[positions])
        features = pd.DataFrame(past.features, index=positions, columns=layout.names, copy=False)
        told = _told(past, layout.columns, layout.limits)
        return Known(features, pd.Series(told, index=positions, dtype=object))

    def _apply(self, rows: Rows, partitions: Ints, offsets: Ints) -> Past:
        begins = np.array([self.begins.get(one, 0) for one in partitions.tolist()], np.int64)
        earlier = offsets < begins
        if not earlier.any():
            return _folded(self.patients, rows, partitions)
        parts = [
            (kept, _folded(patients, _selected(rows, kept), partitions[kept]))
            for patients, kept in ((self._earlier, earlier), (self.patients, ~earlier))
        ]
        features, ages, seen = (np.empty((len(rows), part.shape[1])) for part in _arrays(parts[0][1]))
        whole = Past(features, ages, seen, late=0)
        for kept, past in parts:
            for into, part in zip(_arrays(whole), _arrays(past), strict=True):
                into[kept] = part
        return whole


def _arrays(past: Past) -> tuple[Floats, Floats, Floats]:
    return past.features, past.ages, past.seen


def _selected(rows: Rows, kept: Bools) -> Rows:
    patients = [*compress(rows.patients, kept)]
    return Rows(patients, rows.times[kept], rows.values[kept], rows.encounters[kept])


def _folded(patients: Patients, rows: Rows, partitions: Ints) -> Past:
    past = patients.apply(rows, partitions.tolist())
    patients.commit()
    return past


def _told(past: Past, columns: Sequence[str], limits: Sequence[int]) -> list[dict[str, Any]]:
    rows = zip(
        past.seen.tolist(), np.round(past.ages / _HOUR, _DECIMALS).tolist(), past.ages.tolist(), strict=True
    )
    return [
        {
            "rows_seen": int(count),
            "hours_since_first_seen": float(np.round(since / _HOUR, _DECIMALS)),
            "carried_forward": {
                name: hour
                for name, hour, age, limit in zip(columns, hours, ages, limits, strict=True)
                if 0 < age <= limit
            },
        }
        for (count, since), hours, ages in rows
    ]


def taken(decoded: Decoded, batch: Batch) -> Decoded:
    """The batch without messages that are not part of a history."""
    return _fit(decoded, batch)[0]


def _fit(decoded: Decoded, batch: Batch) -> tuple[Decoded, Floats]:
    keys: list[Any] = [message.key() for message in batch.messages]
    timestamps = np.array([message.timestamp()[1] for message in batch.messages], np.int64)
    return fit_for_history(decoded, _TIMES(decoded.event_times), keys=keys, timestamps=timestamps)

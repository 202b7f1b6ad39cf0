"""The patients' states, folded again from the messages that the group consumed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from audit.model import OfflineModel
from audit.reading import Batch
from real_time.compiled import Floats
from real_time.history import Past
from real_time.history.records import StateRecords
from real_time.history.rows import rows_in, time_reader
from schemas.histories import fit_for_history
from schemas.vitals import Decoded, Decoder

_TIMES: Final = time_reader()
_HOUR: Final = 3_600_000_000  # microseconds
_DECIMALS: Final = 4  # of the hours in a result


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the patients at messages with a patient and a time, by position in the batch."""

    features: pd.DataFrame
    """The history's features."""
    told: pd.Series
    """What results report about it."""


class Fold:
    """Folds messages from where the group began. Memory grows with the number of patients, not of messages."""

    def __init__(self, model: OfflineModel, decode: Decoder) -> None:
        """Raises ValueError if the model has no history."""
        history = model.scorer.history
        if history is None:
            raise ValueError("the model has no history")
        self.patients = history.start()
        self.records = StateRecords(self.patients.layout, history.recipe_sha256)
        self._decode = decode

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
        past = patients.apply(rows, batch.partitions[positions.to_numpy()].tolist())
        patients.commit()
        features = pd.DataFrame(past.features, index=positions, columns=layout.names, copy=False)
        told = _told(past, layout.columns, layout.limits)
        return Known(features, pd.Series(told, index=positions, dtype=object))


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

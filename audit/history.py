"""What is known of patients, folded again from the messages that the group consumed."""

import pandas as pd

from audit.model import OfflineModel
from audit.reading import Batch
from real_time.history.records import StateRecords
from real_time.history.rows import rows_in, times_or_nan
from schemas.histories import fit_for_history
from schemas.vitals import Decoded, Decoder


class Fold:
    """Takes messages in from where the group began. Its memory grows with the patients, not with the messages."""

    def __init__(self, model: OfflineModel, decode: Decoder) -> None:
        """Raises ValueError where the model has no history."""
        history = model.scorer.history
        if history is None:
            raise ValueError("the model has no history")
        self.patients = history.start()
        self.records = StateRecords(self.patients.layout, history.recipe_sha256)
        self._decode = decode

    def take(self, batch: Batch) -> pd.DataFrame:
        """What the history gives for those that have a patient and a time, by position in the batch."""
        decoded = self._decode(batch.messages)
        decoded, times = fit_for_history(
            decoded, batch.messages, times_or_nan(decoded.event_times), key_must_match=True
        )
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
        return pd.DataFrame(past.features, index=positions, columns=layout.names, copy=False)


def taken(decoded: Decoded, batch: Batch) -> Decoded:
    """Without the messages that are no part of a history."""
    times = times_or_nan(decoded.event_times)
    return fit_for_history(decoded, batch.messages, times, key_must_match=True)[0]

"""The messages that every contender gets, and the results of offline scoring."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray

from producer.ward import Ward
from schemas.contract import STANDARD_FEATURES
from schemas.ranges import PHYSIOLOGIC

REAL: Final = Path("../shared/data/physionet2019_site_b.parquet")
DISTINCT: Final = 200_000  # rows; a longer topic repeats them at later times
_COLUMNS: Final = dict(
    zip(["HR", "Resp", "Temp", "O2Sat", "SBP", "DBP", "MAP", "Age"], STANDARD_FEATURES, strict=True)
)
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)

Floats = NDArray[np.float64]


class Rows:
    """Distinct rows in the order of a ward: all patients' first hour, then their second.

    The event time of message `n` is `n` seconds after the first, so a result shows which message it belongs to. With
    `patients` given, that many take turns instead; with `hot`, every second message belongs to one patient.
    """

    def __init__(self, *, patients: int = 0, hot: bool = False) -> None:
        frame, self.source = (
            (_real(), "PhysioNet 2019, site B") if REAL.exists() else (_simulated(), "simulated")
        )
        self.features = frame[list(STANDARD_FEATURES)]
        self.label = frame["label"].to_numpy()
        ids = (_in_turns(len(frame), patients, hot=hot) if patients else frame["patient_id"]).tolist()
        self._ids = [patient.encode() for patient in ids]
        self._tails = [_tail(row) for row in self.features.to_numpy().tolist()]

    def __len__(self) -> int:
        return len(self._ids)

    def message(self, number: int) -> tuple[bytes, bytes]:
        """The key and the value of message `number`."""
        row = number % len(self._ids)
        at = (_EPOCH + timedelta(seconds=number)).isoformat().encode()
        key = self._ids[row]
        return key, b'{"patient_id":"%b","event_time":"%b",%b' % (key, at, self._tails[row])

    def messages(self, count: int) -> Iterator[tuple[bytes, bytes]]:
        """The first `count` messages."""
        return map(self.message, range(count))

    def frame(self, count: int) -> pd.DataFrame:
        """The first `count` messages as a file of stays would hold them."""
        rows = np.arange(count) % len(self._ids)
        frame = self.features.iloc[rows].reset_index(drop=True)
        times = pd.Timestamp(_EPOCH) + pd.to_timedelta(np.arange(count), unit="s")
        return frame.assign(patient_id=[self._ids[row].decode() for row in rows], event_time=times)

    def truth(self, model: Any, count: int) -> Floats:
        """What `model` says offline about the first `count` messages; NaN if a message has none of its features."""
        frame = self.frame(count)[[*model.feature_names_in_]]
        risk: Floats = model.predict_proba(frame)[:, 1]
        empty = frame.drop(columns=["patient_id", "event_time"], errors="ignore").isna().all(axis=1)
        return np.where(empty, np.nan, risk)


def _in_turns(rows: int, patients: int, *, hot: bool) -> pd.Series:
    number = np.arange(rows) % patients
    return "p-" + pd.Series(np.where(np.arange(rows) % 2, 0, number) if hot else number).astype(str)


def number_of(result: dict[str, Any]) -> int:
    """The number of the message that a result, or a message, belongs to."""
    return int((datetime.fromisoformat(result["event_time"]) - _EPOCH).total_seconds())


def _tail(values: list[float]) -> bytes:
    return orjson.dumps(dict(zip(STANDARD_FEATURES, values, strict=True)))[1:]  # NaN becomes null


def _real() -> pd.DataFrame:
    frame = pd.read_parquet(REAL, columns=["stay_id", "hour", "SepsisLabel", *_COLUMNS])
    frame = frame.sort_values(["hour", "stay_id"], kind="stable").head(DISTINCT)
    return _cleaned(frame.rename(columns={"stay_id": "patient_id", "SepsisLabel": "label", **_COLUMNS}))


def _simulated() -> pd.DataFrame:
    return _cleaned(Ward(patients=4000, deteriorating=0.3).frame(hours=60).head(DISTINCT))


def _cleaned(frame: pd.DataFrame) -> pd.DataFrame:
    """Impossible values become missing, as in the worker; the other contenders have no such check."""
    for name in STANDARD_FEATURES:
        values = frame[name].astype(np.float64).round(2)
        frame[name] = values.where(values.between(*PHYSIOLOGIC[name]))
    return frame

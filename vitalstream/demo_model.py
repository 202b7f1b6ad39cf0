"""A small model made from simulated patients, for trying things out. Not a medical device."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import joblib
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from broker.errors import SettingsError
from producer.arrivals import AsArrived
from producer.physiology import VITALS
from producer.ward import Ward
from real_time.card import card_path
from real_time.history import PatientHistory
from real_time.model_file import ModelFileError, pin_model
from schemas.contract import EVENT_TIME, PATIENT_ID, STANDARD_FEATURES

DISCLAIMER: Final = "trained on simulated patients; not a medical device"

_TRAINING, _HELD_OUT, _WARD = 400, 200, 40  # patients
_HOURS = 48.0
_DETERIORATING = 0.3


@dataclass(frozen=True)
class DemoModel:
    """The model made: its file's SHA-256, its AUROC on held-out patients, and the number of training rows."""

    sha256: str
    auroc: float
    rows: int


def make_demo_model(path: Path, *, seed: int = 0) -> DemoModel:
    """Train a logistic regression on the standard features of simulated patients, save it, and pin it.

    The label is whether a patient has begun to deteriorate. The AUROC is measured on other simulated
    patients. Raises SettingsError if `path` can't be written.
    """
    return _made(path, _regression(), _readings, seed)


def make_history_model(path: Path, *, seed: int = 0) -> DemoModel:
    """The same for messages from one device at a time, with each vital's last value, its age and its change."""
    # Without the time since a patient was first seen: in a simulated ward that would give away who falls ill.
    history = PatientHistory(dict.fromkeys(VITALS, "8h"), since_first_seen=False, rows_seen=False)
    return _made(path, make_pipeline(history, *_regression()), _arrivals, seed)


def _regression() -> Any:
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=500))


def _made(path: Path, model: Any, rows_of: Callable[[int, int], tuple[Any, Any]], seed: int) -> DemoModel:
    features, label = rows_of(_TRAINING, seed)
    model.fit(features, label)
    other_features, other_label = rows_of(_HELD_OUT, seed + 1)
    auroc = float(roc_auc_score(other_label, model.predict_proba(other_features)[:, 1]))
    return DemoModel(sha256=_save(model, path), auroc=auroc, rows=len(features))


def write_readings(path: Path, *, seed: int = 0) -> int:
    """Write rows of other simulated patients as CSV, to replay; returns their number.

    They are in order of time, as from a ward. Raises SettingsError if `path` can't be written.
    """
    frame = Ward(patients=_WARD, seed=seed + 2, deteriorating=_DETERIORATING).frame(hours=_HOURS)
    columns = [PATIENT_ID, EVENT_TIME, *STANDARD_FEATURES]
    try:
        frame.sort_values(EVENT_TIME, kind="stable").to_csv(
            path, columns=columns, index=False, date_format="%Y-%m-%dT%H:%M:%SZ"
        )
    except OSError as error:
        raise SettingsError(f"--data: cannot write {path}: {error.strerror}") from None
    return len(frame)


def _readings(patients: int, seed: int) -> tuple[Any, Any]:
    frame = Ward(patients=patients, seed=seed, deteriorating=_DETERIORATING).frame(hours=_HOURS)
    return frame[list(STANDARD_FEATURES)], frame["label"]


def _arrivals(patients: int, seed: int) -> tuple[Any, Any]:
    """Readings in order of arrival, of half as many patients, because they are three times as many messages."""
    frame = Ward(patients=patients // 2, seed=seed, deteriorating=_DETERIORATING).frame(hours=_HOURS)
    begun = frame[frame["label"] == 1].groupby(PATIENT_ID)[EVENT_TIME].min()
    rows = frame.sort_values(EVENT_TIME, kind="stable")[[PATIENT_ID, EVENT_TIME, *VITALS]]
    times = rows[EVENT_TIME].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    messages = pd.DataFrame(AsArrived(rows.assign(event_time=times).to_dict("records"), seed=seed))
    at = pd.to_datetime(messages[EVENT_TIME], format="ISO8601")
    return messages, (at >= messages[PATIENT_ID].map(begun)).astype(int)


def _save(model: Any, path: Path) -> str:
    try:
        joblib.dump(model, path)
        card_path(path).unlink(missing_ok=True)  # it would describe an earlier model
        return pin_model(path)
    except OSError as error:
        raise SettingsError(f"cannot write the model to {path}: {error.strerror}") from None
    except ModelFileError as error:
        raise SettingsError(str(error)) from None

"""Each contender's settings, and scoring as a data scientist would write it: json, a DataFrame, predict_proba.

It runs in every peer's environment, so it imports nothing of vitalstream.
"""

import os
from typing import Any

import joblib
import pandas as pd

BOOTSTRAP, INPUT, OUTPUT, GROUP, MODEL, CHUNK_TEXT = (
    os.environ[f"BENCH_{name}"] for name in ("BOOTSTRAP", "INPUT", "OUTPUT", "GROUP", "MODEL", "CHUNK")
)
CHUNK = int(CHUNK_TEXT)


def load_model() -> Any:
    """The model that all contenders use."""
    return joblib.load(MODEL)


def score(model: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One result per row."""
    frame = pd.DataFrame(rows)[list(model.feature_names_in_)].astype(float)
    risks = model.predict_proba(frame)[:, 1].tolist()
    return [
        {
            "patient_id": row["patient_id"],
            "event_time": row["event_time"],
            "risk_probability": risk,
            "risk_label": int(risk >= 0.5),
        }
        for row, risk in zip(rows, risks, strict=True)
    ]

"""A model that hangs on some rows, for testing stall detection."""

import ctypes
import time
from typing import Any

import numpy as np
import pandas as pd

HANG_S = 60.0
SLEEPS = -1.0  # like compiled code that releases the GIL
HOLDS = -2.0  # like compiled code that keeps the GIL
PAUSES = -3.0  # only briefly
PAUSE_S = 0.005


class Sleepy:
    """Scores 0.5, except for the signals above."""

    classes_ = (0, 1)
    feature_names_in_ = ("signal",)

    def predict_proba(self, X: pd.DataFrame) -> Any:
        signal = X["signal"].to_numpy()
        if (signal == SLEEPS).any():
            hang_on_purpose(HANG_S)
        if (signal == HOLDS).any():
            ctypes.PyDLL(None).sleep(int(HANG_S))
        if (signal == PAUSES).any():
            time.sleep(PAUSE_S)
        return np.full((len(X), 2), 0.5)


def hang_on_purpose(seconds: float) -> None:
    """Has a name of its own, so that it can be found in a stack."""
    time.sleep(seconds)

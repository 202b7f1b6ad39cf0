"""A model that hangs on some rows, for the stall detector to find."""

import ctypes
import time
from typing import Any

import numpy as np
import pandas as pd

HANG_S = 60.0
SLEEPS = -1.0  # as compiled code does that lets other threads run
HOLDS = -2.0  # as compiled code does that does not
PAUSES = -3.0  # for a moment only
PAUSE_S = 0.005


class Sleepy:
    """0.5 for every row; but see above."""

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
    """Named, to be found in a stack."""
    time.sleep(seconds)

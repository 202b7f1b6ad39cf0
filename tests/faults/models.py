"""A model that goes wrong: always on some rows, and at random if its worker's environment says so."""

import itertools
import os
import random
import signal
import time
from typing import Any

import numpy as np
import pandas as pd

# Probabilities per call of dying by SIGKILL, sleeping long, and returning one row too few. Unset in the
# audit, which means never.
DIES, SLEEPS, FORGETS = "FAULTS_MODEL_DIES", "FAULTS_MODEL_SLEEPS", "FAULTS_MODEL_FORGETS"
SLEEP_S = 8.0

LOOKED_AT = 50  # calls; more than a worker makes before its first message
_calls = itertools.count()


class Erratic:
    """Exactly heart rate / 512; for some heart rates an exception, an infinity or NaN."""

    classes_ = (0, 1)
    feature_names_in_ = ("heart_rate",)

    def predict_proba(self, X: pd.DataFrame) -> Any:
        rate = X["heart_rate"].to_numpy()
        if happens(DIES):
            os.kill(os.getpid(), signal.SIGKILL)
        if happens(SLEEPS):
            time.sleep(SLEEP_S)
        if (rate % 37 == 5).any():
            raise ValueError("a heart rate that I cannot stand")
        positive = np.select(
            [rate % 41 == 3, rate % 41 == 4, rate % 41 == 5], [np.inf, -np.inf, np.nan], rate / 512
        )
        if happens(FORGETS):
            positive = positive[1:]
        return np.column_stack([1 - positive, positive])


def happens(what: str) -> bool:
    return next(_calls) > LOOKED_AT and random.random() < float(os.environ.get(what, "0"))

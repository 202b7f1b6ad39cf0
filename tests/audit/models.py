"""A hand-written model that refuses some rows and returns NaN for others."""

from typing import Any

import numpy as np
import pandas as pd

REFUSED = 333.0
UNKNOWN = 222.0


class Moody:
    """`heart_rate / 350`; raises for REFUSED and returns NaN for UNKNOWN."""

    classes_ = (0, 1)
    feature_names_in_ = ("heart_rate", "spo2", "temperature")

    def predict_proba(self, X: pd.DataFrame) -> Any:
        rate = X["heart_rate"].to_numpy()
        if (rate == REFUSED).any():
            raise ValueError("no")
        positive = np.where(rate == UNKNOWN, np.nan, np.nan_to_num(rate) / 350)
        return np.column_stack([1 - positive, positive])


class Placid(Moody):
    """The same numbers, but refuses nothing."""

    def predict_proba(self, X: pd.DataFrame) -> Any:
        rate = np.nan_to_num(X["heart_rate"].to_numpy())
        return np.column_stack([1 - rate / 350, rate / 350])


class Strict(Moody):
    """The same numbers, but refuses every rate of 100 or more."""

    def predict_proba(self, X: pd.DataFrame) -> Any:
        if (X["heart_rate"] >= 100).any():
            raise ValueError("no")
        return super().predict_proba(X)

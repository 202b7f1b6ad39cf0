"""A hand-written model that fails on some rows the way real models do."""

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

FEATURES = ("signal", "spo2")

# Signals with a special effect. Any other signal scores as itself / 256.
RAISES = -1.0
ABOVE_ONE = -2.0
INFINITE = -3.0
NOT_A_NUMBER = -4.0
ONE_ROW_LESS = -5.0
TOO_SLOW = -6.0

CANARY = "canary-7f3a"  # stands for a patient's data in an exception's text


class Fragile:
    """Scores exactly signal / 256, except for the signals above."""

    classes_: tuple[object, ...] = (0, 1)

    def __init__(self, features: tuple[str, ...] = FEATURES) -> None:
        self.feature_names_in_ = features  # the first is the signal

    def predict_proba(self, X: pd.DataFrame) -> Any:
        signal = X.iloc[:, 0].to_numpy()
        if (signal == RAISES).any():
            raise ValueError(f"{CANARY}: cannot score {X.to_dict()}")
        if (signal == TOO_SLOW).any():
            ctypes.PyDLL(None).sleep(60)  # keeps the GIL, so no Python runs meanwhile
        positive = np.select(
            [signal == ABOVE_ONE, signal == INFINITE, signal == NOT_A_NUMBER],
            [1.5, np.inf, np.nan],
            signal / 256,
        )
        if (signal == ONE_ROW_LESS).any():
            positive = positive[1:]
        return np.column_stack([1 - positive, positive])


class Imputing(Fragile):
    """Imputes 0 for a missing signal, and so reports a low risk for a patient it knows nothing about."""

    def predict_proba(self, X: pd.DataFrame) -> Any:
        return super().predict_proba(X.fillna(0.0))


class Featureless:
    """A model without feature names."""

    classes_ = (0, 1)

    def predict_proba(self, X: pd.DataFrame) -> Any:
        return np.full((len(X), 2), 0.5)


class ThreeClasses(Fragile):
    """A classifier with three classes."""

    classes_ = (0, 1, 2)


class Words(Fragile):
    """A binary classifier whose class labels are words."""

    classes_ = ("survived", "died")


class Regressor:
    """Not a classifier."""

    feature_names_in_ = FEATURES

    def predict(self, X: pd.DataFrame) -> Any:
        return np.zeros(len(X))


class Summing(Fragile):
    """Weighs each feature differently, so a score shows which features were read and from where."""

    def predict_proba(self, X: pd.DataFrame) -> Any:
        weights = np.arange(1, X.shape[1] + 1)
        positive = np.clip((X.fillna(0).to_numpy() * weights).sum(axis=1) / 10_000, 0, 1)
        return np.column_stack([1 - positive, positive])

    @staticmethod
    def risk(names: Sequence[str], features: Mapping[str, float]) -> float:
        """The probability for these features; some may be missing."""
        row = [features.get(name, 0.0) for name in names]
        return (
            sum(number * (0 if math.isnan(value) else value) for number, value in enumerate(row, 1)) / 10_000
        )

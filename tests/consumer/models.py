"""A hand-written model that does to some rows what models do when they go wrong."""

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

FEATURES = ("signal", "spo2")

# Signals, each with its effect. Every other one is scored as itself / 256.
RAISES = -1.0
ABOVE_ONE = -2.0
INFINITE = -3.0
NOT_A_NUMBER = -4.0
ONE_ROW_LESS = -5.0
TOO_SLOW = -6.0

CANARY = "canary-7f3a"  # stands for a patient's data in an exception's text


class Fragile:
    """The signal / 256, exactly; but see above."""

    classes_: tuple[object, ...] = (0, 1)

    def __init__(self, features: tuple[str, ...] = FEATURES) -> None:
        self.feature_names_in_ = features  # the first is the signal

    def predict_proba(self, X: pd.DataFrame) -> Any:
        signal = X.iloc[:, 0].to_numpy()
        if (signal == RAISES).any():
            raise ValueError(f"{CANARY}: cannot score {X.to_dict()}")
        if (signal == TOO_SLOW).any():
            ctypes.PyDLL(None).sleep(60)  # keeps the interpreter's lock, so no Python runs meanwhile
        positive = np.select(
            [signal == ABOVE_ONE, signal == INFINITE, signal == NOT_A_NUMBER],
            [1.5, np.inf, np.nan],
            signal / 256,
        )
        if (signal == ONE_ROW_LESS).any():
            positive = positive[1:]
        return np.column_stack([1 - positive, positive])


class Imputing(Fragile):
    """Takes a missing signal for 0, and so has a low risk for a patient of whom it knows nothing."""

    def predict_proba(self, X: pd.DataFrame) -> Any:
        return super().predict_proba(X.fillna(0.0))


class Featureless:
    """A model that does not say what it wants."""

    classes_ = (0, 1)

    def predict_proba(self, X: pd.DataFrame) -> Any:
        return np.full((len(X), 2), 0.5)


class ThreeClasses(Fragile):
    """A classifier that knows more than yes and no."""

    classes_ = (0, 1, 2)


class Words(Fragile):
    """A classifier that knows yes and no under other names."""

    classes_ = ("survived", "died")


class Regressor:
    """No classifier."""

    feature_names_in_ = FEATURES

    def predict(self, X: pd.DataFrame) -> Any:
        return np.zeros(len(X))


class Summing(Fragile):
    """The features that are there, each by a weight of its own: which were read, and where from, can be told."""

    def predict_proba(self, X: pd.DataFrame) -> Any:
        weights = np.arange(1, X.shape[1] + 1)
        positive = np.clip((X.fillna(0).to_numpy() * weights).sum(axis=1) / 10_000, 0, 1)
        return np.column_stack([1 - positive, positive])

    @staticmethod
    def risk(names: Sequence[str], features: Mapping[str, float]) -> float:
        """Its probability for these features, those that are missing among them."""
        row = [features.get(name, 0.0) for name in names]
        return (
            sum(number * (0 if math.isnan(value) else value) for number, value in enumerate(row, 1)) / 10_000
        )

"""A patient's past as features: a transformer for the first step of a Pipeline."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from real_time.history.patients import Patients
from real_time.history.recipe import HistoryError, Layout, Window, laid_out
from real_time.history.rows import ENCOUNTER_ID, EVENT_TIME, PATIENT_ID, require_frame


class PatientHistory(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What was known about a patient when a row arrived: last values, their ages and changes, window statistics.

    `fit` and `transform` take a frame with `patient_id`, `event_time` and numeric columns, **in log order**: the order
    in which the rows arrived. A patient's clock is the latest event time so far; a row's features are what was known at
    its patient's clock, the row itself included. `transform` starts without a past; `start` follows a stream.

    last: how long each column's last value is carried forward, by column; a single duration applies to every numeric
        column. `<column>_last` is NaN after that.
    age: `<column>_age_h`, hours from the last value to the clock, NaN if there was none.
    delta: `<column>_delta`, the last value minus the one before; NaN if they are further apart than `last` allows.
    since_first_seen, rows_seen: `hours_since_first_seen` and `rows_seen`.
    windows: statistics of the same columns over a period, `<column>_<statistic>_<length>`.
    forget_after: a row later than its patient's clock by more than this resets the patient.

    If `fit` sees an `encounter_id` column, each change of it resets the patient. A late row still counts, as its
    column's last value if it is the newest and in the step it falls into; its features are those at the clock.
    """

    def __init__(
        self,
        last: Mapping[str, str] | str = "8h",
        *,
        age: bool = True,
        delta: bool = True,
        since_first_seen: bool = True,
        rows_seen: bool = True,
        windows: Sequence[Window] = (),
        forget_after: str = "7d",
    ) -> None:
        self.last = last
        self.age = age
        self.delta = delta
        self.since_first_seen = since_first_seen
        self.rows_seen = rows_seen
        self.windows = windows
        self.forget_after = forget_after

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:
        """Learn the columns. Raises HistoryError if the recipe or the frame cannot be used."""
        require_frame(X)
        self.last_ = _last(self.last, X)
        _require_no_label(X[[*self.last_]], y)
        self._layout()
        encounter = [ENCOUNTER_ID] if ENCOUNTER_ID in X.columns else []
        self.feature_names_in_ = np.array([PATIENT_ID, EVENT_TIME, *encounter, *self.last_], dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """The history of each row, on the index of X: float64 columns, named by `get_feature_names_out`.

        Raises HistoryError if a row has no patient or time, or a column is missing or not numeric.
        """
        return self.start().advance(X)

    def start(self) -> Patients:
        """An empty state, for following a stream."""
        check_is_fitted(self)
        return Patients(self._layout(), has_encounters=ENCOUNTER_ID in self.feature_names_in_)

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """The names of the output columns."""
        check_is_fitted(self)
        return np.array(self._layout().names, dtype=object)

    @property
    def recipe_sha256(self) -> str:
        """SHA-256 of everything that determines the output: parameters, columns, and whether encounters count."""
        check_is_fitted(self)
        recipe = {**self.get_params(), "last": self.last_, "windows": [asdict(one) for one in self.windows]}
        recipe["encounters"] = ENCOUNTER_ID in self.feature_names_in_
        return sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()

    def _layout(self) -> Layout:
        return laid_out(
            self.last_,
            self.windows,
            self.forget_after,
            age=self.age,
            delta=self.delta,
            since_first_seen=self.since_first_seen,
            rows_seen=self.rows_seen,
        )


def _last(last: Mapping[str, str] | str, X: pd.DataFrame) -> dict[str, str]:
    """How long each column's last value is carried forward, by column."""
    if isinstance(last, str):
        known = {PATIENT_ID, EVENT_TIME, ENCOUNTER_ID}
        numbers = X.select_dtypes(["number", "bool"]).columns
        return {str(name): last for name in numbers if name not in known}
    missing = [name for name in last if name not in X.columns]
    if missing:
        raise HistoryError(f"the frame has no column {', '.join(missing)}, which the history's last names")
    return dict(last)


def _require_no_label(X: pd.DataFrame, y: object) -> None:
    for name in X.columns:
        if isinstance(y, pd.Series | np.ndarray) and np.array_equal(X[name], y):
            raise HistoryError(
                f"column {name} is the label the model learns: leave it out of the frame, or name the history's "
                "columns in last"
            )

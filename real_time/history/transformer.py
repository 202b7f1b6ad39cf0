"""A patient's past as features: a transformer to stand first in a Pipeline."""

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
    """What was known of a patient when a row came: last values, their ages and changes, windows.

    `fit` and `transform` take a frame with `patient_id`, `event_time` and columns of numbers, **in log order**: in the
    order in which the rows arrived. A patient's clock is the largest event time so far; a row's features are what was
    known at its patient's clock, the row itself included. `transform` starts with no past; `start` follows a stream.

    last: the columns and for how long each one's last value is carried forward; a single duration is for every column
        of numbers. `<column>_last` is NaN after that.
    age: `<column>_age_h`, hours from the last value to the clock, NaN where there was none.
    delta: `<column>_delta`, the last value less the one before, NaN where they are further apart than it is carried.
    since_first_seen, rows_seen: `hours_since_first_seen` and `rows_seen`.
    windows: statistics of the same columns over some time, `<column>_<statistic>_<length>`.
    forget_after: a row that is later than its patient's clock by more than this starts afresh.

    An `encounter_id` column, if there is one in `fit`, starts the patient afresh wherever it changes. A late row still
    counts where it is the newest of its column and in the step that it falls into; its features are those of the clock.
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
        """Learn which columns there are. Raises HistoryError where the recipe or the frame can't be used."""
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

        Raises HistoryError where a row has no patient or no time, or a column is missing or not of numbers.
        """
        return self.start().advance(X)

    def start(self) -> Patients:
        """Patients of whom nothing is known yet."""
        check_is_fitted(self)
        return Patients(self._layout(), has_encounters=ENCOUNTER_ID in self.feature_names_in_)

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """The names of the columns that come out."""
        check_is_fitted(self)
        return np.array(self._layout().names, dtype=object)

    @property
    def recipe_sha256(self) -> str:
        """The sha256 of all that decides what comes out: the parameters, the columns and whether encounters count."""
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
    """For each column, how long its last value is carried forward."""
    if isinstance(last, str):
        known = {PATIENT_ID, EVENT_TIME, ENCOUNTER_ID}
        numbers = X.select_dtypes(["number", "bool"]).columns
        return {str(name): last for name in numbers if name not in known}
    missing = [name for name in last if name not in X.columns]
    if missing:
        raise HistoryError(f"the frame has no column {', '.join(missing)}, which the history is to be of")
    return dict(last)


def _require_no_label(X: pd.DataFrame, y: object) -> None:
    for name in X.columns:
        if isinstance(y, pd.Series | np.ndarray) and np.array_equal(X[name], y):
            raise HistoryError(
                f"column {name} is what the model is to learn: leave it out of the frame, or name the columns in last"
            )

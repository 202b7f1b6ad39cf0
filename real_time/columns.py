"""The columns of a frame in the types that a model was fitted with: text, pandas' categories, booleans.

Values come as the messages have them; what type a column has must not depend on the rows that happen to be in it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype

from real_time.features import Dtype
from real_time.learned import takes_pandas_categories
from real_time.prepared import Prepared

_TEXT: Final = pd.Series(["text"]).dtype  # by default: str, or object before pandas 3

Cast = Callable[[pd.Series], Any]


class Columns:
    """Gives the columns that are no plain numbers their types."""

    def __init__(self, prepared: Prepared) -> None:
        in_pandas = takes_pandas_categories(prepared.classifier)
        self._casts: dict[int, Cast] = {}
        self.are_numbers = True
        """Whether the model takes a plain array of floats: booleans are numbers, categories are not."""
        for number, feature in enumerate(prepared.described):
            learned = prepared.learned.get(feature.name)
            is_text = feature.dtype == Dtype.CATEGORY
            known = (learned and learned.values) or feature.values
            if known and ((learned and learned.in_pandas) or (in_pandas and is_text)):
                self._casts[number] = _Categories(known)
                self.are_numbers = False
            elif is_text:
                self._casts[number] = _with_none if learned and learned.none else _text
                self.are_numbers = False
            elif feature.dtype == Dtype.BOOLEAN:
                self._casts[number] = _booleans

    def __call__(self, X: pd.DataFrame) -> pd.DataFrame:
        """X, whose columns are the model's in its order, with the right types."""
        if not self._casts:
            return X
        typed = X.copy(deep=False)
        for number, cast in self._casts.items():
            typed.isetitem(number, cast(X.iloc[:, number]))
        return typed

    def array(self, X: pd.DataFrame) -> Any:
        """X as an array: of floats where it has booleans and numbers."""
        return X.to_numpy(np.float64) if self._casts and self.are_numbers else X.to_numpy()


class _Categories:
    """Columns of pandas' type for categories: those that the model knows, and behind them any others.

    What to make of another one is the model's affair; without it among the categories it would be missing.
    """

    def __init__(self, known: Sequence[Any]) -> None:
        self._known = [*known]

    def __call__(self, column: pd.Series) -> Any:
        values = column.astype(object)
        others = [value for value in values.dropna().unique() if value not in self._known]
        return pd.Categorical(values, categories=[*self._known, *others])


def _text(column: pd.Series) -> Any:
    if column.dtype != object or infer_dtype(column) not in ("string", "empty"):
        return column
    return column.where(column.notna(), np.nan).astype(_TEXT)


def _with_none(column: pd.Series) -> Any:
    values = column.astype(object)
    return values.where(values.notna(), None)


def _booleans(column: pd.Series) -> Any:
    """Booleans, or where one is missing the numbers 1 and 0, as which models take them."""
    if column.dtype != object:
        return column
    return column.astype(np.float64 if column.isna().any() else np.bool_)

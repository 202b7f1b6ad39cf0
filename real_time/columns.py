"""Converts a frame's columns to the types that a model was fitted with: text, pandas categories, booleans.

Values arrive as the messages have them; a column's type must not depend on the rows that happen to be in the chunk.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype

from real_time.compiled import Floats
from real_time.features import Dtype
from real_time.learned import takes_pandas_categories
from real_time.prepared import Prepared
from real_time.texts import Texts

_TEXT: Final = pd.Series(["text"]).dtype  # str, or object before pandas 3
_TEXTS: Final = (np.dtype(object), _TEXT)

Cast = Callable[[pd.Series], Any]


class Columns:
    """Gives non-numeric columns their types, and converts frames to arrays of numbers."""

    def __init__(self, prepared: Prepared) -> None:
        in_pandas = takes_pandas_categories(prepared.classifier)
        self._casts: dict[int, Cast] = {}
        self._places: dict[Dtype, list[int]] = {dtype: [] for dtype in Dtype}
        self.texts = Texts()
        self.have_arrays = True
        """Whether the columns can be an array of numbers; pandas' category type cannot."""
        for number, feature in enumerate(prepared.described):
            self._places[feature.dtype].append(number)
            learned = prepared.learned.get(feature.name)
            is_text = feature.dtype == Dtype.CATEGORY
            known = (learned and learned.values) or feature.values
            if known and ((learned and learned.in_pandas) or (in_pandas and is_text)):
                self._casts[number] = _Categories(known)
                self.have_arrays = False
            elif is_text:
                self._casts[number] = _with_none if learned and learned.none else _text
            elif feature.dtype == Dtype.BOOLEAN:
                self._casts[number] = _booleans

    @property
    def have_texts(self) -> bool:
        """Whether any column is text to the model."""
        return bool(self._places[Dtype.CATEGORY])

    def __call__(self, X: pd.DataFrame) -> pd.DataFrame:
        """Convert X, which has the model's columns in the model's order, to the right types."""
        if not self._casts:
            return X
        typed = X.copy(deep=False)
        for number, cast in self._casts.items():
            typed.isetitem(number, cast(X.iloc[:, number]))
        return typed

    def array(self, X: pd.DataFrame) -> Floats | None:
        """X as an array of floats: booleans as 1 and 0, texts as numbered by `texts`.

        None if X holds anything else; ask the model itself then.
        """
        if not self._casts:
            values = X.to_numpy()
            return values if values.dtype == np.float64 else None
        dtypes, cells = X.dtypes.tolist(), X.to_numpy(object)
        numbers, texts = self._places[Dtype.NUMBER], self._places[Dtype.CATEGORY]
        if any(dtypes[n] != np.float64 for n in numbers) or any(dtypes[n] not in _TEXTS for n in texts):
            return None
        found = np.empty(cells.shape)
        try:
            for number in texts:
                found[:, number] = self.texts.numbers(cells[:, number].tolist())
            others = [*numbers, *self._places[Dtype.BOOLEAN]]
            found[:, others] = cells[:, others]
        except (TypeError, ValueError):
            return None
        return found

    def frame(self, array: Floats, names: pd.Index | None) -> pd.DataFrame:
        """The inverse of `array`: a frame as messages would give it."""
        found = pd.DataFrame(array, columns=names, copy=False)
        for number in self._places[Dtype.CATEGORY]:
            found.isetitem(number, pd.Series(self.texts.texts(array[:, number]), dtype=object))
        for number in self._places[Dtype.BOOLEAN]:
            found.isetitem(number, pd.Series(array[:, number], dtype=object).map(bool, na_action="ignore"))
        return found


class _Categories:
    """Converts a column to pandas' category type: the model's known categories, then any others in the column.

    How to treat an unknown category is up to the model; if it were not listed, it would become missing.
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
    """Booleans; if any is missing, the numbers 1 and 0, which models treat the same."""
    if column.dtype != object:
        return column
    return column.astype(np.float64 if column.isna().any() else np.bool_)

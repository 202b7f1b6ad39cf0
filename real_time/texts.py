"""Text categories as numbers: one number per category that a model knows, one for all others, NaN for missing."""

from collections.abc import Collection, Iterable
from typing import Any, Final

import numpy as np

from real_time.compiled import Floats
from real_time.steps import AskTheModelError

_UNKNOWN: Final = -1.0


class Texts:
    """The text categories of one model; fixed once the model's arithmetic has been read."""

    def __init__(self) -> None:
        self._numbers: dict[Any, float] = {None: np.nan}

    def learned(self, categories: Iterable[Any]) -> Floats:
        """Fitted categories as numbers: new texts get the next number, numbers stay, missing becomes NaN."""
        found = [
            self._numbers.setdefault(one, len(self._numbers)) if isinstance(one, str) else one
            for one in categories
        ]
        return np.array(found, np.float64)  # None is NaN

    def numbers(self, values: Iterable[Any]) -> Floats:
        """The numbers of texts; None and NaN are missing. Raises AskTheModelError for any other type."""
        found = [*map(self._numbers.get, values)]
        if None in found:
            known = zip(values, found, strict=True)
            found = [self._other(value) if number is None else number for value, number in known]
        return np.array(found, np.float64)

    def texts(self, numbers: Floats) -> list[str | None]:
        """The inverse of `numbers`, with None for missing."""
        known: dict[float, str] = {number: text for text, number in self._numbers.items() if text is not None}
        unknown = unlike(known.values())
        return [None if np.isnan(number) else known.get(number, unknown) for number in numbers.tolist()]

    @staticmethod
    def _other(value: Any) -> float:
        if isinstance(value, str):
            return _UNKNOWN
        if isinstance(value, float) and np.isnan(value):
            return np.nan
        raise AskTheModelError


def unlike(categories: Collection[Any]) -> Any:
    """A value that is not one of these categories: a text if any of them is text, else a number."""
    texts = [one for one in categories if isinstance(one, str)]
    return max(texts, key=len) + "?" if texts else max((one for one in categories if one), default=0) + 1

"""Text as numbers: a number for each category that a model knows, one for all others, and NaN for a missing one."""

from collections.abc import Collection, Iterable
from typing import Any, Final

import numpy as np

from real_time.compiled import Floats
from real_time.steps import AskTheModelError

_UNKNOWN: Final = -1.0


class Texts:
    """The texts of one model. What it knows is learned as its arithmetic is read, and stays as it is from then on."""

    def __init__(self) -> None:
        self._numbers: dict[Any, float] = {None: np.nan}

    def learned(self, categories: Iterable[Any]) -> Floats:
        """Fitted categories as numbers: texts, each learned if it is new, numbers as they are, and missing ones."""
        found = [
            self._numbers.setdefault(one, len(self._numbers)) if isinstance(one, str) else one
            for one in categories
        ]
        return np.array(found, np.float64)  # None is NaN

    def numbers(self, values: Iterable[Any]) -> Floats:
        """Texts, or None or NaN where they are missing. Raises AskTheModelError where there is anything else."""
        found = [*map(self._numbers.get, values)]
        if None in found:
            known = zip(values, found, strict=True)
            found = [self._other(value) if number is None else number for value, number in known]
        return np.array(found, np.float64)

    def texts(self, numbers: Floats) -> list[str | None]:
        """The other way: texts, and None where they are missing."""
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
    """A text where some are texts, else a number, that is none of these categories."""
    texts = [one for one in categories if isinstance(one, str)]
    return max(texts, key=len) + "?" if texts else max((one for one in categories if one), default=0) + 1

"""vitalstream's optional native kernel. It gives the same results as the Python code, bit for bit.

With VITALSTREAM_NATIVE=0 it can't be imported, as if it were not installed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__version__: str

def microseconds(texts: list[str], found: NDArray[np.float64]) -> list[int]:
    """Write to `found` the microseconds since 1970 of each time.

    Returns the rows left to the Python code: what is not RFC 3339 with a zone, or not in Python's calendar; `found`
    is meaningless there. Raises ValueError if the sizes do not match.
    """

_Floats: TypeAlias = NDArray[np.float64]

def rows_of(
    between: list[bytes],
    columns: list[bytes],
    histories: tuple[_Floats, _Floats, _Floats, list[bytes]] | None = None,
) -> list[bytes]:
    """One text for each row: the values of `columns`, with the texts of `between` before, between and after them.

    Each column is a JSON array without blanks, as orjson writes it. `histories` are one more column, the last: for each
    row the rows seen and the microseconds since the first; by row and feature the microseconds since the last value,
    NaN if there was none; for how many each feature's is carried forward; and the features' names as JSON, each with a
    colon after it. These arrays are C-contiguous. Raises ValueError unless all columns have one value for each row,
    and `between` has one text more than there are columns.
    """

@final
class LinearSums:
    """The sums of a linear model that first fills, centers and scales its features.

    A fill of NaN, a center of 0 and a scale of 1 leave a feature as it is. Raises ValueError unless there is one of
    each for each weight, and a weight.
    """

    def __new__(
        cls,
        fill: Sequence[float],
        center: Sequence[float],
        scale: Sequence[float],
        weights: Sequence[float],
        intercept: float,
    ) -> LinearSums: ...
    def sum(self, rows: NDArray[np.float64], totals: NDArray[np.float64]) -> bool:
        """Write to `totals`, for each row of `rows`: its terms from left to right, then the intercept.

        Both are C-contiguous. Returns False if a value is infinite; the totals are then meaningless. Raises ValueError
        if the sizes do not match.
        """

@final
class Scanner:
    """Scans messages that are JSON objects.

    `paths` are those of the patient, the time, and the features, None for a feature that is in no message. `watched`
    are all their names, and others that must not occur twice in an object; with `nested`, not in inner objects
    either. Only then may a path have more than one name. `units` has features' numbers, each with the path of its
    unit, and by unit the zero and the factor: (value - zero) * factor is in the model's unit. Times are within
    `years`, first and last. Raises ValueError if two paths lead to the same field.
    """

    def __new__(
        cls,
        paths: Sequence[Sequence[str] | None],
        *,
        watched: Sequence[str],
        units: Sequence[tuple[int, Sequence[str], Mapping[str, tuple[float, float]]]],
        nested: bool,
        years: tuple[int, int],
        max_bytes: int,
    ) -> Scanner: ...
    def scan(self, values: list[Any], matrix: NDArray[np.float64]) -> tuple[list[str], list[str], list[int]]:
        """Scan the values of messages into `matrix` (rows by features, C-contiguous).

        Returns patient IDs, times, and the rows left to the Python decoder, whose IDs, times and matrix values are
        meaningless.
        """

"""vitalstream's optional native kernel. What it does, it does as the Python code, bit for bit.

Where VITALSTREAM_NATIVE is 0, it can't be imported, as if it were not installed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__version__: str

def rows_of(between: list[bytes], columns: list[bytes]) -> list[bytes]:
    """One text for each row: `between` stands before, between and behind the values of `columns`.

    Each column is a JSON array without blanks, as orjson writes it. Raises ValueError where not all have one value for
    each row, or `between` has not one text more than there are columns.
    """

def weighted_sums(
    rows: NDArray[np.float64], weights: NDArray[np.float64], intercept: float, totals: NDArray[np.float64]
) -> bool:
    """Into `totals`, for each row of `rows`: its values times `weights` from left to right, then the intercept.

    All of it is C-contiguous. False where a value is infinite, and the totals mean nothing. Raises ValueError where the
    sizes do not fit together.
    """

@final
class Scanner:
    """Scans messages that are JSON objects.

    `paths` are those of patient, time, and the features, None for a feature that is in no message. `watched` are all
    their names, and others that no object may have twice; with `nested` none inside of a message either, and only then
    has a path more than one name. `units` has features' numbers, each with the path of its unit, and by unit the zero
    and the factor: (value - zero) * factor is in the model's unit. Times are within `years`, first and last. Raises
    ValueError where two paths lead to one field.
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

        Returns patient ids, times, and the rows to be looked at closer; what ids, times and matrix have for these
        means nothing.
        """

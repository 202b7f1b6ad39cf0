"""vitalstream's optional native kernel. What it does, it does as the Python code, bit for bit.

Where VITALSTREAM_NATIVE is 0, it can't be imported, as if it were not installed.
"""

from collections.abc import Sequence
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
    """Scans messages that are flat JSON objects.

    `names` are those of patient, time and `features` features, and others that may not be there twice; with `nested`
    not in the objects inside of a message either. Times are within `years`, first and last. Raises ValueError where
    two names are the same.
    """

    def __new__(
        cls, names: Sequence[str], *, features: int, nested: bool, years: tuple[int, int], max_bytes: int
    ) -> Scanner: ...
    def scan(self, values: list[Any], matrix: NDArray[np.float64]) -> tuple[list[str], list[str], list[int]]:
        """Scan the values of messages into `matrix` (rows by features, C-contiguous).

        Returns patient ids, times, and the rows to be looked at closer; what ids, times and matrix have for these
        means nothing.
        """

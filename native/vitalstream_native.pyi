"""vitalstream's optional native kernel. What it accepts, it reads and writes as the Python code does, bit for bit."""

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

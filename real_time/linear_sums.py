"""What a linear model sums: the same bits for a row whatever is next to it, on every processor, and in native code."""

from typing import Any

import numpy as np

from real_time.compiled import Floats
from real_time.steps import LARGEST_DOUBLE, AskTheModelError, Step, within


def linear_sums(weights: Any, intercept: float) -> Step:
    """From rows by features to the sum of each row, which goes from left to right."""

    def in_python(X: Floats) -> Floats:
        # Column by column, so that each row is summed in the same order however many there are, and whatever the
        # processor: an audit elsewhere must come to the same bits.
        within(LARGEST_DOUBLE, X)
        total: Floats = X[:, 0] * weights[0]
        for column in range(1, len(weights)):
            total += X[:, column] * weights[column]
        total += intercept
        return total

    try:
        from vitalstream_native import weighted_sums
    except ImportError:
        return in_python
    doubles = np.ascontiguousarray(weights, np.float64)

    def in_native_code(X: Floats) -> Floats:
        if X.dtype != np.float64 or not X.flags.c_contiguous:
            return in_python(X)
        total = np.empty(len(X))
        if not weighted_sums(X, doubles, intercept, total):
            raise AskTheModelError
        return total

    return in_native_code

"""A linear model's sums, bit-identical whatever rows are scored together, on every processor and in native code."""

from typing import Any

import numpy as np

from real_time.compiled import Floats
from real_time.steps import LARGEST_DOUBLE, AskTheModelError, Step, within


def linear_sums(weights: Any, intercept: float) -> Step:
    """Maps rows by features to each row's sum, added from left to right."""

    def in_python(X: Floats) -> Floats:
        # Column by column, so that each row is summed in the same order for any number of rows and on any processor: an
        # audit on another machine must get the same bits.
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

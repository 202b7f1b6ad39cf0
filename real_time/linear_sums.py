"""A linear model's sums, bit-identical whatever rows are scored together, on every processor and in native code."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from real_time.compiled import Floats
from real_time.steps import LARGEST_DOUBLE, AskTheModelError, Fill, Rescale, Step, chain, within


def linear_sums(weights: Any, intercept: float, before: Sequence[Step] = ()) -> Step:
    """Maps rows by features to each row's sum, added from left to right, after the steps `before`."""

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
        from vitalstream_native import LinearSums
    except ImportError:
        return chain([*before, in_python])
    first, fill, rescale = _parted(before)
    last = chain([fill, rescale, in_python])
    fills, centers, scales = (
        np.broadcast_to(one, len(weights)).tolist() for one in (fill.values, rescale.center, rescale.scale)
    )
    native = LinearSums(fills, centers, scales, [float(weight) for weight in weights], float(intercept))

    def in_native_code(X: Floats) -> Floats:
        X = first(X)
        if X.dtype != np.float64:
            return last(X)
        total = np.empty(len(X))
        if not native.sum(np.ascontiguousarray(X), total):
            raise AskTheModelError
        return total

    return in_native_code


def _parted(before: Sequence[Step]) -> tuple[Step, Fill, Rescale]:
    """The steps that the kernel takes, and before them all others as one."""
    rest, fill, rescale = [*before], Fill(np.nan), Rescale(0.0, 1.0)
    if rest and isinstance(rest[-1], Rescale):
        rescale = rest[-1]
        rest.pop()
    if rest and isinstance(rest[-1], Fill):
        fill = rest[-1]
        rest.pop()
    return chain(rest), fill, rescale

"""Sums of linear models: the same bits in Python and in the native kernel."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from real_time.linear_sums import linear_sums
from real_time.steps import AskTheModelError, Step
from tests.kernels import with_kernel

WEIGHTS = np.random.default_rng(3).normal(size=9)


def sums(native: bool, weights: NDArray[Any] = WEIGHTS) -> Step:
    with with_kernel(native) as found:
        if not found:
            pytest.skip("the native kernel is not built here: run make native, which needs cargo")
        return linear_sums(weights, 0.25)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_python_and_the_kernel_give_the_same_bits() -> None:
    random = np.random.default_rng(4)
    X = random.normal(size=(400, 9)) * 10.0 ** random.integers(-150, 150, size=(400, 9))
    X[random.random(X.shape) < 0.1] = 0
    X[:, 0] *= -1
    for weights in (WEIGHTS, WEIGHTS.astype(np.float32)):
        python, native = sums(False, weights), sums(True, weights)
        assert native(X).tobytes() == python(X).tobytes()
        single: Any = X.clip(-1e30, 1e30).astype(np.float32)
        for rows in (X[:0], X[:1], X[::3], X.T.copy().T, single):
            assert native(rows).tobytes() == python(rows).tobytes()
        assert native(X[7:8])[0] == python(X)[7]


@pytest.mark.parametrize("native", [False, True])
def test_infinite_values_are_left_to_the_model_and_missing_ones_stay_missing(native: bool) -> None:
    step, X = sums(native), np.ones((4, 9))
    X[1, 3] = np.nan
    assert np.isnan(step(X)).tolist() == [False, True, False, False]
    X[2, 8] = -np.inf
    with pytest.raises(AskTheModelError):
        step(X)


def test_the_kernel_accepts_only_matching_arrays() -> None:
    sums(True)
    from vitalstream_native import weighted_sums

    for rows, weights, totals in [((2, 9), 8, 2), ((2, 9), 9, 3), ((0, 9), 0, 0)]:
        with pytest.raises(ValueError, match="rows"):
            weighted_sums(np.ones(rows), np.ones(weights), 0.0, np.ones(totals))

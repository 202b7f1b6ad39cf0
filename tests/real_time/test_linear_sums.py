"""Sums of linear models: the same bits in Python and in the native kernel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from real_time.linear_sums import linear_sums
from real_time.steps import AskTheModelError, Fill, Rescale, Step
from tests.kernels import with_kernel

WEIGHTS = np.random.default_rng(3).normal(size=9)


def sums(native: bool, weights: NDArray[Any] = WEIGHTS, before: Sequence[Step] = ()) -> Step:
    with with_kernel(native) as found:
        if not found:
            pytest.skip("the native kernel is not built here: run make native, which needs cargo")
        return linear_sums(weights, 0.25, before)


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


@pytest.mark.parametrize(
    "before",
    [
        [Fill(np.arange(9.0)), Rescale(np.arange(9.0), np.arange(1.0, 10.0))],
        [Fill(np.arange(9.0))],
        [Rescale(WEIGHTS, 3.0), Fill(WEIGHTS)],
        [Rescale(0.0, WEIGHTS), Rescale(WEIGHTS, 1.0)],
        [Fill(WEIGHTS), np.negative, Rescale(1.5, WEIGHTS)],
    ],
    ids=["fill and rescale", "fill", "rescale, then fill", "rescale twice", "another step between"],
)
def test_they_are_the_same_bits_behind_an_imputer_and_a_scaler(before: list[Step]) -> None:
    random = np.random.default_rng(5)
    X = random.normal(size=(400, 9)) * 10.0 ** random.integers(-3, 5, size=(400, 9))
    X[random.random(X.shape) < 0.3] = np.nan
    python, native = sums(False, before=before), sums(True, before=before)
    assert native(X).tobytes() == python(X).tobytes()
    assert np.isnan(python(X)).any() != any(isinstance(step, Fill) for step in before)


def test_a_value_that_scaling_makes_infinite_is_for_the_model() -> None:
    X, before = np.full((1, 9), 1e300), [Rescale(0.0, 1e-300)]
    with np.errstate(over="ignore"), pytest.raises(AskTheModelError):
        sums(False, before=before)(X)
    with pytest.raises(AskTheModelError):
        sums(True, before=before)(X)


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
    from vitalstream_native import LinearSums

    for columns in [([], [], [], []), ([0.0], [0.0], [1.0], [2.0, 3.0])]:
        with pytest.raises(ValueError, match="for each weight"):
            LinearSums(*columns, 0.0)
    of_two = LinearSums([0.0] * 2, [0.0] * 2, [1.0] * 2, [2.0] * 2, 0.0)
    for rows, totals in [((2, 3), 2), ((2, 2), 3)]:
        with pytest.raises(ValueError, match="rows"):
            of_two.sum(np.ones(rows), np.ones(totals))

"""The building blocks of a model's arithmetic: steps over rows of numbers, and how exact they are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from real_time.compiled import Floats

Step: TypeAlias = Callable[[Floats], Floats]
"""Maps rows by features to the next step's input; a classifier's step returns the probability of one class."""

Slack: TypeAlias = Callable[[Floats, Floats], Floats]
"""Maps rows by features and the model's probabilities to how far each of ours may be from them."""

# Larger values go to the model itself, which rejects them: trees compare float32, and no model takes infinity.
LARGEST_SINGLE: Final = float(np.finfo(np.float32).max)
LARGEST_DOUBLE: Final = float(np.finfo(np.float64).max)

PROBE_ROWS: Final = 256
PROBE_HOLES: Final = 0.3  # the share of missing values


class NoFastPathError(ValueError):
    """This model has no fast path; the message says why."""


class AskTheModelError(ValueError):
    """Ask the model itself about these rows; it may reject them."""


@dataclass(frozen=True, slots=True)
class Fill:
    """Replaces missing values, those of a column by the same one."""

    values: Floats | float

    def __call__(self, X: Floats) -> Floats:
        """Rows by features."""
        return np.where(np.isnan(X), self.values, X)


@dataclass(frozen=True, slots=True)
class Rescale:
    """Subtracts from each column its center, and divides by its scale."""

    center: Floats | float
    scale: Floats | float

    def __call__(self, X: Floats) -> Floats:
        """Rows by features."""
        found: Floats = (X - self.center) / self.scale
        return found


def chain(steps: Sequence[Step]) -> Step:
    """One step after the other; none at all is one that changes nothing."""

    def run(X: Floats) -> Floats:
        for step in steps:
            X = step(X)
        return X

    return run


class Arithmetic(NamedTuple):
    """Computes a classifier's probabilities of one class."""

    probability: Step
    slack: Slack | None
    """None means bit-identical to the model."""
    how: str
    margin: Step | None = None
    """The model's decision_function, if it has one."""


def within(largest: float, X: Floats) -> Floats:
    """Return X. Raises AskTheModelError if the magnitude of a value exceeds `largest`; NaN does not."""
    if X.size and (np.fmax.reduce(X, axis=None) > largest or np.fmin.reduce(X, axis=None) < -largest):
        raise AskTheModelError
    return X


def probes(features: int) -> Floats:
    """PROBE_ROWS rows of float64 in many magnitudes."""
    random = np.random.default_rng(0)
    scale = np.power(10.0, random.integers(-3, 5, size=(PROBE_ROWS, 1)))
    center = random.choice([0.0, 1.0, 37.0, 100.0], (PROBE_ROWS, 1))
    found: Floats = random.normal(size=(PROBE_ROWS, features)) * scale + center
    return found

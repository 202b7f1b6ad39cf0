"""What a model's arithmetic is made of: steps over rows of numbers, and how close they come to the model itself."""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from real_time.compiled import Floats

Step: TypeAlias = Callable[[Floats], Floats]
"""Rows by features to what the next step wants; a classifier's gives its probability of one class."""

Slack: TypeAlias = Callable[[Floats, Floats], Floats]
"""From rows by features and the model's probabilities: by how much each of ours may differ."""

# Values beyond these are left to the model, which refuses them: trees compare float32, and nobody takes infinity.
LARGEST_SINGLE: Final = float(np.finfo(np.float32).max)
LARGEST_DOUBLE: Final = float(np.finfo(np.float64).max)

PROBE_ROWS: Final = 256
PROBE_HOLES: Final = 0.3  # the share of missing values


class NoFastPathError(ValueError):
    """There is none for this model; the message says why."""


class AskTheModelError(ValueError):
    """These rows are for the model itself, which may refuse them."""


class Arithmetic(NamedTuple):
    """How a classifier's probabilities of one class are worked out."""

    probability: Step
    slack: Slack | None
    """None: the bits are the model's."""
    how: str
    margin: Step | None = None
    """What its decision_function gives, where it has one."""


def within(largest: float, X: Floats) -> Floats:
    """X, if none of its values is beyond `largest`; NaN is not. Raises AskTheModelError."""
    if X.size and (np.fmax.reduce(X, axis=None) > largest or np.fmin.reduce(X, axis=None) < -largest):
        raise AskTheModelError
    return X


def probes(features: int) -> Floats:
    """Rows of many magnitudes, in float64 and never close to each other."""
    random = np.random.default_rng(0)
    scale = np.power(10.0, random.integers(-3, 5, size=(PROBE_ROWS, 1)))
    center = random.choice([0.0, 1.0, 37.0, 100.0], (PROBE_ROWS, 1))
    found: Floats = random.normal(size=(PROBE_ROWS, features)) * scale + center
    return found

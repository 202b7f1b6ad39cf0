"""A model's features: numbers, booleans and categories."""

from dataclasses import dataclass
from enum import StrEnum


class Dtype(StrEnum):
    """The type of a feature's values."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    CATEGORY = "category"
    """Text."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature, as described in a model's card."""

    name: str
    dtype: Dtype = Dtype.NUMBER
    values: tuple[str, ...] | None = None
    """The categories that the model knows; None if unknown or not a category."""
    typical: tuple[float, float, float] | None = None
    """The 5th, 50th and 95th percentile of a number, if known."""

"""What a feature of a model is: a number, a boolean or a category."""

from dataclasses import dataclass
from enum import StrEnum


class Dtype(StrEnum):
    """What the values of a feature are."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    CATEGORY = "category"
    """Text."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature, as a model's card describes it."""

    name: str
    dtype: Dtype = Dtype.NUMBER
    values: tuple[str, ...] | None = None
    """The categories that the model knows; None where they are not known, or where it is none."""
    typical: tuple[float, float, float] | None = None
    """Of numbers, the 5th, 50th and 95th percentile, where they are known."""

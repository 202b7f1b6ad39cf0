"""A patient's state as bytes, and back, to the last bit.

A value is 8 bytes that say what it is and in which version, the recipe's SHA-256, and the row as little-endian float64.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from real_time.compiled import Floats
from real_time.history.recipe import Layout

_KIND: Final = b"patient"
VERSION: Final = 1
"""Of the value, and of what the cells of a row mean. A change of either is another version."""

_HEAD_BYTES: Final = len(_KIND) + 1


class StateError(Exception):
    """What is kept of a patient can't be read. The text says why, and holds nothing of the patient."""


class NewerStateError(StateError):
    """It was written by a later version of vitalstream."""


class OtherRecipeError(StateError):
    """It was written with another recipe than the model's."""


class CorruptStateError(StateError):
    """It is no state of a patient, or not all of it."""


class StateRecords:
    """Writes and reads the states of a recipe's patients."""

    def __init__(self, layout: Layout, recipe_sha256: str) -> None:
        self._recipe = recipe_sha256
        self._type = np.dtype(
            [("head", f"V{_HEAD_BYTES}"), ("recipe", "V32"), ("row", "<f8", (layout.cells,))]
        )
        self._empty = np.zeros(1, self._type)
        self._empty["head"] = np.void(_KIND + bytes([VERSION]))
        self._empty["recipe"] = np.void(bytes.fromhex(recipe_sha256))

    @property
    def size(self) -> int:
        """The bytes of a value."""
        return self._type.itemsize

    def encode(self, rows: Floats) -> list[bytes]:
        """A value for each row of patients by cells."""
        written = self._empty.repeat(len(rows))
        written["row"] = rows
        data, size = written.tobytes(), self.size
        return [data[at : at + size] for at in range(0, len(data), size)]

    def decode(self, values: Sequence[bytes]) -> Floats:
        """The rows of these values. Raises a StateError for the first that is none of this recipe's."""
        if {*map(len, values)} <= {self.size}:
            found = np.frombuffer(b"".join(values), self._type)
            if (found["head"] == self._empty["head"]).all() and (
                found["recipe"] == self._empty["recipe"]
            ).all():
                rows: Floats = found["row"].astype(np.float64)
                return rows
        raise next(filter(None, map(self._problem, values)))

    def _problem(self, value: Any) -> StateError | None:
        head, recipe = value[:_HEAD_BYTES], value[_HEAD_BYTES : _HEAD_BYTES + 32].hex()
        if len(head) < _HEAD_BYTES or not head.startswith(_KIND) or head[-1] == 0:
            return CorruptStateError("it holds something other than the state of a patient")
        if head[-1] > VERSION:
            return NewerStateError(
                f"it holds state of version {head[-1]}, and this vitalstream reads version {VERSION}"
            )
        if recipe != self._recipe:
            return OtherRecipeError(
                f"it holds state of recipe {recipe[:12]}, and the model's history has recipe {self._recipe[:12]}"
            )
        if len(value) != self.size:
            return CorruptStateError(f"a state in it has {len(value)} bytes, not {self.size}")
        return None

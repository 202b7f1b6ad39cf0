"""Encodes a patient's state as bytes and decodes it, to the last bit.

A value is 8 bytes with its kind and version, the recipe's SHA-256, and the state row as little-endian float64.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from real_time.compiled import Floats
from real_time.history.recipe import Layout

_KIND: Final = b"patient"
VERSION: Final = 1
"""Version of the encoding and of what a row's cells mean; raise it when either changes."""

_HEAD_BYTES: Final = len(_KIND) + 1


class StateError(Exception):
    """A patient's stored state cannot be read. The text says why and contains no patient data."""


class NewerStateError(StateError):
    """The state was written by a newer vitalstream."""


class OtherRecipeError(StateError):
    """The state was written with a different recipe from the model's."""


class CorruptStateError(StateError):
    """The value is not a patient's state, or is incomplete."""


class StateRecords:
    """Encodes and decodes the states of one recipe's patients."""

    def __init__(self, layout: Layout, recipe_sha256: str) -> None:
        self.recipe = recipe_sha256
        self._type = np.dtype(
            [("head", f"V{_HEAD_BYTES}"), ("recipe", "V32"), ("row", "<f8", (layout.cells,))]
        )
        self._empty = np.zeros(1, self._type)
        self._empty["head"] = np.void(_KIND + bytes([VERSION]))
        self._empty["recipe"] = np.void(bytes.fromhex(recipe_sha256))

    @property
    def size(self) -> int:
        """Bytes per value."""
        return self._type.itemsize

    def encode(self, rows: Floats) -> list[bytes]:
        """One value per row of `rows` (patients by cells)."""
        written = self._empty.repeat(len(rows))
        written["row"] = rows
        data, size = written.tobytes(), self.size
        return [data[at : at + size] for at in range(0, len(data), size)]

    def decode(self, values: Sequence[bytes]) -> Floats:
        """The rows of these values. Raises a StateError for the first one that is not a state of this recipe."""
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
        if recipe != self.recipe:
            return OtherRecipeError(
                f"it holds state of recipe {recipe[:12]}, and the model's history has recipe {self.recipe[:12]}"
            )
        if len(value) != self.size:
            return CorruptStateError(f"a state in it has {len(value)} bytes, not {self.size}")
        return None

"""One bit per message, so that topics of any size fit into memory."""

from typing import Any, TypeAlias

import numpy as np

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

_BIT = (1 << np.arange(8)).astype(np.uint8)  # bit 0 is the lowest, as in np.packbits(bitorder="little")
_FULL = 0xFF
_SHORT = 1 << 14
_BLOCK = 1 << 20  # bytes examined at once: numpy's result takes eight times as much


class Bitmap:
    """A set of the integers from 0 to below `size`, at one bit each. Ranges are half open."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._bytes: Bytes = np.zeros((size + 7) // 8, dtype=np.uint8)

    def add(self, members: Ints) -> Bools:
        """Add `members`; returns for each whether it was already present, or occurs earlier in `members`."""
        again = self.has(members)
        if len(members) > 1 and not (members[1:] > members[:-1]).all():
            first = np.zeros(len(members), dtype=np.bool_)
            first[np.unique(members, return_index=True)[1]] = True
            again |= ~first
        np.bitwise_or.at(self._bytes, members >> 3, _BIT[members & 7])
        return again

    def has(self, members: Ints) -> Bools:
        """Whether each of `members` is present."""
        found: Bools = (self._bytes[members >> 3] & _BIT[members & 7]) != 0
        return found

    def add_range(self, start: int, stop: int) -> None:
        """Add every integer of the range."""
        for where, mask in _pieces(start, stop):
            self._bytes[where] |= mask

    def clear_range(self, start: int, stop: int) -> None:
        """Remove every integer of the range."""
        for where, mask in _pieces(start, stop):
            self._bytes[where] &= np.uint8(~mask & _FULL)

    def count(self, start: int = 0, stop: int | None = None) -> int:
        """How many integers of the range are present."""
        stop = self.size if stop is None else stop
        if stop - start < _SHORT:  # nearly every chunk: counting one integer is faster than three slices
            content = int.from_bytes(self._bytes[start >> 3 : (stop + 7) >> 3].tobytes(), "little")
            return ((content >> (start & 7)) & ((1 << max(0, stop - start)) - 1)).bit_count()
        pieces = _pieces(start, stop)
        return sum(int(np.bitwise_count(self._bytes[where] & mask).sum()) for where, mask in pieces)

    def last(self, start: int, stop: int) -> int | None:
        """The largest integer of the range that is present; None if there is none."""
        for where, mask in reversed(_pieces(start, stop)):
            found = np.flatnonzero(self._bytes[where] & mask)
            if len(found):
                byte = int(where.start) + int(found[-1])
                inside = int(self._bytes[byte]) & int(mask)
                return 8 * byte + inside.bit_length() - 1
        return None

    def first(self, limit: int) -> Ints:
        """The `limit` smallest members, in order."""
        found: Ints = np.empty(0, dtype=np.int64)
        for where, _ in _pieces(0, self.size):
            if len(found) >= limit:
                break
            # Each of these bytes holds one at least.
            filled = where.start + np.flatnonzero(self._bytes[where])[:limit]
            bits = np.unpackbits(self._bytes[filled], bitorder="little").reshape(-1, 8)
            rows, columns = np.nonzero(bits)
            found = np.concatenate([found, filled[rows] * 8 + columns])
        return found[:limit]

    def __or__(self, other: "Bitmap") -> "Bitmap":
        return self._made(self._bytes | other._bytes)

    def __and__(self, other: "Bitmap") -> "Bitmap":
        return self._made(self._bytes & other._bytes)

    def __sub__(self, other: "Bitmap") -> "Bitmap":
        return self._made(self._bytes & ~other._bytes)

    def _made(self, content: Bytes) -> "Bitmap":
        made = Bitmap(0)
        made.size, made._bytes = self.size, content
        return made


def _pieces(start: int, stop: int) -> list[tuple[slice, np.uint8]]:
    """The bytes that the range touches, as slices of limited length, each with a mask of the range's bits."""
    if start >= stop:
        return []
    first, last = start >> 3, (stop - 1) >> 3
    head, tail = _FULL << (start & 7) & _FULL, _FULL >> (7 - (stop - 1 & 7))
    if first == last:
        return [(slice(first, first + 1), np.uint8(head & tail))]
    blocks = range(first + 1, last, _BLOCK)
    middle = [(slice(block, min(block + _BLOCK, last)), np.uint8(_FULL)) for block in blocks]
    return [(slice(first, first + 1), np.uint8(head)), *middle, (slice(last, last + 1), np.uint8(tail))]

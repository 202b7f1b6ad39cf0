"""The messages that are judged, numbered consecutively; the numbers index bitmaps and files."""

from collections.abc import Mapping

import numpy as np

from audit.bitmap import Bools, Ints


class Scope:
    """Each partition's offsets from `starts` to `ends` (exclusive), numbered from 0 to `size` (exclusive)."""

    def __init__(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> None:
        self.partitions = len(starts)
        self._starts = np.array([starts[partition] for partition in range(self.partitions)], dtype=np.int64)
        ends_ = np.array([ends[partition] for partition in range(self.partitions)], dtype=np.int64)
        self._ends = np.maximum(self._starts, ends_)
        self._bases = np.concatenate([[0], np.cumsum(self._ends - self._starts)])
        self.size = int(self._bases[-1])

    def holds(self, partitions: Ints, offsets: Ints) -> Bools:
        """For each message, whether it is in scope. The partitions must exist."""
        inside: Bools = (offsets >= self._starts[partitions]) & (offsets < self._ends[partitions])
        return inside

    def precedes(self, partitions: Ints, offsets: Ints) -> Bools:
        """For each message, whether it precedes the scope. The partitions must exist."""
        before: Bools = offsets < self._starts[partitions]
        return before

    def numbers(self, partitions: Ints, offsets: Ints) -> Ints:
        """The numbers of messages in scope."""
        numbers: Ints = self._bases[partitions] + (offsets - self._starts[partitions])
        return numbers

    def places(self, numbers: Ints) -> list[tuple[int, int]]:
        """Partition and offset of each number."""
        partitions = np.searchsorted(self._bases, numbers, side="right") - 1
        offsets = numbers - self._bases[partitions] + self._starts[partitions]
        return [*zip(partitions.tolist(), offsets.tolist(), strict=True)]

    def within(self, starts: Mapping[int, int]) -> dict[int, int]:
        """These offsets by partition, raised to where the scope starts."""
        return {partition: max(start, int(self._starts[partition])) for partition, start in starts.items()}

    def range(self, partition: int, start: int, stop: int) -> tuple[int, int]:
        """The numbers of a partition's offsets from `start` to `stop` (exclusive), limited to the scope."""
        low, high, base = (int(a[partition]) for a in (self._starts, self._ends, self._bases))
        start, stop = min(max(start, low), high), min(max(stop, low), high)
        return base + start - low, base + max(start, stop) - low

    def whole(self, partition: int) -> tuple[int, int]:
        """The numbers of a whole partition."""
        return int(self._bases[partition]), int(self._bases[partition + 1])

"""The messages that are judged, numbered through: what bitmaps and files are indexed by."""

from collections.abc import Mapping

import numpy as np

from audit.bitmap import Bools, Ints


class Scope:
    """The offsets of each partition from `starts` to below `ends`, numbered from 0 to below `size`."""

    def __init__(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> None:
        self.partitions = len(starts)
        self._starts = np.array([starts[partition] for partition in range(self.partitions)], dtype=np.int64)
        ends_ = np.array([ends[partition] for partition in range(self.partitions)], dtype=np.int64)
        self._ends = np.maximum(self._starts, ends_)
        self._bases = np.concatenate([[0], np.cumsum(self._ends - self._starts)])
        self.size = int(self._bases[-1])

    def holds(self, partitions: Ints, offsets: Ints) -> Bools:
        """Of each message whether it is one of those. The partitions must exist."""
        inside: Bools = (offsets >= self._starts[partitions]) & (offsets < self._ends[partitions])
        return inside

    def precedes(self, partitions: Ints, offsets: Ints) -> Bools:
        """Of each message whether it stood before those. The partitions must exist."""
        before: Bools = offsets < self._starts[partitions]
        return before

    def numbers(self, partitions: Ints, offsets: Ints) -> Ints:
        """The numbers of messages that it holds."""
        numbers: Ints = self._bases[partitions] + (offsets - self._starts[partitions])
        return numbers

    def places(self, numbers: Ints) -> list[tuple[int, int]]:
        """Partition and offset of each number."""
        partitions = np.searchsorted(self._bases, numbers, side="right") - 1
        offsets = numbers - self._bases[partitions] + self._starts[partitions]
        return [*zip(partitions.tolist(), offsets.tolist(), strict=True)]

    def within(self, starts: Mapping[int, int]) -> dict[int, int]:
        """These offsets by partition, none of them before those."""
        return {partition: max(start, int(self._starts[partition])) for partition, start in starts.items()}

    def range(self, partition: int, start: int, stop: int) -> tuple[int, int]:
        """The numbers from `start` to below `stop` of a partition, cut down to those there are."""
        low, high, base = (int(a[partition]) for a in (self._starts, self._ends, self._bases))
        start, stop = min(max(start, low), high), min(max(stop, low), high)
        return base + start - low, base + max(start, stop) - low

    def whole(self, partition: int) -> tuple[int, int]:
        """The numbers of a whole partition."""
        return int(self._bases[partition]), int(self._bases[partition + 1])

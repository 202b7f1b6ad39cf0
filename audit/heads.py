"""What retention has left: from which input messages on the records of an output topic are all there."""

from collections.abc import Callable

import numpy as np

from audit.bitmap import Ints
from audit.cluster import Offsets
from audit.reading import Batch

_UNKNOWN = np.iinfo(np.int64).max


class Heads:
    """The first records that are left in each output partition whose older ones retention has deleted.

    Within an output partition the records of one input partition come in order, so from the first one that is
    left they are all there. Time tells, too: a record is written after its message, and what was deleted was
    written before the first record that is left, and before the time from which on retention keeps all.
    """

    def __init__(self, starts: Offsets, *, inputs: int) -> None:
        self._inputs = inputs
        self.cut = [partition for partition, start in starts.items() if start > 0]
        self._times: dict[int, int] = {}
        self._first = {partition: np.full(inputs, _UNKNOWN) for partition in self.cut}

    def see(self, batch: Batch) -> None:
        """Note when the first record of each partition was written."""
        for partition in self.cut:
            rows = np.flatnonzero(batch.partitions == partition)
            if len(rows) and partition not in self._times:
                self._times[partition] = batch.messages[int(rows[0])].timestamp()[1]

    def note(self, outputs: Ints, inputs: Ints, offsets: Ints) -> None:
        """Note which messages the records in these output partitions are of."""
        for partition, first in self._first.items():
            mine = outputs == partition
            np.minimum.at(first, inputs[mine], offsets[mine])

    def floors(self, at_time: Callable[[int], Offsets], *, kept_since: int | None) -> Ints:
        """By input partition, the offset from which on the outputs are all there.

        `at_time` gives each input partition's first offset from a time on; `kept_since` is the time from which
        on retention keeps everything, None where that is not known. Both are in ms since 1970. Where neither
        that is known nor a record is left, nobody can tell what there was, and nothing is excused.
        """
        floors = np.zeros(self._inputs, dtype=np.int64)
        for partition, first in self._first.items():
            times = [time for time in (self._times.get(partition), kept_since) if time is not None]
            if times:
                by_time = at_time(min(times))
                young = np.array([by_time[p] for p in range(self._inputs)], dtype=np.int64)
                floors = np.maximum(floors, np.minimum(young, first))
        return floors

"""The remaining start of an output topic, which shows whose records may have been deleted."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from audit.bitmap import Bools, Ints
from audit.cluster import Offsets
from audit.partitioner import partition_of
from audit.reading import Batch
from broker.topics import Cleanup

SLACK_MS: Final = 3_600_000
"""How far producers' and workers' clocks may differ before a time proves nothing."""

_NEVER = 1 << 62


class Heads:
    """The first remaining records in each partition of an output topic.

    Within an output partition, the records of one input partition are in order, so from the first remaining one onwards
    all are present. Time proves it, too: a record is written after its message, so deleted records belong to messages
    older than the first remaining record. In a compacted topic nothing proves it; `cleanup` is None where the brokers
    do not tell.
    """

    def __init__(self, starts: Offsets, *, inputs: int, cleanup: Cleanup | None) -> None:
        self.cut = sorted(partition for partition, start in starts.items() if start > 0)
        self._may_be_compacted = cleanup is None or cleanup.compacts
        self._times = np.full(len(starts), _NEVER, dtype=np.int64)
        self._first = np.full((len(starts), inputs), _NEVER, dtype=np.int64)

    @property
    def whole(self) -> bool:
        """Whether no record can have been deleted."""
        return not self.cut and not self._may_be_compacted

    def see(self, batch: Batch) -> None:
        """Note when the first record of each partition was written."""
        for partition in np.flatnonzero(self._times == _NEVER).tolist():
            rows = np.flatnonzero(batch.partitions == partition)
            if len(rows):
                self._times[partition] = batch.messages[int(rows[0])].timestamp()[1]

    def note(self, outputs: Ints, inputs: Ints, offsets: Ints) -> None:
        """Note which messages the records in these output partitions belong to."""
        np.minimum.at(self._first, (outputs, inputs), offsets)

    def restart(self, partition: int) -> None:
        """Records of this partition were deleted while it was read: count from the next one."""
        self.cut = sorted({*self.cut, partition})
        self._times[partition] = self._first[partition] = _NEVER

    def may_lack(self, batch: Batch, rows: Ints) -> Bools:
        """For each of these input messages, whether a record of it may have been deleted here.

        Each is judged by the partition of its key, even if that partition is whole: another one may have held the key
        before the topic got more partitions.
        """
        if self.whole or self._may_be_compacted:
            return np.full(len(rows), not self.whole)
        sources, offsets = batch.partitions[rows], batch.offsets[rows]
        messages = [batch.messages[row] for row in rows.tolist()]
        times = np.array([message.timestamp()[1] for message in messages], dtype=np.int64)
        homes = self._homes([message.key() for message in messages])
        known = homes >= 0
        # Without a key its record may be in any partition.
        first = np.where(known, self._first[homes, sources], self._first[self.cut].max(axis=0)[sources])
        began = np.where(known, self._times[homes], self._times[self.cut].max())
        lacking: Bools = (offsets < first) & (times < began + SLACK_MS)
        return lacking

    def floors(self, at_time: Callable[[int], Offsets]) -> Ints:
        """By input partition, the offset from which onwards all records are present, whatever their key.

        `at_time` returns each input partition's first offset at or after a time (ms since 1970).
        """
        floors = np.zeros(self._first.shape[1], dtype=np.int64)
        if self._may_be_compacted:
            return np.full_like(floors, _NEVER)
        for partition in self.cut:
            first, began = self._first[partition], int(self._times[partition])
            if began < _NEVER:
                by_time = at_time(began + SLACK_MS)
                first = np.minimum(first, [by_time[source] for source in range(len(first))])
            floors = np.maximum(floors, first)
        return floors

    def _homes(self, keys: Sequence[str | bytes | None]) -> Ints:
        count = len(self._times)
        homes = (partition_of(key, count) if isinstance(key, bytes) and key else -1 for key in keys)
        return np.fromiter(homes, np.int64, len(keys))

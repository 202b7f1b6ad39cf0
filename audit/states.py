"""The pass over the state topic: checks that it holds the state that follows from the messages."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from audit.cluster import Offsets
from audit.findings import Findings, Invariant
from audit.history import Fold
from audit.reading import Batch
from real_time.history.records import StateError, StateRecords

_Digest = bytes


class States:
    """The newest record of each patient before the end that belongs to the committed offset.

    It keeps a digest of each. `without_past` counts what differs in partitions whose first messages may have been
    deleted, and `overwritten` the patients whose record a newer one has replaced since, so that compaction removed it.
    """

    def __init__(self, topic: str, fold: Fold, *, ends: Offsets, findings: Findings) -> None:
        self.without_past = 0
        self.overwritten = 0
        self._topic = topic
        self._fold = fold
        self._ends = ends
        self._findings = findings
        self._newest: defaultdict[int, dict[bytes, tuple[int, _Digest]]] = defaultdict(dict)
        self._later: defaultdict[int, set[bytes]] = defaultdict(set)
        self._judged = 0

    @property
    def checked(self) -> str:
        """How many patients there were."""
        return f"{self._judged:,} patients"

    def __call__(self, batch: Batch) -> None:
        """Take a batch in."""
        problems = dict(unreadable(self._fold.records, batch.values()))
        for row, message in enumerate(batch.messages):
            partition, offset = int(batch.partitions[row]), int(batch.offsets[row])
            key: Any = message.key()
            value: Any = message.value()
            if key is None:
                self._accuse(partition, offset, "names no patient")
            elif offset >= self._ends.get(partition, 0):
                self._later[partition].add(key)
            elif row in problems:
                self._accuse(partition, offset, f"can't be read: {problems[row]}")
                self._newest[partition].pop(key, None)
            elif value is None:
                self._newest[partition].pop(key, None)
            else:
                self._newest[partition][key] = offset, _digest(value)

    def compare(self, *, gone: Collection[int]) -> None:
        """Compare with the fold. `gone` are the partitions whose first messages may have been deleted."""
        for partition in self._ends:
            newest, later = self._newest[partition], self._later[partition]
            for key, expected in self._expected(partition):
                offset, found = newest.pop(key, (self._ends[partition], b""))
                self._judged += 1
                if found == expected:
                    continue
                if partition in gone:
                    self.without_past += 1
                elif not found and key in later:
                    self.overwritten += 1
                elif found:
                    self._accuse(partition, offset, "is not the state that the patient's messages produce")
                else:
                    self._accuse(
                        partition, offset, "lacks the state of a patient whose messages were consumed"
                    )
            for offset, _ in newest.values():
                if partition in gone:
                    self.without_past += 1
                else:
                    self._accuse(partition, offset, "is the state of a patient who has no messages")

    def _expected(self, partition: int) -> Iterator[tuple[bytes, _Digest]]:
        patients, rows = self._fold.patients.of(partition)
        values = self._fold.records.encode(rows)
        yield from zip((str(one).encode() for one in patients), map(_digest, values), strict=True)

    def _accuse(self, partition: int, offset: int, problem: str) -> None:
        self._findings.add(Invariant.STATE, self._topic, partition, offset, problem)


def unreadable(records: StateRecords, values: Sequence[bytes | None]) -> Iterator[tuple[int, StateError]]:
    """By position, the values that are not a state of this recipe."""
    try:
        records.decode([value for value in values if value is not None])
    except StateError:
        for row, value in enumerate(values):
            try:
                records.decode([] if value is None else [value])
            except StateError as error:
                yield row, error


def _digest(value: bytes) -> _Digest:
    return blake2b(value, digest_size=16).digest()


def check_ends(
    topic: str, told: Mapping[int, int | None], *, starts: Offsets, there: Offsets, findings: Findings
) -> Offsets:
    """By partition, the end of the state that belongs to the committed offset, as committed with it.

    An offset without a state and a topic with deleted records are findings.
    """
    ends: Offsets = {}
    for partition, end in sorted(told.items()):
        problem, offset = "", 0
        if end is None:
            problem = (
                "the committed offset of this partition has no state with it: a worker without a history "
                "committed it"
            )
        else:
            ends[partition] = end
            if end and starts.get(partition):
                problem, offset = "the records before this one were deleted", starts[partition]
            elif there.get(partition, 0) < end:
                problem, offset = (
                    f"the topic ends here, but the committed state ends at {end}",
                    there.get(partition, 0),
                )
        if problem:
            findings.add(Invariant.STATE, topic, partition, offset, problem)
    return ends

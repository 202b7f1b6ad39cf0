"""The pass over the metrics topic: every chunk is complete, none overlap, and together they cover everything."""

from collections.abc import Sequence

import numpy as np

from audit.bitmap import Bitmap
from audit.cluster import Offsets
from audit.findings import Findings, Invariant
from audit.heads import Heads
from audit.outputs import Outputs
from audit.reading import Batch
from audit.scope import Scope
from broker.topics import Cleanup
from schemas.metrics import ChunkMetrics, decode_metrics
from schemas.reading import MessageError

Span = tuple[int, int, int]
"""Partition, first and last offset."""

_LARGEST = 1 << 62

_AMISS = "is not a chunk: its spans are malformed"


class Chunks:
    """Judges chunks against the messages that have results and dead letters.

    If every chunk is complete, none overlap and every accounted message is in one, the chunks' rows add up to the
    results and dead letters. A chunk may report more results or dead letters than there are if those of its messages
    may have been deleted (`Outputs.lacking`).
    """

    def __init__(
        self,
        topic: str,
        *,
        starts: Offsets,
        cleanup: Cleanup | None,
        input_topic: str,
        results: Outputs,
        dead_letters: Outputs,
        scope: Scope,
        findings: Findings,
    ) -> None:
        self.records = 0
        self.rows = 0  # of the chunks that are judged
        self.reach = np.full(scope.partitions, -1)
        self.covered = Bitmap(scope.size)
        # For each chunk with skipped messages: how many, in which ranges, and whether the ranges cover the whole chunk.
        self._skipping: list[tuple[int, list[tuple[int, int]], bool]] = []
        self.heads = Heads(starts, inputs=scope.partitions, cleanup=cleanup)
        self._sources = {f"{input_topic}-{partition}": partition for partition in range(scope.partitions)}
        self._topic = topic
        self._accounted = results.messages | dead_letters.messages
        self._found = self._accounted, results.messages, dead_letters.messages
        self._lacking = results.lacking | dead_letters.lacking, results.lacking, dead_letters.lacking
        self._scope = scope
        self._findings = findings

    def __call__(self, batch: Batch) -> None:
        """Process a batch."""
        self.records += len(batch)
        self.heads.see(batch)
        places = zip(batch.partitions.tolist(), batch.offsets.tolist(), strict=True)
        for message, (partition, offset) in zip(batch.messages, places, strict=True):
            for problem in self._problems(partition, message.value()):
                self._findings.add(Invariant.ATOMIC, self._topic, partition, offset, problem)

    def skipped(self, lost: Bitmap) -> Bitmap:
        """The messages without any output that chunks report as skipped, in each chunk as many as it reports.

        Fewer are accepted if part of a chunk is out of scope, or some of its outputs may have been deleted.
        """
        found = Bitmap(self._scope.size)
        for told, ranges, whole in self._skipping:
            count = _count(lost, ranges)
            if count == told or (count < told and not (whole and _count(self._lacking[0], ranges) == 0)):
                for range_ in ranges:
                    found.add_range(*range_)
        return found & lost

    def _problems(self, partition: int, value: bytes | None) -> list[str]:
        try:
            metrics = decode_metrics(value)
        except MessageError:
            return ["is not a chunk: its fields are missing or malformed"]
        spans = self._spans(metrics)
        if not spans:
            return [_AMISS]
        self._note(partition, spans)
        ranges = [self._scope.range(source, first, last + 1) for source, first, last in spans]
        overlaps = sum(self._cover(*range_) for range_ in ranges)
        problems = [f"{_named(spans)} overlaps another chunk"] if overlaps else []
        judged = self._judged(spans, ranges)
        if metrics.skipped:
            self._skipping.append((metrics.skipped, ranges, judged))
        return problems + (self._torn(metrics, spans, ranges) if judged else [])

    def _spans(self, metrics: ChunkMetrics) -> list[Span]:
        """The chunk's spans; empty if any is malformed."""
        spans = []
        for name, bounds in metrics.offsets.items():
            match self._sources.get(name), bounds:
                case int(source), [int(first), int(last)] if 0 <= first <= last < _LARGEST:
                    spans.append((source, first, last))
                case _:
                    return []
        return spans

    def _note(self, partition: int, spans: Sequence[Span]) -> None:
        for source, _, last in spans:
            self.reach[source] = max(last, int(self.reach[source]))
        sources, firsts, _ = np.array(spans, dtype=np.int64).T
        self.heads.note(np.full(len(spans), partition), sources, firsts)

    def _cover(self, start: int, stop: int) -> bool:
        overlaps = self.covered.count(start, stop) > 0
        self.covered.add_range(start, stop)
        return overlaps

    def _judged(self, spans: Sequence[Span], ranges: Sequence[tuple[int, int]]) -> bool:
        """Whether the whole chunk is in scope."""
        return all(
            stop - start == last + 1 - first
            for (_, first, last), (start, stop) in zip(spans, ranges, strict=True)
        )

    def _torn(
        self, metrics: ChunkMetrics, spans: Sequence[Span], ranges: Sequence[tuple[int, int]]
    ) -> list[str]:
        self.rows += metrics.rows
        told = metrics.rows - metrics.skipped, metrics.scored, metrics.dead_lettered
        found = [_count(bitmap, ranges) for bitmap in self._found]
        missing = [one - other for one, other in zip(told, found, strict=True)]
        adds_up = metrics.rows == metrics.scored + metrics.dead_lettered + metrics.skipped
        if adds_up and (not any(missing) or self._may_lack(missing, ranges)):
            return []
        return [
            f"{_named(spans)} reports {_counts(*told)}, but there are {_counts(*found)}",
        ]

    def _may_lack(self, missing: Sequence[int], ranges: Sequence[tuple[int, int]]) -> bool:
        most = (_count(bitmap, ranges) for bitmap in self._lacking)
        return all(0 <= one <= other for one, other in zip(missing, most, strict=True))


def _count(bitmap: Bitmap, ranges: Sequence[tuple[int, int]]) -> int:
    return sum(bitmap.count(*range_) for range_ in ranges)


def _named(spans: Sequence[Span]) -> str:
    return "chunk " + ", ".join(f"[{partition}]@{first}-{last}" for partition, first, last in spans[:4])


def _counts(rows: int, scored: int, dead_lettered: int) -> str:
    return f"{rows} rows ({scored} scored, {dead_lettered} dead-lettered)"

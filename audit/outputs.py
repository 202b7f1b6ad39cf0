"""The passes over results and dead letters: which message each belongs to."""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from operator import itemgetter
from types import UnionType
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

import numpy as np
from confluent_kafka import Message

from audit.bitmap import Bitmap, Bools, Ints
from audit.cluster import Offsets
from audit.findings import Findings, Invariant
from audit.heads import Heads
from audit.letters import cause, content
from audit.published import Floats, Published, UInts, fingerprints, past_fingerprints
from audit.reading import Batch, headers_of
from audit.scope import Scope
from broker.topics import Cleanup
from schemas.dead_letters import Origin, read_dead_letter_headers, read_replay_mark
from schemas.reading import MessageError, reader
from schemas.result_format import Load
from schemas.results import RiskResult

Columns: TypeAlias = dict[str, Sequence[Any]]

_LARGEST = np.iinfo(np.int64).max


class Order:
    """Checks that in every output partition, the offsets of one input partition increase."""

    def __init__(self, *, outputs: int, inputs: int) -> None:
        self._inputs = inputs
        self._last = np.full(outputs * inputs, -1)

    def feed(self, outputs: Ints, inputs: Ints, offsets: Ints) -> Bools:
        """Add the next records; returns for each whether it comes too late."""
        late = np.zeros(len(offsets), dtype=np.bool_)
        if len(offsets) == 0:
            return late
        tracks = outputs * self._inputs + inputs
        by_track = np.argsort(tracks, kind="stable")
        tracks, sorted_ = tracks[by_track], offsets[by_track]
        changes = np.flatnonzero(tracks[1:] != tracks[:-1])
        heads, tails = np.concatenate([[0], changes + 1]), np.concatenate([changes, [len(tracks) - 1]])
        before = np.concatenate([[0], sorted_[:-1]])
        before[heads] = self._last[tracks[heads]]
        late[by_track] = sorted_ <= before
        self._last[tracks[tails]] = sorted_[tails]
        return late


class Outputs:
    """The messages in scope that the records of one output topic belong to. `kind` is what a record is called.

    `earlier` counts records of messages that were deleted before the scope begins. `lacking` are the messages without
    result or dead letter whose record may have been deleted here.
    """

    def __init__(
        self,
        topic: str,
        kind: str,
        *,
        starts: Offsets,
        cleanup: Cleanup | None,
        scope: Scope,
        findings: Findings,
    ) -> None:
        self.topic = topic
        self.messages = Bitmap(scope.size)
        self.lacking = Bitmap(scope.size)
        self.records = 0
        self.earlier = 0
        self.reach = np.full(scope.partitions, -1)  # the largest offset by input partition
        self.heads = Heads(starts, inputs=scope.partitions, cleanup=cleanup)
        self._order = Order(outputs=len(starts), inputs=scope.partitions)
        self._kind = kind
        self._scope = scope
        self._findings = findings

    def see(self, batch: Batch) -> None:
        """Count all records, readable or not."""
        self.records += len(batch)
        self.heads.see(batch)

    def unreadable(self, partition: int, offset: int) -> None:
        """Report a record that is not of this kind."""
        self._findings.add(Invariant.GENUINE, self.topic, partition, offset, f"is not a {self._kind}")

    def account(self, batch: Batch, *, topic: str, ours: Bools, sources: Ints, offsets: Ints) -> Ints:
        """Add the messages that the records of `batch` belong to; returns the rows that account for one in scope.

        `ours` says which rows belong to input `topic`; `sources` and `offsets` say to which of its messages.
        """
        known = ours & (sources >= 0) & (sources < self._scope.partitions) & (offsets >= 0)
        for row in np.flatnonzero(~known).tolist():
            self._accuse(Invariant.GENUINE, batch, row, f"belongs to no message of {topic}")
        rows = np.flatnonzero(known)
        np.maximum.at(self.reach, sources[rows], offsets[rows])
        self.heads.note(batch.partitions[rows], sources[rows], offsets[rows])
        earlier = self._scope.precedes(sources[rows], offsets[rows])
        self.earlier += int(earlier.sum())
        inside = self._scope.holds(sources[rows], offsets[rows])
        again = np.zeros(len(rows), dtype=np.bool_)
        again[inside] = self.messages.add(self._scope.numbers(sources[rows[inside]], offsets[rows[inside]]))
        for row in rows[again].tolist():
            problem = f"has another {self._kind} at {self._at(batch, row)}"
            self._findings.add(Invariant.ONCE, topic, int(sources[row]), int(offsets[row]), problem)
        inside &= ~again
        self._check_order(batch, rows[inside | earlier], topic=topic, sources=sources, offsets=offsets)
        return rows[inside]

    def _check_order(self, batch: Batch, rows: Ints, *, topic: str, sources: Ints, offsets: Ints) -> None:
        """Finds duplicates of records that have no bit because their message was deleted."""
        late = self._order.feed(batch.partitions[rows], sources[rows], offsets[rows])
        for row in rows[late].tolist():
            twice = "" if self._scope.holds(sources[[row]], offsets[[row]])[0] else ", or for the second time"
            problem = f"its {self._kind} at {self._at(batch, row)} comes after that of a later message{twice}"
            self._findings.add(Invariant.ORDERED, topic, int(sources[row]), int(offsets[row]), problem)

    def _accuse(self, invariant: Invariant, batch: Batch, row: int, problem: str) -> None:
        partition, offset = int(batch.partitions[row]), int(batch.offsets[row])
        self._findings.add(invariant, self.topic, partition, offset, problem)

    def _at(self, batch: Batch, row: int) -> str:
        return f"{self.topic}[{batch.partitions[row]}]@{batch.offsets[row]}"


class Results:
    """The pass over the risk topic. `published` keeps the values for a comparison with offline scoring, if any.

    `load` makes the object of a value.
    """

    def __init__(
        self,
        outputs: Outputs,
        *,
        topic: str,
        scope: Scope,
        findings: Findings,
        published: Published,
        load: Load,
    ) -> None:
        self._outputs = outputs
        self._topic = topic
        self._scope = scope
        self._findings = findings
        self._published = published
        self._load = load
        self._read = reader(RiskResult, load)

    def __call__(self, batch: Batch) -> None:
        """Take a batch in."""
        self._outputs.see(batch)
        columns = _columns(batch.values(), self._load)
        if columns is None:
            batch = _readable(batch, lambda message: self._read(message.value()), self._outputs)
            columns = _columns(batch.values(), self._load)
        if columns:
            self._take(batch, columns)

    def _take(self, batch: Batch, columns: Columns) -> None:
        ours = _equal(columns["source_topic"], self._topic)
        sources, offsets = _ints(columns["source_partition"]), _ints(columns["source_offset"])
        probabilities = np.array(columns["risk_probability"], dtype=np.float64)  # None becomes NaN
        rows = self._outputs.account(batch, topic=self._topic, ours=ours, sources=sources, offsets=offsets)
        self._check_labels(np.flatnonzero(ours), sources, offsets, probabilities, columns)
        if self._published.keeps_results:
            as_we_read = _equal(columns["mapping"], self._published.mapping)[rows]
            self._accuse(rows[~as_we_read], sources, offsets, "its result was made with a different mapping")
            rows = rows[as_we_read]
            self._published.add_results(
                self._scope.numbers(sources[rows], offsets[rows]),
                probabilities[rows],
                carried=_fingerprints(batch, columns)[rows],
                pasts=past_fingerprints(columns["history"])[rows],
                models=[columns["model"][row] for row in rows.tolist()],
            )

    def _check_labels(
        self,
        rows: Ints,
        sources: Ints,
        offsets: Ints,
        probabilities: Floats,
        columns: Columns,
    ) -> None:
        labels = np.array(columns["risk_label"], dtype=np.float64)
        thresholds = np.array(columns["threshold"], dtype=np.float64)
        expected = np.where(np.isnan(probabilities), np.nan, probabilities >= thresholds)
        wrong = ~((labels == expected) | (np.isnan(labels) & np.isnan(expected)))
        wrong |= (probabilities < 0) | (probabilities > 1)
        problems = {
            "its probability is invalid, or its label does not follow from it and the threshold": wrong
        }
        present = np.array(columns["features_present"], dtype=np.float64)  # None becomes NaN
        no_input = np.array(columns["no_input"], dtype=np.bool_)
        problems["it says no_input, but has a probability"] = no_input & ~np.isnan(probabilities)
        problems["it had none of the features, but does not say no_input"] = (present == 0) & ~no_input
        for problem, found in problems.items():
            self._accuse(rows[found[rows]], sources, offsets, problem)

    def _accuse(self, rows: Ints, sources: Ints, offsets: Ints, problem: str) -> None:
        for row in rows.tolist():
            place = int(sources[row]), int(offsets[row])
            self._findings.add(Invariant.CORRECT, self._topic, *place, problem)


class DeadLetters:
    """The pass over the dead-letter topic. `published` keeps fingerprints for a comparison with the messages.

    Marks, which say that a dead letter was replayed, are skipped.
    """

    def __init__(self, outputs: Outputs, *, topic: str, scope: Scope, published: Published) -> None:
        self._outputs = outputs
        self._topic = topic
        self._scope = scope
        self._published = published

    def __call__(self, batch: Batch) -> None:
        """Take a batch in."""
        marks = (read_replay_mark(headers_of(message)) is not None for message in batch.messages)
        batch = batch.kept(~np.fromiter(marks, np.bool_, len(batch)))
        self._outputs.see(batch)
        origins: list[Origin] = []
        batch = _readable(
            batch,
            lambda message: origins.append(read_dead_letter_headers(headers_of(message))),
            self._outputs,
        )
        ours = _equal([origin.topic for origin in origins], self._topic)
        sources = _ints([origin.partition for origin in origins])
        offsets = _ints([origin.offset for origin in origins])
        rows = self._outputs.account(batch, topic=self._topic, ours=ours, sources=sources, offsets=offsets)
        letters = [(batch.messages[row], origins[row]) for row in rows.tolist()]
        self._published.add_letters(
            self._scope.numbers(sources[rows], offsets[rows]),
            contents=[content(message, origin) for message, origin in letters],
            causes=[cause(origin.reason, origin.field) for _, origin in letters],
        )


def _fingerprints(batch: Batch, columns: Columns) -> UInts:
    keys: list[Any] = [*map(Message.key, batch.messages)]
    names = ("patient_id", "event_time", "implausible", "features_present", "no_input")
    return fingerprints(keys, *(columns[name] for name in names))


def _readable(batch: Batch, reader: Callable[[Any], object], outputs: Outputs) -> Batch:
    """The rows that `reader` can read; the others become offenders."""
    fine = np.ones(len(batch), dtype=np.bool_)
    for row, message in enumerate(batch.messages):
        try:
            reader(message)
        except MessageError:
            fine[row] = False
            outputs.unreadable(int(batch.partitions[row]), int(batch.offsets[row]))
    return batch.kept(fine)


def _json_types(hint: Any) -> frozenset[type]:
    """The types that orjson returns for a field of this type."""
    kinds = {get_origin(kind) or kind for kind in (get_args(hint) if isinstance(hint, UnionType) else [hint])}
    return frozenset(kinds | ({int} if float in kinds else set()))


_HINTS = get_type_hints(RiskResult)
_TYPES = {field.name: _json_types(_HINTS[field.name]) for field in fields(RiskResult)}
_DEFAULTS = {field.name: field.default for field in fields(RiskResult) if field.default is not MISSING}
_row = itemgetter(*_TYPES)


def _columns(values: Sequence[Any], load: Load) -> Columns | None:
    """The fields of results, column by column; None if any value is not a result. One pass, no object per row."""
    try:
        docs = [*map(load, values)]
        try:
            rows = [*map(_row, docs)]
        except KeyError:  # from an earlier version, without the later fields
            rows = [_row(_DEFAULTS | doc) for doc in docs]
    except (ValueError, KeyError, TypeError):  # no value, not JSON, not an object, or a field missing
        return None
    columns: Columns = dict(zip(_TYPES, zip(*rows, strict=True), strict=False))
    right = all({*map(type, column)} <= _TYPES[name] for name, column in columns.items())
    return columns if right else None


def _ints(column: Sequence[int]) -> Ints:
    """Offsets as int64; a value out of range belongs to no message, and becomes -1."""
    try:
        return np.fromiter(column, np.int64, len(column))
    except OverflowError:
        return np.fromiter((n if 0 <= n <= _LARGEST else -1 for n in column), np.int64, len(column))


def _equal(column: Sequence[str | None], wanted: str | None) -> Bools:
    if column.count(wanted) == len(column):
        return np.ones(len(column), dtype=np.bool_)
    return np.fromiter((value == wanted for value in column), np.bool_, len(column))

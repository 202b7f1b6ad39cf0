"""Draws conclusions from the passes: which records disprove which claim, and what can't be judged."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from audit.bitmap import Bitmap
from audit.cluster import Cluster, Offsets
from audit.findings import Findings, Invariant
from audit.outcome import Audit, Verdict
from audit.passes import Passes
from audit.published import Published
from audit.snapshot import Snapshot
from audit.unjudged import (
    Cause,
    Unjudged,
    cause_of,
    letters_without_model,
    nothing_left,
    scores_without_past,
    states_overwritten,
    states_without_past,
    without_chunk,
    without_message,
    without_model,
    without_output,
)
from broker.roles import Role
from broker.settings import Settings


class Conclusions:
    """Judges what the passes found."""

    def __init__(
        self, settings: Settings, snapshot: Snapshot, cluster: Cluster, findings: Findings, passes: Passes
    ) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._cluster = cluster
        self._findings = findings
        self._passes = passes
        self._results = passes.results
        self._dead_letters = passes.dead_letters
        self._messages = passes.inputs.messages
        self._accounted = self._results.messages | self._dead_letters.messages
        self._lacking = self._messages & (self._results.lacking | self._dead_letters.lacking)
        self._lost = self._messages - self._accounted - self._lacking
        self._skipped = passes.chunks.skipped(self._lost)
        self._left: list[Unjudged] = []

    def check_sets(self) -> None:
        """I1, I2, I3, and the part of I4 that says chunks leave nothing out."""
        if self._passes.values is not None:
            wrong = self._skipped - self._passes.values.foreign
            self._accuse(Invariant.CORRECT, wrong, "was skipped as not for us, but is for us")
        self._accuse(Invariant.COMPLETE, self._lost - self._skipped, "has neither a result nor a dead letter")
        both = self._results.messages & self._dead_letters.messages
        self._accuse(Invariant.ONCE, both, "has both a result and a dead letter")
        self._check_strangers(self._accounted - self._messages)
        self._check_uncovered(self._accounted - self._passes.chunks.covered)
        for outputs in (self._results, self._dead_letters):
            count = (self._messages & outputs.lacking).count()
            cause = self._cause(outputs.topic, cut=bool(outputs.heads.cut))
            self._leave(without_output(outputs.topic, cause, count))

    def check_models(self, published: Published) -> None:
        """The part of I9 that can't be judged: results by a model whose file was not given."""
        if self._passes.values is None:
            return
        self._leave(without_model(self._results.topic, published.unknown))
        self._leave(letters_without_model(self._dead_letters.topic, self._passes.values.doubted))

    def check_past(self) -> None:
        """The parts of I9 and I10 that can't be judged, because they depend on deleted messages."""
        topic, passes = self._settings.input_topic, self._passes
        if passes.values is not None:
            cause = self._cause(topic, cut=not self._snapshot.may_be_compacted(topic))
            self._leave(scores_without_past(topic, cause, passes.values.without_past))
            if passes.states is not None:
                state = self._settings.topic(Role.STATE)
                self._leave(states_without_past(topic, cause, passes.states.without_past))
                self._leave(states_overwritten(state, passes.states.overwritten))

    def check_committed(self, last_committed: Offsets) -> None:
        """I6: compares the first committed offsets with what they cover, and the last with what is beyond them."""
        accounted = self._accounted | self._skipped | self._results.lacking | self._dead_letters.lacking
        reach = np.maximum(
            np.maximum(self._results.reach, self._dead_letters.reach), self._passes.chunks.reach
        )
        for partition, furthest in enumerate(reach.tolist()):
            problem, offset = "", last_committed.get(partition, 0)
            if furthest >= offset:
                problem = f"is committed, but there are results or dead letters for messages up to {furthest}"
            elif partition in self._snapshot.committed:
                offset, problem = self._committed_too_far(partition, accounted)
            if problem:
                self._findings.add(Invariant.OFFSETS, self._settings.input_topic, partition, offset, problem)

    def conclude(self, *, seconds: float) -> Audit:
        """The outcome, worded."""
        return Audit(
            group=self._settings.group,
            messages=(self._messages - self._lacking).count(),
            accounted=(self._messages & (self._accounted | self._skipped)).count(),
            records=self._passes.records,
            aborted=self._passes.aborted,
            verdicts=[*self._verdicts()],
            offenders=self._findings.first(),
            unjudged=self._unjudged(),
            waiting=self._passes.waiting,
            notes=[*self._notes()],
            seconds=seconds,
        )

    def _accuse(self, invariant: Invariant, members: Bitmap, problem: str) -> None:
        topic, scope = self._settings.input_topic, self._snapshot.scope
        self._findings.add_members(invariant, topic, members, scope=scope, problem=problem)

    def _check_strangers(self, strangers: Bitmap) -> None:
        """I3: a result or dead letter without a message is an offender, unless the message may have been deleted."""
        topic, scope = self._settings.input_topic, self._snapshot.scope
        deleted = self._results.earlier + self._dead_letters.earlier
        for partition, start in self._passes.left_from.items():
            numbers = scope.range(partition, 0, start)
            deleted += strangers.count(*numbers)
            strangers.clear_range(*numbers)
        self._leave(without_message(topic, self._cause(topic, cut=True), deleted))
        if self._snapshot.may_be_compacted(topic):
            self._leave(without_message(topic, self._cause(topic, cut=False), strangers.count()))
        else:
            self._accuse(
                Invariant.GENUINE, strangers, "has a result or dead letter, but there is no such message"
            )

    def _check_uncovered(self, uncovered: Bitmap) -> None:
        """I4: an accounted message in no chunk is an offender, unless the chunk may have been deleted."""
        topic, heads = self._settings.metrics_topic, self._passes.chunks.heads
        gone = 0
        floors = heads.floors(lambda ms: self._cluster.at_time(self._settings.input_topic, ms))
        for partition, floor in enumerate(floors.tolist()):
            numbers = self._snapshot.scope.range(partition, 0, floor)
            gone += uncovered.count(*numbers)
            uncovered.clear_range(*numbers)
        self._leave(without_chunk(topic, self._cause(topic, cut=bool(heads.cut)), gone))
        self._accuse(Invariant.ATOMIC, uncovered, "is accounted for, but in no chunk")

    def _cause(self, topic: str, *, cut: bool) -> Cause:
        return cause_of(self._snapshot.cleanups.get(topic), cut=cut)

    def _leave(self, unjudged: Unjudged) -> None:
        if unjudged.count:
            self._left.append(unjudged)

    def _unjudged(self) -> list[Unjudged]:
        topic = self._settings.input_topic
        if self._left or self._findings.counts.total() or self._messages.count() or not self._cut(topic):
            return self._left
        return [nothing_left(topic, self._cause(topic, cut=True))]

    def _cut(self, topic: str) -> list[int]:
        return [partition for partition, start in self._passes.starts[topic].items() if start > 0]

    def _committed_too_far(self, partition: int, accounted: Bitmap) -> tuple[int, str]:
        """The offset that should be committed, and what is wrong; '' if nothing is."""
        scope, committed = self._snapshot.scope, self._snapshot.committed[partition]
        last = accounted.last(*scope.whole(partition))
        if last is not None:
            first_skipped = scope.places(np.array([last]))[0][1] + 1
        elif self._messages.count(*scope.whole(partition)):
            first_skipped = scope.places(np.array([scope.whole(partition)[0]]))[0][1]
        else:
            return committed, ""
        if first_skipped == committed:
            return committed, ""
        return first_skipped, f"comes after the last accounted message, but {committed} is committed"

    def _verdicts(self) -> Iterator[Verdict]:
        left: Counter[Invariant] = Counter({Invariant.COMPLETE: self._lacking.count()})
        for one in self._left:
            if one.invariant is not Invariant.COMPLETE:  # for that one, a message may count for two topics
                left[one.invariant] += one.count
        for invariant, checked in self._checked().items():
            yield Verdict(invariant, checked, self._findings.counts[invariant], left[invariant])

    def _checked(self) -> dict[Invariant, str]:
        results, letters = self._results.records, self._dead_letters.records
        chunks = self._passes.chunks
        open_, aborted = self._findings.counts[Invariant.SETTLED], sum(self._passes.aborted.values())
        values, states = self._passes.values, self._passes.states
        told = {
            Invariant.COMPLETE: f"{(self._messages - self._lacking).count():,} messages",
            Invariant.ONCE: f"{results:,} results, {letters:,} dead letters",
            Invariant.GENUINE: f"{results + letters:,} records",
            Invariant.ATOMIC: f"{chunks.records:,} chunks, {chunks.rows:,} rows",
            Invariant.ORDERED: f"{results + letters:,} records",
            Invariant.OFFSETS: f"{len(self._snapshot.committed)} of {self._snapshot.scope.partitions} partitions",
            Invariant.SETTLED: f"{open_} open, {aborted:,} records aborted",
            Invariant.CORRECT: f"{results:,} labels, {letters:,} dead letters; the rest needs --model"
            if values is None
            else values.checked,
        }
        return told if states is None else told | {Invariant.STATE: states.checked}

    def _notes(self) -> Iterator[str]:
        for topic in self._settings.topics:
            if cut := self._cut(topic):
                how = self._cause(topic, cut=True)
                yield f"{topic}: the oldest records of partitions {_listed(cut)} were {how}"
        for topic in self._passes.undercounted:
            yield f"{topic}: some records were deleted while aborted ones were counted; there may be more of them"
        if skipped := self._skipped.count():
            yield f"{skipped:,} messages were marked as not for us in their chunks and skipped (--skip-foreign)"
        missing = [p for p in range(self._snapshot.scope.partitions) if p not in self._snapshot.committed]
        if missing:
            source = self._settings.input_topic
            yield f"{source}: the group has no committed offset on partitions {_listed(missing)}"


def _listed(partitions: list[int]) -> str:
    return ", ".join(map(str, partitions))

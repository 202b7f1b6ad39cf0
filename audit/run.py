"""The audit: where things stand, one pass over each topic, and what follows."""

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from audit.bitmap import Bitmap
from audit.chunks import Chunks
from audit.cluster import Cluster, Offsets
from audit.findings import Findings, Invariant, Offender
from audit.inputs import Check, Inputs, Unanswered
from audit.letters import Copies
from audit.outputs import DeadLetters, Outputs, Results
from audit.published import Published
from audit.reading import BATCH, READ_COMMITTED, READ_UNCOMMITTED, Batch, OnProgress, read
from audit.snapshot import Snapshot, take_snapshot
from audit.unjudged import (
    Cause,
    Unjudged,
    cause_of,
    nothing_left,
    without_chunk,
    without_message,
    without_output,
)
from broker.settings import Settings
from schemas.decoding import make_decoder
from schemas.presence import require_min_features

if TYPE_CHECKING:
    from audit.model import OfflineModel
    from audit.values import Values

PATIENCE_S: Final = 25.0
"""A dead worker's transaction is aborted after 10 s, and brokers look for such every 10 s."""

COUNTED: Final = 1_000_000
"""Waiting messages that are counted one by one; of more, the offsets are."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one claim: what was checked, how many disprove it, and of how many nobody can tell."""

    invariant: Invariant
    checked: str
    failed: int
    unjudged: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many messages were not consumed yet. Unless `exact`, some of them may be the marks of transactions."""

    messages: int
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found.

    `messages` are the consumed messages of the input topic that were judged, `accounted` those of them with a
    result or a dead letter. `records` and `aborted` count visible and aborted records by output topic. `unjudged`
    says what could not be judged and why, and `offenders` are the first few. `waiting` are the messages that
    the group has yet to consume.
    """

    group: str
    messages: int
    accounted: int
    records: dict[str, int]
    aborted: dict[str, int]
    verdicts: list[Verdict]
    offenders: list[Offender]
    unjudged: list[Unjudged]
    waiting: Waiting
    notes: list[str]
    seconds: float

    @property
    def verdict(self) -> Literal["clean", "incomplete", "failed"]:
        """Whether something was disproved, or else could not be judged."""
        if any(verdict.failed for verdict in self.verdicts):
            return "failed"
        return "incomplete" if self.unjudged else "clean"

    @property
    def clean(self) -> bool:
        """Whether everything was judged and nothing disproved."""
        return self.verdict == "clean"


def audit(
    settings: Settings, *, on_progress: OnProgress = lambda _: None, patience: float = PATIENCE_S
) -> Audit:
    """Judge what the group of `settings` has consumed; workers may go on meanwhile.

    `patience` is how many seconds an open transaction may take before it counts as hanging.

    Raises:
        SettingsError: the model can't be used.
        BrokerError: the brokers can't be reached, or a topic is missing.
        NotAuditableError: the group has consumed nothing, or the topics can't be read.
    """
    began = time.monotonic()
    model = _model(settings)
    findings = Findings()
    cluster = Cluster(settings, patience=patience)
    snapshot = take_snapshot(settings, cluster, findings)
    with ExitStack() as stack, _patient_collector():
        size = snapshot.scope.size
        published = stack.enter_context(_published(size, settings, model))
        judge = _Judge(settings, snapshot, cluster, findings, on_progress)
        judge.read_outputs(published)
        judge.read_input(model, published)
        judge.read_chunks()
        last_committed = cluster.committed() or cluster.last_committed()
        judge.count_aborted()
        judge.count_waiting(last_committed)
    judge.check_sets()
    judge.check_committed(last_committed)
    return judge.conclude(seconds=time.monotonic() - began)


@dataclass
class _Judge:
    """The passes in their order, and the conclusions from them."""

    settings: Settings
    snapshot: Snapshot
    cluster: Cluster
    findings: Findings
    on_progress: OnProgress

    def __post_init__(self) -> None:
        self.starts: dict[str, Offsets] = {}  # where the pass over each topic began
        self.aborted: dict[str, int] = {}
        self.values: Values | None = None
        self.undercounted: list[str] = []
        self.unjudged: list[Unjudged] = []

    # --- passes

    def read_outputs(self, published: Published) -> None:
        """What each result and dead letter is of."""
        topic, scope, findings = self.settings.input_topic, self.snapshot.scope, self.findings
        self.results = self._outputs(self.settings.output_topic, "result")
        take = Results(self.results, topic=topic, scope=scope, findings=findings, published=published)
        self._pass(self.results.topic, take, on_deleted=self.results.heads.restart)
        self.dead_letters = self._outputs(self.settings.dead_letter_topic, "dead letter")
        take_letters = DeadLetters(self.dead_letters, topic=topic, scope=scope, published=published)
        self._pass(self.dead_letters.topic, take_letters, on_deleted=self.dead_letters.heads.restart)

    def read_input(self, model: "OfflineModel | None", published: Published) -> None:
        """The input topic: by then it is known what was published of each message."""
        topic, dead_letters = self.settings.input_topic, self.dead_letters.messages
        checks: list[Check] = [
            Unanswered([self.results, self.dead_letters]),
            Copies(topic=topic, published=published, dead_letters=dead_letters, findings=self.findings),
        ]
        if model is not None:
            from audit.values import Values

            self.values = Values(
                model,
                decode=make_decoder(self.settings, model.features),
                min_features=self.settings.min_features,
                topic=topic,
                published=published,
                results=self.results.messages,
                dead_letters=dead_letters,
                foreign=Bitmap(self.snapshot.scope.size),
                findings=self.findings,
            )
            checks.append(self.values)
        self.inputs = Inputs(scope=self.snapshot.scope, checks=checks)
        self._begin(topic)
        self._pass(topic, self.inputs)
        self.left_from = self.cluster.starts(topic)  # retention may have deleted some meanwhile
        self._note_what_is_gone_on_both_sides()

    def read_chunks(self) -> None:
        """The metrics topic."""
        topic = self.settings.metrics_topic
        self.chunks = Chunks(
            topic,
            starts=self._begin(topic),
            cleanup=self.snapshot.cleanups.get(topic),
            input_topic=self.settings.input_topic,
            results=self.results,
            dead_letters=self.dead_letters,
            scope=self.snapshot.scope,
            findings=self.findings,
        )
        self._pass(topic, self.chunks, on_deleted=self.chunks.heads.restart)

    def count_aborted(self) -> None:
        """The records of output topics that no reader sees."""
        for topic, records in self._records().items():
            missed: list[int] = []
            stage = f"{topic}, aborted records"
            batches = self._batches(topic, READ_UNCOMMITTED, stage=stage, on_deleted=missed.append)
            self.aborted[topic] = max(0, sum(map(len, batches)) - records)
            if missed:
                self.undercounted.append(topic)

    def count_waiting(self, last_committed: Offsets) -> None:
        """What the group has yet to consume, as a `read_committed` reader sees it."""
        topic = self.settings.input_topic
        starts, ends = self.cluster.starts(topic), self.cluster.stable(topic)
        starts = {p: min(max(start, last_committed.get(p, 0)), ends[p]) for p, start in starts.items()}
        offsets = sum(ends[p] - start for p, start in starts.items())
        self.waiting = Waiting(offsets, exact=offsets == 0)
        if 0 < offsets <= COUNTED:
            stage = f"{topic}, waiting messages"
            batches = read(
                self.settings, topic, starts=starts, ends=ends, stage=stage, on_progress=self.on_progress
            )
            self.waiting = Waiting(sum(map(len, batches)), exact=True)

    # --- conclusions

    def check_sets(self) -> None:
        """I1, I2, I3 and the part of I4 that says that chunks leave nothing out."""
        results, dead_letters = self.results.messages, self.dead_letters.messages
        accounted, messages = results | dead_letters, self.inputs.messages
        self.lacking = messages & (self.results.lacking | self.dead_letters.lacking)
        lost = messages - accounted - self.lacking
        self.skipped = self.chunks.skipped(lost)
        if self.values is not None:
            wrong = self.skipped - self.values.foreign
            self._accuse(Invariant.CORRECT, wrong, "was skipped as one for others, but is not")
        self._accuse(Invariant.COMPLETE, lost - self.skipped, "has neither a result nor a dead letter")
        self._accuse(Invariant.ONCE, results & dead_letters, "has both a result and a dead letter")
        self._check_strangers(accounted - messages)
        self._check_uncovered(accounted - self.chunks.covered)
        for outputs in (self.results, self.dead_letters):
            count = (messages & outputs.lacking).count()
            cause = self._cause(outputs.topic, cut=bool(outputs.heads.cut))
            self._leave(without_output(outputs.topic, cause, count))

    def check_committed(self, last_committed: Offsets) -> None:
        """I6: the first committed offsets against what they cover, the last against what is beyond them."""
        accounted = self.results.messages | self.dead_letters.messages | self.skipped
        accounted |= self.results.lacking | self.dead_letters.lacking
        reach = np.maximum(np.maximum(self.results.reach, self.dead_letters.reach), self.chunks.reach)
        for partition, furthest in enumerate(reach.tolist()):
            problem, offset = "", last_committed.get(partition, 0)
            if furthest >= offset:
                problem = f"is committed, but there are outputs of messages up to {furthest}"
            elif partition in self.snapshot.committed:
                offset, problem = self._committed_too_far(partition, accounted)
            if problem:
                self.findings.add(Invariant.OFFSETS, self.settings.input_topic, partition, offset, problem)

    def conclude(self, *, seconds: float) -> Audit:
        """Everything in words."""
        accounted = self.results.messages | self.dead_letters.messages | self.skipped
        return Audit(
            group=self.settings.group,
            messages=(self.inputs.messages - self.lacking).count(),
            accounted=(self.inputs.messages & accounted).count(),
            records=self._records(),
            aborted=self.aborted,
            verdicts=[*self._verdicts()],
            offenders=self.findings.first(),
            unjudged=self._unjudged(),
            waiting=self.waiting,
            notes=[*self._notes()],
            seconds=seconds,
        )

    # --- parts of the above

    def _outputs(self, topic: str, kind: str) -> Outputs:
        return Outputs(
            topic,
            kind,
            starts=self._begin(topic),
            cleanup=self.snapshot.cleanups.get(topic),
            scope=self.snapshot.scope,
            findings=self.findings,
        )

    def _begin(self, topic: str) -> Offsets:
        """Where a topic begins now."""
        self.starts[topic] = self.cluster.starts(topic)
        return self.starts[topic]

    def _pass(
        self,
        topic: str,
        take: Callable[[Batch], None],
        *,
        on_deleted: Callable[[int], None] = lambda _: None,
    ) -> None:
        for batch in self._batches(topic, READ_COMMITTED, stage=topic, on_deleted=on_deleted):
            take(batch)

    def _batches(
        self, topic: str, isolation: str, *, stage: str, on_deleted: Callable[[int], None] = lambda _: None
    ) -> Iterator[Batch]:
        return read(
            self.settings,
            topic,
            starts=self.starts[topic],
            ends=self.snapshot.ends[topic],
            stage=stage,
            on_progress=self.on_progress,
            isolation=isolation,
            on_deleted=on_deleted,
        )

    def _note_what_is_gone_on_both_sides(self) -> None:
        """A message that is gone may have had an output that is gone, too."""
        absent = Bitmap(self.snapshot.scope.size)
        for partition in self.left_from:
            absent.add_range(*self._gone(partition))
        absent -= self.inputs.messages | self.results.messages | self.dead_letters.messages
        for outputs in (self.results, self.dead_letters):
            if not outputs.heads.whole:
                outputs.lacking |= absent

    def _accuse(self, invariant: Invariant, members: Bitmap, problem: str) -> None:
        topic, scope = self.settings.input_topic, self.snapshot.scope
        self.findings.add_members(invariant, topic, members, scope=scope, problem=problem)

    def _gone(self, partition: int) -> tuple[int, int]:
        """The numbers among which messages may be missing from the input."""
        if self._may_be_compacted:
            return self.snapshot.scope.whole(partition)
        return self.snapshot.scope.range(partition, 0, self.left_from[partition])

    @property
    def _may_be_compacted(self) -> bool:
        cleanup = self.snapshot.cleanups.get(self.settings.input_topic)
        return cleanup is None or cleanup.compacts

    def _check_strangers(self, strangers: Bitmap) -> None:
        """I3: what has an output and is no message is accused, unless the message may be gone."""
        topic, scope = self.settings.input_topic, self.snapshot.scope
        deleted = self.results.earlier + self.dead_letters.earlier
        for partition, start in self.left_from.items():
            numbers = scope.range(partition, 0, start)
            deleted += strangers.count(*numbers)
            strangers.clear_range(*numbers)
        self._leave(without_message(topic, self._cause(topic, cut=True), deleted))
        if self._may_be_compacted:
            self._leave(without_message(topic, self._cause(topic, cut=False), strangers.count()))
        else:
            self._accuse(Invariant.GENUINE, strangers, "has an output, but there is no such message")

    def _check_uncovered(self, uncovered: Bitmap) -> None:
        """I4: what is accounted for and in no chunk is accused, unless the chunk may be gone."""
        topic, heads = self.settings.metrics_topic, self.chunks.heads
        gone = 0
        floors = heads.floors(lambda ms: self.cluster.at_time(self.settings.input_topic, ms))
        for partition, floor in enumerate(floors.tolist()):
            numbers = self.snapshot.scope.range(partition, 0, floor)
            gone += uncovered.count(*numbers)
            uncovered.clear_range(*numbers)
        self._leave(without_chunk(topic, self._cause(topic, cut=bool(heads.cut)), gone))
        self._accuse(Invariant.ATOMIC, uncovered, "is accounted for, but in no chunk")

    def _cause(self, topic: str, *, cut: bool) -> Cause:
        return cause_of(self.snapshot.cleanups.get(topic), cut=cut)

    def _leave(self, unjudged: Unjudged) -> None:
        if unjudged.count:
            self.unjudged.append(unjudged)

    def _unjudged(self) -> list[Unjudged]:
        topic, counts = self.settings.input_topic, self.findings.counts
        if self.unjudged or counts.total() or self.inputs.messages.count() or not self._cut(topic):
            return self.unjudged
        return [nothing_left(topic, self._cause(topic, cut=True))]

    def _cut(self, topic: str) -> list[int]:
        return [partition for partition, start in self.starts[topic].items() if start > 0]

    def _committed_too_far(self, partition: int, accounted: Bitmap) -> tuple[int, str]:
        """The offset that should be committed and what is amiss; no words where nothing is."""
        scope, committed = self.snapshot.scope, self.snapshot.committed[partition]
        last = accounted.last(*scope.whole(partition))
        if last is not None:
            first_skipped = scope.places(np.array([last]))[0][1] + 1
        elif self.inputs.messages.count(*scope.whole(partition)):
            first_skipped = scope.places(np.array([scope.whole(partition)[0]]))[0][1]
        else:
            return committed, ""
        if first_skipped == committed:
            return committed, ""
        return first_skipped, f"comes after the last accounted message, but {committed} is committed"

    def _records(self) -> dict[str, int]:
        return {
            self.results.topic: self.results.records,
            self.dead_letters.topic: self.dead_letters.records,
            self.settings.metrics_topic: self.chunks.records,
        }

    def _verdicts(self) -> Iterator[Verdict]:
        left: Counter[Invariant] = Counter({Invariant.COMPLETE: self.lacking.count()})
        for one in self.unjudged:
            if one.invariant is not Invariant.COMPLETE:  # two topics may be the reason for one message
                left[one.invariant] += one.count
        for invariant, checked in self._checked().items():
            yield Verdict(invariant, checked, self.findings.counts[invariant], left[invariant])

    def _checked(self) -> dict[Invariant, str]:
        records, messages = self._records(), (self.inputs.messages - self.lacking).count()
        outputs = self.results.records + self.dead_letters.records
        open_ = self.findings.counts[Invariant.SETTLED]
        checked = {
            Invariant.COMPLETE: f"{messages:,} messages",
            Invariant.ONCE: f"{self.results.records:,} results, {self.dead_letters.records:,} dead letters",
            Invariant.GENUINE: f"{outputs:,} records",
            Invariant.ATOMIC: f"{records[self.settings.metrics_topic]:,} chunks, {self.chunks.rows:,} rows",
            Invariant.ORDERED: f"{outputs:,} records",
            Invariant.OFFSETS: f"{len(self.snapshot.committed)} of {self.snapshot.scope.partitions} partitions",
            Invariant.SETTLED: f"{open_} open, {sum(self.aborted.values()):,} records aborted",
            Invariant.CORRECT: f"{self.results.records:,} labels, {self.dead_letters.records:,} dead letters; "
            "the rest needs --model",
        }
        if self.values is not None:
            checked[Invariant.CORRECT] = (
                f"{self.values.compared:,} probabilities, {self.values.ulp} ulp apart at most"
            )
        return checked

    def _notes(self) -> Iterator[str]:
        for topic in self.settings.topics:
            if cut := self._cut(topic):
                how = self._cause(topic, cut=True)
                yield f"{topic}: the oldest records of partitions {_listed(cut)} were {how}"
        for topic in self.undercounted:
            yield f"{topic}: some records were deleted while aborted ones were counted; there may be more of those"
        if skipped := self.skipped.count():
            yield f"{skipped:,} messages were for others and skipped (--skip-foreign), as their chunks say"
        missing = [p for p in range(self.snapshot.scope.partitions) if p not in self.snapshot.committed]
        if missing:
            source = self.settings.input_topic
            yield f"{source}: the group has no committed offset on partitions {_listed(missing)}"


@contextmanager
def _patient_collector() -> Iterator[None]:
    """Let the garbage collector wait until more than a batch has piled up.

    Messages go as they came, without cycles; to look for some among the objects of each batch again and again
    takes longer than reading them.
    """
    usual = gc.get_threshold()
    gc.set_threshold(10 * BATCH, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _model(settings: Settings) -> "OfflineModel | None":
    if settings.model is None:
        return None
    from audit.model import load_offline  # scikit-learn takes its time to import, and is not needed without

    model = load_offline(settings.model, **settings.of_model)
    make_decoder(settings, model.features)  # refused here, before anything is read
    require_min_features(settings.min_features, model.features)
    return model


def _published(size: int, settings: Settings, model: "OfflineModel | None") -> Published:
    if model is None:
        return Published(size, sha256=None, mapping=None)
    return Published(size, sha256=model.sha256, mapping=make_decoder(settings, model.features).mapping)


def _listed(partitions: list[int]) -> str:
    return ", ".join(map(str, partitions))

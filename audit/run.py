"""The audit: where things stand, one pass over each topic, and what follows."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from audit.bitmap import Bitmap, Ints
from audit.chunks import Chunks
from audit.cluster import Cluster, Offsets
from audit.findings import Findings, Invariant, Offender
from audit.heads import Heads
from audit.inputs import Check, Inputs
from audit.letters import Copies
from audit.outputs import DeadLetters, Outputs, Results
from audit.published import Published
from audit.reading import BATCH, READ_COMMITTED, READ_UNCOMMITTED, Batch, OnProgress, read
from audit.snapshot import Snapshot, take_snapshot
from broker.settings import Settings
from schemas.decoding import make_decoder
from schemas.presence import require_min_features

if TYPE_CHECKING:
    from audit.model import OfflineModel
    from audit.values import Values

PATIENCE_S: Final = 25.0
"""A dead worker's transaction is aborted after 10 s, and brokers look for such every 10 s."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one claim: what was checked, and how many disprove it."""

    invariant: Invariant
    checked: str
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found.

    `messages` are the consumed messages of the input topic that were judged, `accounted` those of them with a
    result or a dead letter. `records` and `aborted` count visible and aborted records by output topic, `notes`
    say what could not be judged, and `offenders` are the first few.
    """

    group: str
    messages: int
    accounted: int
    records: dict[str, int]
    aborted: dict[str, int]
    verdicts: list[Verdict]
    offenders: list[Offender]
    notes: list[str]
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether nothing was disproved."""
        return not any(verdict.failed for verdict in self.verdicts)


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
        published = stack.enter_context(Published(size, sha256=model.sha256 if model else None))
        judge = _Judge(settings, snapshot, cluster, findings, on_progress)
        judge.read_outputs(published)
        judge.read_chunks()
        last_committed = cluster.committed() or cluster.last_committed()
        judge.read_input(model, published)
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
        settings, scope = self.settings, self.snapshot.scope
        self.results = self._outputs(settings.output_topic, "result")
        self.dead_letters = self._outputs(settings.dead_letter_topic, "dead letter")
        self.floors = np.zeros(scope.partitions, dtype=np.int64)
        self.aborted: dict[str, int] = {}
        self.values: Values | None = None

    # --- passes

    def read_outputs(self, published: Published) -> None:
        """What each result and dead letter is of, and up to where retention has deleted some."""
        topic, scope, findings = self.settings.input_topic, self.snapshot.scope, self.findings
        take = Results(self.results, topic=topic, scope=scope, findings=findings, published=published)
        self._pass(self.results.topic, take)
        take_letters = DeadLetters(self.dead_letters, topic=topic, scope=scope, published=published)
        self._pass(self.dead_letters.topic, take_letters)
        for outputs in (self.results, self.dead_letters):
            np.maximum(self.floors, self._floors(outputs.topic, outputs.heads), out=self.floors)

    def read_chunks(self) -> None:
        """The metrics topic."""
        self.chunks = Chunks(
            self.settings.metrics_topic,
            starts=self.snapshot.starts[self.settings.metrics_topic],
            input_topic=self.settings.input_topic,
            results=self.results.messages,
            dead_letters=self.dead_letters.messages,
            floors=self.floors,
            scope=self.snapshot.scope,
            findings=self.findings,
        )
        self._pass(self.settings.metrics_topic, self.chunks)
        for topic, records in self._records().items():
            seen = sum(map(len, self._batches(topic, READ_UNCOMMITTED, stage=f"{topic}, aborted records")))
            self.aborted[topic] = seen - records

    def read_input(self, model: "OfflineModel | None", published: Published) -> None:
        """The input topic, last: by then it is known what was published of each message."""
        topic, dead_letters = self.settings.input_topic, self.dead_letters.messages
        checks: list[Check] = [
            Copies(topic=topic, published=published, dead_letters=dead_letters, findings=self.findings)
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
                findings=self.findings,
            )
            checks.append(self.values)
        self.inputs = Inputs(scope=self.snapshot.scope, checks=checks)
        starts = self.cluster.starts(topic)  # retention may have deleted some meanwhile
        self._pass(topic, self.inputs, starts)
        np.maximum(self.floors, [*_by_partition(starts)], out=self.floors)

    # --- conclusions

    def check_sets(self) -> None:
        """I1, I2, I3 and the part of I4 that says that chunks leave nothing out."""
        for partition, floor in enumerate(self.floors.tolist()):
            self._forget(partition, floor)
        results, dead_letters = self.results.messages, self.dead_letters.messages
        accounted, messages = results | dead_letters, self.inputs.messages
        self._accuse(Invariant.COMPLETE, messages - accounted, "has neither a result nor a dead letter")
        self._accuse(Invariant.ONCE, results & dead_letters, "has both a result and a dead letter")
        self._accuse(Invariant.GENUINE, accounted - messages, "has an output, but there is no such message")
        chunks_from = self._floors(self.settings.metrics_topic, self.chunks.heads)
        for partition, floor in enumerate(chunks_from.tolist()):
            self.chunks.covered.add_range(*self.snapshot.scope.range(partition, 0, floor))
        self._accuse(Invariant.ATOMIC, accounted - self.chunks.covered, "is accounted for, but in no chunk")

    def check_committed(self, last_committed: Offsets) -> None:
        """I6: the first committed offsets against what they cover, the last against what is beyond them."""
        accounted = self.results.messages | self.dead_letters.messages
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
        counts = self.findings.counts
        return Audit(
            group=self.settings.group,
            messages=self.inputs.messages.count(),
            accounted=(self.inputs.messages & (self.results.messages | self.dead_letters.messages)).count(),
            records=self._records(),
            aborted=self.aborted,
            verdicts=[Verdict(one, checked, counts[one]) for one, checked in self._checked().items()],
            offenders=self.findings.first(),
            notes=[*self._notes()],
            seconds=seconds,
        )

    # --- parts of the above

    def _outputs(self, topic: str, kind: str) -> Outputs:
        starts, scope = self.snapshot.starts[topic], self.snapshot.scope
        return Outputs(topic, kind, starts=starts, scope=scope, findings=self.findings)

    def _floors(self, topic: str, heads: Heads) -> Ints:
        if not heads.cut:
            return np.zeros(self.snapshot.scope.partitions, dtype=np.int64)
        return heads.floors(
            lambda ms: self.cluster.at_time(self.settings.input_topic, ms),
            kept_since=self.cluster.kept_since(topic),
        )

    def _pass(self, topic: str, take: Callable[[Batch], None], starts: Offsets | None = None) -> None:
        for batch in self._batches(topic, READ_COMMITTED, stage=topic, starts=starts):
            take(batch)

    def _batches(
        self, topic: str, isolation: str, *, stage: str, starts: Offsets | None = None
    ) -> Iterator[Batch]:
        return read(
            self.settings,
            topic,
            starts=starts or self.snapshot.starts[topic],
            ends=self.snapshot.ends[topic],
            stage=stage,
            on_progress=self.on_progress,
            isolation=isolation,
        )

    def _forget(self, partition: int, floor: int) -> None:
        numbers = self.snapshot.scope.range(partition, 0, floor)
        for bitmap in (self.inputs.messages, self.results.messages, self.dead_letters.messages):
            bitmap.clear_range(*numbers)

    def _accuse(self, invariant: Invariant, members: Bitmap, problem: str) -> None:
        topic, scope = self.settings.input_topic, self.snapshot.scope
        self.findings.add_members(invariant, topic, members, scope=scope, problem=problem)

    def _committed_too_far(self, partition: int, accounted: Bitmap) -> tuple[int, str]:
        """The offset that should be committed and what is amiss; no words where nothing is."""
        scope, committed = self.snapshot.scope, self.snapshot.committed[partition]
        last = accounted.last(*scope.whole(partition))
        if last is not None:
            first_skipped = scope.places(np.array([last]))[0][1] + 1
        elif self.inputs.messages.count(*scope.whole(partition)):
            first_skipped = self.snapshot.starts[self.settings.input_topic][partition]
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

    def _checked(self) -> dict[Invariant, str]:
        records, messages = self._records(), self.inputs.messages.count()
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
            cut = [partition for partition, start in self.snapshot.starts[topic].items() if start > 0]
            if cut:
                yield f"{topic}: retention has deleted the oldest records of partitions {_listed(cut)}"
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


def _by_partition(offsets: Offsets) -> Iterator[int]:
    return (offsets[partition] for partition in range(len(offsets)))


def _listed(partitions: list[int]) -> str:
    return ", ".join(map(str, partitions))

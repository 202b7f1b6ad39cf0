"""The passes over the topics, in their order, and what each of them found."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from audit.bitmap import Bitmap
from audit.chunks import Chunks
from audit.cluster import Cluster, Offsets
from audit.findings import Findings
from audit.inputs import Check, Inputs, Unanswered
from audit.letters import Copies
from audit.outcome import Waiting
from audit.outputs import DeadLetters, Outputs, Results
from audit.published import Published
from audit.reading import READ_COMMITTED, READ_UNCOMMITTED, Batch, OnProgress, read
from audit.snapshot import Snapshot, settled_ends
from broker.roles import Role
from broker.settings import Settings
from schemas.result_format import make_result_loader

if TYPE_CHECKING:
    from audit.history import Fold
    from audit.model import OfflineModel
    from audit.saved import SavedState
    from audit.states import States
    from audit.values import Values
    from schemas.vitals import Decoder

COUNTED: Final = 1_000_000
"""Up to this many waiting messages are counted one by one; beyond that, offsets are counted."""


class Passes:
    """Reads results and dead letters, then the input, then the metrics. Each pass's findings become an attribute."""

    results: Outputs
    dead_letters: Outputs
    inputs: Inputs
    chunks: Chunks
    left_from: Offsets
    """Where the input topic began when it was read."""
    waiting: Waiting

    def __init__(
        self,
        settings: Settings,
        snapshot: Snapshot,
        cluster: Cluster,
        findings: Findings,
        on_progress: OnProgress,
    ) -> None:
        self.starts: dict[str, Offsets] = {}  # where the pass over each topic started
        self.aborted: dict[str, int] = {}
        self.undercounted: list[str] = []
        self.values: Values | None = None
        self.states: States | None = None
        self._settings = settings
        self._snapshot = snapshot
        self._cluster = cluster
        self._findings = findings
        self._on_progress = on_progress

    def read_outputs(self, published: Published) -> None:
        """Find the message of each result and dead letter."""
        topic, scope, findings = self._settings.input_topic, self._snapshot.scope, self._findings
        self.results = self._outputs(self._settings.output_topic, "result")
        take = Results(
            self.results,
            topic=topic,
            scope=scope,
            findings=findings,
            published=published,
            load=make_result_loader(self._settings),
        )
        self._pass(self.results.topic, take, on_deleted=self.results.heads.restart)
        self.dead_letters = self._outputs(self._settings.dead_letter_topic, "dead letter")
        take_letters = DeadLetters(self.dead_letters, topic=topic, scope=scope, published=published)
        self._pass(self.dead_letters.topic, take_letters, on_deleted=self.dead_letters.heads.restart)

    def read_input(
        self,
        models: "Sequence[tuple[OfflineModel, Decoder]]",
        published: Published,
        saved: "SavedState | None" = None,
    ) -> None:
        """Read the input topic, once it is known what was published for each message.

        A partition whose first messages are gone begins with its `saved` state, if all later messages remain.
        """
        topic, dead_letters = self._settings.input_topic, self.dead_letters.messages
        gone: set[int] = set()
        checks: list[Check] = [
            Unanswered([self.results, self.dead_letters]),
            Copies(topic=topic, published=published, dead_letters=dead_letters, findings=self._findings),
        ]
        if models:
            from audit.values import Values

            self.values = Values(
                models,
                min_features=self._settings.min_features,
                topic=topic,
                published=published,
                results=self.results.messages,
                dead_letters=dead_letters,
                foreign=Bitmap(self._snapshot.scope.size),
                gone=gone,
                findings=self._findings,
            )
            checks.append(self.values)
        self.inputs = Inputs(scope=self._snapshot.scope, checks=checks)
        gone |= self._without_beginning(self._begin(topic))
        if self.values and saved is not None:
            self.values.folds[saved.recipe].begin_with(saved, self._known_from(saved, gone))
        self._pass(topic, self.inputs, on_deleted=self.values.lost if self.values else gone.add)
        if self.values and self.values.folds:
            self._read_states([*self.values.folds.values()], gone)
        self.left_from = self._cluster.starts(topic)  # retention may have deleted messages meanwhile
        self._note_what_is_gone_on_both_sides()

    def _without_beginning(self, starts: Offsets) -> set[int]:
        """The partitions in which messages that the group consumed may since have been deleted."""
        if self._snapshot.may_be_compacted(self._settings.input_topic):
            return {*starts}
        outputs = (self.results, self.dead_letters)
        if all(one.heads.whole and not one.earlier for one in outputs):
            return set()
        begins = self._snapshot.scope.within(dict.fromkeys(starts, 0))
        return {partition for partition, start in starts.items() if 0 < start == begins[partition]}

    def _known_from(self, saved: "SavedState", gone: Collection[int]) -> set[int]:
        topic = self._settings.input_topic
        if self._snapshot.may_be_compacted(topic):
            return set()
        starts = self.starts[topic]
        return {partition for partition in gone if starts[partition] <= saved.offsets.get(partition, -1)}

    def _read_states(self, folds: "Sequence[Fold]", gone: Collection[int]) -> None:
        """Read the state topic, once it is known which states the messages produce."""
        from audit.states import States, check_ends

        topic = self._settings.topic(Role.STATE)
        starts, there = self._cluster.starts(topic), settled_ends(topic, self._cluster, self._findings)
        told = self._snapshot.state_ends
        ends = check_ends(topic, told, starts=starts, there=there, findings=self._findings)
        self.states = States(topic, folds[-1], ends=ends, findings=self._findings)
        for batch in read(
            self._settings, topic, starts=starts, ends=there, stage=topic, on_progress=self._on_progress
        ):
            self.states(batch)
        self.states.compare(gone={*gone} - folds[-1].begins.keys())

    def read_chunks(self) -> None:
        """Read the metrics topic."""
        topic = self._settings.metrics_topic
        self.chunks = Chunks(
            topic,
            starts=self._begin(topic),
            cleanup=self._snapshot.cleanups.get(topic),
            input_topic=self._settings.input_topic,
            results=self.results,
            dead_letters=self.dead_letters,
            scope=self._snapshot.scope,
            findings=self._findings,
        )
        self._pass(topic, self.chunks, on_deleted=self.chunks.heads.restart)

    def count_aborted(self) -> None:
        """Count the aborted records on output topics, which no reader sees."""
        for topic, records in self.records.items():
            missed: list[int] = []
            stage = f"{topic}, aborted records"
            batches = self._batches(topic, READ_UNCOMMITTED, stage=stage, on_deleted=missed.append)
            self.aborted[topic] = max(0, sum(map(len, batches)) - records)
            if missed:
                self.undercounted.append(topic)

    def count_waiting(self, last_committed: Offsets) -> None:
        """Count what the group has yet to consume, as a `read_committed` reader sees it."""
        topic = self._settings.input_topic
        starts = self._snapshot.scope.within(self._cluster.starts(topic))
        ends = self._cluster.stable(topic)
        starts = {p: min(max(start, last_committed.get(p, 0)), ends[p]) for p, start in starts.items()}
        offsets = sum(ends[p] - start for p, start in starts.items())
        self.waiting = Waiting(offsets, exact=offsets == 0)
        if 0 < offsets <= COUNTED:
            stage = f"{topic}, waiting messages"
            batches = read(
                self._settings, topic, starts=starts, ends=ends, stage=stage, on_progress=self._on_progress
            )
            self.waiting = Waiting(sum(map(len, batches)), exact=True)

    @property
    def records(self) -> dict[str, int]:
        """Visible records by output topic."""
        return {
            self.results.topic: self.results.records,
            self.dead_letters.topic: self.dead_letters.records,
            self._settings.metrics_topic: self.chunks.records,
        }

    def _outputs(self, topic: str, kind: str) -> Outputs:
        return Outputs(
            topic,
            kind,
            starts=self._begin(topic),
            cleanup=self._snapshot.cleanups.get(topic),
            scope=self._snapshot.scope,
            findings=self._findings,
        )

    def _begin(self, topic: str) -> Offsets:
        """The current start of a topic."""
        self.starts[topic] = self._cluster.starts(topic)
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
        self, topic: str, isolation: str, *, stage: str, on_deleted: Callable[[int], None]
    ) -> Iterator[Batch]:
        starts, scope = self.starts[topic], self._snapshot.scope
        return read(
            self._settings,
            topic,
            starts=scope.within(starts) if topic == self._settings.input_topic else starts,
            ends=self._snapshot.ends[topic],
            stage=stage,
            on_progress=self._on_progress,
            isolation=isolation,
            on_deleted=on_deleted,
        )

    def _note_what_is_gone_on_both_sides(self) -> None:
        """Count deleted messages whose result or dead letter may have been deleted, too."""
        absent = Bitmap(self._snapshot.scope.size)
        for partition in self.left_from:
            absent.add_range(*self._gone(partition))
        absent -= self.inputs.messages | self.results.messages | self.dead_letters.messages
        for outputs in (self.results, self.dead_letters):
            if not outputs.heads.whole:
                outputs.lacking |= absent

    def _gone(self, partition: int) -> tuple[int, int]:
        """The numbers among which messages may be missing from the input."""
        if self._snapshot.may_be_compacted(self._settings.input_topic):
            return self._snapshot.scope.whole(partition)
        return self._snapshot.scope.range(partition, 0, self.left_from[partition])

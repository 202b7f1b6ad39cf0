"""The state topic alone: a patient's newest record, and whether a worker could start from the state."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from audit.cluster import Cluster, Offsets
from audit.errors import NotAuditableError
from audit.findings import Findings, Invariant, Offender
from audit.reading import Batch, read
from audit.saved import SavedState
from audit.states import check_ends, unreadable
from broker.roles import Role
from broker.settings import Settings
from broker.topics import cleanups, require_state_topic
from real_time.history.records import StateError, StateRecords

PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A patient's newest record within the committed offsets; `at` is in ms since 1970."""

    partition: int
    offset: int
    at: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Checked:
    """What the state topic contains.

    `size` is the number of bytes of the patients' newest records; `beyond` counts the records of transactions after the
    committed offsets. `offenders` are the first few of the `failed` reasons why a worker could not start from it.
    """

    topic: str
    partitions: int
    patients: int
    size: int
    beyond: int
    failed: int
    offenders: list[Offender]


class _Topic:
    """The state topic of the settings' group. Raises BrokerError, TopicError or NotAuditableError."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.topic(Role.STATE)
        self.findings = Findings()
        self._settings = settings
        require_state_topic(settings)
        cluster = Cluster(settings, patience=PATIENCE_S, topics=[settings.input_topic, self.name])
        self.committed = cluster.committed() or cluster.last_committed()
        if not self.committed:
            raise NotAuditableError(
                f"group {settings.group} has no committed offsets on topic {settings.input_topic}, so no state belongs "
                "to it; check --group and --input-topic"
            )
        self.input_id, told = cluster.topic_id(), cluster.state_ends
        # Offsets can be committed a little before the state of the same transaction becomes readable.
        cluster.settled(self.name, {partition: end for partition, end in told.items() if end is not None})
        self._cluster, self.looked_at = cluster, time.time()
        self._starts, self._there = cluster.starts(self.name), cluster.stable(self.name)
        self.ends: Offsets = check_ends(
            self.name, told, starts=self._starts, there=self._there, findings=self.findings
        )

    def has_grown(self) -> bool:
        """Whether more became readable since `looked_at`; an open transaction may have written it a little before."""
        return self._cluster.stable(self.name) != self._there

    def batches(self) -> Iterator[Batch]:
        return read(
            self._settings,
            self.name,
            starts=self._starts,
            ends=self._there,
            stage=self.name,
            on_progress=lambda _: None,
        )


def find_state(settings: Settings, patient: str) -> list[Stored]:
    """The patient's state, in each partition that has some."""
    topic, key = _Topic(settings), patient.encode()
    found: dict[int, Stored | None] = {}
    for batch in topic.batches():
        for message in batch.messages:
            partition: Any = message.partition()
            offset: Any = message.offset()
            if message.key() == key and offset < topic.ends.get(partition, 0):
                value: Any = message.value()
                at = message.timestamp()[1]
                found[partition] = None if value is None else Stored(partition, offset, at, value)
    return [one for _, one in sorted(found.items()) if one is not None]


def check_state(settings: Settings, records: StateRecords) -> Checked:
    """Check every record, as a worker with this recipe does when it starts from the committed offsets."""
    topic = _Topic(settings)
    sizes: dict[tuple[int, Any], int] = {}
    beyond = 0
    for batch in topic.batches():
        problems = dict(unreadable(records, batch.values()))
        for row, message in enumerate(batch.messages):
            partition, offset = int(batch.partitions[row]), int(batch.offsets[row])
            value: Any = message.value()
            if offset >= topic.ends.get(partition, 0):
                beyond += 1
            elif row in problems:
                topic.findings.add(
                    Invariant.STATE, topic.name, partition, offset, f"can't be read: {problems[row]}"
                )
            elif value is None:
                sizes.pop((partition, message.key()), None)
            else:
                sizes[partition, message.key()] = len(value)
    return Checked(
        topic=topic.name,
        partitions=len(topic.ends),
        patients=len(sizes),
        size=sum(sizes.values()),
        beyond=beyond,
        failed=topic.findings.counts.total(),
        offenders=topic.findings.first(),
    )


def copy_state(settings: Settings, records: StateRecords) -> SavedState:
    """The state that belongs to the group's committed offsets; workers may keep running.

    Raises NotAuditableError if it is not one that a worker with this recipe could start from, or if it changed while it
    was read so that it can't be told.
    """
    topic = _Topic(settings)
    newest: dict[int, dict[str, bytes]] = {partition: {} for partition in topic.ends}
    written: dict[tuple[int, str], float] = {}  # when each patient's first record after the end was
    for batch in topic.batches():
        for message, partition, offset in zip(
            batch.messages, batch.partitions.tolist(), batch.offsets.tolist(), strict=True
        ):
            key: Any = message.key()
            value: Any = message.value()
            if offset >= topic.ends.get(partition, 0):
                written.setdefault((partition, key.decode()), message.timestamp()[1] / 1000)
            elif value is None:
                newest[partition].pop(key.decode(), None)
            else:
                newest[partition][key.decode()] = value
    _require_sound(topic, records, newest)
    _require_kept(settings, topic, [*written.values()])
    return SavedState(
        input_topic=settings.input_topic,
        topic_id=topic.input_id,
        group=settings.group,
        recipe=records.recipe,
        offsets=topic.committed,
        states=newest,
    )


def _require_kept(settings: Settings, topic: _Topic, written: list[float]) -> None:
    """Raise NotAuditableError if compaction may have removed records before they were read.

    A record displaces none until it is min.compaction.lag.ms old by its timestamp; half of that allows for clocks that
    differ. `written` has the times of those that were read after the committed state; others may have come since.
    """
    if topic.has_grown():
        written = [*written, topic.looked_at]
    if not written:
        return
    cleanup = cleanups(settings, [topic.name]).get(topic.name)
    lag = cleanup.compaction_lag if cleanup else 0.0
    if time.time() - min(written) >= lag / 2:
        raise NotAuditableError(
            f"workers wrote to topic {topic.name} while it was read, and it keeps what they replaced for only "
            f"{lag:g} s (min.compaction.lag.ms), so what it held at the committed offsets is not certain: run this "
            "while no worker runs, or set min.compaction.lag.ms to more than twice the time that this takes"
        )


def _require_sound(topic: _Topic, records: StateRecords, newest: dict[int, dict[str, bytes]]) -> None:
    problems = [one.problem for one in topic.findings.first()]
    try:
        for values in newest.values():
            records.decode([*values.values()])
    except StateError as error:
        problems.append(str(error))
    if problems:
        raise NotAuditableError(
            f"a worker can't start from the state in {topic.name}: {problems[0]}; vitalstream state check lists all"
        )

"""All offsets at the start of an audit."""

from collections.abc import Mapping
from dataclasses import dataclass

from audit.cluster import Cluster, Offsets
from audit.errors import NotAuditableError
from audit.findings import Findings, Invariant
from audit.scope import Scope
from broker.settings import Settings
from broker.topics import Cleanup


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The group's committed offsets, the end up to which each topic is read, and each topic's cleanup policy.

    The committed offsets are taken first, so that everything committed by then lies before the ends. A topic's start is
    looked up again before each pass, because retention does not wait for an audit.
    """

    committed: Offsets
    state_ends: Mapping[int, int | None]
    """The end of the state that belongs to each committed offset; None if there is none."""
    cleanups: Mapping[str, Cleanup]
    ends: Mapping[str, Offsets]
    scope: Scope

    def may_be_compacted(self, topic: str) -> bool:
        """Whether messages may be missing from the middle of a topic."""
        cleanup = self.cleanups.get(topic)
        return cleanup is None or cleanup.compacts


def take_snapshot(settings: Settings, cluster: Cluster, findings: Findings) -> Snapshot:
    """Take the snapshot; open transactions that hold something up are findings.

    Raises NotAuditableError if the group has committed nothing.
    """
    committed = cluster.committed()
    source = settings.input_topic
    if committed is None:
        committed = cluster.last_committed()
        for partition, offset in sorted(committed.items())[:1] or [(0, 0)]:
            problem = f"an open transaction holds the offsets of group {settings.group}"
            findings.add(Invariant.SETTLED, source, partition, offset, problem)
    if not committed:
        raise NotAuditableError(
            f"group {settings.group} has no committed offsets on topic {source}: it has scored nothing, or "
            "the brokers have forgotten it; check --group and --input-topic"
        )
    state_ends = cluster.state_ends
    strangers = cluster.of_another_topic()
    for partition, offset in strangers.items():
        problem = f"was committed on a deleted topic {source}; the current one was not read from its start"
        findings.add(Invariant.OFFSETS, source, partition, offset, problem)
    starts = cluster.begins()
    ends = {topic: settled_ends(topic, cluster, findings) for topic in settings.output_topics}
    # Offsets committed beyond the input's end can't be read; they are judged with the committed offsets. Nothing was
    # consumed of a topic other than the one the offsets were committed for.
    consumed = {p: offset for p, offset in committed.items() if p not in strangers}
    there = cluster.ends(source)
    ends[source] = {p: min(consumed.get(p, starts[p]), end) for p, end in there.items()}
    return Snapshot(committed, state_ends, cluster.cleanups(), ends, Scope(starts, ends[source]))


def settled_ends(topic: str, cluster: Cluster, findings: Findings) -> Offsets:
    """The end of an output topic for readers; an open transaction before it is a finding."""
    ends = cluster.ends(topic)
    settled = cluster.settled(topic, ends)
    for partition, offset in settled.items():
        if offset < ends[partition]:
            problem = f"a transaction that starts here is open; readers see nothing of {topic} beyond it"
            findings.add(Invariant.SETTLED, topic, partition, offset, problem)
    return settled

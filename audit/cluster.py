"""Offsets: the group's committed ones, the topics' starts and ends, and how far transactions have ended."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from audit.errors import NotAuditableError
from broker.admin import Admin
from broker.notes import read_note
from broker.settings import Settings
from broker.topics import Cleanup, cleanups, require_topics

Offsets = dict[int, int]
"""An offset for each partition of a topic."""

_POLL_S = 0.1
_ANSWER_S = 5.0  # how long a request for committed offsets may take before it is repeated
_NEVER = 1 << 62
_NOT_YET = (KafkaError.UNSTABLE_OFFSET_COMMIT, KafkaError._TIMED_OUT, KafkaError._WAIT_COORD)
_SPEC: Any = OffsetSpec  # has no types


class Cluster:
    """The cluster, asked about the topics and the group of `settings`.

    Transactions open now may take `patience` seconds to end. Raises BrokerError if the brokers can't be
    reached or a topic is missing, NotAuditableError if they refuse an answer.
    """

    def __init__(self, settings: Settings, *, patience: float, topics: Sequence[str] | None = None) -> None:
        """`topics` must exist; by default those that have a setting."""
        require_topics(settings, settings.topics if topics is None else topics)
        self._admin = Admin(settings)
        self._settings = settings
        self._group = settings.group
        self._input = settings.input_topic
        self._deadline = time.monotonic() + patience
        self.state_ends: dict[int, int | None] = {}
        """The end of the state that belongs to each committed offset last returned; None for no state."""

    def committed(self) -> Offsets | None:
        """The group's committed offset of each partition that has one; None while a transaction holds them."""
        while True:
            try:
                return self._committed(stable=True)
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                if error.code() not in _NOT_YET and not error.retriable():
                    raise _refused("the committed offsets of group " + self._group, error) from None
            if time.monotonic() > self._deadline:
                return None
            time.sleep(_POLL_S)

    def last_committed(self) -> Offsets:
        """The same, but with the previous offsets if an open transaction is about to change them."""
        try:
            return self._committed(stable=False)
        except KafkaException as exception:
            raise _refused("the committed offsets of group " + self._group, exception.args[0]) from None

    def of_another_topic(self) -> Offsets:
        """The committed offsets that carry another topic's ID: of an earlier topic with the input's name."""
        try:
            ours, found = self.topic_id(), self._answers(stable=False)
        except KafkaException as exception:
            raise _refused(f"the ID of topic {self._input}", exception.args[0]) from None
        return {
            one.partition: one.offset
            for one in found
            if (topic_id := read_note(one.metadata).topic_id) and topic_id != ours
        }

    def topic_id(self) -> str:
        """The ID of the input topic."""
        described = self._admin.client.describe_topics(TopicCollection([self._input]))[self._input]
        try:
            return str(described.result().topic_id)
        except KafkaException as exception:
            raise _refused(f"the ID of topic {self._input}", exception.args[0]) from None

    def starts(self, topic: str) -> Offsets:
        """The first remaining offset."""
        return self._ends(topic, _SPEC.earliest(), IsolationLevel.READ_UNCOMMITTED)

    def begins(self) -> Offsets:
        """Where a group without committed offsets starts in the input topic."""
        starts, ms = self.starts(self._input), self._settings.from_ms
        if ms is None:
            return starts
        since, ends = self.at_time(self._input, ms), self.ends(self._input)
        return {
            partition: max(start, min(since[partition], ends[partition]))
            for partition, start in starts.items()
        }

    def ends(self, topic: str) -> Offsets:
        """The offset after the last record, even of an open transaction."""
        return self._ends(topic, _SPEC.latest(), IsolationLevel.READ_UNCOMMITTED)

    def at_time(self, topic: str, ms: int) -> Offsets:
        """The first offset with a timestamp of `ms` or later; the end if there is none."""
        found = self._ends(topic, _SPEC.for_timestamp(ms), IsolationLevel.READ_UNCOMMITTED)
        return {partition: offset if offset >= 0 else _NEVER for partition, offset in found.items()}

    def cleanups(self) -> dict[str, Cleanup]:
        """Each topic's cleanup policy, without topics whose configuration this user may not see."""
        return cleanups(self._settings, self._settings.topics)

    def stable(self, topic: str) -> Offsets:
        """The last stable offset: all transactions before it have ended."""
        return self._ends(topic, _SPEC.latest(), IsolationLevel.READ_COMMITTED)

    def settled(self, topic: str, ends: Offsets) -> Offsets:
        """The offsets, at most `ends`, before which all transactions have ended; waits up to `patience` seconds for
        that.

        An offset below `ends` means that the transaction that starts there is still open.
        """
        while True:
            stable = self.stable(topic)
            settled = {partition: min(end, stable[partition]) for partition, end in ends.items()}
            if settled == ends or time.monotonic() > self._deadline:
                return settled
            time.sleep(_POLL_S)

    def _committed(self, *, stable: bool) -> Offsets:
        found = [one for one in self._answers(stable=stable) if one.offset >= 0]
        self.state_ends = {one.partition: read_note(one.metadata).state_end for one in found}
        return {one.partition: one.offset for one in found}

    def _answers(self, *, stable: bool) -> list[TopicPartition]:
        # Asked through a consumer that joins no group: the admin client's own call for a group's offsets crashes the
        # process if the coordinator goes away meanwhile (an assertion in librdkafka 2.16, in 3 of 3 tries).
        asked = [TopicPartition(self._input, partition) for partition in self._partitions(self._input)]
        isolation = "read_committed" if stable else "read_uncommitted"
        config = {"group.id": self._group, "isolation.level": isolation, "log_level": 0}
        with closing(Consumer(self._settings.client() | config)) as consumer:
            found = consumer.committed(asked, timeout=_ANSWER_S)
        for one in found:
            if one.error is not None:
                raise KafkaException(one.error)
        return found

    def _ends(self, topic: str, spec: OffsetSpec, isolation: IsolationLevel) -> Offsets:
        asked = {TopicPartition(topic, partition): spec for partition in self._partitions(topic)}
        return self._patiently(
            topic,
            lambda: {
                one.partition: future.result().offset
                for one, future in self._admin.client.list_offsets(
                    asked, isolation_level=isolation, request_timeout=self._admin.timeout
                ).items()
            },
        )

    def _patiently(self, topic: str, ask: Callable[[], Offsets]) -> Offsets:
        deadline = time.monotonic() + self._admin.timeout
        while True:
            try:
                return ask()
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                if not error.retriable() or time.monotonic() > deadline:
                    raise _refused(f"the offsets of topic {topic}", error) from None
            time.sleep(_POLL_S)

    def _partitions(self, topic: str) -> Sequence[int]:
        return sorted(self._admin.metadata.topics[topic].partitions)


def _refused(what: str, error: KafkaError) -> NotAuditableError:
    return NotAuditableError(f"the brokers did not report {what}: {error.name()}; check this user's rights")

"""The worker's own record of its position in each partition.

The committed offset is the last processed offset + 1 from here, never the consumer's own position: that also counts
messages that were fetched and then dropped, for example because a callback raised.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from broker.notes import Note, read_note, write_note
from consumer.chunks import Block
from consumer.errors import Action, KafkaCallError, stops_consumer
from consumer.identity import Identity

ANSWER_S = 5.0  # how long a request for committed offsets may take before it is repeated
LEADER_S = 1.0  # how long a partition's leader has to answer before it counts as silent
RETRY_S = 0.1

_NOT_YET = (KafkaError._STATE, KafkaError._PREV_IN_PROGRESS, KafkaError._TIMED_OUT, KafkaError._IN_PROGRESS)


class Positions:
    """The next offset of every assigned partition of one topic.

    Requests to the broker are repeated as long as `keep_trying` holds; after that there are no positions, so nothing
    can be committed.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        topic: str,
        identity: Identity,
        keep_trying: Callable[[], bool],
        from_ms: int | None = None,
    ) -> None:
        """`from_ms` (ms since 1970) is the time of the first message to read if nothing is committed."""
        self._consumer = consumer
        self._topic = topic
        self._identity = identity
        self._keep_trying = keep_trying
        self._from_ms = from_ms
        self._next: dict[int, int] = {}
        self._low: dict[int, int] = {}  # the partitions' first offsets at assignment
        self._stable: dict[int, int] = {}  # last stable offsets
        self._state_ends: dict[int, int | None] = {}  # committed with the offsets

    @property
    def partitions(self) -> list[int]:
        """The assigned partitions."""
        return sorted(self._next)

    def add(self, partitions: Iterable[int]) -> list[TopicPartition]:
        """Add partitions; returns where to start reading each: the committed offset, or the group's starting point.

        Raises:
            KafkaCallError: the broker refuses to tell.
            InputLostError: they are of an earlier topic of this name.
        """
        starts = self._committed(partitions)
        self._next.update(starts)
        self._ask_ends(starts)
        return self._listed(starts)

    def of(self, partitions: Iterable[int]) -> list[TopicPartition]:
        """The assigned partitions among these numbers, as TopicPartitions."""
        return [TopicPartition(self._topic, number) for number in partitions if number in self._next]

    def resume(self, partitions: Iterable[int]) -> None:
        """Read partitions that were paused since they were assigned or rewound, and do so at once.

        A resumed partition is noticed by librdkafka (2.16) up to a second later, when its broker's thread wakes up,
        which a request makes it do; and if it was to start at its beginning, it looks for that every 500 ms only.

        Raises KafkaCallError if the broker refuses.
        """
        starts = {number: self._next[number] for number in partitions if number in self._next}
        resumed = self._listed(starts)
        self._consumer.resume(resumed)
        for one in resumed:
            self._seek(one)
        self._ask_ends(starts)

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget partitions."""
        for partition in partitions:
            for known in (self._next, self._low, self._stable, self._state_ends):
                known.pop(partition, None)

    def owns(self, block: Block) -> bool:
        """Whether every message of the block is from an assigned partition and not processed yet."""
        return all(
            first >= self._next.get(partition, first + 1) for partition, (first, _) in block.spans.items()
        )

    def advance(self, block: Block) -> None:
        """Mark the block as processed."""
        for partition, (_, last) in block.spans.items():
            self._next[partition] = last + 1

    def offsets(self, state_ends: Mapping[int, int] | None = None) -> list[TopicPartition]:
        """The offsets to commit, for every partition with processed messages."""
        processed = {partition: offset for partition, offset in self._next.items() if offset >= 0}
        return self._listed(processed, state_ends or {})

    def state_ends(self) -> dict[int, int | None]:
        """By assigned partition, the end of the state that was committed with its offset when last asked.

        None if the offset has no state with it, and 0 if nothing is committed.
        """
        return {partition: self._state_ends.get(partition) for partition in self._next}

    def rewind(self) -> None:
        """Go back to the group's committed offsets: only they tell what is done.

        Raises:
            KafkaCallError: the broker refuses to tell.
            InputLostError: they are of an earlier topic of this name.
        """
        starts = None
        while starts is None and self._keep_trying():
            starts = self._try_committed(self._next)
            if starts is None:
                self._serve()
        self._next = starts or {}
        for partition in self._listed(self._next):
            self._seek(partition)

    def reaches(self, stable: Mapping[int, int]) -> None:
        """Record partitions' latest last stable offsets."""
        self._stable.update(stable)

    def lags(self) -> dict[int, int]:
        """By assigned partition, the number of readable messages that are not collected yet.

        Counts from the consumer's own position, which also moves over markers and aborted messages, to the last stable
        offset, at most a second old. So neither open nor aborted transactions of the input's producers leave a lag
        behind; aborted messages count until they are read past. A partition is left out until its leader has reported
        its end.
        """
        read = {one.partition: one.offset for one in self._consumer.position(self._listed(self._next))}
        return {
            # After an assignment or a seek, the consumer has no position until it returns the first message.
            partition: max(
                0, self._stable[partition] - max(read[partition], offset, self._low.get(partition, 0))
            )
            for partition, offset in self._next.items()
            if partition in self._stable
        }

    def answered(self) -> bool:
        """Whether every partition's leader answers now."""
        try:
            for partition in self._next:
                self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=LEADER_S)
        except KafkaException:
            return False
        return True

    def _seek(self, partition: TopicPartition) -> None:
        while self._keep_trying():
            try:
                self._consumer.seek(partition)
                return
            except KafkaException as exception:
                # A newly assigned partition can't seek before its fetcher has started.
                error: KafkaError = exception.args[0]
                if error.code() not in _NOT_YET:
                    raise KafkaCallError("going back", error, Action.STOP) from None
                time.sleep(RETRY_S)

    def _ask_ends(self, partitions: Iterable[int]) -> None:
        """The statistics report last stable offsets, too, but too late for the first chunks."""
        with contextlib.suppress(KafkaException):
            for partition in partitions:
                asked = TopicPartition(self._topic, partition)
                # For a read_committed consumer, the end is the last stable offset.
                self._low[partition], self._stable[partition] = self._consumer.get_watermark_offsets(
                    asked, timeout=LEADER_S
                )

    def _listed(
        self, offsets: Mapping[int, int], state_ends: Mapping[int, int] | None = None
    ) -> list[TopicPartition]:
        topic_id, ends = self._identity.id, state_ends or {}
        return [
            TopicPartition(self._topic, partition, offset, write_note(Note(topic_id, ends.get(partition))))
            for partition, offset in offsets.items()
        ]

    def _committed(self, partitions: Iterable[int]) -> dict[int, int]:
        asked = list(partitions)
        while self._keep_trying():
            starts = self._try_committed(asked)
            if starts is not None:
                return starts
            time.sleep(RETRY_S)
        return {}

    def _try_committed(self, partitions: Iterable[int]) -> dict[int, int] | None:
        asked = [TopicPartition(self._topic, partition) for partition in partitions]
        if not asked:
            return {}
        try:
            answers = {answer.partition: answer.offset for answer in self._ask(asked)}
            return answers | self._beginnings([one for one, offset in answers.items() if offset < 0])
        except KafkaException as exception:
            # A new group's coordinator answers NOT_COORDINATOR for a moment; or a broker is restarting.
            error: KafkaError = exception.args[0]
            if stops_consumer(error):
                raise KafkaCallError("reading committed offsets", error, Action.STOP) from None
            return None

    def _beginnings(self, partitions: Iterable[int]) -> dict[int, int]:
        """Where to start partitions without a committed offset."""
        if self._from_ms is None:
            return dict.fromkeys(partitions, OFFSET_BEGINNING)
        asked = [TopicPartition(self._topic, partition, self._from_ms) for partition in partitions]
        found = {}
        for answer in self._consumer.offsets_for_times(asked, timeout=ANSWER_S) if asked else ():
            if answer.error:
                raise KafkaException(answer.error)
            found[answer.partition] = answer.offset if answer.offset >= 0 else self._end(answer.partition)
        return found

    def _end(self, partition: int) -> int:
        return self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=ANSWER_S)[
            1
        ]

    def _serve(self) -> None:
        """Poll, so that the consumer handles events; the messages it returns are dropped and read again later.

        A group that excluded us during an outage answers no request until we have processed that.
        """
        for message in self._consumer.consume(1, RETRY_S):
            error = message.error()
            if error is not None and stops_consumer(error):
                raise KafkaCallError("reading", error, Action.STOP)

    def _ask(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        answers = self._consumer.committed(partitions, timeout=ANSWER_S)
        for answer in answers:
            if answer.error:
                raise KafkaException(answer.error)
            topic_id, end = read_note(answer.metadata)
            self._identity.require(topic_id)
            self._state_ends[answer.partition] = 0 if answer.offset < 0 else end
        return answers

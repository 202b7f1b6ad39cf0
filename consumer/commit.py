"""Commits results, dead letters, metrics and offsets: all become visible together, or none."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from broker.bounded import Bounded
from consumer.errors import Action, KafkaCallError, action_for
from consumer.observer import Observer, Step
from consumer.sending import Output, Records, Sender, kafka_call

# A commit that took this long may have been sent twice.
SLOW_S = 5.0
# Sending offsets takes milliseconds; it is retried after this long.
OFFSETS_S = 3.0
# A call that overruns its timeout by this much will not return.
HANGS_S = 1.0

Offsets = Callable[[], list[TopicPartition]]
"""Returns the offsets to commit; called once everything is delivered."""


class Committer(Protocol):
    """Makes chunks visible. Every method may raise KafkaCallError; no property does."""

    @property
    def chunks(self) -> int:
        """Chunks added since the last commit."""

    @property
    def rows(self) -> int:
        """Messages in them."""

    @property
    def timed_out(self) -> bool:
        """Whether the broker may have aborted what was added because it was open too long."""

    def start(self, timeout: float) -> None:
        """Prepare a new producer."""

    def add(self, output: Output) -> None:
        """Hand a chunk's messages to the producer."""

    def commit(self, offsets: Offsets, timeout: float, *, closing: Sequence[Records] = ()) -> None:
        """Make everything added, the `closing` records and the offsets visible."""

    def abort(self, timeout: float) -> None:
        """Undo what was added as far as possible."""

    def renew(self) -> None:
        """Replace the producer by a new one, which `start` prepares."""


class Transactions:
    """Exactly once: one Kafka transaction holds all messages and offsets added."""

    def __init__(
        self,
        consumer: Consumer,
        sender: Sender,
        *,
        timeout: float,
        observer: Observer,
        clock: Callable[[], float],
    ) -> None:
        self._consumer = consumer
        self._sender = sender
        self._timeout = timeout
        self._observer = observer
        self._clock = clock
        self._bounded = Bounded()
        self._opened_at: float | None = None

    @property
    def chunks(self) -> int:
        """Chunks in the open transaction."""
        return self._sender.chunks

    @property
    def rows(self) -> int:
        """Messages in them."""
        return self._sender.rows

    @property
    def timed_out(self) -> bool:
        """Whether the transaction was open for longer than the broker allows."""
        return self._opened_at is not None and self._clock() - self._opened_at >= self._timeout

    def start(self, timeout: float) -> None:
        """Fence every earlier producer with this transactional ID, and end its last transaction."""
        with kafka_call("starting transactions"):
            self._sender.producer.init_transactions(timeout)

    def add(self, output: Output) -> None:
        """Produce into the open transaction, beginning one if there is none."""
        if self._opened_at is None:
            with kafka_call("beginning a transaction"):
                self._sender.producer.begin_transaction()
            self._opened_at = self._clock()
        self._sender.send(output)

    def commit(self, offsets: Offsets, timeout: float, *, closing: Sequence[Records] = ()) -> None:
        """Deliver the messages, add the offsets, commit; renew the producer if there was trouble on the way."""
        began = self._clock()
        if closing:
            self._sender.add(closing)
        # 1. Deliver first: the coordinator delays send_offsets while produce requests are in flight.
        self._sender.flush(timeout)
        # 2. The offsets, under the current group membership: a replaced member is fenced.
        self._send_offsets(offsets(), deadline=began + timeout)
        # 3. The commit. If this raises, only the broker knows whether it happened.
        self._end(timeout)
        took = self._clock() - began
        self._observer.reached(Step.COMMITTED)
        self._observer.committed(chunks=self._sender.chunks, rows=self._sender.rows, seconds=took)
        # 4. Requests that may still be in flight.
        self._close(took, timeout)

    def abort(self, timeout: float) -> None:
        """Abort the open transaction; also renew the producer if there was trouble on the way."""
        if self._opened_at is not None:
            began = self._clock()
            with kafka_call("aborting"):
                self._sender.producer.abort_transaction(timeout)
            self._close(self._clock() - began, timeout)

    def renew(self) -> None:
        """Create a new producer with the same transactional ID."""
        self._sender.renew()
        self._forget()

    def _close(self, took: float, timeout: float) -> None:
        """A transaction has ended.

        If librdkafka sent the request to end it twice, the second may still be in flight and would end the next
        transaction of the same producer epoch. A new producer has a new epoch.
        """
        with kafka_call("listening"):
            self._sender.producer.poll(0)  # so that `disturbed` is up to date
        if self._sender.disturbed or took > SLOW_S:
            self.renew()
            self.start(timeout)
        self._forget()

    def _forget(self) -> None:
        self._opened_at = None
        self._sender.clear()

    def _send_offsets(self, offsets: list[TopicPartition], *, deadline: float) -> None:
        while True:
            try:
                left = deadline - self._clock()
                self._try_to_send_offsets(offsets, timeout=min(OFFSETS_S, max(0.1, left)))
                break
            except KafkaCallError as failure:
                if failure.action is not Action.RETRY or self._clock() >= deadline:
                    raise
        self._observer.reached(Step.OFFSETS_SENT)

    def _try_to_send_offsets(self, offsets: list[TopicPartition], *, timeout: float) -> None:
        # librdkafka (2.16) doesn't look at this call's timeout while it waits for the group's coordinator
        # (rd_kafka_coord_req_fsm); see metadata.recovery.strategy in consumer.clients. An abandoned call keeps its
        # producer until it returns, once the coordinator is back. That is harmless: its offsets join a transaction that
        # nobody commits and the new producer's start aborts, or they are refused for their old epoch.
        group = self._consumer.consumer_group_metadata()
        send = functools.partial(self._sender.producer.send_offsets_to_transaction, offsets, group, timeout)
        try:
            with kafka_call("sending offsets"):
                self._bounded(send, seconds=timeout + HANGS_S)
        except TimeoutError:
            raise KafkaCallError("sending offsets", None, Action.REBUILD) from None

    def _end(self, timeout: float) -> None:
        try:
            self._sender.producer.commit_transaction(timeout)
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            action = action_for(error)
            # If a commit may be repeated, it may also have happened.
            unsure = action is Action.RETRY
            raise KafkaCallError("committing", error, Action.REBUILD if unsure else action) from None
        except Exception:
            # An exception from a callback hides the commit's own result.
            raise KafkaCallError("committing", None, Action.REBUILD) from None


class AtLeastOnce:
    """For brokers without transactions: offsets are committed after every message before them is delivered."""

    timed_out = False

    def __init__(
        self, consumer: Consumer, sender: Sender, *, observer: Observer, clock: Callable[[], float]
    ) -> None:
        self._consumer = consumer
        self._sender = sender
        self._observer = observer
        self._clock = clock
        self._bounded = Bounded()

    @property
    def chunks(self) -> int:
        """Chunks produced but not yet committed."""
        return self._sender.chunks

    @property
    def rows(self) -> int:
        """Messages in them."""
        return self._sender.rows

    def start(self, timeout: float) -> None:
        """Nothing to do."""

    def add(self, output: Output) -> None:
        """Produce."""
        self._sender.send(output)

    def commit(self, offsets: Offsets, timeout: float, *, closing: Sequence[Records] = ()) -> None:
        """Wait for every delivery, then commit the offsets."""
        began = self._clock()
        if closing:
            self._sender.add(closing)
        self._sender.flush(timeout)
        # Its type stubs lack the return value of a synchronous commit.
        commit: Any = functools.partial(self._consumer.commit, offsets=offsets(), asynchronous=False)
        try:
            with kafka_call("committing offsets"):
                for answer in self._bounded(commit, seconds=timeout):
                    if answer.error:
                        raise KafkaException(answer.error)
        except TimeoutError:
            raise KafkaCallError("committing offsets", None, Action.REBUILD) from None
        self._observer.reached(Step.COMMITTED)
        self._observer.committed(
            chunks=self._sender.chunks, rows=self._sender.rows, seconds=self._clock() - began
        )
        self._sender.clear()

    def abort(self, timeout: float) -> None:
        """Produced messages stay, and will be produced again."""
        self._sender.clear()

    def renew(self) -> None:
        """A new producer."""
        self._sender.renew()

"""The scoring worker: collect, score, commit, until asked to stop."""

import time
from collections import Counter
from collections.abc import Callable, Collection
from itertools import chain

from confluent_kafka import Consumer, KafkaError, TopicPartition

from broker.settings import Settings
from consumer.changing import ChangingScorer
from consumer.chunks import Block, Collector, Pace
from consumer.clients import TRANSACTION_TIMEOUT_S, consumer_config, is_eager
from consumer.commit import Committer
from consumer.errors import (
    Action,
    FencedError,
    InputLostError,
    KafkaCallError,
    NoProgressError,
    stops_consumer,
)
from consumer.identity import Identity
from consumer.lifecycle import Lifecycle
from consumer.observer import Observer, Step
from consumer.pauses import Pause
from consumer.positions import Positions
from schemas.metrics import ClosedBy
from schemas.registry import RegistryError

COMMIT_TIMEOUT_S = TRANSACTION_TIMEOUT_S
STOP_TIMEOUT_S = 5.0  # for the last commit; a supervisor that waits 10 s still sees a clean exit
REVOKE_TIMEOUT_S = 8.0  # others wait for our partitions while we commit
START_TIMEOUT_S = 10.0  # for one try; it retries until the broker answers
# The worker ends after this many recoveries in a row without a commit, if they have also taken this long: a member
# excluded from its group is refused until its next heartbeat, by default up to 3 s later, and a try takes 50 ms.
MAX_RECOVERIES = 8
MAX_RECOVERING_S = 30.0
LONG_BACKLOG = 2  # transactions
GATHER_BACKLOG_S = 0.2
NAMES_S = 2.0  # how long a commit waits for a message that has one of the model's features


class Worker:
    """One member of the consumer group, driven by one thread.

    `run` returns when it was asked to stop, or when nothing has come for `until_idle` seconds. It raises
    VitalstreamError for permanent failures; even then, only what was scored and delivered is committed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        consumer: Consumer,
        committer: Committer,
        identity: Identity,
        score: ChangingScorer,
        observer: Observer,
        should_stop: Callable[[], bool],
        transactional_id: str,
        pace: Callable[[], Pace],
        lifecycle: Lifecycle | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._lifecycle = lifecycle or Lifecycle()
        self._committer = committer
        self._identity = identity
        self._score = score
        self._observer = observer
        self._should_stop = should_stop
        self._transactional_id = transactional_id
        self._clock = clock
        self._topic = settings.input_topic
        self._eager = is_eager(consumer_config(settings))
        self._commit_interval = settings.commit_interval_ms / 1000
        self._until_idle = settings.until_idle
        self._collector = Collector(consumer, pace=pace, on_error=self._on_consumer_error, clock=clock)
        self._positions = Positions(
            consumer,
            topic=self._topic,
            identity=identity,
            keep_trying=lambda: not (self._leaving or should_stop()),
            from_ms=settings.from_ms,
        )
        self._pause = Pause(consumer, clock=clock)
        self._oldest_at = 0.0  # when the first uncommitted row was collected
        self._lag = 0  # messages after those scored last
        self._rate = 0.0  # rows a second, when last scoring
        self._uncommitted: list[list[int]] = []  # the partitions of the messages of each block
        self._active_at = 0.0  # when the worker was last not idle
        self._joined = False
        self._failure: Exception | None = None  # from a callback, to be raised outside it
        self._broken = False
        self._leaving = False
        self._recoveries = 0
        self._failing_since = 0.0

    def run(self) -> None:
        """Score and commit until asked to stop; then finish the open work and leave the group."""
        try:
            self._start()
            self._consumer.subscribe(
                [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._done():
                self._guarded(self._step)
            self._guarded(self._finish)
        except BaseException:
            # Leaving the group calls on_revoke, which must not commit half-finished work.
            self._broken = True
            self._abort(STOP_TIMEOUT_S)
            self._tell_lag()
            raise
        finally:
            # A closing consumer may still be assigned partitions, but answers no request about them.
            self._leaving = True
            self._consumer.close()
            self._lifecycle.close()
            self._observer.stopped()

    def _step(self) -> None:
        if self._pause.lasts():
            self._active_at = self._clock()
        self._restore()
        block = self._collector.collect(rows=self._room())
        self._raise_failure()
        self._identity.check()
        if block is not None:
            self._process(block)
        if self._commit_is_due(drained=block is None or block.closed_by is not ClosedBy.FULL):
            self._commit(COMMIT_TIMEOUT_S)
        if not self._committer.chunks:  # so that no transaction holds results of two models
            self._score.change()

    def _restore(self) -> None:
        """Prepare new partitions a little at a time, so that the consumer keeps polling and stays in the group."""
        outstanding = {*self._lifecycle.outstanding}
        if outstanding:
            self._lifecycle.restore()
            left = {*self._lifecycle.outstanding}
            self._hold(left)  # which a pause that has ended meanwhile would have let go
            self._positions.resume(outstanding - left)
            self._active_at = self._clock()

    def _hold(self, partitions: Collection[int]) -> None:
        """Pause these partitions."""
        if partitions:
            self._consumer.pause(self._positions.of(partitions))

    def _room(self) -> int:
        """How many rows a block may have; fewer than a chunk means one chunk.

        After trouble, and while the messages' names are in doubt, chunks come one by one.
        """
        if self._recoveries or self._score.doubts_names:
            return 0
        open_for = self._clock() - self._oldest_at if self._committer.chunks else 0.0
        rows = self._committer.rows
        return room(self._commit_interval, open_for=open_for, rows=rows, lag=self._lag, rate=self._rate)

    def _process(self, block: Block) -> None:
        if not self._positions.owns(block) or block.spans.keys() & {*self._lifecycle.outstanding}:
            raise KafkaCallError("reading", None, Action.ABORT)
        self._uncommitted.append(block.partitions)
        left = sum(self._positions.lags().values()) + len(self._collector.pending)
        try:
            self._handle(block, lag=left)
        except RegistryError:
            if len(block.chunks) == 1:
                raise
            left += len(block)
            for chunk in block.chunks:  # those before the message that must wait
                left -= len(chunk)
                self._handle(chunk, lag=left)

    def _handle(self, block: Block, *, lag: int) -> None:
        began = self._clock()
        self._observer.collected(oldest=block.oldest(), waited=began - block.first_at)
        self._observer.reached(Step.COLLECTED)
        self._lag = lag
        output = self._score(block, lag=lag)
        self._observer.reached(Step.SCORED)
        self._pause.over()
        if not self._committer.chunks:
            self._oldest_at = block.first_at
        self._committer.add(output)
        self._positions.advance(block)
        self._active_at = self._clock()
        self._rate = len(block) / max(1e-6, self._active_at - began)

    def _commit_is_due(self, *, drained: bool) -> bool:
        """Commit at once if nothing more is queued, or after trouble; else once the interval has passed.

        While no message has had any of the model's features, it waits for one, so that messages for which the worker
        would stop are not committed.
        """
        if not self._committer.chunks:
            return False
        if self._score.doubts_names and self._recoveries == 0:
            return self._clock() - self._oldest_at >= NAMES_S
        if drained or self._recoveries > 0:
            return True
        interval = gathering_time(self._commit_interval, rows=self._committer.rows, lag=self._lag)
        return self._clock() - self._oldest_at >= interval

    def _commit(self, timeout: float) -> None:
        if self._committer.chunks:
            closing = self._lifecycle.closing()
            self._committer.commit(
                lambda: self._positions.offsets(self._lifecycle.ends()), timeout, closing=closing
            )
            self._lifecycle.committed()
            self._uncommitted.clear()
            self._recoveries = 0

    def _finish(self) -> None:
        block = self._collector.close(ClosedBy.STOPPED)
        try:
            if block is not None:
                self._process(block)
            self._commit(STOP_TIMEOUT_S)
        finally:
            self._tell_lag()

    def _tell_lag(self) -> None:
        """Report what an ending worker leaves behind: messages not collected, and messages not committed."""
        left = Counter(self._positions.lags())
        left.update(chain(self._collector.pending, *self._uncommitted))
        self._observer.behind(left)

    def _done(self) -> bool:
        if self._should_stop():
            return True
        if self._until_idle is None or not self._joined or self._clock() - self._active_at < self._until_idle:
            return False
        if self._positions.answered():
            return True
        self._active_at = self._clock()  # a silent broker doesn't mean an idle topic
        return False

    # --- recovery: every failure ends in one of four ways, and all but one rewind to the committed offsets

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except KafkaCallError as failure:
            self._recover(failure)
        except RegistryError as failure:
            reason = str(failure)
            self._guarded(lambda: self._put_off(reason))

    def _put_off(self, reason: str) -> None:
        """Commit what is scored, and reread the rest after a pause."""
        self._collector.discard()
        self._commit(COMMIT_TIMEOUT_S)
        self._score.restart()
        self._rewind()
        self._pause.begin()
        self._rate = 0.0  # chunk by chunk: a block would ask twice
        self._active_at = self._clock()
        self._observer.waiting(reason)

    def _recover(self, failure: KafkaCallError) -> None:
        self._observer.failed(failure.operation, failure.error_name, failure.action)
        if failure.action is Action.STOP:
            raise failure
        if failure.action is Action.FENCED and not self._committer.timed_out:
            raise FencedError(self._transactional_id)
        self._require_progress(failure)
        self._collector.discard()
        self._score.restart()
        if failure.action is not Action.ABORT or not self._abort(COMMIT_TIMEOUT_S):
            self._committer.renew()
            self._start()
        self._rewind()
        self._uncommitted.clear()
        self._active_at = self._clock()

    def _rewind(self) -> None:
        self._positions.rewind()
        self._lifecycle.settled(self._positions.state_ends())
        self._hold(self._lifecycle.outstanding)

    def _require_progress(self, failure: KafkaCallError) -> None:
        """Wait before the next try, longer after each failure in a row; raise if there were too many."""
        if not self._recoveries:
            self._failing_since = self._clock()
        self._recoveries += 1
        if self._recoveries > MAX_RECOVERIES and self._clock() - self._failing_since > MAX_RECOVERING_S:
            raise NoProgressError(
                f"{failure.operation} failed {self._recoveries} times in a row, the last time with "
                f"{failure.error_name}; nothing was lost: check the brokers, then start again"
            )
        time.sleep(min(0.5, 0.01 * 2**self._recoveries))

    def _abort(self, timeout: float) -> bool:
        try:
            self._committer.abort(timeout)
        except KafkaCallError as failure:
            self._observer.failed(failure.operation, failure.error_name, Action.REBUILD)
            return False
        return True

    def _start(self) -> None:
        """Get the committer ready, however long the brokers take to answer, unless asked to stop."""
        tries = 0
        while not self._should_stop():
            try:
                self._committer.start(START_TIMEOUT_S)
                return
            except KafkaCallError as failure:
                if failure.action is Action.STOP:
                    raise
                self._observer.failed(failure.operation, failure.error_name, Action.RETRY)
                self._committer.renew()
                tries += 1
                time.sleep(min(2.0, 0.1 * 2**tries))

    # --- callbacks of the consumer: they run inside its calls, and must not raise

    def reaches(self, stable: dict[int, int]) -> None:
        """The last stable offsets of the input's partitions, from the consumer's statistics."""
        self._positions.reaches(stable)
        if not self._leaving:  # with the partitions gone, there would be no lag
            self._observer.behind(self._positions.lags())

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            starts = self._positions.add(tp.partition for tp in partitions)
            (consumer.assign if self._eager else consumer.incremental_assign)(starts)
            ends, new = self._positions.state_ends(), [tp.partition for tp in starts]
            self._lifecycle.assigned({partition: ends[partition] for partition in new})
            self._hold({*new} & {*self._lifecycle.outstanding})
        except Exception as error:
            self._failure = error
        self._joined = True
        self._active_at = self._clock()
        self._observer.assigned([tp.partition for tp in partitions])

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Finish the open work before the partitions go; on failure, abort it or leave it to their next owner."""
        gone = [tp.partition for tp in partitions]
        try:
            block = self._collector.close(ClosedBy.REVOKED)
            if not self._broken and self._failure is None:
                try:
                    if block is not None:
                        self._process(block)
                except (
                    RegistryError
                ) as error:  # we reread the partitions we keep, their next owners the others
                    self._failure = error
                self._commit(REVOKE_TIMEOUT_S)
        except Exception as error:
            self._failure = error
        self._drop(gone)
        self._observer.revoked(gone, lost=False)

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Others already own the partitions: we may not commit anything."""
        gone = [tp.partition for tp in partitions]
        self._collector.discard()
        if self._committer.chunks and self._failure is None:
            self._failure = KafkaCallError("keeping partitions", None, Action.ABORT)
        self._drop(gone)
        self._observer.revoked(gone, lost=True)

    def _drop(self, gone: list[int]) -> None:
        self._positions.drop(gone)
        self._lifecycle.revoked(gone)

    def _on_consumer_error(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise InputLostError(
                f"the messages at the committed offset of group and topic {self._topic} are gone (retention, or "
                "the topic was recreated); nothing is skipped silently: reset the group's offsets deliberately"
            )
        if stops_consumer(error):
            raise KafkaCallError("reading", error, Action.STOP)
        self._observer.kafka_error(error.name())

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def gathering_time(interval: float, *, rows: int, lag: int) -> float:
    """How many more seconds a transaction with `rows` may collect messages, when `lag` more are waiting.

    If twice as many messages wait, the rows are late anyway, and fewer transactions score the backlog sooner,
    because the loop waits for each (38 % of its time at one per 25 ms and chunks of 100 rows, 9 % at one per 100 ms).
    An interval of 0 always means one transaction per chunk.
    """
    behind = interval > 0 and lag > LONG_BACKLOG * rows
    return max(interval, GATHER_BACKLOG_S) if behind else interval


def room(interval: float, *, open_for: float, rows: int, lag: int, rate: float) -> int:
    """How many more rows a transaction may take until its time is over, at `rate` rows a second.

    It has been open for `open_for` seconds and holds `rows`; `lag` messages come after them.
    """
    if not interval:
        return 0
    soon = rate * (interval - open_for)
    in_a_backlog = (lag - LONG_BACKLOG * rows) / (LONG_BACKLOG + 1)  # those that leave twice as many behind
    return int(max(soon, min(rate * (GATHER_BACKLOG_S - open_for), in_a_backlog)))

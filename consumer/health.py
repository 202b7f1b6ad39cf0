"""Whether a worker is alive and ready, judged by the events it reports."""

import time
from collections.abc import Callable, Mapping, Sequence

from typing_extensions import override

from consumer.errors import Action
from consumer.lag import Oldest, is_behind
from consumer.observer import Observer, Step

# While waiting for Kafka rather than for the model, a shorter silence than this is not a stall. In an outage no call
# lasts longer than 10 s (COMMIT_TIMEOUT_S, START_TIMEOUT_S), each is followed by an event, and the worker calls
# `should_stop` between retries; so three times the longest call is safe.
KAFKA_S = 30.0
# The lags come every second. If they don't, the worker is waiting somewhere for an answer from Kafka.
LAGS_S = 10.0
# How long messages may wait without any commit before the worker counts as not ready.
RECENT_S = 30.0


class Health(Observer):
    """What the probes answer. Updated by the worker's thread, read by any other.

    A worker is alive while its loop runs. Every event is a beat, and so is every check whether to stop, which happens
    between any two waits for Kafka; so it also beats during an outage. A worker is not alive if
    - the model has had one chunk for longer than `stall_after` seconds,
    - its loop has been silent for that long anywhere else, or
    - it has messages and brokers that answer, but has committed nothing for that long.

    For the last two, the limit is at least `KAFKA_S`.
    """

    def __init__(self, *, stall_after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_after = stall_after
        self._clock = clock
        self._oldest = Oldest()
        self._beat = clock()
        self._trouble = self._beat  # when a Kafka call last failed
        self._lags_at = self._beat
        self._scoring = False
        self._started = False
        self._joined = False
        self._stopped = False
        self._waits_for: str | None = None
        self._restoring: set[int] = set()  # partitions

    # --- read by the probes

    def stalled(self) -> str | None:
        """Why the process should be restarted, or None."""
        if not self._started or self._stopped:
            return None  # a failing start exits on its own
        now, patience = self._clock(), max(self._stall_after, KAFKA_S)
        silent, waiting = now - self._beat, self._oldest.since
        if self._scoring and silent > self._stall_after:
            return f"the model has not returned for more than {self._stall_after:g} s"
        if silent > patience:
            return f"the main loop has made no progress for more than {patience:g} s"
        reading = now - self._lags_at < LAGS_S
        if reading and waiting is not None and now - max(waiting, self._trouble) > patience:
            return f"messages wait, and none was committed for more than {patience:g} s"
        return None

    def unready(self) -> str | None:
        """Why the worker is not working, or None."""
        if self._stopped:
            return "the worker has stopped"
        if not self._started:
            return "the model is not verified yet"
        if not self._joined:
            return "the group has not assigned partitions yet"
        waits_for = _restoring(self._restoring) or self._waits_for
        if waits_for is not None:
            return waits_for
        waiting = self._oldest.since
        if waiting is not None and self._clock() - waiting > RECENT_S:
            return f"messages wait, and none was committed for more than {RECENT_S:g} s"
        return None

    # --- reported by the worker

    def beating(self, should_stop: Callable[[], bool]) -> Callable[[], bool]:
        """`should_stop`, for the worker to call; each call is a beat."""

        def ask() -> bool:
            self._beat = self._clock()
            return should_stop()

        return ask

    @override
    def started(self, *, worker: str, model: str, features: Sequence[str], path: str, decision: str) -> None:
        self._beat = self._clock()
        self._started = True

    @override
    def assigned(self, partitions: Sequence[int]) -> None:
        """The group has accepted the worker, even if without partitions."""
        self._beat = self._clock()
        self._joined = True

    @override
    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        """If partitions were lost, the group has excluded the worker."""
        self._beat = self._clock()
        self._joined = not lost
        self._waits_for = None
        self._restoring -= {*partitions}

    @override
    def restoring(self, partitions: Sequence[int], *, patients: int) -> None:
        """Restoring is progress, although nothing is committed."""
        self._beat = self._trouble = self._clock()
        self._restoring = {*partitions}

    @override
    def restored(self, partition: int, *, patients: int, size: int, seconds: float) -> None:
        self._beat = self._trouble = self._clock()
        self._restoring.discard(partition)

    @override
    def collected(self, *, oldest: float | None, waited: float) -> None:
        self._oldest.collected(self._clock())

    @override
    def reached(self, step: Step) -> None:
        """Each step is a beat; the model has the block from `COLLECTED` to `SCORED`."""
        self._beat = self._clock()
        self._scoring = step is Step.COLLECTED
        if step is Step.SCORED:
            self._waits_for = None

    @override
    def committed(self, *, chunks: int, rows: int, seconds: float) -> None:
        """Progress: the remaining messages get the full time again."""
        self._oldest.committed(left_since=self._clock())

    @override
    def behind(self, lags: Mapping[int, int]) -> None:
        now = self._clock()
        if now - self._lags_at > LAGS_S:
            self._trouble = now
        self._lags_at = now
        self._oldest.behind(is_behind(lags), now)

    @override
    def failed(self, operation: str, error_name: str, action: Action) -> None:
        """Recovering is a beat; the messages of the open transaction will be read again."""
        self._beat = self._trouble = self._clock()
        self._scoring = False
        self._oldest.taken_back()

    @override
    def waiting(self, reason: str) -> None:
        """The worker keeps retrying, so a restart would not help; but it isn't ready either."""
        self._beat = self._trouble = self._clock()
        self._scoring = False
        self._waits_for = reason
        self._oldest.taken_back()

    @override
    def kafka_error(self, error_name: str) -> None:
        """Trouble with the brokers is not the worker's fault."""
        self._trouble = self._clock()

    @override
    def stopped(self) -> None:
        self._stopped = True


def _restoring(partitions: set[int]) -> str:
    return (
        f"restoring the state of partitions {', '.join(map(str, sorted(partitions)))}" if partitions else ""
    )

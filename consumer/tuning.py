"""Chooses the chunk size from what chunks cost and how old their rows are when they are committed.

*How long may a chunk wait?* As long as hardly any row becomes too old: each wait that is skipped costs another chunk
and another transaction. This comes from measured ages, not from a model of them. *How many rows at most?* As many as
can be scored within the goal, so that no chunk that can meet it closes early; more if the model's fixed cost would
otherwise limit the throughput of a backlog.
"""

import contextlib
import logging
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from typing_extensions import override

from consumer.chunks import Pace
from consumer.errors import Action
from consumer.observer import Observer, Step
from schemas.metrics import ChunkMetrics, ClosedBy

log = logging.getLogger("vitalstream.worker")

SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
FIRST_SIZE: Final = 100
PLENTY: Final = 1_000  # rows; in larger chunks a row costs more again (measured: 50 % more at 5,000)
FIXED_SHARE: Final = 0.08  # the fixed cost's largest share of a chunk's time, for sizes chosen for throughput
CLEARLY: Final = 1.2  # the size changes only by more than this factor, which exceeds the noise
CLEARLY_LONGER: Final = 0.1  # the wait grows only by at least this share of the goal

WINDOW: Final = 1_024  # chunks remembered
PERIOD: Final = 64  # chunks between decisions about the wait
LATE: Final = 0.01  # the goal is for the 99th percentile
LATE_BY_WAITING: Final = (
    LATE / 4
)  # the share that waiting may always make late, even if many rows are late anyway
STEPS: Final = 20  # waits considered, from 0 to the goal
# From the commit's return until a read_committed reader has the results.
DELIVERY_S: Final = 0.002
AT_ONCE: Final = 0.5  # a full chunk that waited for less than this share of the wait was full at once
TAKING_S: Final = 0.002  # the time to take a chunk's queued messages
LOG_S: Final = 10.0  # between log lines about the choice

PROBE_ROWS: Final = 256
# What a chunk and a row cost without the model: decoding, encoding, producing.
OWN_FIXED: Final = 5e-4
OWN_PER_ROW: Final = 1e-5


class Costs:
    """What chunks cost: `fixed + per_row * rows` seconds, fitted to the chunks seen, with less weight for older ones.

    Errors are relative to a chunk's expected cost. A weak pull towards the first guess keeps the two apart while all
    chunks have the same size.
    """

    FORGET = 0.99  # per chunk, or per
    # this many rows: a backlog has few chunks, and the first, with cold caches, would otherwise be remembered too long.
    FORGET_ROWS = 200
    PULL = 0.1

    def __init__(self, *, fixed: float = OWN_FIXED, per_row: float = OWN_PER_ROW) -> None:
        self._first = fixed, per_row
        self.fixed, self.per_row = fixed, per_row
        # Sums for least squares; the unknowns are the two costs in units of the first guess.
        self._aa = self._ab = self._bb = self._az = self._bz = 0.0

    def seconds(self, rows: float) -> float:
        """The cost of a chunk with this many rows."""
        return self.fixed + self.per_row * rows

    def add(self, rows: int, seconds: float) -> None:
        """Add a chunk's rows and seconds; `fit` evaluates them."""
        # Outliers, when the machine was busy, are capped; a permanent change is still learned soon.
        seconds = min(seconds, 3 * self.seconds(rows))
        fixed, per_row = self._first
        guess = fixed + per_row * rows
        a, b, z = fixed / guess, per_row * rows / guess, seconds / guess
        keep = self.FORGET ** max(1.0, rows / self.FORGET_ROWS)
        self._aa, self._ab, self._bb = (
            keep * self._aa + a * a,
            keep * self._ab + a * b,
            keep * self._bb + b * b,
        )
        self._az, self._bz = keep * self._az + a * z, keep * self._bz + b * z

    def fit(self) -> None:
        """Update the costs from what was added."""
        fixed, per_row = self._first
        aa, bb, az, bz = (
            self._aa + self.PULL,
            self._bb + self.PULL,
            self._az + self.PULL,
            self._bz + self.PULL,
        )
        determinant = aa * bb - self._ab**2
        self.fixed = fixed * max(0.01, (bb * az - self._ab * bz) / determinant)
        self.per_row = per_row * max(0.01, (aa * bz - self._ab * az) / determinant)


class Tuner:
    """Chooses `pace` so that 99 % of rows are committed within `goal` seconds, for the least work."""

    def __init__(self, *, goal: float, costs: Costs) -> None:
        self._goal = max(0.5 * goal, goal - DELIVERY_S)
        self.costs = costs
        self.pace = Pace(FIRST_SIZE, goal / 2)
        self._waits = np.arange(STEPS) * (goal / STEPS)
        # The age of each chunk's oldest row if no chunk waited: at the commit, and when the chunk began. The initial
        # values are less than half of the goal, and zero.
        self._rest = np.full(WINDOW, 0.4 * goal)
        self._before = np.zeros(WINDOW)
        self._seen = 0
        self._changed = 0
        self._rows = 0
        self._since = 0.0
        self._rate = 0.0  # rows a second
        # How many seconds longer scoring takes for each second that chunks wait, because of the rows that come
        # meanwhile. It delays a row twice: in the previous chunk and in its own.
        self._grows = 0.0

    @property
    def floor(self) -> float:
        """The 99th percentile in seconds if no chunk waits."""
        return float(np.quantile(self._rest, 1 - LATE)) + DELIVERY_S

    @property
    def reachable(self) -> bool:
        """Whether the goal can be met at all; judged once enough chunks were seen."""
        return self._seen < WINDOW // 4 or float(np.mean(self._rest > self._goal)) < 10 * LATE

    def scored(self, rows: int, seconds: float, *, chunks: int = 1) -> None:
        """Each of these chunks with `rows` rows took `seconds` to decode, score, encode and produce."""
        for _ in range(chunks):
            self.costs.add(rows, seconds)
        self._rows += rows * chunks
        if rows >= self.pace.chunk_size:  # unless chunks are full, the limit does not matter
            self._reconsider_size()

    def committed(self, *, age: float, age_at_first: float, waited: float, at: float) -> None:
        """Chunks were committed at `at`, the last of which was not full at once.

        The oldest row's age is now `age` seconds, and was `age_at_first` when its chunk began; the chunks have
        `waited` to fill. Chunks that filled at once say nothing about waiting; if they are late, blame the backlog.
        """
        place, grows = self._seen % WINDOW, self._grows
        self._rest[place] = age - waited * (1 + 2 * grows)
        self._before[place] = max(0.0, age_at_first - waited * grows)
        self._seen += 1
        if self._seen % PERIOD == 0:
            self._rate = self._rows / max(1e-3, at - self._since)
            self._rows, self._since = 0, at
            self.costs.fit()
            load = min(0.8, self._rate * self.costs.per_row)
            self._grows = load / (1 - load)
            self._reconsider_wait()

    def _reconsider_size(self) -> None:
        self.costs.fit()
        costs, size = self.costs, self.pace.chunk_size
        fitting = min(PLENTY * CLEARLY, (self._goal - costs.fixed) / costs.per_row)
        efficient = costs.fixed / costs.per_row / FIXED_SHARE
        best = max(fitting, efficient)
        larger = SIZES[min(len(SIZES) - 1, SIZES.index(size) + 1)]
        if best >= larger * CLEARLY:
            size = larger  # one step at a time: the cost of larger chunks is only extrapolated
        elif best * CLEARLY < size:
            size = SIZES[bisect_right(SIZES[1:], best)]
        self.pace = Pace(size, self.pace.max_wait)

    def _reconsider_wait(self) -> None:
        now, late = self.pace.max_wait, self._late()
        by_waiting = late - late[0]
        allowed = max(LATE - late[0], LATE_BY_WAITING)
        good = float(self._waits[np.flatnonzero(by_waiting <= allowed / 2)[-1]])
        longer = good >= now + CLEARLY_LONGER * self._goal and self._seen - self._changed >= WINDOW
        if longer or (good < now and np.interp(now, self._waits, by_waiting) > allowed):
            self.pace = Pace(self.pace.chunk_size, good)
            self._changed = self._seen

    def _late(self) -> NDArray[np.float64]:
        """The share of late rows for each wait, which grows with the wait.

        Assumes that a chunk's rows arrived evenly, from the oldest one to the end of the wait.
        """
        waits = self._waits[:, None]
        over = self._rest + waits * (1 + 2 * self._grows) - self._goal
        span = self._before + waits * (1 + self._grows)
        share = np.clip(over / np.maximum(span, 1e-9), 1 / (1 + self._rate * span), 1.0)
        late = np.where(over > 0, share, 0.0).mean(axis=1)
        return np.maximum.accumulate(late)


class AutoPace(Observer):
    """Observes the worker, sets the pace of its next chunk, and logs the choice."""

    def __init__(
        self,
        *,
        goal: float,
        costs: Costs,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._tuner = Tuner(goal=goal, costs=costs)
        self._goal = goal
        self._clock = clock
        self._now = now
        self._chunk: ChunkMetrics | None = None
        self._chunks = 0  # in the block that was collected
        self._collected_at = 0.0
        self._at_once = False  # whether the last chunk found enough rows to be full
        self._since: tuple[float, float] | None = (
            None  # of what is not committed: when, and how old its oldest row was
        )
        self._waited = 0.0  # by all that is not committed
        self._logged = self._tuner.pace
        self._log_due = 0.0
        self._told = False

    def pace(self) -> Pace:
        """The pace for the next chunk."""
        return self._tuner.pace

    @override
    def collected(self, *, oldest: float | None, waited: float) -> None:
        at = self._clock()
        # A sender's clock may be ahead of ours.
        age = waited if oldest is None else max(waited, self._now() - oldest)
        self._collected_at = at
        self._since = self._since or (at - waited, age - waited)
        self._waited += min(waited, self._tuner.pace.max_wait)
        self._at_once = waited <= AT_ONCE * self._tuner.pace.max_wait + TAKING_S

    @override
    def scored(self, chunks: Sequence[ChunkMetrics]) -> None:
        self._chunk = chunks[-1]
        self._chunks = len(chunks)

    @override
    def reached(self, step: Step) -> None:
        """A block's time ends when it is produced; its chunks share it equally."""
        if step is Step.PRODUCED and self._chunk is not None:
            seconds = (self._clock() - self._collected_at) / self._chunks
            self._tuner.scored(self._chunk.rows, seconds, chunks=self._chunks)

    @override
    def committed(self, *, chunks: int, rows: int, seconds: float) -> None:
        at = self._clock()
        if self._since and self._chunk and not (self._chunk.closed_by is ClosedBy.FULL and self._at_once):
            began, age = self._since
            self._tuner.committed(age=age + at - began, age_at_first=age, waited=self._waited, at=at)
        self._begin_anew()
        if self._tuner.pace != self._logged and at >= self._log_due:
            self._log(at)

    @override
    def failed(self, operation: str, error_name: str, action: Action) -> None:
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._since, self._waited = None, 0.0

    def _log(self, at: float) -> None:
        pace, goal = self._tuner.pace, self._goal * 1000
        self._logged, self._log_due = pace, at + LOG_S
        log.info(
            "chunks take up to %d rows and wait up to %g ms", pace.chunk_size, round(pace.max_wait * 1000, 3)
        )
        if not (self._told or self._tuner.reachable):
            self._told = True
            floor = self._tuner.floor * 1000
            log.warning(
                "--latency-goal-ms %g can't be met: without any wait the 99th percentile is %.0f ms",
                goal,
                floor,
            )


def measured_costs(
    score: Callable[[pd.DataFrame], object],
    rows: Callable[[int], pd.DataFrame],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Costs:
    """A first guess, from the time the model takes for one row and for `PROBE_ROWS` rows, made by `rows`."""

    def seconds(count: int) -> float:
        frame = rows(count)
        return min(_timed(lambda: score(frame), clock) for _ in range(3))

    few, many = seconds(1), seconds(PROBE_ROWS)
    per_row = max(0.0, many - few) / (PROBE_ROWS - 1)
    return Costs(fixed=max(0.0, few - per_row) + OWN_FIXED, per_row=per_row + OWN_PER_ROW)


def _timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    # A model may fail on made-up rows.
    with contextlib.suppress(Exception):
        call()
    return clock() - began

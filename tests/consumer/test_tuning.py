"""`--chunk-size auto`: settles soon, stays put, keeps the goal where possible, and costs little."""

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import SettingsError
from broker.settings import load_settings
from consumer.chunks import Pace
from consumer.observer import Step
from consumer.tuning import (
    FIRST_SIZE,
    FIXED_SHARE,
    PERIOD,
    PLENTY,
    SIZES,
    WINDOW,
    AutoPace,
    Costs,
    Tuner,
    measured_costs,
)
from schemas.metrics import ClosedBy
from tests.consumer.fakes import Clock, chunk_metrics
from tests.consumer.queueing import Cost, Trace, poisson, simulate

GOAL = 0.050
SETTLES = 1_600  # chunks; a few more than are remembered

LINEAR = Cost(4e-4, 5e-6)
BOOSTING = Cost(6e-4, 1e-5)
FOREST = Cost(1.5e-3, 6e-5)
# No wait meets the goal: a row waits for the chunk ahead of it, and then for its own.
SLOW = Cost(0.030, 1e-5)


def guess(cost: Cost) -> Costs:
    """What a probe under load might find: close, but wrong."""
    return Costs(fixed=cost.fixed * 0.8, per_row=cost.per_row * 1.3)


def tuned(arrivals: Any, cost: Cost, **options: Any) -> tuple[Tuner, Trace]:
    tuner = Tuner(goal=GOAL, costs=guess(cost))
    return tuner, simulate(arrivals, lambda _now: cost, tuner, **options)


def settled_at(trace: Trace, start: float) -> float:
    """When `SETTLES` chunks have ended since `start`."""
    after = trace.ended[trace.ended >= start]
    assert len(after) > SETTLES + 200, "the trace is too short"
    return float(after[SETTLES])


def cheapest(arrivals: Any, cost: Cost, start: float, end: float) -> float:
    """The load of the cheapest fixed pace whose p99 meets the goal, found by trial."""
    sizes, waits = (100, 1_000), np.arange(0, 1, 0.05) * GOAL
    traces = [simulate(arrivals, lambda _now: cost, Pace(*one)) for one in itertools.product(sizes, waits)]
    return min(trace.load(start, end) for trace in traces if trace.p99(start, end) <= GOAL)


@pytest.mark.parametrize("rate", [50, 200, 2_000, 10_000])
@pytest.mark.parametrize("cost", [LINEAR, BOOSTING, FOREST], ids=["linear", "boosting", "forest"])
def test_it_settles_within_the_goal_at_little_more_than_the_best_paces_cost(rate: int, cost: Cost) -> None:
    end = 120.0 if rate < 1_000 else 100.0
    arrivals = poisson(rate, 0, end)
    tuner, trace = tuned(arrivals, cost)
    start = settled_at(trace, 0)
    assert trace.changes(start, end) <= 1
    assert trace.p99(start, end) <= GOAL * 1.02
    assert trace.load(start, end) <= 1.15 * cheapest(arrivals[arrivals < 20], cost, 2, 20)
    assert tuner.reachable


def steps(*rates: int, each: float) -> Any:
    return np.concatenate([poisson(rate, each * n, each * (n + 1), seed=n) for n, rate in enumerate(rates)])


@pytest.mark.parametrize("seed", range(3))
def test_it_follows_load_steps_without_oscillating(seed: int) -> None:
    each = 100.0
    _, trace = tuned(steps(50, 2_000, 10_000, 200, each=each), LINEAR, seed=seed)
    for start in np.arange(4) * each:
        settled, end = settled_at(trace, start), start + each
        assert trace.changes(settled, end) <= 1
        assert trace.p99(settled, end) <= GOAL * 1.02
        assert trace.p99(start + 1, end) <= GOAL * 1.1, "late while it settled"


def test_a_fivefold_cost_is_noticed_within_seconds_and_forgotten_afterwards() -> None:
    dear = Cost(5 * 1e-3, 5 * 3e-5)
    cheap = Cost(1e-3, 3e-5)
    tuner = Tuner(goal=GOAL, costs=guess(cheap))
    trace = simulate(poisson(2_000, 0, 240), lambda now: dear if 80 <= now < 160 else cheap, tuner)
    before, during, after = (settled_at(trace, start) for start in (0, 80, 160))
    assert trace.p99(85, 160) <= GOAL * 1.05, "not noticed"
    assert trace.changes(before, 80) <= 1
    assert trace.changes(during, 160) <= 2
    assert trace.changes(after, 240) <= 1
    assert trace.load(after, 240) == pytest.approx(trace.load(before, 80), rel=0.15), "not forgotten"


@pytest.mark.parametrize("seed", range(3))
def test_on_a_stalling_machine_it_waits_longer_when_the_stalls_alone_reach_the_goal(seed: int) -> None:
    def stalls(now: float) -> Cost:
        return Cost(0.050, LINEAR.per_row) if now % 2 < 0.01 else LINEAR

    arrivals = poisson(2_000, 0, 150, seed=seed)
    tuner = Tuner(goal=GOAL, costs=guess(LINEAR))
    trace = simulate(arrivals, stalls, tuner, seed=seed)
    start = settled_at(trace, 0)
    without = simulate(arrivals, stalls, Pace(1_000, 0.0), seed=seed)
    assert without.p99(start, 150) == pytest.approx(GOAL, rel=0.05), "the stalls alone should reach the goal"
    assert trace.p99(start, 150) <= GOAL * 1.18
    assert trace.changes(start, 150) <= 3
    assert trace.load(start, 150) < 0.8 * without.load(start, 150), "it waited no longer"


def test_an_unreachable_goal_gives_the_shortest_latency() -> None:
    arrivals = poisson(200, 0, 150)
    tuner, trace = tuned(arrivals, SLOW)
    start = settled_at(trace, 0)
    assert not tuner.reachable
    assert tuner.floor > GOAL
    assert tuner.pace.max_wait == 0
    assert trace.changes(start, 150) == 0
    eager = simulate(arrivals, lambda _now: SLOW, Pace(10_000, 0.0))
    assert trace.p99(start, 150) <= 1.05 * eager.p99(start, 150)


@pytest.mark.parametrize(
    ("cost", "share"),
    [(LINEAR, 0.1), (FOREST, 0.1), (Cost(0.020, 1e-4), 0.15)],
    ids=["linear", "forest", "slow"],
)
def test_a_backlog_is_processed_in_chunks_large_enough_to_dwarf_the_fixed_cost(
    cost: Cost, share: float
) -> None:
    tuner = Tuner(goal=GOAL, costs=guess(cost))
    trace = simulate(np.zeros(300_000), lambda _now: cost, tuner)
    size = tuner.pace.chunk_size
    assert cost.fixed / (cost.fixed + cost.per_row * size) <= share
    assert cost.fixed + cost.per_row * size <= GOAL or size <= 20 * cost.fixed / cost.per_row
    number_of_last_change, _, _ = trace.paces[-1]
    assert number_of_last_change <= 3 * len(SIZES)


def test_slow_first_chunks_on_a_cold_start_do_not_make_later_ones_large() -> None:
    cold, warm = Cost(3e-3, 1e-5), Cost(3.3e-4, 4e-6)
    tuner = Tuner(goal=GOAL, costs=Costs(fixed=7e-4, per_row=1.1e-5))
    simulate(np.zeros(200_000), lambda now: cold if now < 0.015 else warm, tuner)
    assert tuner.pace.chunk_size <= 2 * PLENTY


def test_a_model_with_slow_calls_keeps_up_with_a_load_too_high_for_small_chunks() -> None:
    cost = Cost(0.020, 1e-4)  # 100 rows: 30 ms, 3,300 rows/s
    _, trace = tuned(poisson(6_000, 0, 60), cost)
    assert trace.p99(50, 60) < 1.0


@pytest.mark.parametrize("rows", [(100,), (1, 3, 400), (100, 200)])
def test_costs_are_learned_from_noisy_chunks_even_of_similar_size(rows: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    costs = guess(FOREST)
    for size in itertools.islice(itertools.cycle(rows), 600):
        costs.add(size, (FOREST.fixed + FOREST.per_row * size) * np.exp(0.1 * rng.standard_normal()))
        costs.fit()
    for size in rows:
        assert costs.seconds(size) == pytest.approx(FOREST.fixed + FOREST.per_row * size, rel=0.1)
    costs.add(rows[0], 100.0)
    costs.fit()
    assert costs.seconds(rows[0]) < 1.2 * (FOREST.fixed + FOREST.per_row * rows[0]), "one outlier"


_seconds = st.floats(0, 1e4)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(1e-4, 60),
    st.lists(
        st.tuples(st.integers(1, 10_000), _seconds, st.floats(-10, 1e6), st.floats(-10, 1e6)),
        min_size=1,
        max_size=8,
    ),
)
def test_the_pace_is_always_a_feasible_one(goal: float, events: list[Any]) -> None:
    tuner, at = Tuner(goal=goal, costs=Costs()), 0.0
    for rows, seconds, age, first in itertools.islice(itertools.cycle(events), 300):
        at += seconds
        tuner.scored(rows, seconds)
        tuner.committed(age=age, age_at_first=first, waited=tuner.pace.max_wait, at=at)
        assert tuner.pace.chunk_size in SIZES
        assert 0 <= tuner.pace.max_wait < goal
        assert tuner.costs.fixed > 0
        assert tuner.costs.per_row > 0
        assert np.isfinite(tuner.costs.seconds(1))


def zeros(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"a": np.zeros(rows)})


def test_the_first_guess_comes_from_the_model() -> None:
    clock = Clock()

    def score(frame: pd.DataFrame) -> None:
        clock.now += 0.020 + 1e-4 * len(frame)

    costs = measured_costs(score, zeros, clock=clock)
    assert costs.fixed == pytest.approx(0.020, rel=0.1)
    assert costs.per_row == pytest.approx(1.1e-4, rel=0.05)


def test_a_model_that_cannot_score_made_up_rows_is_accepted() -> None:
    def fail(_frame: pd.DataFrame) -> None:
        raise ValueError("zeros")

    costs = measured_costs(fail, zeros, clock=Clock())
    assert (costs.fixed, costs.per_row) == (Costs().fixed, Costs().per_row)


class Working:
    """An AutoPace that hears about chunks as from a worker."""

    def __init__(self, *, goal: float = GOAL) -> None:
        self.clock = Clock()
        self.auto = AutoPace(goal=goal, costs=Costs(), clock=self.clock, now=lambda: self.clock.now + 1e9)

    def chunk(self, *, seconds: float, old: float = 0.0, rows: int = 10, chunks: int = 1) -> None:
        """A block of `chunks`, which takes `seconds` in all."""
        pace = self.auto.pace()
        full = rows == pace.chunk_size
        waited = 0.0 if full else pace.max_wait
        self.clock.now += waited
        self.auto.collected(oldest=self.clock.now + 1e9 - waited - old, waited=waited)
        self.clock.now += seconds
        self.auto.scored(
            [
                chunk_metrics(
                    scored=rows,
                    closed_by=ClosedBy.FULL if full else ClosedBy.WAITED,
                    chunk_size=pace.chunk_size,
                    max_wait_ms=pace.max_wait * 1000,
                )
            ]
            * chunks
        )
        for step in Step:
            self.auto.reached(step)
        self.auto.committed(chunks=chunks, rows=rows * chunks, seconds=0.0)


def test_late_rows_shorten_the_wait_and_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "vitalstream.worker")
    working = Working()
    assert working.auto.pace() == Pace(FIRST_SIZE, GOAL / 2)
    for _ in range(200):
        working.chunk(seconds=0.040)
    assert working.auto.pace().max_wait <= 0.010
    assert "chunks take up to 100 rows and wait up to " in caplog.text


def test_an_unreachable_goal_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    working = Working()
    for _ in range(2 * WINDOW):
        working.chunk(seconds=0.070)
    told = [line for line in caplog.messages if "can't be met" in line]
    assert told == ["--latency-goal-ms 50 can't be met: without any wait the 99th percentile is 72 ms"]


def test_changes_are_logged_at_most_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vitalstream.worker")
    working = Working()
    began = working.clock.now
    for _ in range(8 * 10):
        working.chunk(seconds=0.001, rows=working.auto.pace().chunk_size)
    assert working.auto.pace().chunk_size > FIRST_SIZE
    assert len(caplog.messages) <= 1 + (working.clock.now - began) / 10


def test_late_full_chunks_do_not_shorten_the_wait() -> None:
    working = Working()
    for _ in range(500):
        working.chunk(seconds=0.040, old=100.0, rows=working.auto.pace().chunk_size)
    assert working.auto.pace().max_wait == GOAL / 2


def test_the_chunks_of_a_block_share_its_time() -> None:
    alone, together = Working(), Working()
    for _ in range(20):
        for _ in range(10):
            rows = alone.auto.pace().chunk_size
            alone.chunk(seconds=4e-5 * rows, rows=rows)
        rows = together.auto.pace().chunk_size
        together.chunk(seconds=10 * 4e-5 * rows, rows=rows, chunks=10)
    assert together.auto.pace() == alone.auto.pace()
    assert together.auto.pace().chunk_size > FIRST_SIZE


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"chunk_size": "some"}, "--chunk-size (VITALSTREAM_CHUNK_SIZE): "),
        ({"chunk_size": "auto", "max_wait_ms": 0}, "--max-wait-ms: --chunk-size auto chooses the wait"),
        ({"latency_goal_ms": 50}, "--latency-goal-ms needs --chunk-size auto"),
        ({"chunk_size": "auto", "latency_goal_ms": 0}, "--latency-goal-ms"),
    ],
)
def test_a_latency_goal_and_a_chunk_size_exclude_each_other(flags: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(**flags)
    assert told in str(error.value)
    assert error.value.exit_code == 2


def test_a_chunk_size_is_a_number_or_auto() -> None:
    assert load_settings(chunk_size="250").chunk_size == 250
    assert load_settings(chunk_size="auto").latency_goal_ms == 50
    assert load_settings(chunk_size="auto", latency_goal_ms="7.5").latency_goal_ms == 7.5


def test_the_cost_fit_runs_only_once_per_period(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = itertools.count()
    monkeypatch.setattr(Costs, "fit", lambda _: next(fits))
    tuner = Tuner(goal=GOAL, costs=Costs())
    rounds = 20 * PERIOD
    for at in range(rounds):
        tuner.scored(50, 0.001)
        tuner.committed(age=0.04, age_at_first=0.002, waited=tuner.pace.max_wait, at=at / 30)
    assert 0 < next(fits) <= rounds / PERIOD


def test_the_documentation_states_the_limits() -> None:
    text = " ".join((Path(__file__).parents[2] / "docs/scaling.md").read_text(encoding="utf-8").split())
    assert (
        f"up to {PLENTY:,}; more if the model's fixed cost would otherwise take over {FIXED_SHARE * 100:g} %"
        in text
    )

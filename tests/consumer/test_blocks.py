"""Blocks of several chunks: they send the same as chunk by chunk, and fail or commit as a whole, like a chunk."""

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from broker.roles import Role
from consumer.chunks import BLOCK_ROWS, Collector, Pace
from consumer.errors import Action, KafkaCallError, ModelFailedError
from consumer.limits import TooManyRejectedError
from consumer.observer import Observer, Step
from consumer.run import run_worker
from consumer.scoring import ChunkScorer
from real_time import streaming
from schemas.metrics import ChunkMetrics, ClosedBy, decode_metrics
from tests.consumer.accounts import Accounts, require_exactly_once
from tests.consumer.conftest import patient_rows, save
from tests.consumer.fakes import (
    Clock,
    FakeMessage,
    Queue,
    block_of,
    letters_of,
    metrics_of,
    records_of,
    results_of,
)
from tests.consumer.models import ABOVE_ONE, NOT_A_NUMBER, RAISES, Fragile
from tests.consumer.scores import require_offline_scores
from tests.consumer.sleepy import PAUSE_S, Sleepy
from tests.consumer.stage import Stage
from tests.consumer.test_scoring import NOW, Recorder, chunk, scorer
from tests.schemas.messages import good

ROWS = 2_310
BACKLOG = 3_000


# --- the same as chunk by chunk


def mixed() -> list[FakeMessage]:
    """Messages of four partitions, with every kind of bad message and some chunks that are bad throughout."""
    bad: dict[int, Any] = {
        3: b"no JSON",
        57: None,
        101: good(signal="fast"),
        119: good(signal=RAISES),
        240: good(event_time="yesterday"),
        333: good(signal=ABOVE_ONE),
        334: good(signal=NOT_A_NUMBER),
        400: good(signal=None, spo2=None),
        **dict.fromkeys(range(1_100, 1_110), b"[]"),
        **dict.fromkeys(range(1_310, 1_320), good(signal=None, spo2=None)),
        1_444: good(patient_id="p" * 100),
    }
    offsets = [count(7) for _ in range(4)]
    return [
        FakeMessage(
            bad.get(number, good(patient_id=f"p{number % 50}", signal=number % 256)),
            key=None if number % 97 == 0 else b"p%d" % (number % 50),
            partition=(partition := number * 4 // ROWS if number < ROWS // 2 else number % 4),
            offset=next(offsets[partition]),
            timestamp=-1 if number % 211 == 0 or 2_000 <= number < 2_010 else int(NOW * 1000) - number % 313,
        )
        for number in range(ROWS)
    ]


def sent(
    messages: Sequence[FakeMessage], score: ChunkScorer, *, chunk_size: int, rows: int
) -> dict[str, Any]:
    """Everything sent for messages collected in blocks of up to `rows` rows."""
    clock = Clock()
    queue = Queue(clock, messages)
    on_error: Any = pytest.fail
    collector = Collector(queue, pace=lambda: Pace(chunk_size, 0.0), on_error=on_error, clock=clock)
    found: dict[str, Any] = {name: [] for name in ("keys", "results", "letters", "metrics", "chunks")}
    while block := collector.collect(rows=rows):
        output = score(block, lag=len(queue.queued) + len(collector.pending))
        metrics = [decode_metrics(one) for one in metrics_of(output)]
        assert output.rows == len(block)
        found["keys"] += records_of(output, Role.RESULTS).keys
        found["results"] += results_of(output)
        found["letters"] += letters_of(output)
        found["metrics"] += map(without_times, metrics)
        found["chunks"].append(len(metrics))
    return found


def without_times(metrics: ChunkMetrics) -> ChunkMetrics:
    """Every time set to 1, or to 0 for a chunk in which the model saw no row."""
    return replace(
        metrics,
        latency_ms=float(metrics.latency_ms > 0),
        throughput_rows_per_s=float(metrics.throughput_rows_per_s > 0),
    )


@pytest.mark.parametrize("chunk_size", [1, 10, 100, 1000])
def test_a_block_sends_what_its_chunks_would_have_sent_one_by_one(chunk_size: int) -> None:
    def run(rows: int) -> tuple[dict[str, Any], Recorder]:
        recorder = Recorder()
        score = scorer(observer=recorder, min_features=1, result_bytes=512 + 400)
        return sent(mixed(), score, chunk_size=chunk_size, rows=rows), recorder

    (one_by_one, told), (in_blocks, told_in_blocks) = run(0), run(BLOCK_ROWS)
    assert {*one_by_one.pop("chunks")} == {1}
    assert max(in_blocks.pop("chunks")) == ROWS // chunk_size
    assert in_blocks == one_by_one
    assert told_in_blocks.rejects == told.rejects
    assert [one.chunk_id for one in told_in_blocks.metrics] == [one.chunk_id for one in told.metrics]
    assert len(one_by_one["letters"]) == 17, "some kind of bad message is missing"


def test_a_chunks_scoring_time_covers_only_the_rows_the_model_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(streaming, "perf_counter_ns", lambda: round(clock.now * 1e9))

    class Slow(Fragile):
        def predict_proba(self, X: Any) -> Any:
            clock.now += 0.002 * len(X)
            return super().predict_proba(X)

    given = chunk(*range(20))
    given[:10:2] = [FakeMessage(b"{", offset=number) for number in range(5)]
    score = scorer(model=Slow(), max_dead_letter_ratio=1)
    output = score(block_of(given, chunk_size=10), lag=0)
    found = [*map(decode_metrics, metrics_of(output))]
    assert [(one.rows, one.scored) for one in found] == [(10, 5), (10, 10)]
    assert [one.latency_ms for one in found] == pytest.approx([2.0, 2.0])
    assert [one.throughput_rows_per_s for one in found] == pytest.approx([500.0, 500.0])


def test_a_broken_model_is_noticed_in_the_first_chunk_that_fails_completely() -> None:
    given = chunk(*[1.0] * 20, *[RAISES] * 10, *[2.0] * 10)
    with pytest.raises(ModelFailedError, match="raised ValueError on all 10 rows of a chunk"):
        scorer()(block_of(given, chunk_size=10), lag=0)
    given = chunk(*[1.0] * 5, RAISES, *[1.0] * 14, *[ABOVE_ONE] * 10, *[2.0] * 10)
    with pytest.raises(ModelFailedError, match="gave no probability between 0 and 1 on all 10 rows"):
        scorer()(block_of(given, chunk_size=10), lag=0)
    scattered = chunk(*[1.0] * 5, *[RAISES] * 10, *[2.0] * 5)
    assert len(letters_of(scorer()(block_of(scattered, chunk_size=10), lag=0))) == 10, "of two chunks"


def test_a_broken_model_is_not_given_the_rest_of_the_block() -> None:
    class Broken(Fragile):
        asked = 0

        def predict_proba(self, X: Any) -> Any:
            self.asked += 1
            raise ValueError

    broken = Broken()
    score = scorer(model=broken)
    broken.asked = 0
    with pytest.raises(ModelFailedError):
        score(block_of(chunk(*range(1000)), chunk_size=10), lag=0)
    assert broken.asked < 30


def test_the_reject_limit_is_reached_at_the_same_chunk_with_blocks() -> None:
    good_ones, bad_ones = chunk(*[1.0] * 600), [FakeMessage(b"{", offset=number) for number in range(900)]
    given = [*good_ones, *bad_ones, *chunk(*[1.0] * 2_000)]

    def sentence(rows: int) -> str:
        with pytest.raises(TooManyRejectedError) as raised:
            sent(given, scorer(max_dead_letter_ratio=0.5), chunk_size=100, rows=rows)
        return str(raised.value)

    assert sentence(BLOCK_ROWS) == sentence(0)
    assert "500 in a row" in sentence(0), "at the fifth bad chunk"


def test_only_the_last_chunk_of_a_block_tells_why_it_closed() -> None:
    given = block_of(chunk(*[1.0] * 25), chunk_size=10, closed_by=ClosedBy.REVOKED)
    told = [decode_metrics(value).closed_by for value in metrics_of(scorer()(given, lag=0))]
    assert told == [ClosedBy.FULL, ClosedBy.FULL, ClosedBy.REVOKED]


# --- on Kafka


class Breaker(Observer):
    """Makes Kafka fail in the middle of some blocks: their results are produced, but their metrics are not."""

    def __init__(self) -> None:
        self.chunks = self.broken = 0

    def collected(self, *, oldest: float | None, waited: float) -> None:
        self.chunks = 0

    def scored(self, chunks: Sequence[ChunkMetrics]) -> None:
        self.chunks = len(chunks)

    def reached(self, step: Step) -> None:
        if step is Step.PRODUCING and self.chunks > 1 and self.broken < 3:
            self.broken += 1
            raise KafkaCallError("producing", None, Action.ABORT)


def require_blocks(found: Accounts) -> None:
    """Fail unless some chunks were encoded together, as one block."""
    assert max(Counter((one.worker, one.at) for one in found.metrics).values()) > 1


@pytest.mark.kafka
def test_a_half_produced_block_is_aborted_and_scored_again(stage: Stage) -> None:
    settings = stage.settings(partitions=2, chunk_size=10, until_idle=1.0)
    stage.send_patients(settings, patient_rows(BACKLOG))
    breaker = Breaker()
    run_worker(settings, observer=breaker, should_stop=lambda: False)
    assert breaker.broken == 3, "no block of several chunks was aborted"
    found = require_exactly_once(settings, rows=BACKLOG)
    require_blocks(found)
    require_offline_scores(found, settings, ulp=0)


@pytest.mark.kafka
def test_a_kill_in_the_middle_of_a_block_loses_and_doubles_nothing(stage: Stage) -> None:
    settings = stage.settings(partitions=2, chunk_size=10)
    stage.send_patients(settings, patient_rows(BACKLOG))
    killed = stage.dying(settings, Step.PRODUCING, times=3)
    assert killed.wait(timeout=60) == -signal.SIGKILL, killed.log
    assert stage.committed(settings) < BACKLOG
    stage.worker(settings)
    stage.wait_committed(settings, BACKLOG)
    require_blocks(require_exactly_once(settings, rows=BACKLOG))


@pytest.mark.kafka
def test_partitions_revoked_during_a_block_continue_elsewhere(stage: Stage, tmp_path: Path) -> None:
    settings = stage.settings(partitions=4, chunk_size=10)
    slow = settings.model_copy(update={"model": save(Sleepy(), tmp_path / "sleepy.joblib")})
    rows = int(4 / PAUSE_S) * 10  # takes one worker four seconds
    pausing = (
        {"patient_id": f"p{n % 99}", "event_time": "2026-01-05T08:30:00Z", "signal": -3} for n in range(rows)
    )
    stage.send_patients(slow, pausing)
    first = stage.worker(slow).joined()
    second = stage.worker(slow)
    stage.wait_committed(slow, rows)
    found = require_exactly_once(slow, rows=rows)
    require_blocks(found)
    assert len({one.worker for one in found.metrics}) == 2
    assert "revoked partitions" in first.log
    first.stop()
    second.stop()

"""Measuring chunk sizes and choosing one."""

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest

from real_time.sweep import ChunkCost, Measurement, knee, recommendation


def costs(**throughputs: float) -> list[ChunkCost]:
    """Costs of sizes, written like `_10=500.0`, in this order."""
    return [
        ChunkCost(
            chunk_size=int(name[1:]),
            latency_ms=1000 / rate,
            throughput=rate,
            chunk_ms_p50=1000 * int(name[1:]) / rate,
            chunk_ms_p99=2000 * int(name[1:]) / rate,
        )
        for name, rate in throughputs.items()
    ]


@pytest.mark.parametrize(
    ("measured", "chosen"),
    [
        (costs(_1=980, _10=1000, _100=990), 1),
        (costs(_1=10, _10=100, _100=899, _300=900, _1000=1000), 300),
        (costs(_1=100, _10=950, _100=700, _300=1000, _1000=880), 10),
        (costs(_1=1, _10=10, _100=100), 100),
        (costs(_100=1000, _10=950, _1=5), 10),
        (costs(_50=1), 50),
    ],
    ids=["flat", "knee", "noisy", "rising", "unsorted", "single"],
)
def test_the_knee_is_the_smallest_size_with_90_percent_of_the_best_throughput(
    measured: list[ChunkCost], chosen: int
) -> None:
    assert knee(measured).chunk_size == chosen


def test_the_recommendation_says_what_the_knee_and_larger_sizes_give() -> None:
    assert recommendation(costs(_10=1_000, _100=47_000, _1000=50_000)) == (
        "chunk size 100 gives 94 % of the best throughput at 2.1 ms of scoring a chunk; "
        "larger chunks add latency and little else"
    )
    assert "gives the best throughput" in recommendation(costs(_10=50_000, _100=47_000))
    assert "the largest measured: try larger ones" in recommendation(costs(_10=1, _100=10))
    single = recommendation(costs(_3000=1_000))
    assert "chunk size 3,000 gives 1,000 rows/s at 3,000 ms" in single
    assert "only size measured" in single


def test_only_whole_chunks_are_measured_once_per_round() -> None:
    frame = pd.DataFrame({"a": np.arange(25.0)})
    sizes: list[int] = []

    def score(chunk: pd.DataFrame) -> Any:
        sizes.append(len(chunk))
        return chunk["a"]

    measurement = Measurement(frame, 10, score)
    assert measurement.cost() is None
    measurement.run(60)
    assert sizes == [10] * (2 + 2)  # the warm-up, and the two chunks that fit
    cost = measurement.cost()
    assert cost is not None
    assert cost.chunk_size == 10
    assert cost.latency_ms == pytest.approx(cost.chunk_ms_p50 / 10)
    assert cost.throughput == pytest.approx(1000 / cost.latency_ms)
    assert cost.chunk_ms_p50 <= cost.chunk_ms_p99


def test_a_slow_model_stays_within_the_given_time() -> None:
    calls = 0

    def score(chunk: pd.DataFrame) -> Any:
        nonlocal calls
        calls += 1
        time.sleep(0.02)  # the model must really take this long
        return np.zeros(len(chunk))

    measurement = Measurement(pd.DataFrame({"a": np.zeros(500)}), 1, score)
    measurement.run(0.1)
    assert 2 < calls <= 2 + 5
    measurement.run(0.0)  # less time than a chunk takes, yet one is measured
    cost = measurement.cost()
    assert cost is not None
    assert cost.chunk_ms_p50 >= 20

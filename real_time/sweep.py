"""Measures scoring at several chunk sizes and finds the size beyond which larger chunks no longer help."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import numpy as np
import pandas as pd

from real_time.streaming import ProcessFn, process_stream

KNEE: Final = 0.9
"""The knee is the smallest chunk size with at least this share of the best throughput."""


@dataclass(frozen=True, kw_only=True)
class ChunkCost:
    """The cost of one chunk size: milliseconds per row, rows per second, and milliseconds per chunk."""

    chunk_size: int
    latency_ms: float
    throughput: float
    chunk_ms_p50: float
    chunk_ms_p99: float


class Measurement:
    """Times `process_fn` in rounds on chunks of one size; only whole chunks count.

    The frame must have at least `chunk_size` rows. Interleave the rounds of several measurements, so that a busy
    moment of the machine costs each of them about the same.
    """

    def __init__(self, frame: pd.DataFrame, chunk_size: int, process_fn: ProcessFn) -> None:
        self.chunk_size = chunk_size
        self._frame = frame
        self._process_fn = process_fn
        self._chunk_ms: list[float] = []

    def run(self, seconds: float) -> None:
        """Time one round: the frame, or as much of it as takes about this long."""
        process_stream(self._frame.head(self._fitting(seconds)), self.chunk_size, self._timed)

    def cost(self) -> ChunkCost | None:
        """The cost over all rounds; None before the first. Rates are those of the median chunk.

        A mean would include the pauses of a busy machine, which hit long rounds of small chunks and miss short ones.
        """
        if not self._chunk_ms:
            return None
        p50, p99 = np.quantile(self._chunk_ms, [0.5, 0.99]).tolist()
        return ChunkCost(
            chunk_size=self.chunk_size,
            latency_ms=p50 / self.chunk_size,
            throughput=1000 * self.chunk_size / p50,
            chunk_ms_p50=p50,
            chunk_ms_p99=p99,
        )

    def _fitting(self, seconds: float) -> int:
        """How many rows, in whole chunks, fit the time; runs one chunk to warm up and times another."""
        chunk = self._frame.head(self.chunk_size)
        for _ in range(2):
            began = perf_counter()
            process_stream(chunk, self.chunk_size, self._process_fn)
            took = perf_counter() - began
        chunks = min(len(self._frame) // self.chunk_size, int(seconds / took))
        return max(1, chunks) * self.chunk_size

    def _timed(self, chunk: pd.DataFrame) -> Any:
        began = perf_counter()
        result = self._process_fn(chunk)
        self._chunk_ms.append(1000 * (perf_counter() - began))
        return result


def knee(costs: Sequence[ChunkCost]) -> ChunkCost:
    """The smallest chunk size whose throughput is at least 90 % of the best; `costs` has one or more."""
    enough = KNEE * max(cost.throughput for cost in costs)
    return min(
        (cost for cost in costs if cost.throughput >= enough),
        key=lambda cost: cost.chunk_size,
    )


def recommendation(costs: Sequence[ChunkCost]) -> str:
    """The knee in words, and what larger chunks would bring; `costs` has one or more."""
    chosen = knee(costs)
    share = round(100 * chosen.throughput / max(cost.throughput for cost in costs))
    size, chunk_ms = f"{chosen.chunk_size:,}", f"{_ms(chosen.chunk_ms_p50)} of scoring a chunk"
    if len(costs) == 1:
        return (
            f"chunk size {size} gives {chosen.throughput:,.0f} rows/s at {chunk_ms}; "
            "it is the only size measured, and others may be better"
        )
    of_best = "the best throughput" if share == 100 else f"{share} % of the best throughput"  # noqa: PLR2004
    if chosen.chunk_size == max(cost.chunk_size for cost in costs):
        return f"chunk size {size} gives {of_best} at {chunk_ms}; it is the largest measured: try larger ones"
    return f"chunk size {size} gives {of_best} at {chunk_ms}; larger chunks add latency and little else"


def _ms(value: float) -> str:
    return f"{value:.2g} ms" if value < 10 else f"{value:,.0f} ms"  # noqa: PLR2004

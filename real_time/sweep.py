"""What scoring costs at each chunk size, and from which size on more rows at once no longer pay."""

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
    """What one chunk size costs: milliseconds a row, rows a second, and the milliseconds that a chunk takes."""

    chunk_size: int
    latency_ms: float
    throughput: float
    chunk_ms_p50: float
    chunk_ms_p99: float


class Measurement:
    """A `process_fn` on chunks of one size of a frame, timed in rounds; only whole chunks count.

    The frame has at least `chunk_size` rows. Rounds of several measurements are best taken in turns, so that a
    moment in which the machine is busy costs each of them about the same.
    """

    def __init__(self, frame: pd.DataFrame, chunk_size: int, process_fn: ProcessFn) -> None:
        self.chunk_size = chunk_size
        self._frame = frame
        self._process_fn = process_fn
        self._chunk_ms: list[float] = []

    def run(self, seconds: float) -> None:
        """One round: the frame, or of it what takes about so long."""
        process_stream(self._frame.head(self._fitting(seconds)), self.chunk_size, self._timed)

    def cost(self) -> ChunkCost | None:
        """Of all rounds; None before the first. Rates are those of the median chunk.

        A mean would hold the pauses of a busy machine, which hit long rounds of small chunks and miss short ones.
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
        """So many rows, in whole chunks, after one that warms up and one that is timed."""
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
    """The knee in words, and what lies beyond it; `costs` has one or more."""
    chosen = knee(costs)
    share = round(100 * chosen.throughput / max(cost.throughput for cost in costs))
    size, chunk_ms = f"{chosen.chunk_size:,}", f"{_ms(chosen.chunk_ms_p50)} of scoring a chunk"
    if len(costs) == 1:
        return (
            f"chunk size {size} gives {chosen.throughput:,.0f} rows/s at {chunk_ms}; "
            "it is the only one measured, and others may do better"
        )
    of_best = "the best throughput" if share == 100 else f"{share} % of the best throughput"  # noqa: PLR2004
    if chosen.chunk_size == max(cost.chunk_size for cost in costs):
        return f"chunk size {size} gives {of_best} at {chunk_ms}; it is the largest measured: try larger ones"
    return f"chunk size {size} gives {of_best} at {chunk_ms}; larger chunks add little but latency"


def _ms(value: float) -> str:
    return f"{value:.2g} ms" if value < 10 else f"{value:,.0f} ms"  # noqa: PLR2004

"""The results of a sweep, as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table

from real_time.sweep import ChunkCost, knee, recommendation

CORE = "scoring alone"
END_TO_END = "end to end"
_MEANING = {
    CORE: "rows/s, latency_ms (per row) and a chunk's p50 and p99 cover scoring alone; --kafka measures a worker",
    END_TO_END: "rows/s covers the whole worker; latency_ms (per row) and a chunk's p50 and p99 cover scoring; "
    "every consumed row was scored exactly once",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """The costs by chunk size, and `plain`, those of the model's own predict_proba if it differs."""

    what: str
    model: str
    rows: int
    costs: Sequence[ChunkCost]
    plain: Sequence[ChunkCost] = ()
    interrupted: bool = False

    def lines(self) -> str:
        """What the numbers measure, and the recommendation."""
        if not self.costs:
            return "stopped before anything was measured"
        stopped = "stopped early: " if self.interrupted else ""
        return f"{_MEANING[self.what]}\n{stopped}{recommendation(self.costs)}"

    def table(self) -> Table:
        """One line per chunk size, the knee in bold."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        names = ["chunk size", "rows/s", "latency_ms", "p50 ms", "p99 ms"]
        for name in names + (["predict_proba"] if self.plain else []):
            table.add_column(name, justify="right", no_wrap=True)
        plain = {cost.chunk_size: f"{cost.throughput:,.0f}" for cost in self.plain}
        for cost in self.costs:
            cells = [
                f"{cost.chunk_size:,}",
                f"{cost.throughput:,.0f}",
                f"{cost.latency_ms:.6f}",
                f"{cost.chunk_ms_p50:.3f}",
                f"{cost.chunk_ms_p99:.3f}",
            ]
            if plain:
                cells.append(plain.get(cost.chunk_size, ""))
            table.add_row(*cells, style="bold" if cost is knee(self.costs) else None)
        return table

    def document(self) -> dict[str, Any]:
        """The results as JSON."""
        plain = {cost.chunk_size: cost.throughput for cost in self.plain}
        return {
            "measured": self.what,
            "model": self.model,
            "rows": self.rows,
            "chunk_sizes": [
                {**asdict(cost), "predict_proba_throughput": plain.get(cost.chunk_size)}
                for cost in self.costs
            ],
            "recommended": knee(self.costs).chunk_size if self.costs else None,
            "recommendation": recommendation(self.costs) if self.costs else None,
            "interrupted": self.interrupted,
        }

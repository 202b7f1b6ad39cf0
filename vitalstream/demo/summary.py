"""The demo's closing summary."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from broker.embedded import EmbeddedBroker
from schemas.contract import Reason
from vitalstream.demo.accounts import Verdict
from vitalstream.demo_model import DISCLAIMER, DemoModel

MEASURED: Final = "from the producer's timestamp until a read_committed consumer has the result"


@dataclass(frozen=True)
class Summary:
    """The demo's numbers. Latencies and rate leave out the first message, which was sent alone."""

    verdict: Verdict
    dead_letters: Mapping[Reason, int]
    waits: list[float]  # seconds, end to end
    seconds: float  # from the second message until all were accounted for
    rate: float  # the target, in messages a second
    latency_ms: float  # a row in the core
    rows_per_chunk: float
    model: DemoModel
    broker: str
    embedded: bool
    interrupted: bool

    @property
    def ok(self) -> bool:
        """Whether the check holds; after an interrupt, messages may lack their results."""
        verdict = self.verdict
        return verdict.ok or (self.interrupted and not (verdict.doubled or verdict.invented or verdict.both))

    @property
    def rows_per_s(self) -> float:
        """Messages completed per second."""
        return len(self.waits) / self.seconds if self.seconds else 0.0

    def wait_ms(self, quantile: float) -> float | None:
        """A quantile (nearest rank) of the end-to-end times; None if there are none."""
        if not self.waits:
            return None
        return 1000 * sorted(self.waits)[math.ceil(quantile * len(self.waits)) - 1]

    @property
    def unproven(self) -> str:
        """What the run can't prove, and what could."""
        if not self.embedded:
            return ""
        return (
            f"that readers never see uncommitted results. {EmbeddedBroker.limitations}"
            " Run the demo with --bootstrap-servers HOST:PORT to prove that on a real Kafka."
        )

    def as_json(self) -> dict[str, Any]:
        """The summary for programs."""
        verdict = self.verdict
        return {
            "ok": self.ok,
            "interrupted": self.interrupted,
            "broker": self.broker,
            "sent": verdict.sent,
            "scored": verdict.scored,
            "dead_lettered": verdict.dead_lettered,
            "dead_letters": {str(reason): count for reason, count in sorted(self.dead_letters.items())},
            **verdict.counts,
            "offenders": verdict.offenders(),
            "end_to_end_ms_p50": _rounded(self.wait_ms(0.5)),
            "end_to_end_ms_p99": _rounded(self.wait_ms(0.99)),
            "seconds": round(self.seconds, 3),
            "rows_per_s": round(self.rows_per_s, 1),
            "latency_ms": round(self.latency_ms, 4),
            "rows_per_chunk": round(self.rows_per_chunk, 2),
            "model": asdict(self.model),
            "unproven": self.unproven,
        }

    def table(self) -> Table:
        """The summary for people."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for name, value in self._rows():
            table.add_row(f"  {name}", value)
        return table

    def _rows(self) -> list[tuple[str, Text | str]]:
        verdict = self.verdict
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.dead_letters.items()))
        p50, p99 = self.wait_ms(0.5), self.wait_ms(0.99)
        times = "-" if p50 is None or p99 is None else f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, {MEASURED}"
        checked = ", ".join(f"{name} {count:,}" for name, count in verdict.counts.items())
        rows: list[tuple[str, Text | str]] = [
            ("sent", f"{verdict.sent:,}"),
            ("scored", f"{verdict.scored:,}"),
            ("dead-lettered", f"{verdict.dead_lettered:,}" + (f"  ({reasons})" if reasons else "")),
            ("end to end", times),
            ("throughput", f"{self.rows_per_s:,.0f} rows/s of {self.rate:,g} simulated"),
            (
                "scoring",
                f"{self.latency_ms:.2f} ms a row, chunks of {self.rows_per_chunk:.1f} rows on average",
            ),
            ("model", f"AUROC {self.model.auroc:.2f} on held-out patients; {DISCLAIMER}"),
            ("check", Text.assemble(self._mark(), f"  ({checked})")),
        ]
        return rows + ([("not proven", self.unproven)] if self.unproven else [])

    def _mark(self) -> Text:
        if self.verdict.ok:
            return Text("every message accounted for exactly once", "bold green")
        if self.ok:
            return Text("stopped early; nothing doubled or invented", "yellow")
        return Text("FAILED: not every message is accounted for exactly once", "bold red")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)

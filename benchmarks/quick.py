"""A few of today's ratios next to the recorded ones. It reports; it is not a test."""

from typing import Any, Final

from benchmarks import latency, throughput
from benchmarks.bench import Bench
from benchmarks.contender import PASS, PASS_DRAIN, WORKER
from benchmarks.fitted import HGB, LR
from benchmarks.record import Record, middle, ratio
from benchmarks.throughput import Step

ROUNDS: Final = 2
FELL: Final = 0.2
STEPS: Final = ROUNDS * len(throughput.QUICK) + 3
_LATENCY_RATE: Final = 200
_LATENCY_S: Final = 12.0


def measure(bench: Bench, step: Step) -> Record:
    """The quick parts, as a record."""
    runs = throughput.measure(bench, throughput.QUICK, step, rounds=ROUNDS)
    step("latency: warming up the broker")
    latency.warm_up(bench)
    waits = []
    for one in (PASS_DRAIN, WORKER):
        step(f"latency: {one.name} at {_LATENCY_RATE}/s")
        found = latency.run(bench, one, rate=_LATENCY_RATE, seconds=_LATENCY_S)
        waits.append({"contender": one.name, "rate": _LATENCY_RATE, "round": 0, **found})
    return {"throughput": runs, "latency": waits}


def figures(record: Record) -> dict[str, tuple[float | None, bool]]:
    """Each figure by name, and whether higher is better."""
    runs, waits = record.get("throughput", []), record.get("latency", [])
    limit = {"contender": PASS.name}
    found: dict[str, tuple[float | None, bool]] = {}
    for model, chunk in ((LR, 100), (LR, 1000), (HGB, 100)):
        ours = {"contender": WORKER.name, "model": model, "chunk": chunk}
        found[f"{model}, chunk {chunk}, of pass-through"] = ratio(runs, "rows_per_s", ours, limit), True
    at_200 = {"rate": _LATENCY_RATE}
    for what in ("p50", "p99"):
        found[f"latency at 200/s, {what}, of pass-through per drain"] = (
            ratio(
                waits, what, {"contender": WORKER.name, **at_200}, {"contender": PASS_DRAIN.name, **at_200}
            ),
            False,
        )
    found["memory, LR, chunk 100, MB"] = (
        middle(runs, "peak_mb", contender=WORKER.name, model=LR, chunk=100),
        False,
    )
    return found


def compare(today: Record, recorded: Record) -> list[list[str]]:
    """Rows of a table: name, today's figure, the recorded one, and a remark."""
    then = figures(recorded)
    rows = [["what", "today", "recorded", ""]]
    for name, (now, more_is_better) in figures(today).items():
        before = then[name][0]
        rows.append([name, _text(now), _text(before), _judged(now, before, more_is_better=more_is_better)])
    return rows


def _judged(now: float | None, before: float | None, *, more_is_better: bool) -> str:
    if now is None or before is None:
        return "can't be compared"
    kept: Any = now / before if more_is_better else before / now
    return f"worse by {1 - kept:.0%}" if kept < 1 - FELL else ""


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"

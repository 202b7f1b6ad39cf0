"""Start: from the process's start until a read_committed reader has the first result, including joining the group."""

import time
from typing import Any

from benchmarks.bench import Bench
from benchmarks.contender import BARE, TEXTBOOK, WORKER, Contender
from benchmarks.fitted import HGB, LR
from benchmarks.latency import START_S
from benchmarks.results import Reader, Results
from benchmarks.throughput import ROUNDS, Step


def measure(bench: Bench, step: Step, *, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """One record per start."""
    cases = ((WORKER, LR), (WORKER, HGB), (BARE, LR), (TEXTBOOK, LR))
    return [
        {"contender": one.name, "model": model, "round": number, "seconds": _start(bench, one, model, step)}
        for number in range(rounds)
        for one, model in cases
    ]


def _start(bench: Bench, contender: Contender, model: str, step: Step) -> float:
    step(f"start: {contender.name}, {model}")
    topic = bench.input(1)
    with (
        bench.work(contender, model, 100, topic) as work,
        Reader(bench.cluster, work.output, Results(1)) as reader,
        bench.start(contender, work) as process,
    ):
        while reader.next() is None:
            process.check()
            if time.time() - process.started_at > START_S:
                raise RuntimeError(f"{contender.name} gave no result within {START_S:g} s: {process.tail()}")
        return round(time.time() - process.started_at, 2)

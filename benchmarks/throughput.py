"""Throughput: contenders take turns in rounds, so that other load on the machine affects all of them alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import Bench
from benchmarks.contender import (
    ARROYO,
    BARE,
    BYTEWAX,
    FAST,
    FASTEST,
    FASTSTREAM,
    FAUST,
    MEDIUM,
    NAIVE,
    PASS,
    PATHWAY,
    QUIX,
    SPARK,
    TEXTBOOK,
    WORKER,
    WORKER_ALO,
    WORKER_PYTHON,
    Contender,
)
from benchmarks.fitted import HGB, LR, PLAIN_RF, RF

Step = Callable[[str], None]
"""Called before each run with its description."""

ROUNDS: Final = 3


@dataclass(frozen=True)
class Case:
    """A contender with a model and a chunk size; `messages` overrides the contender's usual number."""

    contender: Contender
    model: str
    chunk: int
    messages: int | None = None

    def __str__(self) -> str:
        return f"{self.contender.name}, {self.model}, {self.chunk}"


CASES: Final[tuple[Case, ...]] = (
    Case(PASS, LR, 1000),
    *(Case(WORKER, LR, chunk) for chunk in (10, 100, 1000)),
    *(Case(WORKER_ALO, LR, chunk) for chunk in (100, 1000)),
    *(Case(WORKER_PYTHON, LR, chunk) for chunk in (10, 100, 1000)),
    *(Case(BARE, LR, chunk) for chunk in (100, 1000)),
    *(Case(WORKER, HGB, chunk) for chunk in (10, 100, 1000)),
    *(Case(WORKER_PYTHON, HGB, chunk) for chunk in (100, 1000)),
    *(Case(BARE, HGB, chunk) for chunk in (100, 1000)),
    *(Case(WORKER, RF, chunk, FAST) for chunk in (10, 100, 1000)),
    Case(WORKER, PLAIN_RF, 100, MEDIUM),
    Case(WORKER, PLAIN_RF, 1000, FAST),
    *(Case(TEXTBOOK, model, 100) for model in (LR, HGB)),
    *(Case(TEXTBOOK, model, 1000, FAST) for model in (LR, HGB)),
    Case(NAIVE, LR, 1),
    Case(QUIX, LR, 1),
    *(Case(peer, LR, 100) for peer in (ARROYO, FAUST, FASTSTREAM)),
    *(Case(peer, LR, 1000) for peer in (BYTEWAX, PATHWAY, SPARK)),
    *(Case(peer, HGB, 100) for peer in (ARROYO, FASTSTREAM)),
    *(Case(peer, HGB, 1000) for peer in (BYTEWAX, PATHWAY, SPARK)),
)
QUICK: Final[tuple[Case, ...]] = (
    Case(PASS, LR, 1000, FASTEST),
    Case(WORKER, LR, 100, FASTEST),
    Case(WORKER, LR, 1000, FASTEST),
    Case(WORKER, HGB, 100, FAST),
)


def measure(bench: Bench, cases: Sequence[Case], step: Step, *, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """One record per run. A contender that can't run says why once and is left out of later rounds."""
    records: list[dict[str, Any]] = []
    out: set[Contender] = set()
    for number in range(rounds):
        shift = number * len(cases) // rounds
        for case in (*cases[shift:], *cases[:shift]):
            step(f"round {number + 1}: {case}")
            if case.contender in out:
                continue
            record = {
                "contender": case.contender.name,
                "model": case.model,
                "chunk": case.chunk,
                "round": number,
                **run_or_why(bench, case),
            }
            records.append(record)
            if "why" in record:
                out.add(case.contender)
    return records


def run_or_why(bench: Bench, case: Case) -> dict[str, Any]:
    """The run's figures, or `why` there are none."""
    try:
        run = bench.throughput(case.contender, case.model, case.chunk, messages=case.messages)
    except Exception as error:  # a peer's failure is its row in the table and never ends the run
        return {"why": reason(error)}
    return run.as_json()


def reason(error: Exception) -> str:
    """The error's text, without paths of this machine."""
    return f"{error}".replace(f"{Path.cwd()}/", "")[:200] or type(error).__name__

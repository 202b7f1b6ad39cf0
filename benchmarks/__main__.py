"""`make bench`: everything, or only the parts named by --only; --quick compares a few ratios with the record.

    python -m benchmarks [--quick] [--only PART,PART] [--peers NAME,NAME] [--tables]

Each part measured replaces that part of benchmarks/results/bench.json. At the end, the tables and pictures in the
documentation are made from that file; --tables does only that.
"""

import argparse
import gc
import itertools
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks import (
    formats,
    latency,
    nested,
    plots,
    quick,
    record,
    scale,
    stages,
    starts,
    state,
    tables,
    throughput,
)
from benchmarks.bench import Bench
from benchmarks.cluster import running
from benchmarks.goals import goals
from benchmarks.throughput import Case, Step
from broker.errors import VitalstreamError
from vitalstream.work import GARBAGE

_ERRORS: Final = Console(stderr=True)
_OUT: Final = Console()
_QUICK_MINUTES: Final = 2.5


class Part(NamedTuple):
    """A part of the run: what measures it, how many steps it reports, and how many minutes it takes on two cores."""

    measure: Callable[[Bench, Step], Any]
    steps: int
    minutes: float


def parts(cases: Sequence[Case]) -> dict[str, Part]:
    """All parts by name, in order."""
    rounds = throughput.ROUNDS
    return {
        "stages": Part(stages.measure, len(stages.CASES), 1),
        "formats": Part(lambda bench, step: formats.measure(bench.rows, step), 1, 0.5),
        "throughput": Part(
            lambda bench, step: throughput.measure(bench, cases, step), rounds * len(cases), len(cases) / 2
        ),
        "nested": Part(nested.measure, rounds * 2, 1),
        "latency": Part(latency.measure, latency.steps(), 8),
        "starts": Part(starts.measure, rounds * 4, 1),
        "workers": Part(scale.workers, rounds * 4, 8),
        "partitions": Part(scale.partitions, rounds * len(scale.PARTITIONS), 3),
        "coordinator": Part(scale.coordinator, len(scale.PROCESSES), 1),
        "rebalance": Part(scale.rebalance, len(scale.PROTOCOLS), 1.5),
        "auto": Part(_auto, 1, 14),
        "backlog": Part(scale.backlog, 1, 2),
        "state": Part(state.measure, state.STEPS, 12),
    }


def _auto(bench: Bench, step: Step) -> Any:
    from benchmarks import auto_chunk_size

    step("auto: --chunk-size auto")
    return auto_chunk_size.run(
        bench.cluster, bench.rows, rates=(2_000,), paces=("auto", "10", "100", "1000"), seconds=12.0
    )


def main() -> None:
    """Run whatever was requested."""
    given = _arguments()
    # Leaves every `with` block, and so ends everything that is running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if given.tables:
            _publish(record.load(record.FULL))
        elif given.quick:
            _quick()
        else:
            _full(given.only, given.peers)
    except VitalstreamError as error:
        sys.exit(f"benchmarks: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _arguments() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = list(parts(throughput.CASES))
    parser.add_argument("--quick", action="store_true", help="compare a few ratios with the recorded ones")
    parser.add_argument("--only", type=names, default=known, help=f"run only these parts: {', '.join(known)}")
    parser.add_argument("--peers", type=names, help="run only these peers (none: no peer)")
    parser.add_argument(
        "--tables", action="store_true", help="measure nothing; only write tables and pictures"
    )
    given = parser.parse_args()
    if unknown := set(given.only) - set(known):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    return given


def _full(only: Sequence[str], peers: Sequence[str] | None) -> None:
    cases = [one for one in throughput.CASES if peers is None or one.contender.peer in ("", *peers)]
    chosen = {name: part for name, part in parts(cases).items() if name in only}
    minutes = sum(part.minutes for part in chosen.values())
    _ERRORS.print(f"about {minutes:.0f} minutes on two cores; don't use the machine meanwhile")
    found = record.load(record.FULL)
    began = time.monotonic()
    with _benching(sum(part.steps for part in chosen.values())) as (bench, step):
        found["machine"] = record.machine(bench)
        for name, part in chosen.items():
            found[name] = part.measure(bench, step)
            record.save(record.FULL, found)  # a run that is interrupted keeps its finished parts
    _ERRORS.print(f"measured in {(time.monotonic() - began) / 60:.1f} minutes")
    _publish(found)


def _publish(found: record.Record) -> None:
    lacking = tables.write(found)
    drawn = plots.draw(found)
    _OUT.print(_table([tables.goal_table(found)[0], *(goal.cells() for goal in goals(found))]))
    _ERRORS.print(f"wrote {', '.join(map(str, (*tables.DOCS, *drawn)))}")
    if lacking:
        _ERRORS.print(f"not measured yet: {', '.join(lacking)}")


def _quick() -> None:
    _ERRORS.print(f"about {_QUICK_MINUTES:g} minutes on two cores")
    with _benching(quick.STEPS) as (bench, step):
        today = {"machine": record.machine(bench), **quick.measure(bench, step)}
    recorded = record.load(record.FULL)
    rows = quick.compare(today, recorded)
    _OUT.print(_table(rows))
    if not recorded:
        _OUT.print("nothing is recorded yet; run make bench")
    for name, *_, said in rows[1:]:
        if said.startswith("worse"):
            _OUT.print(f"{name}: {said}")


@contextmanager
def _benching(steps: int) -> Iterator[tuple[Bench, Step]]:
    """A bench on a running and warm Kafka, and a function that reports progress."""
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="vitalstream-bench-") as directory,
        Progress(*columns, console=_ERRORS) as progress,
        threadpool_limits(limits=1),  # while a broker runs, fitting in two threads is slower than in one
    ):
        task = progress.add_task("starting Kafka, making messages", total=1 + steps)
        with running() as cluster:
            bench = Bench(cluster, Path(directory))
            done = itertools.count()

            def step(what: str) -> None:
                progress.update(task, description=what, completed=next(done))
                if not _ERRORS.is_terminal:
                    _ERRORS.print(what)

            step("warming up the broker")
            bench.warm_up()
            gc.freeze()  # as a worker does; otherwise garbage collection would count as latency or as a stage's time
            gc.set_threshold(GARBAGE)
            yield bench, step


def _table(rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*rows[0])
    for row in rows[1:]:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    main()

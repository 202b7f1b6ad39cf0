"""Model changes under load: the longest time for which a read_committed reader sees no new result.

    python -m benchmarks.changes [--rounds N]

Each round runs the worker at 2,000 messages/s, once without any change and once with ten, in alternating order.
"""

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.bench import Bench
from benchmarks.cluster import running
from benchmarks.contender import WORKER
from benchmarks.fitted import HGB, LR, RF
from benchmarks.latency import CHUNK, WARM_S, Load, follow, warm
from benchmarks.results import Reader, Results
from real_time.model_file import pin_path

RATE: Final = 2_000
CHANGES: Final = 10
SECONDS: Final = 30.0  # for each change, longer than it takes to be noticed
_MODELS: Final = (LR, HGB, RF)


def run(bench: Bench, *, changes: int) -> dict[str, Any]:
    """One run with that many changes, evenly spaced; gaps in milliseconds."""
    count = int((WARM_S + SECONDS) * RATE * 1.1) + 10_000
    topic, results = bench.cluster.name(f"changes-{time.monotonic_ns()}"), Results(count)
    bench.cluster.make(topic)
    models, path = [bench.models.path(name) for name in _MODELS], bench.directory / "changing.joblib"
    deploy(models[0], path)
    with (
        bench.work(WORKER, LR, CHUNK, topic) as work,
        bench.start(WORKER, replace(work, model=path)) as process,
    ):
        with Reader(bench.cluster, work.output, results) as reader:
            first = warm(bench, work, process, reader)
            load = Load(bench, topic, rate=RATE, seconds=WARM_S + SECONDS, first=first)
            received = np.full(count, np.nan)
            load.start()
            threading.Thread(target=_change, args=(models, path, changes), daemon=True).start()
            follow(reader, load, received)
            load.join()
        changed = (bench.directory / f"{work.output}.log").read_text().count("from now on")
    bench.cluster.delete([topic])
    came = np.sort(received[received >= load.began_at + WARM_S])
    gaps = 1e3 * np.diff(came[came <= load.ended_at])
    return {"changes": changed, "results": len(came), "longest ms": round(float(gaps.max()))}


def deploy(model: Path, to: Path) -> None:
    """Replace the file, then its pin."""
    for source, target in ((model, to), (pin_path(model), pin_path(to))):
        new = target.with_suffix(".new")
        shutil.copyfile(source, new)
        new.replace(target)


def _change(models: Sequence[Path], path: Path, changes: int) -> None:
    time.sleep(WARM_S)
    for number in range(1, changes + 1):
        deploy(models[number % len(models)], path)
        time.sleep(SECONDS / changes)


def main() -> None:
    """Print one line per run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with running() as cluster, tempfile.TemporaryDirectory() as folder:
        bench = Bench(cluster, Path(folder))
        for number in range(rounds):
            for changes in (0, CHANGES)[:: 1 if number % 2 else -1]:
                print(run(bench, changes=changes), flush=True)


if __name__ == "__main__":
    main()

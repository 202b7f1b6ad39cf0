"""`make models`: fits, checks and scores with each kind of model, and writes a table to docs/model-costs.md.

    python -m benchmarks.models [--only NAME,NAME]

Uses real ICU rows if ../shared/data exists, else simulated ones. With --only it prints the table instead.
"""

import argparse
import re
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import orjson
import pandas as pd
from threadpoolctl import threadpool_limits

from audit.run import audit
from benchmarks.cluster import Cluster, running
from benchmarks.kinds import CATEGORY, TEXT, UNFITTED, WITH_TEXT
from benchmarks.rows import Rows
from benchmarks.tables import markdown
from broker.settings import Settings
from consumer.observer import Observer
from consumer.run import run_worker
from real_time.inference import RiskScorer
from real_time.model_file import ModelError, pin_model
from real_time.usable import load_usable

DOC: Final = Path("docs/model-costs.md")
_MARKED: Final = re.compile(r"(<!-- make models -->\n).*?(<!-- /make models -->)", re.DOTALL)
_HEAD: Final = [
    "kind",
    "path",
    "µs per row at 100",
    "times faster",
    "at 1,000",
    "times faster",
    "largest difference",
    "audit at 1, 7, 100",
]
_TRAINED_ON: Final = 4_000
_CHUNKS: Final = (1, 7, 100)
_SIZES: Final = (100, 1_000)
_MESSAGES: Final = 700
_ROUNDS: Final = 9
_ROUND_S: Final = 0.03

Score = Callable[[pd.DataFrame], Any]


class Data:
    """Rows for fitting, a quarter of them from patients who deteriorate, and other rows for scoring."""

    def __init__(self) -> None:
        rows = Rows()
        X = rows.features.reset_index(drop=True)
        X[CATEGORY] = X["age"].fillna(60) // 10 * 10
        X[TEXT] = "from " + X[CATEGORY].astype(int).astype(str)
        sick, well = np.flatnonzero(rows.label == 1), np.flatnonzero(rows.label == 0)
        random = np.random.default_rng(0)
        chosen = random.permutation(
            np.concatenate(
                [
                    random.choice(sick, _TRAINED_ON // 4),
                    random.choice(well, 3 * _TRAINED_ON // 4, replace=False),
                ]
            )
        )
        self.X, self.y = X.iloc[chosen].reset_index(drop=True), rows.label[chosen].astype(int)
        self.rows = X.iloc[random.choice(len(X), max(_SIZES), replace=False)].reset_index(drop=True)
        self.source = rows.source

    def of(self, kind: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows for fitting and for scoring a kind."""
        without = [] if kind in WITH_TEXT else [TEXT]
        return self.X.drop(columns=without), self.rows.drop(columns=without)

    def messages(self) -> Iterator[tuple[bytes, bytes]]:
        """The first rows for scoring, as messages of one patient each."""
        for number, row in enumerate(self.rows.head(_MESSAGES).to_dict("records")):
            told = {"patient_id": f"p{number}", "event_time": "2026-01-01T00:00:00Z", **row}
            yield told["patient_id"].encode(), orjson.dumps(told)


def try_one(kind: str, data: Data, cluster: Cluster, folder: Path) -> list[str]:
    """A kind's row of the table."""
    path = folder / "model.joblib"
    X, rows = data.of(kind)
    model = UNFITTED[kind]().fit(X, data.y)
    joblib.dump(model, path)
    pin_model(path)
    try:
        scorer = load_usable(path).scorer
    except ModelError as error:
        why = re.split(r"[:;.] ", str(error).removeprefix(f"model file {path} "))[0]
        return [kind, f"refused: {why}", *["-"] * 6]
    cells = [kind, scorer.path.partition(": ")[0]]
    for size in _SIZES:
        ours, plain = timed(rows.head(size), scorer.probability, model.predict_proba)
        cells += [f"{ours:.2f} ({plain:.2f})", f"{plain / ours:.1f}"]
    return [*cells, difference(scorer, model, rows), audited(cluster, path)]


def timed(rows: pd.DataFrame, *ways: Score) -> list[float]:
    """CPU microseconds per row for each way to score `rows`: the median of some rounds, taken in turns."""
    repeats = [max(1, int(_ROUND_S / max(seconds(way, rows, 2), 1e-6))) for way in ways]
    taken = [[seconds(way, rows, n) for way, n in zip(ways, repeats, strict=True)] for _ in range(_ROUNDS)]
    return [statistics.median(one) / len(rows) * 1e6 for one in zip(*taken, strict=True)]


def seconds(way: Score, rows: pd.DataFrame, repeats: int) -> float:
    """The CPU seconds that scoring takes in this process, so that neither other processes nor threads matter."""
    begun = time.process_time()
    for _ in range(repeats):
        way(rows)
    return (time.process_time() - begun) / repeats


def difference(scorer: RiskScorer, model: Any, rows: pd.DataFrame) -> str:
    """The largest difference from predict_proba of all rows at once, for chunks of each size."""
    expected = model.predict_proba(rows)[:, scorer.prepared.positive].astype(float)
    found = [
        np.concatenate([scorer.probability(rows.iloc[at : at + size]) for at in range(0, len(rows), size)])
        for size in _CHUNKS
    ]
    largest = max(float(np.abs(one - expected).max()) for one in found)
    return "none" if largest == 0 else f"{largest:.0e}"


# --- on a real broker


def audited(cluster: Cluster, model: Path) -> str:
    """Score the topic in chunks of each size and audit the results."""
    with ThreadPoolExecutor() as pool:  # which mostly waits for the broker
        found = list(pool.map(lambda size: _audit(cluster, model, size), _CHUNKS))
    return "clean" if all(found) else ", ".join("clean" if one else "NOT clean" for one in found)


class Committed(Observer):
    """Counts the committed rows."""

    rows = 0

    def committed(self, *, chunks: int, rows: int, seconds: float) -> None:
        self.rows += rows

    def is_all(self) -> bool:
        """Whether the whole topic has been scored."""
        return self.rows >= _MESSAGES


def _audit(cluster: Cluster, model: Path, chunk_size: int) -> bool:
    roles = ("output_topic", "metrics_topic", "dead_letter_topic")
    names = {role: cluster.name(f"{role}-{chunk_size}-{time.time_ns()}") for role in roles}
    cluster.make(*names.values(), partitions=1)
    settings = Settings(
        bootstrap_servers=cluster.bootstrap,
        group=names["output_topic"],
        input_topic=cluster.name("vitals"),
        model=model,
        chunk_size=chunk_size,
        until_idle=60.0,  # it ends sooner, unless a message has no outcome
        **names,
    )
    committed = Committed()
    try:
        run_worker(settings, observer=committed, should_stop=committed.is_all)
        found = audit(settings)
        return found.clean and found.messages == _MESSAGES
    finally:
        cluster.delete([*names.values()])


# --- all of them


def main() -> None:
    """Try the kinds and write the table."""
    asked = argparse.ArgumentParser(prog="make models", description=(__doc__ or "").partition("\n")[0])
    asked.add_argument(
        "--only", help="only these kinds, comma-separated", type=lambda names: names.split(",")
    )
    only: Sequence[str] | None = asked.parse_args().only
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves each `with` block, which deletes topics
    warnings.simplefilter("ignore")
    data = Data()
    table = [_HEAD]
    with running() as cluster, tempfile.TemporaryDirectory() as folder, threadpool_limits(limits=1):
        cluster.make(cluster.name("vitals"), partitions=1)
        cluster.fill(cluster.name("vitals"), data.messages())
        for kind in only or UNFITTED:
            table.append(try_one(kind, data, cluster, Path(folder)))
            print(" | ".join(table[-1]), file=sys.stderr, flush=True)
    if only:
        print(markdown(table))
    else:
        write(table, source=data.source)


def write(table: Sequence[Sequence[str]], *, source: str, doc: Path = DOC) -> None:
    """Write the table between its markers."""
    note = f"Fitted to {_TRAINED_ON:,} rows ({source}); {_MESSAGES} messages scored and audited at each chunk size."
    text = doc.read_text(encoding="utf-8")
    body = f"\n{note}\n\n{markdown(table)}\n\n"
    doc.write_text(_MARKED.sub(lambda found: found[1] + body + found[2], text), encoding="utf-8")


if __name__ == "__main__":
    main()

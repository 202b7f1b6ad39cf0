"""`--chunk-size auto` compared with hand-picked sizes: CPU per row and latency at a given rate, and a backlog.

    python -m benchmarks.auto_chunk_size [--json] [--models LR,HGB,RF300] [--rates 200,2000,10000] [--goal-ms 50]

Runs on KAFKA_BOOTSTRAP_SERVERS or a local broker. Latency runs from just before a message is produced until a
read_committed reader has its result; CPU is that of all threads of the worker process.
"""

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.cluster import PARTITIONS, Cluster, running
from benchmarks.processes import Process, started
from benchmarks.rows import Rows, number_of
from real_time.model_file import pin_model
from schemas.metrics import ChunkMetrics, decode_metrics

GOAL_MS: Final = 50.0
PACES: Final = ("auto", "1", "10", "100", "1000")
RATES: Final = (200, 2_000, 10_000)
MODELS: Final = ("LR", "HGB", "RF300")
BACKLOG: Final = 200_000
BACKLOG_ROUNDS: Final = 3  # a single run's rate says little: the same pace varies by a third
WARMING_S: Final = 3.0
SETTLING_S: Final = 60.0  # a few more than 1,024 chunks with a wait
_TRAINING: Final = 20_000
_JOIN_S: Final = 60.0
_POLL_S: Final = 0.02

Floats = NDArray[np.float64]
Result = dict[str, Any]


def run(
    cluster: Cluster,
    rows: Rows,
    *,
    models: Sequence[str] = MODELS,
    rates: Sequence[int] = RATES,
    paces: Sequence[str] = PACES,
    seconds: float = 30.0,
    goal_ms: float = GOAL_MS,
) -> list[Result]:
    """One dict per model, load and pace. A load is a rate, or 0 for a backlog, of which the median round counts."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            model = _fitted(name, rows, Path(folder))
            for rate in (*rates, 0):
                rounds = 1 if rate else BACKLOG_ROUNDS
                runs: dict[str, list[Result]] = {pace: [] for pace in paces}
                for pace in [*paces] * rounds:
                    with _Run(
                        cluster, rows, model=model, pace=pace, goal_ms=goal_ms, folder=Path(folder)
                    ) as one:
                        found = one.at_rate(rate, seconds) if rate else one.backlog()
                    runs[pace].append({"model": name, "rate": rate, "pace": pace, **found})
                    _tell(runs[pace][-1])
                results += _against_the_best([_middle(same) for same in runs.values()], goal_ms)
    return results


def _middle(same: list[Result]) -> Result:
    """The run with the median rate."""
    return sorted(same, key=lambda one: float(one.get("rows_per_s", 0)))[len(same) // 2]


def _against_the_best(alike: list[Result], goal_ms: float) -> list[Result]:
    """Each result with its ratio to the best hand-picked size: most rows/s, or least CPU within the goal."""
    picked = [one for one in alike if one["pace"] != "auto"]
    if alike[0]["rate"]:
        in_time = [one for one in picked if one["p99_ms"] <= goal_ms]
        best = min((one["cpu_us_per_row"] for one in in_time), default=None)
        key = "cpu_us_per_row"
    else:
        best, key = max((one["rows_per_s"] for one in picked), default=None), "rows_per_s"
    return [{**one, "to_best": round(one[key] / best, 3) if best else None} for one in alike]


class _Run:
    """One worker on its own topics."""

    def __init__(
        self, cluster: Cluster, rows: Rows, *, model: Path, pace: str, goal_ms: float, folder: Path
    ) -> None:
        self._cluster, self._rows, self._pace = cluster, rows, pace
        self._name = f"{model.stem}-{pace}-{time.monotonic_ns()}"
        self._topics = {
            kind: cluster.name(f"{self._name}-{kind}")
            for kind in ("input_topic", "output_topic", "metrics_topic", "dead_letter_topic")
        }
        cluster.make(*self._topics.values())
        self._environment = {
            "VITALSTREAM_MODEL": str(model),
            "VITALSTREAM_BOOTSTRAP_SERVERS": cluster.bootstrap,
            "VITALSTREAM_GROUP": cluster.name(self._name),
            "VITALSTREAM_CHUNK_SIZE": pace,
            **({"VITALSTREAM_LATENCY_GOAL_MS": f"{goal_ms:g}"} if pace == "auto" else {}),
            **{f"VITALSTREAM_{kind.upper()}": topic for kind, topic in self._topics.items()},
        }
        self._log = folder / f"{self._name}.log"

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.delete([*self._topics.values()])

    def at_rate(self, rate: int, seconds: float) -> Result:
        """Poisson arrivals, measured for `seconds` after the worker has settled."""
        with (
            self._worker() as worker,
            _Sender(self._cluster, self._rows, self._topics["input_topic"], rate) as sender,
        ):
            reader = _Reader(self._cluster, self._topics["output_topic"])
            chunks = _Reader(self._cluster, self._topics["metrics_topic"])
            give_up = time.monotonic() + _JOIN_S
            reader.until(lambda: sender.is_answered(reader.count) or time.monotonic() > give_up, worker)
            settled = time.monotonic() + (SETTLING_S if self._pace == "auto" else WARMING_S)
            reader.until(lambda: time.monotonic() > settled, worker)
            chunks.read()
            first, begun, cpu = reader.count, chunks.count, _cpu(worker)
            end = time.monotonic() + seconds
            reader.until(lambda: time.monotonic() >= end, worker)
            cpu, rows = _cpu(worker) - cpu, reader.count - first
            chunks.read()
        taken = [decode_metrics(value) for _, value in chunks.messages[begun:]]
        waits = np.array(
            [at - sender.sent[number_of(orjson.loads(value))] for at, value in reader.messages[first:]]
        )
        p50, p95, p99 = (np.quantile(waits, [0.5, 0.95, 0.99]) * 1000).round(1).tolist()
        return {
            "rows": rows, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "cpu_us_per_row": round(cpu / rows * 1e6, 1),
            **_chosen(taken),
        }  # fmt: skip

    def backlog(self) -> Result:
        """How fast a backlog is processed, from the first chunk's end to the last one's."""
        self._cluster.fill(self._topics["input_topic"], self._rows.messages(BACKLOG))
        with self._worker() as worker:
            chunks = _Reader(self._cluster, self._topics["metrics_topic"])
            done = 0

            def finished() -> bool:
                nonlocal done
                seen = chunks.count
                chunks.read()
                done += sum(decode_metrics(value).rows for _, value in chunks.messages[seen:])
                return done >= BACKLOG

            while not finished():
                worker.check()
                time.sleep(_POLL_S)
            cpu = worker.watch.cpu(chunks.messages[0][0], chunks.messages[-1][0])
        taken = [decode_metrics(value) for _, value in chunks.messages]
        took = chunks.messages[-1][0] - chunks.messages[0][0]
        rows = BACKLOG - taken[0].rows
        per_row = round(cpu / rows * 1e6, 1)
        return {"rows": rows, "rows_per_s": round(rows / took), "cpu_us_per_row": per_row, **_chosen(taken)}

    def _worker(self) -> Any:
        return started([sys.executable, "-P", "-m", "vitalstream", "consume"], self._environment, self._log)


def _cpu(worker: Process) -> float:
    now = time.time()
    return worker.watch.cpu(0, now)


def _chosen(chunks: Sequence[ChunkMetrics]) -> Result:
    last = chunks[-1]
    paces = [(one.chunk_size, one.max_wait_ms) for one in chunks]
    changes = sum(a != b for a, b in itertools.pairwise(paces))
    rows = round(float(np.mean([one.rows for one in chunks])), 1)
    return {
        "rows_per_chunk": rows,
        "chunk_size": last.chunk_size,
        "max_wait_ms": last.max_wait_ms,
        "changes": changes,
    }


class _Sender(threading.Thread):
    """Sends numbered messages at random times, `rate` per second on average, and remembers when."""

    def __init__(self, cluster: Cluster, rows: Rows, topic: str, rate: int) -> None:
        super().__init__(daemon=True)
        self._producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 1, "log_level": 0})
        self._rows, self._topic, self._rate = rows, topic, rate
        self._stopped = threading.Event()
        self.sent: list[float] = []

    def __enter__(self) -> "_Sender":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join()

    def is_answered(self, count: int) -> bool:
        """Whether `count` covers all but the last second's messages, and more than the first few."""
        return max(self._rate, len(self.sent) - self._rate) <= count

    def run(self) -> None:
        random = np.random.default_rng(0)
        due = time.time()
        while not self._stopped.is_set():
            for gap in random.exponential(1 / self._rate, 1000):
                due += gap
                while (now := time.time()) < due and not self._stopped.is_set():
                    self._producer.poll(0)
                    time.sleep(min(0.05, due - now))
                key, value = self._rows.message(len(self.sent))
                self.sent.append(time.time())
                self._producer.produce(self._topic, value, key)
                if self._stopped.is_set():
                    break
            self._producer.poll(0)
        self._producer.flush(10)


class _Reader:
    """Reads a topic from its beginning with read_committed; `messages` holds (time read, value)."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        config = {"bootstrap.servers": cluster.bootstrap, "group.id": "nobody", "log_level": 0}
        fetch = {"isolation.level": "read_committed", "enable.auto.commit": False, "fetch.wait.max.ms": 100}
        self._consumer = Consumer({**config, **fetch})
        self._consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        self.messages: list[tuple[float, Any]] = []

    @property
    def count(self) -> int:
        return len(self.messages)

    def read(self) -> int:
        """Take whatever is there; returns the total count."""
        while found := self._consumer.consume(10_000, 0):
            at = time.time()
            self.messages += [(at, one.value()) for one in found if one.error() is None]
        return self.count

    def until(self, done: Any, worker: Process) -> None:
        """Keep reading, each message as it arrives, until `done`."""
        while not done():
            worker.check()
            message = self._consumer.poll(_POLL_S)
            if message is not None and message.error() is None:
                self.messages.append((time.time(), message.value()))
                self.read()


def _fitted(name: str, rows: Rows, folder: Path) -> Path:
    chosen = np.random.default_rng(0).choice(len(rows), _TRAINING)
    model = _UNFITTED[name]().fit(rows.features.iloc[chosen], rows.label[chosen])
    path = folder / f"{name}.joblib"
    joblib.dump(model, path)
    pin_model(path)
    return path


_UNFITTED: Final[dict[str, Any]] = {
    "LR": lambda: make_pipeline(
        SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=500)
    ),
    "HGB": lambda: HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0),
    "RF300": lambda: RandomForestClassifier(300, max_depth=10, random_state=0),
}


_COLUMNS: Final = {
    "model": ("model", 6),
    "msg/s": ("rate", 7),  # 0 means a backlog
    "pace": ("pace", 5),
    "p50 ms": ("p50_ms", 8),
    "p99 ms": ("p99_ms", 8),
    "CPU us/row": ("cpu_us_per_row", 10),
    "rows/s": ("rows_per_s", 8),
    "rows/chunk": ("rows_per_chunk", 10),
    "size": ("chunk_size", 6),
    "wait ms": ("max_wait_ms", 7),
    "to best": ("to_best", 7),
}


def _tell(result: Result) -> None:
    print("  ".join(f"{name} {value}" for name, value in result.items()), file=sys.stderr, flush=True)


def _table(results: Sequence[Result]) -> str:
    head = [f"{title:>{width}}" for title, (_, width) in _COLUMNS.items()]
    cells = [[f"{_shown(one.get(key)):>{width}}" for key, width in _COLUMNS.values()] for one in results]
    return "\n".join(map(" ".join, [head, *cells]))


def _shown(value: object) -> str:
    return "" if value is None else str(value)


def main() -> None:
    """Print the table, or the results with --json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--rates", default=",".join(map(str, RATES)))
    parser.add_argument("--paces", default=",".join(PACES))
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--goal-ms", type=float, default=GOAL_MS)
    given = parser.parse_args()
    sys.setswitchinterval(0.0005)  # sending and reading are two threads of this process
    with running() as cluster:
        results = run(
            cluster,
            Rows(),
            models=given.models.split(","),
            rates=[int(rate) for rate in given.rates.split(",") if rate],
            paces=given.paces.split(","),
            seconds=given.seconds,
            goal_ms=given.goal_ms,
        )
    print(orjson.dumps(results, option=orjson.OPT_INDENT_2).decode() if given.json else _table(results))


if __name__ == "__main__":
    main()

"""What all parts of a benchmark run share: the cluster, the messages, the models, and a contender's run."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.cluster import PARTITIONS, Cluster
from benchmarks.contender import PASS, Contender, Work, command, dead_letter_topic, metrics_topic
from benchmarks.fitted import HISTORIES, LR, Models
from benchmarks.processes import Process, Watch, started
from benchmarks.results import Reader, Results
from benchmarks.rows import Floats, Rows
from broker.roles import TOPICS, Role

RUN_S: Final = 90.0  # a throughput run is cut off after this
SLOWEST: Final = 50_000  # rows/s: a long backlog gets the time that this rate needs
READ_S: Final = 60.0  # reading a run's results is cut off after this
_LOOK_S: Final = 0.1
_WARM_RUNS: Final = 3
# The window of a throughput run excludes the filling and emptying of queues.
_FROM, _TO = 0.1, 0.95


@dataclass(frozen=True)
class Run:
    """One throughput run. `check` says whether each message has exactly one result, equal to offline scoring."""

    rows_per_s: float
    cpu_us: float  # of the contender, per row
    broker_us: float  # of the broker, per row; 0 if the broker is not ours
    peak_mb: float
    start_s: float  # from its start until the broker has the first result
    memory_mb: list[float]  # at ten evenly spaced times of the run
    check: str

    def as_json(self) -> dict[str, Any]:
        """The run as JSON, rounded."""
        return {name: round(v, 3) if isinstance(v, float) else v for name, v in asdict(self).items()}


class Bench:
    """Everything a run needs. Input topics are filled on first use."""

    def __init__(
        self, cluster: Cluster, directory: Path, rows: Rows | None = None, *, name: str = "main"
    ) -> None:
        self.cluster = cluster
        self._name = name
        self.directory = directory
        self.rows = rows or Rows()
        self.models = Models(self.rows, directory)
        self._inputs: dict[tuple[int, int], str] = {}
        self._truth: dict[tuple[str, int], Floats] = {}
        self._number = 0

    def beside(self, name: str, rows: Rows) -> "Bench":
        """One with other messages on the same cluster, with topics and files of its own."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        return Bench(self.cluster, directory, rows, name=name)

    def input(self, messages: int, partitions: int = PARTITIONS) -> str:
        """A topic with the first `messages` messages."""
        wanted = messages, partitions
        if wanted not in self._inputs:
            topic = self.cluster.name(f"{self._name}-in-{messages}-{partitions}")
            self.cluster.make(topic, partitions=partitions)
            self.cluster.fill(topic, self.rows.messages(messages))
            self._inputs[wanted] = topic
        return self._inputs[wanted]

    def truth(self, model: str, count: int) -> Floats:
        """What the model says offline about the first `count` messages."""
        wanted = model, count if model in HISTORIES else len(self.rows)
        if wanted not in self._truth:
            self._truth[wanted] = self.rows.truth(self.models.model(model), wanted[1])
        return np.resize(self._truth[wanted], count)

    @contextmanager
    def work(
        self, contender: Contender, model: str, chunk: int, topic: str, *, partitions: int = PARTITIONS
    ) -> Iterator[Work]:
        """Topics and a group for one run; the topics are deleted afterwards."""
        self._number += 1
        output = self.cluster.name(f"{self._name}-out-{self._number}")
        topics = [output]
        if not contender.program:
            topics += [metrics_topic(output), dead_letter_topic(output)]
        self.cluster.make(*topics, partitions=partitions)
        if model in HISTORIES:
            state = f"{topic}-state-{output}"
            self.cluster.make(state, partitions=partitions, config=TOPICS[Role.STATE].config)
            topics.append(state)
        try:
            yield Work(topic, output, output, self.models.path(model), chunk)
        finally:
            self.cluster.delete(topics)

    def start(self, contender: Contender, work: Work) -> contextlib.AbstractContextManager[Process]:
        """The contender's process, ended on exit. Raises PeerUnavailableError."""
        argv, environment = command(contender, self.cluster, work)
        environment["TMPDIR"] = str(self.directory)
        return started(argv, environment, self.directory / f"{work.output}.log")

    def warm_up(self) -> None:
        """Unmeasured load: a broker's first million messages take several times as long as later ones."""
        for _ in range(_WARM_RUNS):
            self.throughput(PASS, LR, 1000)

    def throughput(
        self,
        contender: Contender,
        model: str,
        chunk: int,
        *,
        messages: int | None = None,
        partitions: int = PARTITIONS,
    ) -> Run:
        """Let a contender process a full topic, and read its results back.

        Raises PeerUnavailableError, or RuntimeError if it ended early.
        """
        count = messages or contender.messages
        topic = self.input(count, partitions)
        results = Results(count)
        echoed = self.rows if contender.echoes else None
        with (
            self.work(contender, model, chunk, topic, partitions=partitions) as work,
            self.start(contender, work) as process,
            self._watching_broker() as broker,
        ):
            self._wait(process, work.output, count, partitions)
            with Reader(self.cluster, work.output, results, echoed=echoed) as reader:
                reader.read(lambda: results.read >= count, timeout=READ_S)
                process.stop()
                reader.read(lambda: False, timeout=0.5)  # are there more results than there should be?
        truth = self.truth(model, count) if contender.scores and not contender.echoes else None
        return _run(results, process, broker, check=results.verdict(truth))

    def _wait(self, process: Process, output: str, count: int, partitions: int) -> None:
        deadline = time.monotonic() + RUN_S + count / SLOWEST
        while self.cluster.end(output, partitions) < count and time.monotonic() < deadline:
            process.check()
            time.sleep(_LOOK_S)

    @contextmanager
    def _watching_broker(self) -> Iterator[Watch | None]:
        if self.cluster.pid is None:
            yield None
            return
        watch = Watch(self.cluster.pid)
        watch.start()
        try:
            yield watch
        finally:
            watch.stop()


def _run(results: Results, process: Process, broker: Watch | None, *, check: str) -> Run:
    times = np.sort(results.appended_at[~np.isnan(results.appended_at)])
    if len(times) < 10:
        raise RuntimeError(f"it gave only {len(times)} results in its time: {process.tail()}")
    first, last = int(len(times) * _FROM), int(len(times) * _TO)
    start, end, rows = times[first], times[last], last - first
    return Run(
        rows_per_s=float(rows / max(end - start, 1e-3)),
        cpu_us=1e6 * process.watch.cpu(start, end) / rows,
        broker_us=1e6 * broker.cpu(start, end) / rows if broker else 0.0,
        peak_mb=process.watch.peak_mb,
        start_s=float(times[0]) - process.started_at,
        memory_mb=process.watch.memory_between(start, end),
        check=check,
    )

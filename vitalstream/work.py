"""`vitalstream consume`: one worker here, or several processes, with a log and a report."""

import gc
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Final

import orjson
from typing_extensions import override

from broker.settings import Settings
from consumer.errors import Action
from consumer.health import Health
from consumer.observer import LogObserver, Observer, Observers
from consumer.pool import run_pool
from consumer.pool_health import telling
from consumer.run import run_worker
from consumer.stalls import watching
from consumer.stop import Hangups, Stop
from schemas.contract import Reason
from schemas.metrics import ChunkMetrics
from vitalstream.logs import errors_in_the_log, log_to_stderr, name_worker

GARBAGE: Final = 10_000
"""How many more objects than before start a garbage collection in a worker."""


def run_workers(settings: Settings, *, json: bool) -> None:
    """Run the workers that `settings` ask for until stopped or idle; with `json`, report on stdout."""
    run = work_and_report if json else work
    log_to_stderr(settings.log_format)
    if settings.workers > 1:
        Hangups.ignore()  # until there are workers to look
        with errors_in_the_log(settings.log_format):
            run_pool(settings, stop=Stop(), run=run, hangups=Hangups())
    else:
        run(settings, Stop())


def work(settings: Settings, stop: Stop, *observers: Observer, parent: Connection | None = None) -> None:
    """Run one worker in this process, with a watchdog for stalls and its HTTP endpoints.

    It reports its health to `parent`. `stop` handles signals as soon as there is work to finish.
    """
    log_to_stderr(settings.log_format)
    health = Health(stall_after=settings.stall_after)
    with (
        errors_in_the_log(settings.log_format),
        watching(health, stall_after=settings.stall_after),
        telling(health, parent),
        _serving(settings, health) as telemetry,
    ):
        hangups = Hangups()
        observer = Observers(Beginning(stop, hangups), health, *telemetry, LogObserver(), *observers)
        try:
            run_worker(
                settings,
                observer=observer,
                should_stop=health.beating(lambda: stop.requested),
                hangups=hangups,
            )
        finally:
            gc.unfreeze()  # close the Kafka clients before the interpreter shuts down


@contextmanager
def _serving(settings: Settings, health: Health) -> Iterator[list[Observer]]:
    """Serve the endpoints that `settings` ask for; yields the observers that feed them."""
    if settings.http is None:
        yield []
        return
    from consumer.endpoints import serving
    from consumer.telemetry import PrometheusObserver

    telemetry = PrometheusObserver()
    with serving(settings.http, health=health, registry=telemetry.registry):
        yield [telemetry]


class Beginning(Observer):
    """As the worker is about to join the group: gives the log its name and leaves signals to it.

    Everything loaded by then stays, so it is frozen. Each garbage collection over it took 100 ms, in which nothing
    was scored: once at the start, and at chunks of 1000 rows three times in 600,000. And what is made of the messages
    of a block is freed by reference counts: with Python's default of 700 objects it started eight collections a block
    that found nothing, a twentieth of all CPU time.
    """

    def __init__(self, stop: Stop, hangups: Hangups) -> None:
        self._stop = stop
        self._hangups = hangups

    @override
    def started(self, *, worker: str, **_: object) -> None:
        gc.collect()  # don't freeze garbage: the Kafka clients that checked topics and rights
        gc.freeze()
        gc.set_threshold(GARBAGE)
        name_worker(worker)
        self._stop.listen()
        self._hangups.listen()


def work_and_report(settings: Settings, stop: Stop, *, parent: Connection | None = None) -> None:
    """Run one worker in this process and print a JSON report of its work on stdout."""
    report = Report()
    try:
        work(settings, stop, report, parent=parent)
    finally:
        sys.stdout.buffer.write(report.encode() + b"\n")
        sys.stdout.buffer.flush()


class Report(Observer):
    """Counts what a worker did."""

    def __init__(self) -> None:
        self._worker = ""
        self._counts: Counter[str] = Counter()
        self._dead_letters: Counter[str] = Counter()
        self._uncommitted: Counter[str] = Counter()
        self._uncommitted_no_input = 0

    @override
    def started(self, *, worker: str, **_: object) -> None:
        self._worker = worker

    @override
    def rejected(self, partition: int, offset: int, reason: Reason, field: str) -> None:
        self._uncommitted[str(reason)] += 1

    @override
    def scored(self, chunks: Sequence[ChunkMetrics]) -> None:
        self._uncommitted_no_input += sum([chunk.no_input for chunk in chunks])

    @override
    def committed(self, *, chunks: int, rows: int, seconds: float) -> None:
        self._counts.update(transactions=1, chunks=chunks, rows=rows, no_input=self._uncommitted_no_input)
        self._uncommitted_no_input = 0
        self._dead_letters += self._uncommitted
        self._uncommitted.clear()

    @override
    def failed(self, operation: str, error_name: str, action: Action) -> None:
        self._counts.update(recoveries=1)
        self._uncommitted.clear()  # read again
        self._uncommitted_no_input = 0

    def encode(self) -> bytes:
        """The report as a JSON object."""
        names = ("rows", "no_input", "chunks", "transactions", "recoveries")
        counts = {name: self._counts[name] for name in names}
        return orjson.dumps({"worker": self._worker, **counts, "dead_letters": dict(self._dead_letters)})

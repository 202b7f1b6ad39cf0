"""Several workers of one group on this machine, each in its own process."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Protocol

from broker.errors import SettingsError, VitalstreamError
from broker.settings import Settings
from consumer import model as models
from consumer.pool_health import PoolHealth
from consumer.ready import require_ready
from consumer.stop import Hangups, Stop, end_when_asked

log = logging.getLogger("vitalstream.worker")

WAIT_S = 0.2
LEAVE_S = 12.0  # a worker takes less


class RunWorker(Protocol):
    """Runs one worker, which reports its health to `parent`."""

    def __call__(self, settings: Settings, stop: Stop, *, parent: Connection | None = None) -> None:
        """Return when the worker has ended on its own or because of `stop`."""


class WorkerDiedError(VitalstreamError):
    """A worker process ended with an error; the others were stopped."""


def run_pool(settings: Settings, *, stop: Stop, run: RunWorker, hangups: Hangups) -> None:
    """Run `settings.workers` processes, each calling `run`, until all have ended on their own or because of `stop`.

    `hangups` are passed to all of them. If one ends with an error, the others are stopped: half a service that looks
    complete is worse than none.

    Raises:
        SettingsError, BrokerError: what would stop a single worker from starting, reported once.
        WorkerDiedError: a worker ended with an error.
    """
    require_ready(settings, models.load_for_worker(settings))
    context = multiprocessing.get_context("spawn")
    names = [f"worker-{number}" for number in range(settings.workers)]
    health = PoolHealth(names, stall_after=settings.stall_after)
    with _serving(settings, health):
        pipes: dict[Connection, str] = {}
        processes = []
        stop.listen()
        for number, name in enumerate(names):
            receiver, sender = context.Pipe(duplex=False)
            with sender:  # its copy is the worker's
                arguments = (settings.of_worker(number), run, sender)
                processes.append(context.Process(target=_work, args=arguments, name=name))
                processes[-1].start()
            pipes[receiver] = name
        hangups.listen()  # only now: a process inherits ignored signals, but no handlers
        try:
            _watch(processes, pipes, health, stop, hangups)
        finally:
            health.stopping()
            _end(processes)
    # A worker signalled before it had a handler was ended by the signal itself.
    failed = [process for process in processes if process.exitcode not in (0, -signal.SIGTERM)]
    if failed:
        codes = ", ".join(f"{process.name} ended with code {process.exitcode}" for process in failed)
        raise WorkerDiedError(f"{codes}, so all workers were stopped; uncommitted messages are read again")


@contextmanager
def _serving(settings: Settings, health: PoolHealth) -> Iterator[None]:
    """Serves the health of all workers on the port after theirs; fails before any worker starts."""
    with ExitStack() as stack:
        if settings.http is not None:
            from consumer.endpoints import require_free, serving

            addresses = [settings.of_worker(number).http or "" for number in range(settings.workers + 1)]
            try:
                for address in addresses[:-1]:
                    require_free(address, health)
                port = stack.enter_context(serving(addresses[-1], health=health, registry=None))
            except SettingsError as error:
                raise SettingsError(
                    f"{error}; --workers {settings.workers} needs a port for each worker and one for the health of all"
                ) from None
            log.info("/livez and /readyz of all workers are on port %s", port)
        yield


def _watch(
    processes: Sequence[SpawnProcess],
    pipes: dict[Connection, str],
    health: PoolHealth,
    stop: Stop,
    hangups: Hangups,
) -> None:
    """Return when the workers should end: all are done, one failed, or a stop was requested."""
    while not stop.requested:
        if hangups.wait(0):
            _hang_up(processes)
        running = [process.sentinel for process in processes if process.is_alive()]
        for ready in wait([*running, *pipes], timeout=WAIT_S):
            if isinstance(ready, Connection):
                _hear(ready, pipes, health)
        gone = [process for process in processes if process.exitcode is not None]
        for process in gone:
            health.ended(process.name)
        if len(gone) == len(processes) or any(process.exitcode for process in gone):
            return


def _hear(pipe: Connection, pipes: dict[Connection, str], health: PoolHealth) -> None:
    try:
        health.told(pipes[pipe], pipe.recv())
    except EOFError:  # the worker has ended
        del pipes[pipe]


def _hang_up(processes: Sequence[SpawnProcess]) -> None:
    for process in processes:
        if process.is_alive() and process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGHUP)


def _end(processes: Sequence[SpawnProcess]) -> None:
    for process in processes:
        if process.is_alive():
            process.terminate()
    for process in processes:
        process.join(LEAVE_S)
        if process.is_alive():
            process.kill()
            process.join()


def _work(settings: Settings, run: RunWorker, parent: Connection) -> None:
    end_when_asked()
    stop = Stop()
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True, name="parent").start()
    try:
        run(settings, stop, parent=parent)
    except VitalstreamError as error:
        log.error("%s", error)
        sys.exit(error.exit_code)


def _stop_with_parent(stop: Stop) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        stop.request()

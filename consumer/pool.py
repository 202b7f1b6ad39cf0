"""Several workers of one group on this machine, each a process of its own."""

import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

from broker.errors import VitalstreamError
from broker.rights import require_rights
from broker.settings import Settings
from broker.topics import require_topics
from consumer import model as models
from consumer.stop import Stop, end_when_asked

log = logging.getLogger("vitalstream.worker")

WAIT_S = 0.2
LEAVE_S = 12.0  # a worker ends itself well before

RunWorker = Callable[[Settings, Stop], None]


class WorkerDiedError(VitalstreamError):
    """A worker process ended with an error; the others were stopped."""


def run_pool(settings: Settings, *, stop: Stop, run: RunWorker) -> None:
    """Run `settings.workers` processes, each calling `run`, until all have ended by themselves or `stop`.

    When one ends with an error the others are stopped: half a service that looks whole is worse than none.

    Raises:
        SettingsError, BrokerError: what one worker would refuse at its start, said once.
        WorkerDiedError: a worker ended with an error.
    """
    models.load(settings)
    require_topics(settings, settings.topics)
    require_rights(settings, "consume")
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_work, args=(settings.of_worker(number), run), name=f"worker-{number}")
        for number in range(settings.workers)
    ]
    stop.listen()
    for process in processes:
        process.start()
    try:
        _watch(processes, stop)
    finally:
        _end(processes)
    # One that was told to end before it could listen was ended by the signal itself.
    failed = [process for process in processes if process.exitcode not in (0, -signal.SIGTERM)]
    if failed:
        codes = ", ".join(f"{process.name} ended with code {process.exitcode}" for process in failed)
        raise WorkerDiedError(
            f"{codes}, so all workers were stopped; what they had not committed is read again"
        )


def _watch(processes: list[SpawnProcess], stop: Stop) -> None:
    """Return when the workers are to be ended: all are done, one failed, or a stop was asked for."""
    while not stop.requested:
        wait([process.sentinel for process in processes if process.is_alive()], timeout=WAIT_S)
        codes = [process.exitcode for process in processes]
        if None not in codes or any(codes):
            return


def _end(processes: list[SpawnProcess]) -> None:
    for process in processes:
        if process.is_alive():
            process.terminate()
    for process in processes:
        process.join(LEAVE_S)
        if process.is_alive():
            process.kill()
            process.join()


def _work(settings: Settings, run: RunWorker) -> None:
    end_when_asked()
    stop = Stop()
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True, name="parent").start()
    try:
        run(settings, stop)
    except VitalstreamError as error:
        log.error("%s", error)
        sys.exit(error.exit_code)


def _stop_with_parent(stop: Stop) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        stop.request()

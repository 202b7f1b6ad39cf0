"""One run: a simulated ward, a worker process, a reader, and accounts of each message's outcome."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from broker.errors import BrokerError
from broker.settings import Settings
from vitalstream.demo.accounts import Accounts
from vitalstream.demo.reader import Reader
from vitalstream.demo.simulate import Simulation
from vitalstream.demo.view import Scene, View
from vitalstream.worker_process import WorkerProcess

_LOOK_EVERY_S: Final = 0.05
_WARM_UP_S: Final = 90.0  # for the worker to import, join its group and score the first message
_SETTLE_S: Final = 15.0  # without any result, for messages in flight when sending ends
_SETTLE_STOPPED_S: Final = 4.0


class Demo:
    """Runs the worker on `seconds` of simulated messages; its attributes then hold the outcome.

    `started_at` (Unix seconds) is when the second message could be sent: the first one is sent alone, and
    its result awaited, so that what follows is not the worker's start. `seconds_taken` runs from there until
    The first message is sent alone and its result awaited, so that the worker's start is not measured. The second
    """

    def __init__(
        self,
        settings: Settings,
        *,
        view: View,
        broker: str,
        stopped: Callable[[], bool],
        seconds: float,
        patients: int,
        seed: int,
        rate: float,
    ) -> None:
        self._settings = settings
        self._view = view
        self._broker = broker
        self._stopped = stopped
        self._seconds = seconds
        self._rate = rate
        self._halted = False
        self._reading_ends = False
        self._phase = "starting the worker"
        self.accounts = Accounts()
        self.reader = Reader(settings, self.accounts)
        self._simulation = Simulation(
            settings,
            self.accounts,
            patients=patients,
            seed=seed,
            rate=rate,
            messages=max(2, round(seconds * rate)),
        )
        self.interrupted = False
        self.started_at = 0.0
        self.seconds_taken = 0.0

    def run(self, directory: Path) -> None:
        """Run it all; the worker logs into `directory`.

        Raises:
            WorkerError: the worker exited early, or with a code other than 0.
            BrokerError: sending or reading failed, or the worker scored nothing.
        """
        worker = WorkerProcess(self._settings, directory)
        with ThreadPoolExecutor(max_workers=2) as pool, self._view:
            reading = pool.submit(self.reader.run, lambda: self._reading_ends)
            try:
                if self._first_is_scored(worker, reading):
                    self._send(pool, worker, reading)
                    self._phase = "stopping the worker"
                    worker.stop()
            finally:
                self._halted = self._reading_ends = True
                worker.kill()
            reading.result()

    def _first_is_scored(self, worker: WorkerProcess, reading: "Future[None]") -> bool:
        self._simulation.send_first()
        came = self._wait(lambda: self.accounts.in_flight == 0, _WARM_UP_S, worker, reading)
        self.started_at = time.time()
        self.interrupted = self._stopped()
        if not came and not self.interrupted:
            raise BrokerError(f"the worker scored nothing within {_WARM_UP_S:g} s on {self._broker}")
        return came

    def _send(self, pool: ThreadPoolExecutor, worker: WorkerProcess, reading: "Future[None]") -> None:
        self._phase = f"scoring {self._rate:,g} messages a second"
        sending = pool.submit(self._simulation.run, lambda: self._halted or self._stopped())
        self._wait(sending.done, float("inf"), worker, reading)
        self.interrupted = self._stopped()
        sending.result()
        self._phase = "waiting for the last results"
        patience = _SETTLE_STOPPED_S if self.interrupted else _SETTLE_S
        left, deadline = self.accounts.in_flight, time.monotonic() + patience
        while self.accounts.in_flight and time.monotonic() < deadline:
            self._look(worker, reading)
            if self.accounts.in_flight < left:
                left, deadline = self.accounts.in_flight, time.monotonic() + patience
        self.seconds_taken = time.time() - self.started_at

    def _wait(
        self, done: Callable[[], bool], timeout: float, worker: WorkerProcess, reading: "Future[None]"
    ) -> bool:
        """Draw until `done` (returns true), or until stopped or out of time (false)."""
        deadline = time.monotonic() + timeout
        while not done():
            if self._stopped() or time.monotonic() > deadline:
                return False
            self._look(worker, reading)
        return True

    def _look(self, worker: WorkerProcess, reading: "Future[None]") -> None:
        worker.check()
        if reading.done():
            reading.result()
        self._view.draw(self._scene)
        time.sleep(_LOOK_EVERY_S)

    def _scene(self) -> Scene:
        sent, scored, dead_lettered = self.accounts.counts
        return Scene(
            phase=self._phase,
            broker=self._broker,
            elapsed=time.time() - self.started_at if self.started_at else 0.0,
            seconds=self._seconds,
            clock=self._simulation.clock,
            sent=sent,
            scored=scored,
            dead_lettered=dead_lettered,
            board=self.reader.board,
            latest=self.reader.latest,
            dead_letters=dict(self.reader.dead_letters),
        )

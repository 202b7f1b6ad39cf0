"""A trial: its own topics, load, workers, a reader and a watch; faults; and a verdict at the end."""

import signal
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from audit.findings import Invariant
from audit.outcome import Audit
from audit.run import audit
from broker.settings import Settings
from tests.consumer.accounts import hangs, members
from tests.consumer.processes import Process
from tests.consumer.stage import Stage
from tests.faults import doomed
from tests.faults.doomed import Doom
from tests.faults.ledger import Entry
from tests.faults.load import Load, Records
from tests.faults.reader import Reader, require_final
from tests.faults.watch import Setback, Watch
from tests.kafka import wait_until

HEALTHY = Doom()
PATIENCE_S = 240.0  # for anything that must happen; meant to end a test, not to measure
# instead of librdkafka's 10 s, so that a restarted broker is found soon
QUICK = {"reconnect.backoff.max.ms": "500"}


class Trial:
    """One fault, inflicted on a system at work. Made by `begin`, judged by `finish`, ended by `end`."""

    def __init__(self, stage: Stage, settings: Settings, *, entry: Entry, random: Random) -> None:
        self.settings = settings
        self.random = random
        self.workers: list[Process] = []
        self._stage = stage
        self._entry = entry
        self._watch = Watch(settings)
        self._reader = Reader(settings).start()
        self._loads: list[Load] = []

    # --- what works

    def load(self, records: Records, *, rate: float) -> Load:
        """Start sending."""
        load = Load(self.settings, records, rate=rate).start()
        self._loads.append(load)
        return load

    def worker(
        self,
        doom: Doom = HEALTHY,
        *,
        environment: Mapping[str, str] = {},
        properties: Mapping[str, str] = {},
        **changes: Any,
    ) -> Process:
        """Start a worker; `changes` override its settings."""
        kafka = {**QUICK, **self.settings.kafka, **properties}
        settings = self.settings.model_copy(update={"kafka": kafka, **changes})
        arguments = [doom.model_dump_json(), settings.model_dump_json()]
        process = self._stage.start(doomed.main, arguments, environment=environment)
        self.workers.append(process)
        return process

    @property
    def log(self) -> str:
        """The logs of all workers."""
        return "\n".join(worker.log for worker in self.workers)

    # --- what fails

    def note_fault(self) -> Setback:
        """Record that a fault has just happened; its recovery is timed from here."""
        self._entry.times += 1
        return self._watch.note_fault()

    def count(self, faults: int) -> None:
        """Count more faults, which hold nothing up."""
        self._entry.times += faults

    def recovered(self, setback: Setback, *, timeout: float = PATIENCE_S) -> None:
        """Wait until everything sent before the fault is committed."""
        self._wait(lambda: setback.seconds is not None, "recovery", timeout)

    def progressed(self, rows: int, *, timeout: float = PATIENCE_S) -> None:
        """Wait until that many more messages are committed."""
        goal = self._watch.rows + rows
        self._wait(lambda: self._watch.rows >= goal, f"{rows} more rows", timeout)

    def stopped_itself(self, worker: Process, *, timeout: float = PATIENCE_S) -> None:
        """Wait until a worker has stopped itself with SIGSTOP."""
        self._wait(lambda: is_stopped(worker.pid) or worker.code is not None, "a stop", timeout)
        assert worker.code is None, worker.log

    def expired(self) -> None:
        """Wait until the brokers have aborted the open transaction because it timed out."""
        self._wait(lambda: not hangs(self.settings, self.settings.output_topic), "the transaction's end")

    def left(self) -> None:
        """Wait until the group has no members; frozen ones have lost their session."""
        self._wait(lambda: not members(self.settings), "the end of the session")

    # --- the outcome

    def finish(self) -> Audit:
        """Let everything sent be processed, stop all workers, and require that nothing is lost or doubled."""
        found = self.judge()
        assert found.clean, "\n".join(map(str, [*found.verdicts, *found.offenders, self._logs()]))
        records = require_final(self._reader, self.settings)
        assert records == sum(found.records.values()), "the reader and the audit count different numbers"
        return found

    def judge(self) -> Audit:
        """Like `finish`, but only return the audit."""
        for load in self._loads:
            load.stop()
        self._wait(lambda: self._watch.sent > 0 and self._watch.rows >= self._watch.sent, "the last commit")
        self.stop_workers()
        found = audit(self.settings, patience=30)
        failed = {verdict.invariant: verdict.failed for verdict in found.verdicts}
        self._entry.rows += found.messages
        self._entry.aborted += sum(found.aborted.values())
        self._entry.lost += failed[Invariant.COMPLETE]
        self._entry.doubled += failed[Invariant.ONCE]
        self._entry.recoveries += [one.seconds for one in self._watch.setbacks if one.seconds is not None]
        return found

    def stop_workers(self) -> None:
        """Send SIGTERM to all running workers; each must exit with 0."""
        running = [worker for worker in self.workers if worker.code is None]  # zombies included
        for worker in running:
            worker.signal(signal.SIGCONT)
            worker.signal(signal.SIGTERM)
        for worker in running:
            assert worker.wait(timeout=60) == 0, worker.log

    def end(self) -> None:
        """Stop the threads, whatever state they are in; the stage ends the processes."""
        for load in self._loads:
            load._stopped.set()
        self._reader.stop()
        self._watch.stop()

    def _wait(self, condition: Any, what: str, timeout: float = PATIENCE_S) -> None:
        try:
            wait_until(condition, timeout=timeout, what=what)
        except AssertionError as error:
            raise AssertionError(
                f"{error}: {self._watch.rows} of {self._watch.sent}, {self._watch.sight}\n{self._logs()}"
            ) from None

    def _logs(self) -> str:
        last = self.workers[-6:]
        return "\n".join(f"--- worker {one.pid}, code {one.code}\n{one.log[-4000:]}" for one in last)


def is_stopped(pid: int) -> bool:
    """Whether the process was stopped by a signal."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False

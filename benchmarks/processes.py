"""A contender's process: started with its settings, watched for CPU and memory, and ended."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from broker.child import Child
from broker.settings import ENV_PREFIX

_EVERY_S: Final = 0.1
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_STOP_S: Final = 15.0
# OpenMP's threads compete with the broker for the cores. One thread is better for every contender.
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1"}


class Watch(threading.Thread):
    """Samples CPU time and resident memory of a process and its descendants, ten times per second.

    Memory is the sum over the processes, so shared memory counts once for each.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._ended = threading.Event()
        self._times: list[float] = []
        self._cpu: list[float] = []
        self.memory: list[float] = []  # MB
        self._gone = 0.0  # CPU seconds of descendants that have ended
        self._last: dict[int, float] = {}

    def run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            with contextlib.suppress(OSError, ValueError):
                self._sample()

    def stop(self) -> None:
        """Take no more samples."""
        self._ended.set()
        self.join()

    @property
    def peak_mb(self) -> float:
        """The largest memory seen."""
        return max(self.memory, default=0.0)

    def cpu(self, start: float, end: float) -> float:
        """CPU seconds between two times."""
        first, last = np.interp([start, end], self._times, self._cpu)
        return float(last - first)

    def memory_between(self, start: float, end: float, samples: int = 10) -> list[float]:
        """Memory at evenly spaced times."""
        found = np.interp(np.linspace(start, end, samples), self._times, self.memory)
        return [round(float(one), 1) for one in found]

    def _sample(self) -> None:
        now, memory, cpu = time.time(), 0, {}
        for pid in family(self._pid):
            with contextlib.suppress(OSError, IndexError):
                cpu[pid] = cpu_seconds(pid)
                memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        self._gone += sum(seconds for pid, seconds in self._last.items() if pid not in cpu)
        self._last = cpu
        self._times.append(now)
        self._cpu.append(sum(cpu.values()) + self._gone)
        self.memory.append(memory / 1e6)


def cpu_seconds(pid: int) -> float:
    """User and system time of one process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def family(pid: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                yield from family(int(child))


class Process:
    """A running contender."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self.started_at = time.time()
        self._child = Child(_with_environment(command, environment), log_file=log)
        self.pid = self._child.pid or 0
        self.watch = Watch(self.pid)
        self.watch.start()

    def check(self) -> None:
        """Raises RuntimeError if it has ended."""
        if self._child.pid is None:
            raise RuntimeError(f"it ended: {self.tail()}")

    def tail(self) -> str:
        """The last line of its log."""
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:160] if lines else "it printed nothing"

    def wait(self, timeout: float) -> None:
        """Wait until it ends by itself."""
        self._child.wait(timeout=timeout)

    def ask_to_stop(self) -> None:
        """Send SIGTERM without waiting."""
        os.kill(self.pid, signal.SIGTERM)

    def stop(self) -> None:
        """End it and everything it started."""
        self.watch.stop()
        self._child.terminate(timeout=_STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # it leads its own group


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[Process]:
    """A process that is ended on exit, whatever happens."""
    process = Process(command, environment, log)
    try:
        yield process
    finally:
        process.stop()


def _with_environment(command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The command run through env(1), without vitalstream's own settings and with the given ones."""
    unset = [f"--unset={name}" for name in os.environ if name.startswith(ENV_PREFIX)]
    given = [f"{name}={value}" for name, value in {**_ONE_THREAD, **environment}.items()]
    return ["/usr/bin/env", *unset, *given, *command]

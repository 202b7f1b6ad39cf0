"""Worker processes: started as a user starts them, watched through their log, always ended."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import orjson

from broker.options import OPTIONS
from broker.settings import Settings
from tests.kafka import is_running, wait_until

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0  # a busy machine imports slowly
END_S = 10.0  # what is promised after a signal


class Process:
    """A Python process in a session of its own, with its stdout and stderr in files."""

    def __init__(
        self, arguments: Sequence[str], *, folder: Path, name: str, environment: Mapping[str, str] = {}
    ) -> None:
        self._log = folder / f"{name}.log"
        self._out = folder / f"{name}.out"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("VITALSTREAM_")}
        with self._log.open("wb") as log, self._out.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**inherited, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def report(self) -> dict[str, Any]:
        """What --json printed."""
        report: dict[str, Any] = orjson.loads(self.out)
        return report

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def children(self) -> list[int]:
        """The worker processes of a pool."""
        mine = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [pid for pid in map(int, mine) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def logged(self, pattern: str, *, times: int = 1, timeout: float = START_S) -> Self:
        """Wait until the log matches `pattern` so many times; fail at once when the process ends before."""

        def there() -> bool:
            ended = self.code is not None  # asked first: what it logged at its end counts
            found = len(re.findall(pattern, self.log)) >= times
            assert found or not ended, f"ended with {self.code} before it logged {pattern!r}:\n{self.log}"
            return found

        try:
            wait_until(there, timeout=timeout, what=f"{pattern!r} in the log")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None
        return self

    def joined(self) -> Self:
        """Wait until it has partitions."""
        return self.logged(r"assigned partitions \d")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, *, timeout: float = END_S) -> int:
        """The exit code, within `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g} s:\n{self.log}") from None

    def stop(self) -> None:
        """SIGTERM; it must end well within 10 s."""
        self.signal(signal.SIGTERM)
        assert self.wait() == 0, self.log

    def kill(self) -> None:
        """Kill -9."""
        self.signal(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL, self.log

    def end(self) -> None:
        """End it and what it started, whatever state they are in."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # its own session: nobody else is in it
        self._process.wait(10)


def flags(settings: Settings, *, properties: Mapping[str, str] = {}) -> list[str]:
    """The command line for these settings, with `properties` unless the settings have others."""
    kafka = settings.kafka if "group.protocol" in settings.kafka else {**properties, **settings.kafka}
    options = []
    for name, option in OPTIONS.items():
        value = getattr(settings, name, None)
        if value is not None and value != option.default:
            options += [f"--{name.replace('_', '-')}", str(value)]
    return options + [part for name, value in kafka.items() for part in ("-X", f"{name}={value}")]


def gone(pids: Sequence[int]) -> Callable[[], bool]:
    """Whether none of these processes runs any more."""
    return lambda: not any(map(is_running, pids))

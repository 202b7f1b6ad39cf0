"""Worker processes: started as a user starts them, watched through their logs, always ended."""

import faulthandler
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Self

import orjson

from broker.options import OPTIONS
from broker.settings import Settings
from tests.kafka import is_running, wait_until

ROOT = Path(__file__).resolve().parents[2]
START_S = 120.0  # imports are slow on a busy machine
END_S = 10.0  # promised after a signal

# A fork server that has imported everything once saves each worker seconds.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "pytest", "sklearn.ensemble", "sklearn.impute", "sklearn.linear_model", "sklearn.pipeline",
        "vitalstream.cli", "vitalstream.work", "tests.consumer.dying", "tests.consumer.processes",
    ]
)  # fmt: skip


class Process:
    """A process in its own session, with stdout and stderr in files.

    It does not outlive the tests, even if they end by SIGKILL.
    """

    def __init__(self, pid: int, poll: Callable[[], int | None], files: Path, *, dumps: bool) -> None:
        self.pid = pid
        self._poll = poll
        self._dumps = dumps
        # ends the process when our end of its stdin closes
        self._guard: subprocess.Popen[bytes] | None = None
        self._log, self._out = files.with_suffix(".log"), files.with_suffix(".out")

    @classmethod
    def command(cls, arguments: Sequence[str], *, files: Path, environment: Mapping[str, str]) -> Self:
        """`python ARGUMENTS`."""
        with files.with_suffix(".log").open("wb") as log, files.with_suffix(".out").open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=_environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )
        made = cls(process.pid, process.poll, files, dumps=False)
        made._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read _; kill -9 "-$0"', str(process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return made

    @classmethod
    def fork(
        cls,
        main: Callable[[], None],
        arguments: Sequence[str],
        *,
        files: Path,
        environment: Mapping[str, str],
    ) -> Self:
        """`main` with `arguments` as its command line, in a process that has imported everything already."""
        for suffix in (".log", ".out"):
            files.with_suffix(suffix).touch()
        process = _SERVER.Process(
            target=_forked, args=(main, [*arguments], files, _environment(environment)), daemon=True
        )
        process.start()
        assert process.pid is not None
        return cls(process.pid, lambda: process.exitcode, files, dumps=True)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def report(self) -> dict[str, Any]:
        """What `--json` printed."""
        report: dict[str, Any] = orjson.loads(self.out)
        return report

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._poll()

    def children(self) -> list[int]:
        """The pids of a pool's worker processes."""
        mine = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [pid for pid in map(int, mine) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def logged(self, pattern: str, *, times: int = 1, timeout: float = START_S) -> Self:
        """Wait until the log matches `pattern` `times` times; fail at once if the process ends first."""

        def there() -> bool:
            ended = self.code is not None  # checked first, because what it logged at its end counts too
            found = len(re.findall(pattern, self.log)) >= times
            assert found or not ended, f"ended with {self.code} before it logged {pattern!r}:\n{self.log}"
            return found

        try:
            wait_until(there, timeout=timeout, what=f"{pattern!r} in the log")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None
        return self

    def joined(self) -> Self:
        """Wait until it has partitions assigned."""
        return self.logged(r"assigned partitions \d")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, *, timeout: float = END_S) -> int:
        """Wait up to `timeout` seconds for the exit code."""
        try:
            wait_until(lambda: self.code is not None, timeout=timeout, what=f"the end of {self.pid}")
        except AssertionError as error:
            self._dump_stacks()
            raise AssertionError(f"{error}\n{self.log}") from None
        assert self.code is not None
        return self.code

    def stop(self) -> None:
        """Send SIGTERM and wait for the end, which must come well within 10 s."""
        self.signal(signal.SIGTERM)
        assert self.wait() == 0, self.log

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.signal(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL, self.log

    def _dump_stacks(self) -> None:
        """Make a forked process write its threads' stacks to its log."""
        if self._dumps:
            self.signal(signal.SIGUSR2)
            with suppress(AssertionError):
                wait_until(lambda: "most recent call first" in self.log, timeout=2)

    def end(self) -> None:
        """End it and everything it started, whatever state they are in."""
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        if self.code is not None and is_running(self.pid):
            return  # already reaped, so somebody else may have its pid by now
        for kill in (os.kill, os.killpg):  # it leads its own session, so nobody else is in its group
            with suppress(ProcessLookupError):
                kill(self.pid, signal.SIGKILL)
        wait_until(lambda: self.code is not None, timeout=60, what=f"the end of killed process {self.pid}")


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("VITALSTREAM_") or name == "VITALSTREAM_NATIVE"
    }
    return {**kept, **changes}


def _forked(main: Callable[[], None], arguments: list[str], files: Path, environment: dict[str, str]) -> None:
    os.setsid()
    for descriptor, suffix in ((1, ".out"), (2, ".log")):
        os.dup2(os.open(files.with_suffix(suffix), os.O_WRONLY | os.O_APPEND), descriptor)
    faulthandler.register(signal.SIGUSR2, file=sys.stderr.fileno(), all_threads=True)
    threading.Thread(target=_end_with_the_tests, daemon=True).start()
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    sys.argv = ["vitalstream", *arguments]
    main()


def _end_with_the_tests() -> None:
    tests = multiprocessing.parent_process()
    assert tests is not None
    wait([tests.sentinel])
    os.killpg(0, signal.SIGKILL)


def flags(settings: Settings, *, properties: Mapping[str, str] = {}) -> list[str]:
    """The command line for these settings; `properties` are defaults for the settings' own."""
    kafka = settings.kafka if "group.protocol" in settings.kafka else {**properties, **settings.kafka}
    options = []
    for name, option in OPTIONS.items():
        value = getattr(settings, name, None)
        if value is not None and value != option.default:
            options += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return options + [part for name, value in kafka.items() for part in ("-X", f"{name}={value}")]


def gone(pids: Sequence[int]) -> Callable[[], bool]:
    """A check whether none of these processes is running any more."""
    return lambda: not any(map(is_running, pids))

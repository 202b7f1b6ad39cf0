"""A child process that never outlives this one, however this one dies."""

import contextlib
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path


class Child:
    """A running command whose output goes to a file. Ctrl-C in the terminal reaches only us.

    A shell waits on a pipe that only we hold, and kills the child once the pipe closes: the kernel closes it
    even after a kill -9. Linux's PR_SET_PDEATHSIG could do the same, but it fires when the starting *thread*
    ends.
    """

    def __init__(self, command: Sequence[str], *, log_file: Path) -> None:
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read _; kill -9 "$0"', str(self._process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int | None:
        """Its process id; None once it has ended."""
        return self._process.pid if self._process.poll() is None else None

    def wait(self, *, timeout: float | None = None) -> int:
        """Wait until it ends; its exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        code = self._process.wait(timeout)
        self._dismiss_guard()
        return code

    def terminate(self, *, timeout: float) -> None:
        """Ask it to exit (SIGTERM), and kill it after `timeout` seconds."""
        self._process.send_signal(signal.SIGTERM)  # does nothing once it has ended
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout=timeout)
        self.kill()

    def kill(self) -> None:
        """Kill it at once (kill -9)."""
        self._dismiss_guard()
        self._process.kill()
        self._process.wait()

    def _dismiss_guard(self) -> None:
        """End the guard with the child: it would later kill an unrelated process with a reused process id."""
        self._guard.kill()
        self._guard.communicate()

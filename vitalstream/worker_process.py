"""Runs `vitalstream consume` in a process of its own, for the demo and the sweep."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import orjson

from broker.errors import VitalstreamError
from broker.settings import ENV_PREFIX, Settings

_STOP_S: Final = 15.0  # a worker stops within 10
_TAIL: Final = 15  # lines


class WorkerError(VitalstreamError):
    """The worker exited early or with an error; `log` has its last lines."""

    def __init__(self, message: str, *, log: str) -> None:
        super().__init__(message)
        self.log = log


class WorkerProcess:
    """A running `vitalstream consume` with these settings, logging to a file in `directory`."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._log = directory / "worker.log"
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C in the terminal reaches only us, and we stop it.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "vitalstream", "consume"],
                env=_environment(settings, directory),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises WorkerError unless it runs."""
        code = self._process.poll()
        if code is not None:
            raise WorkerError(f"the worker exited with code {code}", log=self._tail())

    def stop(self) -> None:
        """Have it finish its current work and exit (SIGTERM); raises WorkerError if it fails."""
        self._process.terminate()
        try:
            code = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            message = f"the worker did not end within {_STOP_S:g} s of SIGTERM and was killed"
            raise WorkerError(message, log=self._tail()) from None
        # Before it handles signals, SIGTERM ends it, and it has begun nothing.
        if code not in (0, -signal.SIGTERM):
            raise WorkerError(f"the worker ended with code {code} when stopped", log=self._tail())

    def kill(self) -> None:
        """Kill it, if it still runs."""
        self._process.kill()
        self._process.wait()

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-_TAIL:])


def _environment(settings: Settings, directory: Path) -> dict[str, str]:
    """Pass settings in the environment: arguments would show passwords to everybody on this machine."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    given = settings.model_dump(mode="json", exclude_defaults=True)
    given["kafka"] = orjson.dumps(settings.kafka).decode()
    ours = {f"{ENV_PREFIX}{name.upper()}": str(value) for name, value in given.items()}
    return {**inherited, **ours, "TMPDIR": str(directory)}

"""Whether all workers of a pool are alive and ready, from what each reports to the parent process."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

from consumer.health import Health

TELL_S: Final = 1.0
SILENT_S: Final = 10.0
"""A worker that has reported nothing for this long is not ready: it is frozen, or a model holds the GIL."""

Verdict = tuple[str | None, str | None]
"""The answers of `Health.stalled` and `Health.unready`."""


@contextmanager
def telling(health: Health, parent: Connection | None) -> Iterator[None]:
    """Report `health` to the parent, if there is one, every second while the block runs."""
    if parent is None:
        yield
        return
    done = threading.Event()

    def tell() -> None:
        with suppress(OSError):  # the parent is gone, and this worker will end, too
            while True:
                parent.send((health.stalled(), health.unready()))
                if done.wait(TELL_S):
                    return

    teller = threading.Thread(target=tell, daemon=True, name="health")
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


@dataclass(frozen=True, slots=True)
class _Told:
    stalled: str | None = None
    unready: str | None = "it is starting"
    at: float | None = None  # None before the first report and after the last


_ENDED: Final = _Told(unready="its process has ended")
_STOPPING: Final = _Told(unready="it is being stopped")


class PoolHealth:
    """What a pool's probes answer: the first reason of each worker that is not alive, or not ready.

    Updated by the pool's thread, read by any other.
    """

    def __init__(
        self, workers: Sequence[str], *, stall_after: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._silent_s = max(stall_after, SILENT_S)
        self._clock = clock
        self._told = dict.fromkeys(workers, _Told())

    def stalled(self) -> str | None:
        """Why the process should be restarted, or None."""
        told = self._told.items()
        return _joined({name: one.stalled or self._silent(one, self._silent_s) for name, one in told})

    def unready(self) -> str | None:
        """Which workers are not working, and why; or None."""
        told = self._told.items()
        return _joined({name: one.unready or self._silent(one, SILENT_S) for name, one in told})

    def told(self, worker: str, verdict: Verdict) -> None:
        """A worker's report."""
        self._told[worker] = _Told(*verdict, self._clock())

    def ended(self, worker: str) -> None:
        """A worker's process is gone. The pool still counts as alive; it ends on its own if necessary."""
        self._told[worker] = _ENDED

    def stopping(self) -> None:
        """Ignore the workers' reports from here on."""
        self._told = {name: told if told is _ENDED else _STOPPING for name, told in self._told.items()}

    def _silent(self, told: _Told, seconds: float) -> str | None:
        silent = told.at is not None and self._clock() - told.at > seconds
        return f"it has reported nothing for more than {seconds:g} s" if silent else None


def _joined(reasons: Mapping[str, str | None]) -> str | None:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason) or None

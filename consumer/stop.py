"""Stops on request: signals only set a flag, which the worker checks between calls."""

import contextlib
import logging
import os
import queue
import signal
import socket
import threading
import time
from types import FrameType
from typing import Any

log = logging.getLogger("vitalstream.worker")

_STOPPING = (signal.SIGTERM, signal.SIGINT)
GRACE_S = 9.0  # a supervisor that waits 10 s still sees a clean exit


def end_when_asked() -> None:
    """Let SIGTERM and SIGINT end this process at once with exit code 0, while there is nothing to finish."""
    for number in _STOPPING:
        signal.signal(number, lambda *_: os._exit(0))
    Hangups.ignore()


class Hangups:
    """SIGHUP, with which an operator has the model checked again.

    In a terminal it still means that the terminal was closed, and ends the process.
    """

    def __init__(self) -> None:
        self._rung: queue.SimpleQueue[None] = queue.SimpleQueue()  # safe in a signal handler

    @staticmethod
    def ignore() -> None:
        """Ignore SIGHUP while there is no model to check, or nobody to do it."""
        _on_hangup(signal.SIG_IGN)

    def listen(self) -> None:
        """Take over SIGHUP of this process."""
        _on_hangup(lambda *_: self.ring())

    def ring(self) -> None:
        """The handler of SIGHUP."""
        self._rung.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait for a SIGHUP or the time-out; returns whether a signal came."""
        try:
            self._rung.get(timeout=seconds)
        except queue.Empty:
            return False
        return True


def _on_hangup(handler: Any) -> None:
    if not _has_terminal():
        signal.signal(signal.SIGHUP, handler)


def _has_terminal() -> bool:
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        return True
    return False


class Stop:
    """Whether the process was asked to stop, by SIGTERM, SIGINT or `request`."""

    def __init__(self) -> None:
        self.requested = False
        self._interrupts = 0

    def request(self) -> None:
        """Ask for a stop."""
        self.requested = True

    def listen(self, *, grace: bool = True) -> None:
        """Take over SIGTERM and SIGINT of this process; a second SIGINT ends it at once.

        With `grace`, a process that is not done `GRACE_S` after the first signal (a model that takes minutes,
        a broker that does not answer) is ended: for a worker nothing uncommitted becomes visible by that.
        """
        for number in _STOPPING:
            signal.signal(number, self._on_signal)
        if grace:
            self._watch_for_signals()

    def _watch_for_signals(self) -> None:
        # The interpreter writes here as soon as a signal arrives, even while a model computes in C.
        hear, tell = socket.socketpair()
        tell.setblocking(False)
        signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(hear, tell), daemon=True, name="stop").start()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                os._exit(1)

    def _watch(self, hear: socket.socket, _tell: socket.socket) -> None:
        # Interrupts are counted here, too: Python handles one only after the call that the main thread was just
        # about to make, which may wait for long.
        interrupts, ends = 0, None
        while ends is None or time.monotonic() < ends:
            try:
                number = hear.recv(1)[0]
            except TimeoutError:
                continue
            interrupts += number == signal.SIGINT
            if interrupts > 1:
                os._exit(1)
            if ends is None and number in _STOPPING:
                ends = time.monotonic() + GRACE_S
                hear.settimeout(0.1)
        log.warning(
            "still running %.0f s after the signal to stop; exiting, and uncommitted messages will be read again",
            GRACE_S,
        )
        os._exit(0)

"""The stall detector: logs once, with the stacks of all threads, where a worker hangs."""

import faulthandler
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from consumer.health import Health

log = logging.getLogger("vitalstream.worker")

CHECK_S = 1.0


@contextmanager
def watching(health: Health, *, stall_after: float, check: float = CHECK_S) -> Iterator[None]:
    """Check `health` every `check` seconds from a thread, while the block runs.

    A model that hangs in compiled code without releasing the GIL stops this thread, too. Then the standard
    library's own watchdog, which does not need the GIL, writes the stacks to stderr.
    """
    done = threading.Event()
    watch = threading.Thread(
        target=_watch, args=(health, done, stall_after, check), daemon=True, name="stalls"
    )
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()
        faulthandler.cancel_dump_traceback_later()


def _watch(health: Health, done: threading.Event, stall_after: float, check: float) -> None:
    before: str | None = None
    told = False
    _expect_to_be_back(stall_after + 2 * check)
    while not done.wait(check):
        _expect_to_be_back(stall_after + 2 * check)
        reason = health.stalled()
        # Seen twice, because the loop needs a moment to beat again after the whole process was paused.
        if reason and before and not told:
            log.error("stalled: %s; the threads are at\n%s", reason, stacks())
            told = True
        elif told and not reason:
            log.warning("running again after a stall")
            told = False
        before = reason


def _expect_to_be_back(seconds: float) -> None:
    """Have the watchdog write the stacks unless called again within `seconds`."""
    faulthandler.dump_traceback_later(seconds, file=sys.__stderr__ or sys.stderr)


def stacks() -> str:
    """Every thread's stack: file, line and function, innermost last; no variables or source text."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(ident, ident)}:\n{_stack(frame)}"
        for ident, frame in sys._current_frames().items()
    )


def _stack(frame: object) -> str:
    summary = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)  # type: ignore[arg-type]
    return "\n".join(f"  {one.filename}:{one.lineno} {one.name}" for one in reversed(summary))

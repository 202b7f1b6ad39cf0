"""Passes librdkafka's log lines to Python's logging, at a limited rate.

A client that can't reach a broker logs it twenty times a second. One line of each kind every ten seconds is enough,
with the number of lines left out.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from typing_extensions import override

INTERVAL_S: Final = 10.0


def kafka_logger(name: str) -> logging.Logger:
    """The logger `name`, for a client's `logger=`, with at most one line of each kind per `INTERVAL_S`."""
    logger = logging.getLogger(name)
    if not any(isinstance(one, Throttle) for one in logger.filters):
        logger.addFilter(Throttle())
    return logger


class Throttle(logging.Filter):
    """Passes one line of each kind per interval. librdkafka begins a line with its kind, such as FAIL."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._next: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to pass the line; if so, adds the number of lines left out before it."""
        text = record.getMessage()
        kind, _, _ = text.partition(" ")
        # The coordinator of a newly started broker is busy for a moment; the client retries by itself.
        if record.levelno < logging.WARNING or text.endswith("retrying"):
            return False
        now = self._clock()
        if now < self._next.get(kind, now):
            self._left_out[kind] += 1
            return False
        self._next[kind] = now + INTERVAL_S
        if left_out := self._left_out.pop(kind, 0):
            record.msg, record.args = f"{text} (and {left_out} more like it)", ()
        return True

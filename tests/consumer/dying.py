"""A worker that kills itself at a given step of a chunk."""

import os
import signal
import sys

from broker.settings import Settings
from consumer.observer import LogObserver, Observer, Observers, Step
from consumer.run import run_worker
from vitalstream.logs import log_to_stderr


class Killer(Observer):
    def __init__(self, step: Step, times: int) -> None:
        self._step = step
        self._left = times

    def reached(self, step: Step) -> None:
        self._left -= step is self._step
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Arguments: STEP TIMES SETTINGS, the last as JSON."""
    step, times, text = sys.argv[1:]
    settings = Settings.model_validate_json(text)
    log_to_stderr(settings.log_format)
    run_worker(
        settings,
        observer=Observers(LogObserver(), Killer(Step(step), int(times))),
        should_stop=lambda: False,
    )

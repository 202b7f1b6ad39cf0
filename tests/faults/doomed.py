"""A worker as users run it, with something in it that fails on purpose."""

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from broker.errors import VitalstreamError
from broker.settings import Settings
from consumer.observer import Observer, Step
from consumer.stop import Stop, end_when_asked
from tests.faults.guards import switch_off
from vitalstream.work import work

log = logging.getLogger("vitalstream.faults")


class Doom(BaseModel):
    """What befalls a worker: a signal to itself at the n-th pass of a step, and guards that are missing."""

    model_config = ConfigDict(frozen=True)

    step: Step | None = None
    passes: int = 1
    signal: Literal["SIGKILL", "SIGSTOP"] = "SIGKILL"
    cue: Path | None = (
        None  # nothing happens before this file is there; it happens once for each time it is made
    )
    without: str = ""  # the guard to switch off
    clock: Path | None = None  # a file with the seconds that the wall clock is off


class Fate(Observer):
    """Carries out a doom, and tells the log of what the suite counts."""

    def __init__(self, doom: Doom) -> None:
        self._doom = doom
        self._left = doom.passes

    def reached(self, step: Step) -> None:
        if step is not self._doom.step or not self._cued():
            return
        self._left -= 1
        if self._left == 0:
            if self._doom.cue is not None:
                self._doom.cue.unlink()
                self._left = self._doom.passes
            os.kill(os.getpid(), signal.Signals[self._doom.signal])

    def _cued(self) -> bool:
        return self._doom.cue is None or self._doom.cue.exists()

    def renewed(self) -> None:
        log.warning("renewed the producer")


def disturb_clock(off_by: Path) -> None:
    """From now on the wall clock is off by as many seconds as the file says, whenever it is read."""
    truth = time.time
    time.time = lambda: truth() + float(off_by.read_text())


def main() -> None:
    """Arguments: a Doom and Settings, both as JSON."""
    doom, settings = Doom.model_validate_json(sys.argv[1]), Settings.model_validate_json(sys.argv[2])
    if doom.without:
        switch_off(doom.without)
    if doom.clock is not None:
        disturb_clock(doom.clock)
    end_when_asked()
    try:
        work(settings, Stop(), Fate(doom))
    except VitalstreamError as error:
        sys.stderr.write(f"vitalstream: {error}\n")
        sys.exit(error.exit_code)

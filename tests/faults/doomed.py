"""A worker as users run it, except that something in it fails on purpose."""

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Literal

from confluent_kafka import IsolationLevel
from pydantic import BaseModel, ConfigDict

from broker.errors import VitalstreamError
from broker.settings import Settings
from consumer.observer import Observer, Step
from consumer.stop import Stop, end_when_asked
from tests.consumer.accounts import end_offsets
from tests.faults.guards import switch_off
from tests.kafka import wait_until
from vitalstream.work import work

log = logging.getLogger("vitalstream.faults")


class Doom(BaseModel):
    """What happens to a worker: it signals itself on the n-th pass of a step, or some guard is missing."""

    model_config = ConfigDict(frozen=True)

    step: Step | None = None
    passes: int = 1
    signal: Literal["SIGKILL", "SIGSTOP"] = "SIGKILL"
    seen: bool = False  # wait until the brokers have seen part of the transaction
    cue: Path | None = None  # wait for this file; each time it appears, the signal is sent once
    without: str = ""  # the guard to switch off
    clock: Path | None = None  # a file that holds the wall clock's error in seconds


class Fate(Observer):
    """Carries out a doom, and logs what the suite counts."""

    def __init__(self, doom: Doom, settings: Settings) -> None:
        self._doom = doom
        self._settings = settings
        self._left = doom.passes

    def reached(self, step: Step) -> None:
        if step is not self._doom.step or not self._cued():
            return
        self._left -= 1
        if self._left == 0:
            if self._doom.cue is not None:
                self._doom.cue.unlink()
                self._left = self._doom.passes
            if self._doom.seen:
                wait_until(self._is_seen, timeout=60, what="an open transaction at the brokers")
            os.kill(os.getpid(), signal.Signals[self._doom.signal])

    def _cued(self) -> bool:
        return self._doom.cue is None or self._doom.cue.exists()

    def _is_seen(self) -> bool:
        settings, topic = self._settings, self._settings.output_topic
        stable = end_offsets(settings, topic, isolation=IsolationLevel.READ_COMMITTED)
        return end_offsets(settings, topic) != stable

    def renewed(self) -> None:
        log.warning("renewed the producer")


def disturb_clock(off_by: Path) -> None:
    """From now on, the wall clock is off by the number of seconds in the file, which is read each time."""
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
        work(settings, Stop(), Fate(doom, settings))
    except VitalstreamError as error:
        sys.stderr.write(f"vitalstream: {error}\n")
        sys.exit(error.exit_code)

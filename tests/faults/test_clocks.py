"""The wall clock of a worker's host jumps; durations must be measured by another clock.

Python's clock is the one that jumps here. libfaketime, which moves every clock of a process, breaks
librdkafka's timers in ways that a real jump does not.
"""

import time
from pathlib import Path

import pytest

from tests.faults.conftest import Begin
from tests.faults.doomed import Doom
from tests.faults.load import Records

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(600)]

HOUR, DAY = 3600.0, 86400.0
JUMPS = (HOUR, -HOUR, 0.0, -DAY, 30 * DAY, 0.0)


def test_the_clock_jumps(begin: Begin, records: Records, tmp_path: Path) -> None:
    trial = begin("clock of a worker jumps")
    off_by = tmp_path / "off-by"
    off_by.write_text("0")
    workers = [trial.worker(Doom(clock=off_by)).joined() for _ in range(2)]
    trial.load(records, rate=500)
    for jump in JUMPS:
        trial.progressed(500)
        new = tmp_path / "new"
        new.write_text(str(jump))
        new.rename(off_by)
        setback = trial.note_fault()
        time.sleep(trial.random.uniform(1.5, 3))
        trial.recovered(setback)
    assert all(worker.code is None for worker in workers), trial.log
    trial.finish()

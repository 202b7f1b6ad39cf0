"""The wall clock of a worker's host jumps; what must take its time goes by another one."""

import time
from pathlib import Path

import pytest

from tests.faults.conftest import Begin
from tests.faults.load import Records

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(600)]

LIBRARIES = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
JUMPS = ("+1h", "-1h", "+0", "-1d", "+30d", "+0")


@pytest.mark.skipif(not LIBRARIES, reason="needs libfaketime (Debian: apt install libfaketime)")
def test_the_clock_jumps(begin: Begin, records: Records, tmp_path: Path) -> None:
    trial = begin("clock of a worker jumps")
    now = tmp_path / "now"
    now.write_text("+0")
    faked = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(now),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    workers = [trial.worker(environment=faked, fork=False).joined() for _ in range(2)]
    trial.load(records, rate=500)
    for jump in JUMPS:
        trial.progressed(500)
        now.write_text(jump)
        setback = trial.note_fault()
        time.sleep(trial.random.uniform(1.5, 3))
        trial.recovered(setback)
    assert all(worker.code is None for worker in workers), trial.log
    trial.finish()

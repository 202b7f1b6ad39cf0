"""A worker as a process of the demo's and the sweep's."""

from pathlib import Path

from broker.settings import Settings
from vitalstream.worker_process import WorkerProcess


def test_one_that_is_stopped_before_it_listens_to_signals_has_ended_as_it_should(tmp_path: Path) -> None:
    WorkerProcess(Settings(), tmp_path).stop()

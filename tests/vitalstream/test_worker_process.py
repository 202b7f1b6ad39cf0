"""A worker as a process of the demo and the sweep."""

from pathlib import Path

from broker.settings import Settings
from vitalstream.worker_process import WorkerProcess


def test_a_worker_stopped_before_it_handles_signals_counts_as_stopped(tmp_path: Path) -> None:
    WorkerProcess(Settings(), tmp_path).stop()

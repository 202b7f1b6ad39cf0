"""The broker's disk is full for a while."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.local import LocalKafka
from tests.faults.conftest import HURT, Begin
from tests.faults.load import Records
from tests.kafka import KAFKA_VERSION

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(900)]

SIZE_MB = 400


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small file system in memory."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs permission to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def broker(small_disk: Path) -> Iterator[LocalKafka]:
    """A broker on the small disk. Its segments are small, because it notices a full disk when it creates one."""
    small = {"log.segment.bytes": "1048576", "log.index.size.max.bytes": "1048576"}
    with LocalKafka(
        data_dir=small_disk, fast_start=True, version=KAFKA_VERSION, overrides={**HURT, **small}
    ) as made:
        yield made


@pytest.fixture(scope="module")
def kafka(broker: LocalKafka) -> str:
    return broker.bootstrap_servers


def fill(folder: Path) -> Path:
    """Fill the disk; returns the file to remove."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError:
            return filler


def test_the_disk_is_full(begin: Begin, records: Records, broker: LocalKafka, small_disk: Path) -> None:
    trial = begin("disk of the broker full, broker ends, started again")
    trial.load(records, rate=1000)
    for _ in range(2):
        trial.worker().joined()
    for _ in range(2):
        trial.progressed(1000)
        setback = trial.note_fault()
        filler = fill(small_disk)
        broker.wait(timeout=120)  # its only log directory failed, so Kafka ends itself
        filler.unlink()
        broker.kill()
        broker.start()
        trial.recovered(setback)
    assert all(worker.code is None for worker in trial.workers), trial.log
    trial.finish()

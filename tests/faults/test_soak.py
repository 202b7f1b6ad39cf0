"""Hours of load with a fault every ten seconds: nothing lost, nothing doubled, nothing that grows."""

import signal
import time
from pathlib import Path

import pytest

from broker.local import LocalKafka
from tests.conftest import _tell
from tests.consumer.processes import Process
from tests.faults.conftest import Begin
from tests.faults.load import Records
from tests.faults.proxy import Proxy
from tests.faults.test_brokers import frozen, killed
from tests.faults.trial import Trial
from tests.kafka import is_running

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(0)]

EVERY_S = 10.0
WARM_S = 60.0
MAY_GROW_MB, MAY_GROW_FILES = 100, 30


class Cast:
    """Two workers that faults may hit, and one that lives through everything else."""

    def __init__(self, trial: Trial, proxy: Proxy, broker: LocalKafka) -> None:
        self._trial = trial
        self._proxy = proxy
        self._broker = broker
        self._hurt = [self._start(str(number)) for number in range(2)]
        self.survivor = self._start("survivor")

    def _start(self, name: str) -> Process:
        return self._trial.worker(instance=name, bootstrap_servers=self._proxy.bootstrap_servers)

    def kill_worker(self) -> None:
        number = self._trial.random.randrange(2)
        if is_running(self._hurt[number].pid):
            self._hurt[number].kill()
        self._hurt[number] = self._start(str(number))

    def freeze_worker(self) -> None:
        worker = self._hurt[self._trial.random.randrange(2)]
        worker.signal(signal.SIGSTOP)
        time.sleep(5)
        worker.signal(signal.SIGCONT)

    def cut_connections(self) -> None:
        self._proxy.cut()

    def freeze_broker(self) -> None:
        frozen(self._trial.random.uniform(0.5, 5))(self._broker)

    def kill_broker(self) -> None:
        killed(self._broker)


def footprint(pid: int) -> tuple[float, int]:
    """Resident memory in MB, and open files."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6, len([*Path(f"/proc/{pid}/fd").iterdir()])


def test_soak(
    begin: Begin, records: Records, proxy: Proxy, broker: LocalKafka, request: pytest.FixtureRequest
) -> None:
    until = time.monotonic() + request.config.getoption("--hours") * 3600
    trial = begin("soak, a fault every 10 s", chunk_size=200)
    cast = Cast(trial, proxy, broker)
    cast.survivor.joined()
    trial.load(records, rate=request.config.getoption("--rate"))
    trial.progressed(1000)
    faults = [cast.kill_worker, cast.freeze_worker, cast.cut_connections, cast.freeze_broker]
    warm = time.monotonic() + WARM_S
    before: tuple[float, int] | None = None
    while time.monotonic() < until:
        time.sleep(EVERY_S)
        trial.note_fault()
        trial.random.choices([*faults, cast.kill_broker], weights=[4, 2, 4, 2, 1])[0]()
        if before is None and time.monotonic() > warm:
            before = footprint(cast.survivor.pid)
    assert cast.survivor.code is None, cast.survivor.log
    after = footprint(cast.survivor.pid)
    trial.finish()
    if before is not None:
        _tell(
            request.config,
            f"soak: of the worker that lived, MB and files at first and at last: {before}, {after}",
        )
        assert after[0] - before[0] < MAY_GROW_MB, f"memory grew: {before} to {after}"
        assert after[1] - before[1] < MAY_GROW_FILES, f"descriptors grew: {before} to {after}"

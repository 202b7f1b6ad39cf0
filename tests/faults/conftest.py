"""The suite's own broker, which may be hurt, and trials on it; seeds, and the table at the end."""

import random
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Protocol

import pytest

from broker.errors import BrokerError
from broker.local import LocalKafka
from tests.conftest import MakeSettings, _tell
from tests.consumer.conftest import models, patient_rows, vitals_file
from tests.consumer.stage import Stage
from tests.faults.ledger import Ledger
from tests.faults.load import Records, soiled
from tests.faults.trial import Trial

__all__ = ["models", "vitals_file"]

# A dead worker is missed after this long. The least a broker takes by default is 6 s; ours takes 1 s.
SESSION = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "400"}
KIP_848 = {"group.consumer.session.timeout.ms": "2000", "group.consumer.heartbeat.interval.ms": "400"}

LEDGER = pytest.StashKey[Ledger]()
SMALL_SEED = 1


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--faults", action="store_true", help="all faults, not only the small set")
    group.addoption("--seed", type=int, default=None, help="of the schedules; default: random, and printed")
    group.addoption("--hours", type=float, default=0.05, help="how long to soak")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: long; runs with `make faults`")
    everything = config.getoption("--faults", default=False)
    seed = config.getoption("--seed", default=None)
    if seed is None:
        seed = random.randrange(1 << 31) if everything else SMALL_SEED
    config.stash[LEDGER] = Ledger(seed)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--faults", default=False):
        return
    long = [item for item in items if item.get_closest_marker("faults")]
    items[:] = [item for item in items if item not in long]
    config.hook.pytest_deselected(items=long)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    ledger = config.stash[LEDGER]
    lines = [*ledger.table()]
    if lines:
        terminalreporter.section(f"faults, seed {ledger.seed}")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[LocalKafka]:
    """A broker that belongs to this suite."""
    made = LocalKafka(fast_start=True, overrides=KIP_848)
    try:
        made.start()
    except BrokerError as error:
        pytest.skip(f"faults need a broker that may be killed: {error}")
    _tell(request.config, f"faults: seed {request.config.stash[LEDGER].seed}")
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def kafka(broker: LocalKafka) -> str:
    """Where it listens, for the fixtures that make topics."""
    return broker.bootstrap_servers


@pytest.fixture(scope="session")
def records() -> Records:
    """Patients' rows, some of them spoilt."""
    return soiled([*patient_rows(20_000)])


@pytest.fixture
def seeded(request: pytest.FixtureRequest) -> Random:
    """Chance, the same with the same seed for each test by itself."""
    return Random(f"{request.config.stash[LEDGER].seed} {request.node.name}")


class Begin(Protocol):
    """Begins a trial of a fault, with settings of its own."""

    def __call__(self, fault: str, **settings: Any) -> Trial: ...


@pytest.fixture
def begin(
    broker: LocalKafka,
    tmp_path: Path,
    make_settings: MakeSettings,
    models: dict[str, Path],
    seeded: Random,
    request: pytest.FixtureRequest,
) -> Iterator[Begin]:
    """Trials; all that runs in them is ended with the test."""
    broker.start()  # a test before may have left it dead
    stage = Stage(tmp_path, make_settings=make_settings, models=models, properties={})
    trials: list[Trial] = []

    def make(fault: str, *, session: dict[str, str] = SESSION, **changes: Any) -> Trial:
        kafka = changes.pop("properties", {})
        properties = kafka if "group.protocol" in kafka else {**session, **kafka}
        settings = stage.settings(properties=properties, **changes)
        entry = request.config.stash[LEDGER].entry(fault)
        trial = Trial(stage, settings, entry=entry, random=seeded, folder=tmp_path)
        trials.append(trial)
        return trial

    try:
        yield make
    finally:
        for trial in trials:
            trial.end()
        stage.end()

"""The suite's own broker, which tests may break, and trials on it; seeds, and the table at the end."""

import random
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Protocol

import pytest

from broker.local import LocalKafka, free_port
from tests.conftest import MakeSettings, _tell
from tests.consumer.conftest import models, patient_rows, save
from tests.consumer.stage import Stage
from tests.faults.ledger import Entry, Ledger
from tests.faults.load import Records, soiled
from tests.faults.models import Erratic
from tests.faults.proxy import Proxy
from tests.faults.trial import Trial
from tests.kafka import KAFKA_VERSION

__all__ = ["models"]

# How soon a dead worker is noticed. A broker's default minimum is 6 s; ours allows 1 s.
SESSION = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "400"}
HURT = {
    "group.consumer.session.timeout.ms": "2000",
    "group.consumer.heartbeat.interval.ms": "400",
}

LEDGER = pytest.StashKey[Ledger]()
SMALL_SEED = 1


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--faults", action="store_true", help="run all faults, not only the small set")
    group.addoption(
        "--seed", type=int, default=None, help="seed of the schedules; default: random and printed"
    )
    group.addoption("--hours", type=float, default=0.05, help="how long the soak test runs")
    group.addoption("--rate", type=float, default=1000, help="messages per second in the soak test")


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
def hurt(request: pytest.FixtureRequest) -> Iterator[tuple[LocalKafka, Proxy]]:
    """A broker of the suite's own, and a proxy that it advertises as its address."""
    port, behind, controller = free_port(), free_port(), free_port()
    with (
        Proxy(behind) as proxy,
        LocalKafka(
            port=port,
            fast_start=True,
            version=KAFKA_VERSION,
            overrides={
                **HURT,
                "controller.quorum.voters": f"1@127.0.0.1:{controller}",
                "listeners": f"PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind},"
                f"CONTROLLER://127.0.0.1:{controller}",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},PROXIED://{proxy.bootstrap_servers}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name": "PLAINTEXT",
            },
        ) as broker,
    ):
        _tell(request.config, f"faults: seed {request.config.stash[LEDGER].seed}")
        yield broker, proxy


@pytest.fixture(scope="session")
def broker(hurt: tuple[LocalKafka, Proxy]) -> LocalKafka:
    """The suite's broker."""
    return hurt[0]


@pytest.fixture
def proxy(hurt: tuple[LocalKafka, Proxy]) -> Iterator[Proxy]:
    """The proxy between the broker and workers whose `bootstrap_servers` point to it."""
    yield hurt[1]
    hurt[1].reset()


@pytest.fixture(scope="session")
def kafka(broker: LocalKafka) -> str:
    """The broker's address, for the fixtures that create topics."""
    return broker.bootstrap_servers


@pytest.fixture(scope="session")
def records() -> Records:
    """Patients' rows, some of them invalid."""
    return soiled([*patient_rows(20_000)])


@pytest.fixture
def seeded(request: pytest.FixtureRequest) -> Random:
    """A random generator that depends only on the seed and the test's name."""
    return Random(f"{request.config.stash[LEDGER].seed} {request.node.name}")


class Begin(Protocol):
    """Begins a trial of a fault, with its own settings."""

    def __call__(
        self, fault: str, *, session: dict[str, str] = SESSION, recorded: bool = True, **settings: Any
    ) -> Trial: ...


@pytest.fixture(scope="session")
def all_models(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The consumer tests' models, and one that fails in many ways."""
    path = tmp_path_factory.mktemp("models") / "erratic.joblib"
    return {**models, "erratic": save(Erratic(), path)}


@pytest.fixture
def stage(
    broker: LocalKafka, tmp_path: Path, make_settings: MakeSettings, all_models: dict[str, Path]
) -> Iterator[Stage]:
    """Processes that end with the test, on a broker that is running, whatever an earlier test did to it."""
    broker.start()
    made = Stage(tmp_path, make_settings=make_settings, models=all_models, properties={})
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def begin(stage: Stage, seeded: Random, request: pytest.FixtureRequest) -> Iterator[Begin]:
    """Makes trials; everything running in them ends with the test."""
    trials: list[Trial] = []

    def make(
        fault: str, *, session: dict[str, str] = SESSION, recorded: bool = True, **changes: Any
    ) -> Trial:
        kafka = changes.pop("properties", {})
        properties = kafka if "group.protocol" in kafka else {**session, **kafka}
        settings = stage.settings(properties=properties, **changes)
        entry = request.config.stash[LEDGER].entry(fault) if recorded else Entry(fault)
        trials.append(Trial(stage, settings, entry=entry, random=seeded))
        return trials[-1]

    try:
        yield make
    finally:
        for trial in trials:
            trial.end()

"""A secured Kafka for the session, a model, and commands run as their users would run them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import joblib
import orjson
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from broker.errors import BrokerError
from broker.settings import ENV_PREFIX, Settings, is_secret
from broker.topics import create_topics
from real_time.history import PatientHistory
from real_time.model_file import pin_model
from tests.conftest import fresh_settings
from tests.consumer.models import Fragile
from tests.consumer.processes import Process
from tests.security.secured import SecuredKafka
from vitalstream import cli


class Run(Protocol):
    """Starts a `vitalstream` command with its settings in the environment and passwords in files."""

    def __call__(self, settings: Settings, *command: str) -> Process: ...


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """A broker with TLS, SCRAM and ACLs. It needs Java and Maven, whatever the other tests run on."""
    broker = SecuredKafka(tmp_path_factory.mktemp("secured"))
    try:
        broker.start()
    except BrokerError as error:
        pytest.skip(str(error))
    try:
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def kafka(secured: SecuredKafka) -> str:
    """Where the secured broker's administrator connects, for the fixtures that create topics."""
    return secured.bootstrap_servers


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pinned model."""
    path = tmp_path_factory.mktemp("model") / "fragile.joblib"
    joblib.dump(Fragile(), path)
    pin_model(path)
    return path


@pytest.fixture(scope="session")
def history_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pinned model that starts with a history."""
    rows = pd.DataFrame(
        {"patient_id": "p", "event_time": pd.date_range("2026-01-01", periods=20, freq="h"), "spo2": 98.0}
    )
    history = PatientHistory(delta=False)
    path = tmp_path_factory.mktemp("model") / "history.joblib"
    joblib.dump(make_pipeline(history, LogisticRegression()).fit(rows, [0, 1] * 10), path)
    pin_model(path)
    return path


@pytest.fixture(scope="module")
def module_settings(kafka: str) -> Settings:
    """The administrator's settings, with topics and a group for one module's tests."""
    settings = fresh_settings(kafka)
    create_topics(settings, partitions=2, replication_factor=1)
    return settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Starts `vitalstream` commands with the given settings, and ends whatever is left of them."""
    folder = tmp_path_factory.mktemp("processes")
    processes: list[Process] = []

    def start(settings: Settings, *command: str) -> Process:
        files = folder / f"process-{len(processes)}"
        environment = _in_the_environment(settings, files.with_suffix(".secrets"))
        processes.append(Process.fork(cli.main, command, files=files, environment=environment))
        return processes[-1]

    yield start
    for process in processes:
        process.end()


def _in_the_environment(settings: Settings, folder: Path) -> dict[str, str]:
    """The settings as environment variables that every command accepts; secrets are in files in `folder`."""
    folder.mkdir()
    kafka = dict(settings.kafka)
    for name in filter(is_secret, settings.kafka):
        (folder / name).write_text(kafka.pop(name) + "\n")
    given = settings.model_dump(mode="json", exclude_defaults=True)
    given |= {"secrets_dir": str(folder), "kafka": orjson.dumps(kafka).decode()}
    return {f"{ENV_PREFIX}{name.upper()}": str(value) for name, value in given.items()}

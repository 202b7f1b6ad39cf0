"""A clean run of the real worker, made once; each test gets its output to spoil."""

import uuid
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pandas as pd
import pytest
from confluent_kafka import Producer
from sklearn.ensemble import HistGradientBoostingClassifier

from broker.settings import Settings
from broker.topics import create_topics
from consumer.observer import Observer
from consumer.run import run_worker
from real_time import pin_model
from tests.audit.models import REFUSED, UNKNOWN, Moody
from tests.audit.topics import Written, written
from tests.conftest import fresh_settings
from tests.kafka import produce

FEATURES = ["heart_rate", "spo2", "temperature"]
ROWS = 300


def save(model: Any, path: Path) -> Path:
    """Write and pin a model."""
    joblib.dump(model, path)
    pin_model(path)
    return path


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A boosted model, whose scores are bit for bit the same however many rows are scored."""
    random = np.random.default_rng(1)
    X = pd.DataFrame(random.normal([85, 96, 37], [20, 3, 1], size=(500, 3)), columns=FEATURES)
    y = (X["heart_rate"] + random.normal(0, 20, 500) > 95).astype(int)
    model = HistGradientBoostingClassifier(max_iter=15, random_state=0).fit(X, y)
    return save(model, tmp_path_factory.mktemp("model") / "tree.joblib")


@pytest.fixture(scope="session")
def moody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hand-written model."""
    return save(Moody(), tmp_path_factory.mktemp("model") / "moody.joblib")


def messages(count: int, *, first: int = 0) -> Iterator[tuple[str, bytes]]:
    """Vitals of twelve patients, with gaps, artefacts, and some that can't be scored."""
    random = np.random.default_rng(first)
    for number in range(first, first + count):
        rate, spo2, temperature = random.normal([85, 96, 37], [20, 3, 1]).round(1).tolist()
        document: dict[str, Any] = {
            "patient_id": f"p{number % 12}",
            "event_time": "2026-01-05T08:30:00Z",
            "heart_rate": rate,
            "spo2": min(spo2, 100) if number % 7 else None,
            "temperature": -17.8 if number % 31 == 5 else temperature,
        }
        if number % 37 == 9:
            document["heart_rate"] = UNKNOWN if number % 2 else REFUSED
        if number % 41 == 11:
            document["spo2"] = "97"
        if number % 43 == 13:
            del document["event_time"]
        yield f"p{number % 12}", b"{" if number % 47 == 17 else orjson.dumps(document)


def work(settings: Settings) -> None:
    """Let a worker score everything there is."""
    settings = settings.model_copy(update={"chunk_size": 16, "until_idle": 1.0})
    run_worker(settings, observer=Observer(), should_stop=lambda: False)


@pytest.fixture(scope="session")
def worked(kafka: str) -> Callable[[Path], Written]:
    """What the real worker writes with a model, made once per model."""
    made: dict[Path, Written] = {}

    def make(model: Path) -> Written:
        if model not in made:
            settings = fresh_settings(kafka, model=model)
            create_topics(settings, partitions=4, replication_factor=1)
            produce(kafka, settings.input_topic, messages(ROWS))
            work(settings)
            made[model] = written(settings)
        return deepcopy(made[model])

    return make


@pytest.fixture
def clean(worked: Callable[[Path], Written], tree: Path) -> Written:
    """What the worker wrote with the boosted model."""
    return worked(tree)


@pytest.fixture
def transactional(kafka: str) -> Producer:
    """A producer that is ready to begin a transaction."""
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": f"audit-{uuid.uuid4()}"})
    producer.init_transactions(30)
    return producer

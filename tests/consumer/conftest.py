"""Models, rows and worker processes for the end-to-end tests."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pandas as pd
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from producer.physionet import FORMATS
from producer.sources import find_source
from producer.ward import Ward, record
from real_time.history import PatientHistory, Window
from real_time.model_file import pin_model
from schemas.contract import STANDARD_FEATURES
from tests.conftest import MakeSettings
from tests.consumer.models import Fragile
from tests.consumer.processes import ROOT
from tests.consumer.stage import Stage

SITE_B = ROOT.parent / "shared" / "data" / "physionet2019_site_b.parquet"
TRAINING_ROWS = 20_000
SESSION_MS = 3000  # how soon a killed worker's partitions are reassigned


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pinned model files by name: two fitted to patient data, two written by hand."""
    folder = tmp_path_factory.mktemp("models")
    X, y = _training_data()
    made = {
        "boosting": HistGradientBoostingClassifier(max_iter=30, random_state=0).fit(X, y),
        "logistic": make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(X, y),
        "fragile": Fragile(),
        "fragile_vitals": Fragile(("heart_rate", "spo2")),
        "history": _with_history(),
    }
    return {name: save(model, folder / f"{name}.joblib") for name, model in made.items()}


def save(model: Any, path: Path) -> Path:
    """Write and pin a model."""
    joblib.dump(model, path)
    pin_model(path)
    return path


def patient_rows(count: int) -> Iterator[dict[str, Any]]:
    """Rows from real ICU stays, hour by hour, or simulated ones if the data is missing."""
    if SITE_B.is_file():
        return islice(iter(find_source([SITE_B], FORMATS["physionet2019"])), count)
    readings = Ward(patients=500, seed=3).readings(datetime(2026, 1, 1, tzinfo=UTC), 3600)
    return map(record, islice(readings, count))


@pytest.fixture(scope="session")
def vitals_file(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments for `vitalstream replay`: the real file, or a simulated one if the data is missing."""
    if SITE_B.is_file():
        return [str(SITE_B), "--format", "physionet2019"]
    path = tmp_path_factory.mktemp("vitals") / "simulated.ndjson"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in patient_rows(50_000)))
    return [str(path)]


def _with_history() -> Any:
    stays = pd.DataFrame(patient_rows(5_000))[["patient_id", "event_time", *STANDARD_FEATURES]]
    stays = stays.astype(dict.fromkeys(STANDARD_FEATURES, "float64"))
    history = PatientHistory(windows=[Window("6h", of=("min", "max", "count"))])
    model = make_pipeline(history, HistGradientBoostingClassifier(max_iter=20, random_state=0))
    return model.fit(stays, (stays["heart_rate"] > 90).astype(int))


def _training_data() -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    X = pd.DataFrame(patient_rows(TRAINING_ROWS))[list(STANDARD_FEATURES)].astype("float64")
    shock = (X["heart_rate"] / X["systolic_bp"]).fillna(0.7)
    return X, (shock + np.random.default_rng(0).normal(0, 0.1, len(X)) > 0.8).astype(int).to_numpy()


@pytest.fixture(scope="session")
def short_session(kafka: str) -> dict[str, str]:
    """The shortest session timeout the broker allows, `SESSION_MS` or longer."""
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    node = str(min(admin.list_topics(timeout=10).brokers))
    (answer,) = admin.describe_configs([ConfigResource(ConfigResource.Type.BROKER, node)]).values()
    least = int(answer.result(10)["group.min.session.timeout.ms"].value)
    session = max(SESSION_MS, least)
    return {"session.timeout.ms": str(session), "heartbeat.interval.ms": str(session // 6)}


@pytest.fixture
def stage(
    tmp_path: Path, make_settings: MakeSettings, models: dict[str, Path], short_session: dict[str, str]
) -> Iterator[Stage]:
    """Topics, models, worker processes and their progress. Everything ends with the test."""
    made = Stage(tmp_path, make_settings=make_settings, models=models, properties=short_session)
    try:
        yield made
    finally:
        made.end()

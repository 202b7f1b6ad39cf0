"""`vitalstream model`: make, pin and inspect."""

import json
from pathlib import Path

import joblib
import pandas as pd
import pytest
from typer.testing import CliRunner

from broker.errors import SettingsError
from real_time import load_model, model_sha256, run_streaming_inference
from schemas.contract import STANDARD_FEATURES
from vitalstream.cli import app


def vitalstream(*arguments: str) -> str:
    """What the command prints; an error it raises on purpose comes through."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("demo")
    vitalstream("model", "demo", str(where / "demo.joblib"), "--data", str(where / "ward.csv"))
    return where


def test_the_demo_model_is_pinned_and_scores_the_file_that_comes_with_it(made: Path) -> None:
    model = load_model(made / "demo.joblib")
    ward = pd.read_csv(made / "ward.csv")
    assert ward["event_time"].is_monotonic_increasing
    risk = run_streaming_inference(ward[list(STANDARD_FEATURES)], model, 100)
    assert risk["risk_probability"].between(0, 1).all()
    assert risk["risk_label"].nunique() == 2


def test_inspect_tells_what_a_worker_would_use(made: Path) -> None:
    path = made / "demo.joblib"
    found = json.loads(vitalstream("model", "inspect", str(path), "--json"))
    assert found["features"] == list(STANDARD_FEATURES)
    assert found["sha256"] == model_sha256(path)
    assert found["scores_with"] == "the linear model's arithmetic"
    shown = vitalstream("model", "inspect", str(path))
    assert "heart_rate" in shown
    assert "scores    with the linear model's arithmetic" in shown


def test_pin_makes_a_file_loadable_and_a_changed_file_is_refused(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    joblib.dump(load_model(made / "demo.joblib"), path)
    with pytest.raises(SettingsError, match="vitalstream model pin"):
        vitalstream("model", "inspect", str(path))
    assert json.loads(vitalstream("model", "pin", str(path), "--json"))["sha256"] == model_sha256(path)
    vitalstream("model", "inspect", str(path))
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(SettingsError, match="not the pinned"):
        vitalstream("model", "inspect", str(path))


def test_a_model_that_does_not_know_its_features_is_shown_as_such(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    path = tmp_path / "m.joblib"
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), path)
    vitalstream("model", "pin", str(path))
    assert "consume will refuse this model; fit it on a DataFrame" in vitalstream(
        "model", "inspect", str(path)
    )

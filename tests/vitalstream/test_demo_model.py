from pathlib import Path

import pytest

from broker.errors import SettingsError
from producer.ward import Ward
from real_time.inference import run_streaming_inference
from real_time.model_file import load_model, model_sha256
from schemas.contract import STANDARD_FEATURES
from vitalstream.demo_model import make_demo_model


def test_the_demo_model_is_pinned_and_scores_unseen_patients(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    made = make_demo_model(path)

    model = load_model(path)  # refuses a model that is not pinned
    assert made.sha256 == model_sha256(path)
    assert tuple(model.feature_names_in_) == STANDARD_FEATURES
    assert made.rows > 10_000
    assert 0.85 < made.auroc < 1

    frame = Ward(patients=50, seed=99, deteriorating=0.5).frame(hours=48)
    risks = run_streaming_inference(frame[list(STANDARD_FEATURES)], model, 100)["risk_probability"]
    assert risks.notna().all()
    assert risks[frame["label"] == 1].median() > 0.5 > risks[frame["label"] == 0].median()


def test_the_same_seed_makes_the_same_model(tmp_path: Path) -> None:
    one, again, other = (
        make_demo_model(tmp_path / name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert one == again
    assert other.sha256 != one.sha256


def test_an_unwritable_path_is_refused_with_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot write the model to .*nowhere"):
        make_demo_model(tmp_path / "nowhere" / "model.joblib")

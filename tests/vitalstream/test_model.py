"""`vitalstream model`: demo, pin and inspect."""

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import joblib
import pandas as pd
import pytest
import sklearn
import xgboost
from jsonschema import Draft202012Validator
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from typer.testing import CliRunner
from xgboost import XGBClassifier

import consumer.model
from audit.model import load_offline
from broker.errors import SettingsError
from broker.settings import Settings
from real_time import ModelHashError, RiskScorer, load_model, model_sha256, pin_model, run_streaming_inference
from real_time.card import card_path
from real_time.history import PatientHistory
from schemas import load_schema
from schemas.contract import STANDARD_FEATURES
from vitalstream.cli import app


def vitalstream(*arguments: str) -> str:
    """What the command prints; exceptions are re-raised."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("demo")
    vitalstream("model", "demo", str(where / "demo.joblib"), "--data", str(where / "ward.csv"))
    return where


def test_the_demo_model_is_pinned_and_scores_its_own_file(made: Path) -> None:
    model = load_model(made / "demo.joblib")
    ward = pd.read_csv(made / "ward.csv")
    assert ward["event_time"].is_monotonic_increasing
    risk = run_streaming_inference(ward[list(STANDARD_FEATURES)], model, 100)
    assert risk["risk_probability"].between(0, 1).all()
    assert risk["risk_label"].nunique() == 2


def test_inspect_shows_what_a_worker_would_use(made: Path) -> None:
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


def text(path: Path) -> None:
    path.write_bytes(b"no model")


def nameless(path: Path) -> None:
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), path)


def no_classifier(path: Path) -> None:
    joblib.dump(LinearRegression().fit([[0.0], [1.0]], [0, 1]), path)


@pytest.mark.parametrize("make", [text, nameless, no_classifier])
def test_pin_and_inspect_refuse_what_consume_refuses(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "m.joblib"
    make(path)
    with pytest.raises(SettingsError) as refused:
        vitalstream("model", "pin", str(path))
    assert not Path(f"{path}.sha256").exists()
    pin_model(path)
    for command in (
        lambda: vitalstream("model", "inspect", str(path)),
        lambda: consumer.model.load(Settings(model=path)),
        lambda: load_offline(path),
    ):
        with pytest.raises(SettingsError, match=re.escape(str(refused.value))):
            command()


def test_for_a_model_with_a_history_the_messages_fields_are_shown(made: Path, tmp_path: Path) -> None:
    ward = pd.read_csv(made / "ward.csv")[["patient_id", "event_time", "heart_rate", "spo2"]]
    model = make_pipeline(PatientHistory(), HistGradientBoostingClassifier(max_iter=2))
    path = tmp_path / "m.joblib"
    joblib.dump(model.fit(ward, ward["heart_rate"] > 90), path)
    recipe = model[0].recipe_sha256
    told = vitalstream("model", "pin", str(path), "--data", str(made / "ward.csv"))
    gives = (
        "heart_rate_last, heart_rate_age_h, heart_rate_delta, spo2_last, spo2_age_h, spo2_delta and 2 more"
    )
    assert f"history: gives the model {gives}; recipe {recipe}\n" in told
    document = json.loads(card_path(path).read_text())
    assert [(one["name"], len(one["typical"])) for one in document["features"]] == [
        ("heart_rate", 3),
        ("spo2", 3),
    ]
    assert document["history"] == {"recipe_sha256": recipe, "gives": [*model[0].get_feature_names_out()]}
    Draft202012Validator(load_schema("model-card")).validate(document)
    found = json.loads(vitalstream("model", "inspect", str(path), "--json"))
    assert (found["features"], found["history"]) == (["heart_rate", "spo2"], document["history"])
    assert {*found["schema"]["properties"]} == {"patient_id", "event_time", "heart_rate", "spo2"}
    shown = vitalstream("model", "inspect", str(path))
    assert "features  heart_rate, spo2\n" in shown
    assert f"history   gives the model {gives}; recipe {recipe}\n" in shown
    with pytest.raises(SettingsError, match="scores each message alone"):
        consumer.model.load(Settings(model=path))


def test_the_bytes_pinned_are_the_bytes_checked(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    joblib.dump(load_model(made / "demo.joblib"), path)
    looked_at = model_sha256(path)
    path.write_bytes(b"another")
    pin_model(path, sha256=looked_at)
    with pytest.raises(ModelHashError):
        load_model(path)


def test_inspect_shows_class_threshold_and_predictor(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    inner = LogisticRegression()
    model = FixedThresholdClassifier(inner, threshold=0.2, pos_label="died")
    joblib.dump(model.fit([[0.0], [1.0], [2.0]], ["survived", "died", "died"]), path)
    given = (str(path), "--features", "age", "--positive-class", "died")
    with pytest.raises(SettingsError, match=r"classes are died and survived, .*--positive-class died"):
        vitalstream("model", "pin", *given[:3])
    pin_model(path)
    found = json.loads(vitalstream("model", "inspect", *given, "--json"))
    assert (found["type"], found["predicts"]) == ("FixedThresholdClassifier", "LogisticRegression")
    assert (found["features"], found["classes"], found["positive_class"]) == (
        ["age"],
        ["died", "survived"],
        "died",
    )
    assert (found["threshold"], found["threshold_from"]) == (0.2, "the model's own")
    shown = vitalstream("model", "inspect", *given, "--threshold", "0.7")
    assert "FixedThresholdClassifier of LogisticRegression" in shown
    assert (
        "the risk is the probability of died, and the label is 1 from 0.7 upwards (the given threshold)"
        in shown
    )


def test_inspect_and_consume_agree_on_a_forest_fitted_with_threads(tmp_path: Path) -> None:
    """Both use one thread: if several threads added up the trees in any order, compiled trees would seem to differ."""
    path = tmp_path / "m.joblib"
    X = pd.DataFrame({"age": [20.0, 40.0, 60.0, 80.0]})
    joblib.dump(RandomForestClassifier(30, n_jobs=-1, random_state=0).fit(X, [0, 1, 0, 1]), path)
    vitalstream("model", "pin", str(path))
    found = json.loads(vitalstream("model", "inspect", str(path), "--json"))
    assert found["scores_with"] == "compiled trees"
    worker, audit = consumer.model.load(Settings(model=path)), load_offline(path)
    for scorer in (worker.scorer, audit.scorer, RiskScorer(load_model(path))):
        assert (scorer.path, scorer.prepared.classifier.n_jobs) == ("compiled trees", 1)


def test_card_and_inspect_show_the_version_of_the_models_library(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    X = pd.DataFrame({"age": [20.0, 40.0, 60.0, 80.0]})
    joblib.dump(XGBClassifier(n_estimators=1).fit(X, [0, 1, 0, 1]), path)
    vitalstream("model", "pin", str(path))
    found = json.loads(vitalstream("model", "inspect", str(path), "--json"))
    assert found["versions"]["xgboost"] == the_card(path)["versions"]["xgboost"] == xgboost.__version__  # type: ignore[index]
    assert f"xgboost {xgboost.__version__}" in vitalstream("model", "inspect", str(path))


def test_inspect_shows_which_features_have_a_range_check(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    X = pd.DataFrame({"spo2": [90.0, 99.0], "Temp": [36.0, 40.0]})
    joblib.dump(LogisticRegression().fit(X, [0, 1]), path)
    vitalstream("model", "pin", str(path))
    found = json.loads(vitalstream("model", "inspect", str(path), "--json"))
    assert found["ranges"] == {"spo2": [1, 100], "Temp": None}
    shown = vitalstream("model", "inspect", str(path))
    assert "ranges    spo2 1 to 100; none for Temp (set some with --ranges FILE)" in shown


# --- the card


def nameless_with_a_question(path: Path) -> None:
    """A model that reveals neither its features' names nor which class is the risk."""
    joblib.dump(LogisticRegression().fit([[20.0, 1.0], [80.0, 0.0]], ["survived", "died"]), path)


def the_card(path: Path) -> dict[str, object]:
    card: dict[str, object] = json.loads(card_path(path).read_text())
    Draft202012Validator(load_schema("model-card")).validate(card)
    return card


GIVEN = ("--features", "age,on_oxygen", "--positive-class", "died", "--threshold", "0.3")


def test_options_given_to_pin_need_not_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    nameless_with_a_question(path)
    vitalstream("model", "pin", str(path), *GIVEN, "--name", "Wards", "--version", "3", "--note", "Adults.")
    card = the_card(path)
    assert card["sha256"] == model_sha256(path)
    assert card["features"] == [{"name": "age", "dtype": "number"}, {"name": "on_oxygen", "dtype": "number"}]
    assert (card["positive_class"], card["threshold"]) == ("died", 0.3)
    assert (card["name"], card["version"], card["note"]) == ("Wards", "3", "Adults.")
    assert "sklearn" in card["versions"]  # type: ignore[operator]
    for model in (consumer.model.load(Settings(model=path)), load_offline(path)):
        prepared = model.scorer.prepared
        assert model.features == ("age", "on_oxygen")
        assert (prepared.positive_class, prepared.threshold, prepared.threshold_from) == (
            "died",
            0.3,
            "the card's",
        )
    shown = vitalstream("model", "inspect", str(path))
    assert "card      Wards 3" in shown
    assert "card      Adults." in shown
    over = ("--positive-class", "survived", "--threshold", "0.7")
    found = json.loads(vitalstream("model", "inspect", str(path), *over, "--json"))
    assert (found["positive_class"], found["threshold"], found["threshold_from"]) == (
        "survived",
        0.7,
        "the given",
    )
    assert found["card"] == card


def test_pin_warns_about_a_model_saved_by_another_patch_release_of_a_library(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, installed = tmp_path / "m.pkl", sklearn.__version__
    near = f"{installed[:-1]}{(int(installed[-1]) + 1) % 10}"
    model = LogisticRegression().fit(pd.DataFrame({"heart_rate": [60, 120]}), [0, 1])
    path.write_bytes(pickle.dumps(model).replace(installed.encode(), near.encode()))
    vitalstream("model", "pin", str(path))
    assert f"was fitted with scikit-learn {near} but {installed} is installed" in caplog.text


def test_pinning_again_keeps_the_card_unless_it_is_another_files(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    nameless_with_a_question(path)
    vitalstream("model", "pin", str(path), *GIVEN, "--note", "Adults.")
    vitalstream("model", "pin", str(path), "--threshold", "0.4")
    card = the_card(path)
    assert (card["positive_class"], card["threshold"], card["note"]) == ("died", 0.4, "Adults.")
    joblib.dump(LogisticRegression(C=0.5).fit([[20.0, 1.0], [80.0, 0.0]], ["survived", "died"]), path)
    with pytest.raises(SettingsError, match="which of them is the risk"):
        vitalstream("model", "pin", str(path), "--features", "age,on_oxygen")
    vitalstream("model", "pin", str(path), *GIVEN)
    assert "note" not in the_card(path)


def test_a_card_does_not_replace_a_pin(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    nameless_with_a_question(path)
    vitalstream("model", "pin", str(path), *GIVEN)
    Path(f"{path}.sha256").unlink()
    with pytest.raises(SettingsError, match="is not pinned"):
        vitalstream("model", "inspect", str(path))


def test_dtypes_and_typical_values_come_from_the_data(tmp_path: Path) -> None:
    path, data = tmp_path / "m.joblib", tmp_path / "rows.csv"
    nameless_with_a_question(path)
    data.write_text("patient;on_oxygen;age\na;True;20\nb;False;80\nc;;50\n")
    vitalstream("model", "pin", str(path), *GIVEN, "--data", str(data))
    assert the_card(path)["features"] == [
        {"name": "age", "dtype": "number", "typical": [23, 50, 77]},
        {"name": "on_oxygen", "dtype": "boolean"},
    ]
    assert "features  age, on_oxygen (boolean)" in vitalstream("model", "inspect", str(path))
    data.write_text("age\n20\n80\n")
    with pytest.raises(SettingsError, match=r"rows\.csv: has no column on_oxygen, which the model needs"):
        vitalstream("model", "pin", str(path), *GIVEN, "--data", str(data))


def test_other_categories_in_the_data_do_not_change_the_models(tmp_path: Path) -> None:
    path, data = tmp_path / "m.joblib", tmp_path / "rows.csv"
    rows = pd.DataFrame({"unit": ["ICU", "ward"] * 4})
    joblib.dump(
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(rows, [1, 0] * 4),
        path,
    )
    data.write_text("unit\nICU\nmorgue\n")
    vitalstream("model", "pin", str(path), "--data", str(data))
    assert the_card(path)["features"] == [{"name": "unit", "dtype": "category", "values": ["ICU", "ward"]}]
    data.write_text("unit\n1\n2\n")
    with pytest.raises(SettingsError, match="the card or --data says that unit is a number, but the model"):
        vitalstream("model", "pin", str(path), "--data", str(data))


def test_model_demo_replaces_a_model_that_has_a_card(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    nameless_with_a_question(path)
    vitalstream("model", "pin", str(path), *GIVEN)
    vitalstream("model", "demo", str(path))
    assert "temperature" in vitalstream("model", "inspect", str(path))


def test_inspect_shows_the_message_schema_of_a_model_with_categories(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    rows = pd.DataFrame({"unit": ["ICU", "ward"] * 4, "on_oxygen": [True, False] * 4})
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(rows, [1, 0] * 4)
    joblib.dump(model, path)
    vitalstream("model", "pin", str(path))
    features = [
        {"name": "unit", "dtype": "category", "values": ["ICU", "ward"]},
        {"name": "on_oxygen", "dtype": "boolean"},
    ]
    assert the_card(path)["features"] == features
    found = json.loads(vitalstream("model", "inspect", str(path), "--json"))
    kinds = {name: found["schema"]["properties"][name]["type"] for name in found["features"]}
    assert kinds == {"unit": ["string", "null"], "on_oxygen": ["boolean", "null"]}
    shown = vitalstream("model", "inspect", str(path))
    assert "features  unit (category of ICU, ward), on_oxygen (boolean)" in shown
    assert "ranges" not in shown  # which only numbers have

"""A model's card: its values count, and errors in it are reported."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest
from jsonschema import Draft202012Validator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier

from real_time import (
    Card,
    CardError,
    FeaturesError,
    ModelHashError,
    RiskScorer,
    ThresholdError,
    model_sha256,
    pin_model,
    read_card,
    run_streaming_inference,
)
from real_time.card import card_path, write_card
from real_time.features import Dtype, Feature
from real_time.usable import load_usable
from schemas import load_schema

SHA256 = "ab" * 32
X = pd.DataFrame({"age": [20.0, 30.0, 70.0, 80.0]})
MODEL = LogisticRegression().fit(X, ["survived", "survived", "died", "died"])


def test_a_card_survives_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    assert read_card(path) is None
    card = Card(
        SHA256,
        features=(
            Feature("age", typical=(20, 50, 80)),
            Feature("on_oxygen", Dtype.BOOLEAN),
            Feature("unit", Dtype.CATEGORY, ("ICU", "ward")),
        ),
        positive_class="died",
        threshold=0.3,
        versions={"sklearn": "1.9.1"},
        name="Sterblichkeit für Ärzte",
        version="3",
        note="Adults only",
    )
    write_card(path, card)
    assert read_card(path) == card
    assert [path.name for path in tmp_path.iterdir()] == ["m.joblib.card.json"]


WRONG: list[tuple[Any, str]] = [
    ([], "it is not a JSON object"),
    ({}, "it has no sha256"),
    ({"sha256": "AB" * 32}, "sha256 must be a SHA-256 of 64 hexadecimal digits in lower case"),
    ({"treshold": 0.3}, "it has the unknown field treshold"),
    ({"threshold": 1.5}, "threshold must be a number from 0 to 1"),
    ({"threshold": True}, "threshold must be a number from 0 to 1"),
    ({"threshold": None}, "threshold must be a number from 0 to 1"),
    ({"positive_class": 1}, "positive_class must be text"),
    ({"note": ""}, "note must be text"),
    ({"versions": {"sklearn": 1.9}}, "versions must be an object of versions by library"),
    ({"features": []}, "features must be a list of features"),
    ({"features": ["age"]}, "features must be a list of objects with name, dtype and"),
    ({"features": [{"name": "age"}]}, "features must be a list of objects with name, dtype and"),
    ({"features": [{"name": "age", "dtype": "float64"}]}, "the dtype number, boolean or category"),
    (
        {"features": [{"name": "age", "dtype": "number", "unit": "years"}]},
        "features must be a list of objects with name",
    ),
    (
        {"features": [{"name": "age", "dtype": "number", "values": ["a"]}]},
        "gives age values that are not distinct",
    ),
    ({"features": [{"name": "unit", "dtype": "category", "values": ["a", "a"]}]}, "are not distinct texts"),
    ({"features": [{"name": "unit", "dtype": "category", "values": [1]}]}, "are not distinct texts"),
    (
        {"features": [{"name": "age", "dtype": "number", "typical": [1, 2]}]},
        "are not three ascending numbers",
    ),
    (
        {"features": [{"name": "age", "dtype": "boolean", "typical": [0, 1, 1]}]},
        "are not three ascending numbers",
    ),
    ({"history": {"gives": ["age_last"]}}, "history must be an object with recipe_sha256 and gives"),
    ({"history": {"recipe_sha256": "1", "gives": ["age_last"]}}, "history must be a SHA-256"),
    (
        {"history": {"recipe_sha256": SHA256, "gives": []}},
        "history must list columns in gives",
    ),
    (
        {"history": {"recipe_sha256": SHA256, "gives": [1]}},
        "history must list columns in gives",
    ),
]


@pytest.mark.parametrize(("said", "problem"), WRONG)
def test_an_invalid_card_is_refused_with_one_sentence(tmp_path: Path, said: Any, problem: str) -> None:
    document = {"sha256": SHA256} | said if said else said
    path = tmp_path / "m.joblib"
    card_path(path).write_text(json.dumps(document))
    with pytest.raises(CardError, match=re.escape(problem)) as refused:
        read_card(path)
    assert str(card_path(path)) in str(refused.value)
    assert f"vitalstream model pin {path}" in str(refused.value)
    assert not Draft202012Validator(load_schema("model-card")).is_valid(document)


def test_duplicate_names_and_invalid_json_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.joblib"
    for text in ("no JSON", f'{{"sha256": "{SHA256}", "threshold": NaN}}'):
        card_path(path).write_text(text)
        with pytest.raises(CardError, match="it is not JSON"):
            read_card(path)
    twice = [{"name": "age", "dtype": "number"}] * 2
    card_path(path).write_text(json.dumps({"sha256": SHA256, "features": twice}))
    with pytest.raises(CardError, match="a different name"):
        read_card(path)


def test_arguments_override_the_card_and_the_card_overrides_the_model() -> None:
    card = Card(SHA256, positive_class="died", threshold=0.9)
    scorer = RiskScorer(MODEL, card=card)
    assert (scorer.prepared.positive_class, scorer.threshold) == ("died", 0.9)
    assert "from 0.9 upwards (the card's threshold)" in scorer.prepared.decision
    assert RiskScorer(MODEL, card=card, threshold=0.2).prepared.threshold_from == "the given"
    own = FixedThresholdClassifier(LogisticRegression(), threshold=0.2).fit(X, [0, 0, 1, 1])
    assert RiskScorer(own, card=Card(SHA256)).threshold == 0.2
    # `model pin` repeats the model's threshold in the card
    for threshold, source in ((0.6, "the card's"), (0.2, "the model's own")):
        prepared = RiskScorer(own, card=Card(SHA256, threshold=threshold)).prepared
        assert (prepared.threshold, prepared.threshold_from) == (threshold, source)
    risk = run_streaming_inference(X, MODEL, 2, card=card)
    expected = run_streaming_inference(X, MODEL, 2, positive_class="died", threshold=0.9)
    pd.testing.assert_frame_equal(risk, expected)


def test_a_cards_threshold_applies_only_to_the_cards_class() -> None:
    card = Card(SHA256, positive_class="died", threshold=0.9)
    with pytest.raises(ThresholdError, match=r"the card's threshold, 0\.9, is for the probability of died"):
        RiskScorer(MODEL, card=card, positive_class="survived")
    assert RiskScorer(MODEL, card=card, positive_class="survived", threshold=0.1).threshold == 0.1


def test_the_card_names_the_features_of_a_model_without_names() -> None:
    nameless = LogisticRegression().fit(X.to_numpy(), [0, 0, 1, 1])
    card = Card(SHA256, features=(Feature("age"),))
    assert RiskScorer(nameless, card=card).features == ("age",)
    assert RiskScorer(nameless, card=card, features=["years"]).features == ("years",)
    with pytest.raises(
        FeaturesError, match="fitted with the features age, in this order, but the card gives others"
    ):
        RiskScorer(MODEL, card=Card(SHA256, features=(Feature("years"),)), positive_class="died")
    with pytest.raises(FeaturesError, match="fitted with 1 features, but the card gives 2"):
        RiskScorer(nameless, card=Card(SHA256, features=(Feature("a"), Feature("b"))))


# --- file, pin and card


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "m.joblib"
    joblib.dump(MODEL, path)
    pin_model(path)
    write_card(path, Card(model_sha256(path), positive_class="died"))
    return path


def replace_file(path: Path) -> None:
    joblib.dump(LogisticRegression(C=0.5).fit(X, ["survived", "survived", "died", "died"]), path)


HALVES: dict[str, tuple[list[str], str]] = {
    "file": (["file"], "file was replaced without its pin and card, or those without the file"),
    "file and card": (
        ["file", "card"],
        "the card belongs to this file, so either both were replaced without the pin",
    ),
    "file and pin": (
        ["file", "pin"],
        "belongs to a different model file, .*; either model file and pin were replaced",
    ),
    "no two fit": (["file", "other card"], "the card belongs to a third file, with SHA-256 abab"),
    "file, without a card": (
        ["no card", "file"],
        "either the file was replaced without its pin, or the pin without the file",
    ),
}


@pytest.mark.parametrize("case", HALVES)
def test_a_half_finished_replacement_is_explained(path: Path, case: str) -> None:
    done, said = HALVES[case]
    steps: dict[str, Callable[[], object]] = {
        "file": lambda: replace_file(path),
        "pin": lambda: pin_model(path),
        "card": lambda: write_card(path, Card(model_sha256(path), positive_class="died")),
        "other card": lambda: write_card(path, Card(SHA256)),
        "no card": card_path(path).unlink,
    }
    for step in done:
        steps[step]()
    with pytest.raises(ModelHashError, match=said) as refused:
        load_usable(path)
    assert (
        f"put the files of one model together or, if you trust the model file, run `vitalstream model pin {path}`"
        in (str(refused.value))
    )


def test_replacing_all_three_files_gives_another_model(path: Path) -> None:
    before = load_usable(path).sha256
    replace_file(path)
    write_card(path, Card(model_sha256(path), positive_class="died"))
    pin_model(path)
    assert load_usable(path).sha256 != before


def test_a_minor_version_that_differs_from_the_cards_is_a_caution(path: Path) -> None:
    for version, cautions in (("0.1", 1), (joblib.__version__, 0)):
        write_card(
            path, Card(model_sha256(path), positive_class="died", versions={"joblib": version, "later": "1"})
        )
        assert len(load_usable(path).cautions) == cautions
    write_card(path, Card(model_sha256(path), positive_class="died", versions={"joblib": "0.1"}))
    assert (
        f"its card names joblib 0.1, and {joblib.__version__} is installed" in load_usable(path).cautions[0]
    )

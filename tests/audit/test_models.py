"""A model change: each result is judged by the model that gave it."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.tree import DecisionTreeClassifier

from audit.findings import Invariant
from audit.outcome import Audit
from audit.run import audit
from audit.unjudged import Cause
from broker.settings import Settings
from broker.topics import create_topics
from real_time import pinned_sha256
from tests.audit.conftest import messages, save, work
from tests.audit.test_command import vitalstream_audit
from tests.audit.topics import Record, Written, written
from tests.conftest import fresh_settings
from tests.kafka import produce

pytestmark = pytest.mark.kafka

ROWS = 120


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without spo2, so messages whose spo2 is not a number are no dead letters for it."""
    random = np.random.default_rng(2)
    X = pd.DataFrame(random.normal([85, 37], [20, 1], size=(500, 2)), columns=["heart_rate", "temperature"])
    model = DecisionTreeClassifier(max_depth=4, random_state=0).fit(X, X["heart_rate"] > 95)
    return save(model, tmp_path_factory.mktemp("model") / "later.joblib")


@pytest.fixture(scope="module")
def made(kafka: str, tree: Path, later: Path) -> Written:
    """What two workers of a group wrote, one after the other, each with its own model."""
    settings = fresh_settings(kafka, model=tree)
    create_topics(settings, partitions=4, replication_factor=1)
    for model, first in ((tree, 0), (later, ROWS)):
        produce(kafka, settings.input_topic, messages(ROWS, first=first))
        work(settings.model_copy(update={"model": model}))
    return written(settings)


@pytest.fixture
def changed(made: Written) -> Written:
    """A copy to spoil."""
    return deepcopy(made)


def judged(settings: Settings, *models: Path) -> Audit:
    return audit(settings, models=models, patience=5.0)


def by(written: Written, model: Path) -> int:
    sha256 = pinned_sha256(model)
    return next(n for n, one in enumerate(written.results) if one.json["model"] == sha256)


def is_wrong_type(letter: Record) -> bool:
    return dict(letter.headers)["dlq.reason"] == b"wrong_type"


def test_a_model_change_is_clean_with_both_models(changed: Written, tree: Path, later: Path) -> None:
    found = judged(changed.settings, later, tree, later)
    assert found.clean, (found.offenders, found.unjudged)
    assert found.messages == 2 * ROWS
    assert {pinned_sha256(tree), pinned_sha256(later)} == {one.json["model"] for one in changed.results}
    assert any(map(is_wrong_type, changed.dead_letters))  # correct for the first model only
    correct = next(one for one in found.verdicts if one.invariant is Invariant.CORRECT)
    assert correct.checked == f"{len(changed.results)} probabilities by 2 models, at most 0 ulp apart"


def test_the_model_option_may_be_repeated(changed: Written, tree: Path, later: Path) -> None:
    done = vitalstream_audit(changed.settings, "--model", str(tree), "--model", str(later))
    assert done.returncode == 0, done.stderr
    assert " probabilities by 2 models, " in done.stdout
    assert judged(changed.settings).verdict == "incomplete"  # the settings name only one model


def test_a_missing_model_is_named(changed: Written, tree: Path, later: Path) -> None:
    for given, missing in ((tree, later), (later, tree)):
        found = judged(changed.settings, given)
        hash_ = pinned_sha256(missing)
        count = sum(one.json["model"] == hash_ for one in changed.results)
        assert found.verdict == "incomplete"
        results, *letters = found.unjudged
        assert (results.invariant, results.cause, results.count) == (Invariant.CORRECT, Cause.NO_MODEL, count)
        assert f"the model {hash_} ({count})" in results.sentence
        # Seen by the later model alone, the earlier one's dead letters look wrong, and that can't be judged.
        wrong_types = sum(map(is_wrong_type, changed.dead_letters)) if given == later else 0
        assert sum(one.count for one in letters) == wrong_types


@pytest.mark.parametrize("which", [0, 1])
def test_a_wrong_score_of_either_model_is_found(
    changed: Written, tree: Path, later: Path, which: int
) -> None:
    position = by(changed, (tree, later)[which])
    record = changed.results[position]
    score: Any = record.json["risk_probability"]
    changed.results[position] = record.saying(risk_probability=abs(score - 1e-9))
    found = judged(changed.copied(), tree, later)
    assert [(one.partition, one.offset) for one in found.offenders] == [record.place]


def test_a_score_under_the_other_models_hash_is_found(changed: Written, tree: Path, later: Path) -> None:
    position = by(changed, tree)
    changed.results[position] = changed.results[position].saying(model=pinned_sha256(later))
    found = judged(changed.copied(), tree, later)
    assert [(one.partition, one.offset) for one in found.offenders] == [changed.results[position].place]


def test_a_dead_letter_that_no_model_explains_is_found(changed: Written, tree: Path, later: Path) -> None:
    position = next(n for n, one in enumerate(changed.dead_letters) if is_wrong_type(one))
    changed.dead_letters[position] = changed.dead_letters[position].headed(reason="bad_time")
    settings = changed.copied()
    found = judged(settings, tree, later)
    assert [(one.partition, one.offset) for one in found.offenders] == [
        changed.dead_letters[position].letter_place
    ]
    assert judged(settings, tree).verdict == "incomplete"  # the other model may have rejected it

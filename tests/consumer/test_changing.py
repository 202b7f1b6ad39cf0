"""A model change: prepared alongside the model in use, then adopted between two transactions or refused."""

import gc
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_info, threadpool_limits

from audit.run import audit
from broker.settings import Settings
from consumer import model as models
from consumer.changing import ChangingScorer
from consumer.names import FIRST_MESSAGES
from consumer.observer import Observer
from consumer.scoring import ChunkScorer, Limits
from consumer.stop import Hangups
from real_time import pin_model, pinned_sha256
from real_time.card import card_path, read_card, write_card
from real_time.history import PatientHistory
from real_time.model_file import model_sha256, pin_path
from schemas.results import decode_result
from tests.consumer.accounts import require_exactly_once
from tests.consumer.fakes import FakeMessage, chunk_of, results_of
from tests.consumer.models import RAISES, Fragile
from tests.consumer.stage import Stage
from tests.schemas.messages import good

NAMES = ("heart_rate", "spo2")


class Recorder(Observer):
    """Records the model events."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def model_ready(self, *, model: str, path: str) -> None:
        self.told.append(("ready", model))

    def model_changed(self, *, model: str, features: Sequence[str], path: str, decision: str) -> None:
        self.told.append(("changed", model))

    def model_awaited(self, why: str) -> None:
        self.told.append(("awaited", why))

    def model_refused(self, why: str) -> None:
        self.told.append(("refused", why))

    def model_kept(self) -> None:
        self.told.append(("kept", ""))

    @property
    def last(self) -> tuple[str, str]:
        return self.told[-1]


class Ward:
    """A scorer as a worker has it, with its model files in `path`."""

    def __init__(self, path: Path, model: Any) -> None:
        self.path = path
        self.told = Recorder()
        self.replace(model)
        self.settings = Settings(input_topic="vitals", model=path, ranges="off")
        self.score = ChangingScorer(
            self.settings,
            models.load(self.settings),
            make=self._make,
            observer=self.told,
            hangups=Hangups(),
        )

    def _make(self, model: Any, observer: Observer, *, trial: bool = False) -> ChunkScorer:
        limits = Limits(result=1_000_000, dead_letter=1_000_000)
        return ChunkScorer(
            model, settings=self.settings, worker="w", limits=limits, observer=observer, clock=lambda: 0.0
        )

    def replace(self, model: Any, *, pin: bool = True) -> str:
        """Replace the model file and, unless told otherwise, its pin; returns its hash."""
        joblib.dump(model, self.path)
        if pin:
            pin_model(self.path)
        return model_sha256(self.path)

    def look(self) -> tuple[str, str]:
        """Look at the files; returns the last model event."""
        self.score.look()
        return self.told.last

    def by(self, rows: int = 2, **values: Any) -> str:
        """Score messages; returns the hash of the model that the results name."""
        messages = [FakeMessage(good(**values), key=b"p", offset=row) for row in range(rows)]
        return decode_result(results_of(self.score(chunk_of(messages), lag=0))[0]).model


def fitted(seed: int = 0, names: Sequence[str] = NAMES) -> Any:
    random = np.random.default_rng(seed)
    X = pd.DataFrame(random.normal([90, 95, 37][: len(names)], 10, size=(200, len(names))), columns=[*names])
    return DecisionTreeClassifier(max_depth=4).fit(X, X[names[0]] > 90)


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    """Undo the `gc.freeze` of a model change."""
    yield
    gc.unfreeze()


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path / "risk.joblib", fitted())


def test_a_new_model_is_prepared_and_takes_over_between_transactions(ward: Ward) -> None:
    old = ward.by()
    new = ward.replace(fitted(1, ("heart_rate", "spo2", "temperature")))
    assert ward.look() == ("ready", new)
    assert ward.by() == old  # a transaction of the old model is open
    ward.score.change()
    assert ward.told.last == ("changed", new)
    assert ward.by() == new
    ward.score.change()
    ward.score.look()
    assert ward.told.told == [("ready", new), ("changed", new)]


def test_loading_a_model_uses_one_thread_without_gc_and_a_short_switch_interval(
    ward: Ward,
) -> None:
    made, usual = ward.score._make, sys.getswitchinterval()
    collecting: list[bool] = []
    turns: list[float] = []
    threads: list[int] = []

    def make(model: Any, observer: Observer, *, trial: bool = False) -> ChunkScorer:
        collecting.append(gc.isenabled())
        turns.append(sys.getswitchinterval())
        threads.extend(one["num_threads"] for one in threadpool_info())
        return made(model, observer)

    ward.score._make = make
    ward.replace(fitted(1))
    with threadpool_limits(limits=2):
        ward.score.look()
    assert {*threads} == {1}
    assert collecting == [False, False]
    assert gc.isenabled()
    assert max(turns) <= usual / 10
    assert sys.getswitchinterval() == usual
    assert gc.get_freeze_count() > 10_000


def test_a_model_replaced_before_its_pin_is_awaited(ward: Ward) -> None:
    old = ward.by()
    new = ward.replace(fitted(1), pin=False)
    what, why = ward.look()
    assert what == "awaited"
    assert all(word in why for word in (old, new, "replaced without its pin"))
    ward.score.look()
    assert len(ward.told.told) == 1  # reported once
    pin_model(ward.path)
    assert ward.look() == ("ready", new)


def test_a_pin_replaced_before_its_model_is_awaited(ward: Ward, tmp_path: Path) -> None:
    other = tmp_path / "other.joblib"
    joblib.dump(fitted(1), other)
    pin_path(ward.path).write_text(model_sha256(other))
    assert ward.look()[0] == "awaited"
    other.replace(ward.path)
    assert ward.look() == ("ready", model_sha256(ward.path))


def test_files_that_are_missing_for_a_moment_are_awaited(ward: Ward) -> None:
    for file in (pin_path(ward.path), ward.path):
        content = file.read_bytes()
        file.unlink()
        assert ward.look()[0] == "awaited"
        file.write_bytes(content)
        assert ward.look() == ("kept", "")


def test_a_changed_card_alone_counts_as_a_new_model(ward: Ward) -> None:
    model = models.load(ward.settings)
    card = model.described()
    write_card(ward.path, card)
    assert ward.look() == ("ready", model.sha256)
    ward.score.change()
    assert read_card(ward.path) == card
    card_path(ward.path).write_text("{")
    assert ward.look()[0] == "refused"
    write_card(ward.path, card)
    assert ward.look() == ("kept", "")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("no model", "str"),
        (LogisticRegression().fit([[0.0], [1.0]], [0, 1]), "features"),
    ],
)
def test_a_model_that_would_be_refused_at_start_is_refused(ward: Ward, model: Any, words: str) -> None:
    old = ward.by()
    ward.replace(model)
    what, why = ward.look()
    assert what == "refused"
    assert words in why
    ward.score.change()
    assert ward.by() == old
    ward.score.look()
    assert len(ward.told.told) == 1
    ward.score.look(again=True)  # a missing library may have been installed by now
    assert [what for what, _ in ward.told.told] == ["refused", "refused"]
    new = ward.replace(fitted(1))
    assert ward.look() == ("ready", new)


def test_a_model_with_a_different_history_is_refused(ward: Ward) -> None:
    rows = pd.DataFrame(
        {"patient_id": ["a", "b"], "event_time": ["2026-01-05T08:00Z"] * 2, NAMES[0]: [90.0, 80.0]}
    )
    model = make_pipeline(PatientHistory(), DecisionTreeClassifier()).fit(rows, [0, 1])
    old = ward.by()
    ward.replace(model)
    what, why = ward.look()
    assert what == "refused"
    recipe = model[0].recipe_sha256[:12]
    assert f"it has a history of recipe {recipe}, but the current model has no history" in why
    assert "score with it in another --group" in why
    assert ward.by() == old


def test_a_model_that_would_stop_the_worker_is_refused(tmp_path: Path) -> None:
    ward = Ward(tmp_path / "risk.joblib", fitted())
    for _ in range(FIRST_MESSAGES // 20):
        ward.by(20, heart_rate=RAISES)
    ward.replace(fitted(0, ("pulse", "spo2%")))
    what, why = ward.look()
    assert what == "refused"
    assert "none of the first 100 messages has any of the model's features" in why
    ward.replace(Fragile(("heart_rate", "spo2")))
    assert ward.look() == (
        "refused",
        "the model raised ValueError on all 20 rows of a chunk, so the model is at fault, not the messages",
    )


def test_pinning_the_old_model_again_keeps_it_or_brings_it_back(ward: Ward) -> None:
    content, old = ward.path.read_bytes(), ward.by()
    ward.replace("no model")
    ward.score.look()
    ward.path.write_bytes(content)
    pin_model(ward.path)
    assert ward.look() == ("kept", "")
    ward.replace(fitted(1))
    ward.score.look()
    ward.score.change()
    ward.path.write_bytes(content)
    pin_model(ward.path)
    assert ward.look() == ("ready", old)
    ward.score.change()
    assert ward.by() == old


# --- on a real broker


def versions(folder: Path) -> list[Path]:
    """Model files of two kinds, with different features."""
    made = []
    for number in range(11):
        names = ("heart_rate", "spo2", "temperature")[: 2 + number % 2]
        random = np.random.default_rng(number)
        X = pd.DataFrame(random.normal([85, 96, 37][: len(names)], 5, (300, len(names))), columns=[*names])
        linear = make_pipeline(SimpleImputer(), LogisticRegression(max_iter=500))
        model = linear if number % 3 else DecisionTreeClassifier(max_depth=5)
        made.append(folder / f"v{number}.joblib")
        joblib.dump(model.fit(X, X["heart_rate"] > 85 + random.normal(0, 2, 300)), made[-1])
        pin_model(made[-1])
    return made


def deploy(model: Path, to: Path, *, pin_first: bool) -> None:
    """Replace the file and the pin, one after the other."""
    files = [(model, to), (pin_path(model), pin_path(to))]
    for source, target in files[::-1] if pin_first else files:
        new = target.with_suffix(".new")
        shutil.copyfile(source, new)
        new.replace(target)


@pytest.mark.kafka
def test_ten_model_changes_under_load_lose_and_double_nothing(stage: Stage, vitals_file: list[str]) -> None:
    path = stage.folder / "risk.joblib"
    made = versions(stage.folder)
    deploy(made[0], path, pin_first=False)
    settings = stage.settings(partitions=2).model_copy(update={"model": path})
    worker = stage.worker(settings).joined()
    replay = stage.replay(settings, vitals_file, "--rate", "2000", "--repeat", "100", "--json")
    stage.wait_committed(settings, 1)

    def scores(model: Path) -> None:
        worker.logged(rf"with model {pinned_sha256(model)[:12]} from now on")

    for number, model in enumerate(made[1:]):
        if number == 5:
            (stage.folder / "bad.joblib").write_bytes(b"no model")
            pin_model(stage.folder / "bad.joblib")
            deploy(stage.folder / "bad.joblib", path, pin_first=True)
            worker.signal(signal.SIGHUP)
            worker.logged("refuses the pinned model and keeps the old one")
        deploy(model, path, pin_first=bool(number % 2))
        worker.signal(signal.SIGHUP)
        scores(model)
        for _ in range(2):  # the first one seen may still come from the old model's last transaction
            stage.wait_committed(settings, stage.committed(settings) + 1)
    replay.signal(signal.SIGINT)
    replay.wait()
    rows = replay.report["acknowledged"]
    stage.wait_committed(settings, rows)
    worker.stop()

    found = require_exactly_once(settings, rows=rows)
    hashes = [pinned_sha256(model) for model in made]
    assert {by.model for by in found.by_position.values()} == {*hashes}
    for partition in range(2):
        in_order = [by for (where, _), by in sorted(found.by_position.items()) if where == partition]
        changes = [one for one, _ in groupby(by.model for by in in_order)]
        assert changes == [one for one in hashes if one in changes]  # no model comes back
    judged = audit(settings, models=made)
    assert judged.clean, (judged.offenders, judged.unjudged)

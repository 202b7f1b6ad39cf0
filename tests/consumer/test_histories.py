"""Histories in scoring: which rows count, how often, and what results say about them."""

from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from jsonschema import Draft202012Validator
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import make_pipeline

from broker.settings import Settings
from consumer.histories import Histories
from consumer.observer import Observer
from consumer.scoring import ChunkScorer, Limits
from real_time.history import PatientHistory, Patients, Window
from real_time.inference import RiskScorer
from real_time.usable import Model
from schemas import load_schema
from schemas.contract import Reason
from schemas.dead_letters import read_dead_letter_headers
from schemas.results import decode_result
from tests.consumer.fakes import FakeMessage, block_of, chunk_of, letters_of, results_of

START = pd.Timestamp("2026-01-05T08:00:00Z")
SENT = int(START.timestamp() * 1000) + 3_600_000 * 24
RAISES = 13.0


class Raising(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Raises an exception on one particular heart rate."""

    def fit(self, X: pd.DataFrame, y: Any) -> "Raising":
        self.classes_ = np.array([0, 1])
        self.feature_names_in_ = np.array([*X.columns], dtype=object)
        self.n_features_in_ = X.shape[1]
        return self

    def predict_proba(self, X: pd.DataFrame) -> Any:
        rate = X["heart_rate_last"].to_numpy()
        if (rate == RAISES).any():
            raise ValueError("13")
        risk = np.nan_to_num(rate) / 1000
        return np.column_stack([1 - risk, risk])


def fitted() -> Any:
    rows = pd.DataFrame(
        {
            "patient_id": ["a", "a"],
            "event_time": ["2026-01-05T08:00:00Z", "2026-01-05T09:00:00Z"],
            "heart_rate": [80.0, 90.0],
            "temperature": [37.0, np.nan],
        }
    )
    history = PatientHistory(windows=[Window("2h", "30min")])
    return make_pipeline(history, Raising()).fit(rows, [0, 1])


class Told(Observer):
    def __init__(self) -> None:
        self.rows = 0

    def late(self, rows: int) -> None:
        self.rows += rows


class Ward:
    """A scorer with a history, and its state."""

    def __init__(self) -> None:
        scorer, self.told = RiskScorer(fitted()), Told()
        assert scorer.history is not None
        self.patients: Patients = scorer.history.start()
        self.score = ChunkScorer(
            Model(scorer, tuple(one.name for one in scorer.prepared.fields), "f00d" * 16),
            settings=Settings(ranges="off"),
            worker="w",
            limits=Limits(result=1_000_000, dead_letter=1_000_000),
            observer=self.told,
            clock=lambda: 0.0,
            histories=Histories(self.patients, observer=self.told),
        )

    def rows_seen(self, *messages: FakeMessage, chunk_size: int = 100) -> list[int]:
        output = self.score(block_of([*messages], chunk_size=chunk_size), lag=0)
        found = [decode_result(value).history for value in results_of(output)]
        return [one["rows_seen"] for one in found if one is not None]

    def refused(self, *messages: FakeMessage) -> list[tuple[int, Reason, str]]:
        letters = letters_of(self.score(chunk_of([*messages]), lag=0))
        origins = [read_dead_letter_headers(letter.headers) for letter in letters]
        return [(origin.offset, origin.reason, origin.field) for origin in origins]


@pytest.fixture
def ward() -> Ward:
    return Ward()


def message(patient: str = "a", minutes: float = 0, *, offset: int = 0, **more: Any) -> FakeMessage:
    told: dict[str, Any] = {name: more.pop(name) for name in ("key", "timestamp") if name in more}
    time = (START + pd.Timedelta(minutes, "min")).isoformat()
    value = {"patient_id": patient, "event_time": time, **more}
    usual: dict[str, Any] = {"key": patient.encode(), "timestamp": SENT, **told}
    return FakeMessage(orjson.dumps(value), offset=offset, **usual)


def test_results_say_what_was_known_and_what_was_carried_forward(ward: Ward) -> None:
    first = message(heart_rate=80, temperature=37.5)
    second = message(minutes=90, offset=1, heart_rate=85)
    *_, value = results_of(ward.score(chunk_of([first, second]), lag=0))
    document = orjson.loads(value)
    assert document["history"] == {
        "rows_seen": 2,
        "hours_since_first_seen": 1.5,
        "carried_forward": {"temperature": 1.5},
    }
    Draft202012Validator(load_schema("risk")).validate(document)


def test_values_no_longer_carried_forward_are_not_reported(ward: Ward) -> None:
    first = message(heart_rate=80, temperature=37.5)
    later = message(minutes=9 * 60, offset=1, heart_rate=85)
    *_, value = results_of(ward.score(chunk_of([first, later]), lag=0))
    assert orjson.loads(value)["history"]["carried_forward"] == {}


@pytest.mark.parametrize("chunk_size", [3, 100])
def test_rows_do_not_count_twice_when_the_model_rejects_some(ward: Ward, chunk_size: int) -> None:
    given = [message(minutes=n, offset=n, heart_rate=RAISES if n in (2, 3, 7) else 80 + n) for n in range(12)]
    assert ward.rows_seen(*given, chunk_size=chunk_size) == [1, 2, 5, 6, 7, 9, 10, 11, 12]
    assert ward.rows_seen(message(minutes=20, offset=20, heart_rate=80)) == [13]


def test_rows_without_input_count_in_the_history(ward: Ward) -> None:
    assert ward.rows_seen(message(), message(minutes=1, offset=1, heart_rate=80)) == [1, 2]


def test_a_message_not_keyed_by_its_patient_becomes_a_dead_letter(ward: Ward) -> None:
    given = [
        message(heart_rate=80),
        message("b", offset=1, key=b"a", heart_rate=80),
        message(offset=2, key=None, heart_rate=80),
        message(minutes=1, offset=3, heart_rate=80),
    ]
    refused = [(1, Reason.CONFLICTING, "patient_id"), (2, Reason.CONFLICTING, "patient_id")]
    assert ward.refused(*given) == refused
    assert ward.rows_seen(message(minutes=2, offset=4, heart_rate=80)) == [3], "a dead letter counted"


def test_an_event_time_far_ahead_of_the_messages_timestamp_becomes_a_dead_letter(ward: Ward) -> None:
    day, ahead = 24 * 60, 5
    given = [
        message(minutes=day + ahead, heart_rate=80),
        message(minutes=day + ahead + 0.001, offset=1, heart_rate=80),
        message(minutes=day + 60, offset=2, heart_rate=80, timestamp=-1),
    ]
    assert ward.refused(*given) == [(1, Reason.BAD_TIME, "event_time")]


@pytest.mark.parametrize("time", ["2026-01-05T08:00:60Z", "0000-01-05T08:00:00Z"])
def test_an_impossible_event_time_becomes_a_dead_letter(ward: Ward, time: str) -> None:
    value = {"patient_id": "a", "event_time": time, "heart_rate": 80}
    bad = FakeMessage(orjson.dumps(value), key=b"a", timestamp=SENT)
    assert ward.refused(bad, message(offset=1, heart_rate=80)) == [(0, Reason.BAD_TIME, "event_time")]


def test_late_rows_are_reported(ward: Ward) -> None:
    ward.rows_seen(message(minutes=300, heart_rate=80), message(minutes=10, offset=1, heart_rate=80))
    assert ward.told.rows == 1


def test_features_are_the_same_as_offline(ward: Ward) -> None:
    given = [message(f"p{n % 3}", n * 7 % 50, offset=n, heart_rate=60 + n) for n in range(40)]
    output = ward.score(block_of(given, chunk_size=9), lag=0)
    found = [decode_result(value).risk_probability for value in results_of(output)]
    stays = pd.DataFrame([orjson.loads(one.value() or b"") for one in given]).assign(temperature=np.nan)
    assert found == fitted().predict_proba(stays)[:, 1].tolist()

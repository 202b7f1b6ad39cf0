"""The audit of messages with few of the model's features: those with too few are not given to the model."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from audit.findings import Invariant
from audit.outcome import Audit
from broker.errors import SettingsError
from broker.topics import create_topics
from schemas.contract import Reason
from tests.audit.conftest import FEATURES, work
from tests.audit.models import REFUSED
from tests.audit.test_audit import add_letter, failed, judged, offenders, places
from tests.audit.topics import Record, Written, written
from tests.conftest import fresh_settings
from tests.kafka import produce

pytestmark = pytest.mark.kafka

ROWS = 120
LATER = ("features_present", "no_input")
CARRIED = "its key, patient, time, implausible features, features_present or no_input are not its message's"


def sparse(count: int) -> Iterator[tuple[str, bytes]]:
    """Messages with none, one, two or all of the features; some of those with none have a value out of range."""
    for number in range(count):
        values: dict[str, float | None] = dict(zip(FEATURES, [60.0 + number, 97.0, 37.0], strict=True))
        for name in FEATURES[number % 4 :]:
            values[name] = None
            if number % 3 == 0:
                del values[name]
        if number % 8 == 4:
            values["temperature"] = -17.8
        if number == 58:
            values["heart_rate"] = REFUSED  # has two features
        document: dict[str, Any] = {"patient_id": f"p{number % 12}", "event_time": "2026-01-05T08:30:00Z"}
        yield f"p{number % 12}", orjson.dumps(document | values)


def run(kafka: str, model: Path, **settings: Any) -> Written:
    made = fresh_settings(kafka, model=model, **settings)
    create_topics(made, partitions=4, replication_factor=1)
    produce(kafka, made.input_topic, sparse(ROWS))
    work(made)
    return written(made)


@pytest.fixture(scope="module")
def ran(kafka: str, moody: Path) -> Written:
    return run(kafka, moody)


@pytest.fixture
def made(ran: Written) -> Written:
    """What a worker wrote with --min-features 1, to spoil."""
    return deepcopy(ran)


def some(made: Written, *, no_input: bool) -> list[int]:
    """The positions of the results with or without input."""
    return [n for n, one in enumerate(made.results) if one.json["no_input"] is no_input]


def told_of(found: Audit, place: tuple[str, int, int]) -> list[str]:
    """What the audit says about a message."""
    return [one.problem for one in found.offenders if (one.topic, one.partition, one.offset) == place]


def spoilt(made: Written, position: int, **changes: Any) -> tuple[str, int, int]:
    """Change a result; returns the place of its message."""
    record = made.results[position]
    made.results[position] = record.saying(**changes)
    return (made.settings.input_topic, *record.place)


@pytest.mark.parametrize("least", [1, 3])
def test_what_a_worker_writes_for_messages_without_input_is_clean(
    kafka: str, moody: Path, ran: Written, least: int
) -> None:
    made = ran if least == 1 else run(kafka, moody, min_features=least)
    found = judged(made.settings)
    assert found.clean, found.offenders
    assert found.messages == found.accounted == ROWS
    present = [one.json["features_present"] for one in made.results]
    assert {*present} == {0, 1, 2, 3}
    assert [one.json["no_input"] for one in made.results] == [count < least for count in present]
    assert all((one.json["risk_probability"] is None) is one.json["no_input"] for one in made.results)
    assert any(one.json["no_input"] and one.json["implausible"] for one in made.results)
    assert len(made.dead_letters) == (
        1 if least == 1 else 0
    )  # the model is not given the row it would refuse
    assert judged(made.settings.model_copy(update={"model": None})).clean


def test_a_finding_names_min_features_if_they_differ_from_the_workers(made: Written) -> None:
    found = judged(made.settings.model_copy(update={"min_features": 2}))
    assert failed(found) == {Invariant.CORRECT}
    one_feature = {
        (made.settings.input_topic, *one.place) for one in made.results if one.json["features_present"] == 1
    }
    assert {*places(found, Invariant.CORRECT)} <= one_feature
    assert any("--min-features" in one.problem for one in found.offenders)


def test_more_min_features_than_the_model_has_are_refused(made: Written) -> None:
    with pytest.raises(SettingsError, match="--min-features 4: the model has only 3 "):
        judged(made.settings.model_copy(update={"min_features": 4}))


DOCTORED: list[tuple[dict[str, Any], str]] = [
    ({"risk_probability": 0.0, "risk_label": 0}, "it says no_input, but has a probability"),
    ({"risk_label": 0}, "its probability is invalid, or its label does not follow"),
    ({"no_input": False}, "it had none of the features, but does not say no_input"),
    (
        {"no_input": False, "risk_probability": 0.0, "risk_label": 0},
        "it had none of the features, but does not say no_input",
    ),
]


def test_doctored_results_without_input_are_found_even_without_the_model(made: Written) -> None:
    wanted = {}
    for position, (changes, problem) in zip(some(made, no_input=True), DOCTORED, strict=False):
        wanted[spoilt(made, position, **changes)] = problem
    assert len(wanted) == len(DOCTORED)
    settings = made.copied()
    for model in (None, settings.model):
        found = judged(settings.model_copy(update={"model": model}))
        assert {*places(found, Invariant.CORRECT)} == {*wanted}
        for place, problem in wanted.items():
            assert any(told.startswith(problem) for told in told_of(found, place))


MISCOUNTED: list[tuple[bool, dict[str, Any]]] = [
    (True, {"features_present": 1}),
    (True, {"features_present": 1, "no_input": False}),
    (True, {"features_present": 1, "no_input": False, "risk_probability": 0.0, "risk_label": 0}),
    (False, {"features_present": 0, "no_input": True, "risk_probability": None, "risk_label": None}),
    (False, {"no_input": True, "risk_probability": None, "risk_label": None}),
    (False, {"features_present": 7}),
]


def test_results_that_miscount_their_messages_features_are_found(made: Written) -> None:
    positions = {no_input: some(made, no_input=no_input) for no_input in (True, False)}
    wanted = {spoilt(made, positions[no_input].pop(), **changes) for no_input, changes in MISCOUNTED}
    found = judged(made.copied())
    assert {*places(found, Invariant.CORRECT)} == wanted
    for place in wanted:
        assert any(told.startswith(CARRIED) for told in told_of(found, place))


def test_a_model_rejected_letter_of_a_message_without_input_is_found(made: Written) -> None:
    place = made.results.pop(some(made, no_input=True)[0]).place
    add_letter(made, place, Reason.MODEL_REJECTED)
    found = judged(made.copied())
    assert places(found, Invariant.CORRECT) == [(made.settings.input_topic, *place)]
    assert "is not asked about it" in offenders(found, Invariant.CORRECT)[0].problem


def earlier(record: Record) -> Record:
    """The result of an older version, which gave every message to the model; the hand-written one returns 0."""
    score = {"risk_probability": 0.0, "risk_label": 0} if record.json["no_input"] else {}
    return replace(
        record, value=orjson.dumps({n: v for n, v in (record.json | score).items() if n not in LATER})
    )


def test_results_of_an_older_version_are_judged_by_its_rules(made: Written) -> None:
    half = len(made.results) // 2  # the worker was upgraded here
    made.results[:half] = map(earlier, made.results[:half])
    settings = made.copied()
    for model in (None, settings.model):
        found = judged(settings.model_copy(update={"model": model}))
        assert found.clean, found.offenders
        assert found.accounted == ROWS
    position = next(n for n, one in enumerate(made.results[:half]) if one.json["risk_probability"])
    place = spoilt(made, position, risk_probability=0.5, risk_label=1)
    other = spoilt(made, position + 1, patient_id="p77")
    assert {*places(judged(made.copied()), Invariant.CORRECT)} == {place, other}


def test_an_invalid_record_among_results_of_an_older_version_affects_no_other(made: Written) -> None:
    made.results = [*map(earlier, made.results)]
    made.results.insert(7, Record(made.results[7].partition, b"k", b"[]"))
    found = judged(made.copied())
    assert failed(found) == {Invariant.GENUINE}
    assert found.accounted == ROWS

"""Telemetry: every observer gets every event, and the log says what an operator needs."""

import inspect
import logging
from typing import Any

import pytest

from consumer.errors import Action
from consumer.observer import LogObserver, Observer, Observers, Step
from schemas.contract import Reason
from tests.consumer.fakes import Clock, chunk_metrics

EVENTS = [name for name, member in vars(Observer).items() if inspect.isfunction(member)]


class Recorder(Observer):
    def __init__(self) -> None:
        self.heard: list[Any] = []
        for name in EVENTS:
            setattr(self, name, self._recording(name))

    def _recording(self, name: str) -> Any:
        return lambda *args, **kwargs: self.heard.append((name, args, kwargs))


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_reaches_every_observer_in_order(event: str) -> None:
    first, second = Recorder(), Recorder()
    getattr(Observers(first, second), event)(1, two=2)
    assert first.heard == second.heard == [(event, (1,), {"two": 2})]


def test_an_observer_may_ignore_every_event() -> None:
    Observers().committed(chunks=1, rows=1, seconds=0.1)
    Observer().reached(Step.COMMITTED)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """Returns the lines logged since it was last called."""
    caplog.set_level(logging.INFO)

    def taken() -> list[tuple[str, str]]:
        found = [(record.levelname, record.getMessage()) for record in caplog.records]
        caplog.clear()
        return found

    return taken


def test_changes_are_logged_at_once(lines: Any) -> None:
    log = LogObserver()
    log.started(
        worker="g-0",
        model="0123456789abcdef",
        features=["heart_rate", "spo2"],
        path="compiled trees",
        decision="the risk is the probability of 1, and the label is 1 from 0.5 upwards (the default threshold)",
    )
    log.assigned([2, 0])
    log.assigned([])
    log.revoked([1], lost=False)
    log.revoked([2], lost=True)
    log.failed("committing", "_TIMED_OUT", Action.REBUILD)
    assert lines() == [
        ("INFO", "worker g-0 scores heart_rate, spo2 with model 0123456789ab"),
        ("INFO", "scores with compiled trees"),
        (
            "INFO",
            "the risk is the probability of 1, and the label is 1 from 0.5 upwards (the default threshold)",
        ),
        ("INFO", "assigned partitions 0, 2"),
        ("INFO", "assigned partitions none"),
        ("INFO", "revoked partitions 1"),
        ("INFO", "lost partitions 2"),
        (
            "WARNING",
            "committing failed with _TIMED_OUT: renew the producer and read again from the committed offsets",
        ),
    ]


def test_features_missing_from_every_message_are_a_warning(lines: Any) -> None:
    LogObserver().unseen(["spo2", "age"])
    ((level, text),) = lines()
    assert level == "WARNING"
    assert text.startswith("none of the first 1,000 messages has a plausible number for spo2, age,")


def test_keys_that_are_not_patient_ids_are_a_warning(lines: Any) -> None:
    LogObserver().keyed_otherwise()
    ((level, text),) = lines()
    assert level == "WARNING"
    assert text.startswith(
        "the messages' keys are not the patients' ids: messages of one patient may be in several"
    )


def test_a_field_that_looks_like_a_feature_is_shown_with_the_differing_characters(lines: Any) -> None:
    LogObserver().looks_alike("h\u0435art\x1brate", "heart_rate", mapped=False)
    ((level, text),) = lines()
    assert level == "WARNING"
    assert (
        "only looks like the model's feature heart_rate (U+0435 CYRILLIC SMALL LETTER IE in place of e)"
        in text
    )
    assert "\x1b" not in text


def test_a_path_that_looks_like_the_mappings_is_shown_with_the_differing_characters(lines: Any) -> None:
    LogObserver().looks_alike("vitals.HR", "vitals.hr", mapped=True)
    ((level, text),) = lines()
    assert level == "WARNING"
    assert text == (
        "the messages' field vitals.HR only looks like the mapping's vitals.hr (H and R in place of h and r), so the "
        "model scores without it: correct the mapping"
    )


def test_numbers_are_logged_when_due_and_at_the_end(lines: Any) -> None:
    clock = Clock()
    log = LogObserver(interval=10, clock=clock)
    log.behind({0: 3, 1: 4})
    clock.now += 9.9
    log.committed(chunks=1, rows=100, seconds=0.01)
    assert lines() == []

    clock.now += 0.1
    log.committed(chunks=1, rows=20, seconds=0.01)
    assert lines() == [("INFO", "120 rows committed, lag 7, dead letters: none")]
    log.committed(chunks=1, rows=1, seconds=0.01)
    assert lines() == []

    log.stopped()
    assert lines() == [("INFO", "121 rows committed, lag 7, dead letters: none"), ("INFO", "stopped")]


def test_the_first_dead_letter_of_a_kind_is_named_and_all_are_counted(lines: Any) -> None:
    log = LogObserver()
    for offset in range(3):
        log.rejected(1, offset, Reason.WRONG_TYPE, "spo2")
    log.rejected(1, 9, Reason.WRONG_TYPE, "heart_rate")
    log.rejected(0, 4, Reason.NOT_JSON, "")
    assert lines() == []
    log.committed(chunks=1, rows=5, seconds=0.01)
    assert [text.strip() for _, text in lines()] == [
        "dead letter at partition 1 offset 0: wrong_type spo2",
        "dead letter at partition 1 offset 9: wrong_type heart_rate",
        "dead letter at partition 0 offset 4: not_json",
    ]
    log.stopped()
    assert lines()[0] == ("INFO", "5 rows committed, lag 0, dead letters: wrong_type 4, not_json 1")


def test_dead_letters_that_were_not_committed_are_not_counted(lines: Any) -> None:
    log = LogObserver()
    log.rejected(0, 1, Reason.NOT_JSON, "")
    log.committed(chunks=1, rows=3, seconds=0.01)
    log.rejected(0, 4, Reason.BAD_TIME, "event_time")
    log.failed("committing", "_TIMED_OUT", Action.REBUILD)
    log.rejected(0, 4, Reason.NOT_JSON, "")
    log.committed(chunks=1, rows=2, seconds=0.01)
    log.rejected(0, 6, Reason.MISSING_FIELD, "patient_id")
    log.stopped()
    told = lines()
    assert [text for _, text in told if text.startswith("dead letter at")] == [
        "dead letter at partition 0 offset 1: not_json "
    ]
    assert told[-2] == ("INFO", "5 rows committed, lag 0, dead letters: not_json 2")


def test_messages_without_input_are_one_warning_and_count_once_committed(lines: Any) -> None:
    log = LogObserver()
    log.scored([chunk_metrics(scored=5), chunk_metrics(scored=5, no_input=2, chunk_id="vitals-0@17")])
    log.failed("committing", "_TIMED_OUT", Action.REBUILD)
    log.scored([chunk_metrics(scored=5, no_input=2)])
    log.committed(chunks=1, rows=5, seconds=0.01)
    ((_, warning), _) = lines()
    assert warning.startswith("chunk vitals-0@17: 2 of 5 messages have too few of the model's features; ")
    log.stopped()
    assert lines()[0] == ("INFO", "5 rows committed, 2 of them without input, lag 0, dead letters: none")

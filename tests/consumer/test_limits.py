"""When a worker stops instead of draining its topic into dead letters."""

from collections import deque

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.limits import ENOUGH, WINDOW, RejectLimit, TooManyRejectedError
from schemas.contract import Reason
from schemas.vitals import Reject
from tests.consumer.accounts import read_accounts
from tests.consumer.stage import Stage

Flags = list[bool]


def reject(position: int) -> Reject:
    return Reject(position, Reason.WRONG_TYPE, "spo2")


def feed(limit: RejectLimit, chunk: Flags) -> bool:
    """Whether this chunk reaches the limit; True stands for a rejected message."""
    try:
        limit.update(len(chunk), [reject(i) for i, rejected in enumerate(chunk) if rejected])
    except TooManyRejectedError:
        return True
    return False


def rejected(count: int) -> Flags:
    return [True] * count


def accepted(count: int) -> Flags:
    return [False] * count


# Runs of equal flags, so that long runs of rejects and all kinds of mixtures occur.
runs = st.lists(st.tuples(st.booleans(), st.integers(1, 400)), min_size=1, max_size=4)
chunks = st.lists(runs.map(lambda rs: [flag for flag, times in rs for _ in range(times)]), max_size=12)


def test_rejects_are_no_longer_in_a_row_once_a_long_chunk_has_none() -> None:
    limit = RejectLimit(0.9)
    assert not feed(limit, rejected(ENOUGH - 1))
    assert not feed(limit, accepted(2 * WINDOW))
    assert not feed(limit, rejected(1))


@given(chunks=chunks, ratio=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
def test_the_limit_agrees_with_a_naive_window(chunks: list[Flags], ratio: float) -> None:
    limit = RejectLimit(ratio)
    window = deque[Flags]()
    seen: Flags = []
    for chunk in chunks:
        seen += chunk
        window.append(chunk)
        while sum(map(len, window)) - len(window[0]) >= WINDOW:
            window.popleft()
        last = [flag for one in window for flag in one]
        share = sum(last) / len(last)
        expected = ratio < 1 and (
            (len(last) >= ENOUGH and share > ratio) or (len(seen) >= ENOUGH and all(seen[-ENOUGH:]))
        )
        assert feed(limit, chunk) == expected


def test_the_window_is_the_last_thousand_messages() -> None:
    limit = RejectLimit(0.4)
    assert not any(feed(limit, [False]) for _ in range(600))
    # From here the window holds 400 rejects, and each new one pushes an old one out.
    assert not any(feed(limit, [True]) for _ in range(400))
    assert not any(feed(limit, [False]) for _ in range(600))
    assert not any(feed(limit, [True]) for _ in range(400))
    assert feed(limit, [True])


def test_few_messages_are_not_judged() -> None:
    limit = RejectLimit(0.0)
    assert not any(feed(limit, rejected(1)) for _ in range(ENOUGH - 1))
    assert feed(limit, rejected(1))


def test_a_long_run_of_rejects_reaches_the_limit_at_a_small_share() -> None:
    limit = RejectLimit(0.9)
    assert not feed(limit, accepted(WINDOW))
    assert not feed(limit, accepted(1) + rejected(ENOUGH - 1))
    assert feed(limit, rejected(1))


def test_a_run_that_has_ended_does_not_count() -> None:
    limit = RejectLimit(0.9999)
    assert not feed(limit, rejected(ENOUGH) + accepted(1))
    assert not feed(limit, rejected(ENOUGH - 1))


def test_messages_read_again_count_once() -> None:
    limit = RejectLimit(0.5)
    for _ in range(10):
        assert not feed(limit, rejected(ENOUGH - 1))
        limit.restart()


def test_the_error_counts_the_reasons() -> None:
    limit = RejectLimit(0.25)
    rejects = [Reject(i, Reason.NOT_JSON, "") for i in range(200)] + [reject(i) for i in range(200, 300)]
    with pytest.raises(TooManyRejectedError) as caught:
        limit.update(1000, rejects)
    assert str(caught.value).startswith(
        "300 of the last 1,000 messages were rejected, 0 in a row (not_json 200, wrong_type spo2 100): "
        "more than a share of 0.25, "
    )


@pytest.mark.kafka
def test_a_worker_stops_instead_of_draining_the_topic(stage: Stage) -> None:
    settings = stage.settings(partitions=1, model="fragile", commit_interval_ms=0, chunk_size=50)
    good, bad = (
        {"patient_id": "p1", "event_time": "2026-01-05T08:30:00Z", "spo2": spo2} for spo2 in (97, "?")
    )
    stage.send(settings, [("p1", orjson.dumps(good))] * 600)
    stage.send(settings, [("p1", orjson.dumps(bad))] * 2000)
    worker = stage.worker(settings)
    assert worker.wait(timeout=60) == 1, worker.log
    assert "messages were rejected, 500 in a row (wrong_type spo2 500): " in worker.log

    found = read_accounts(settings)
    assert len(found.results) == 600
    assert 450 <= len(found.dead_letters) < ENOUGH
    done = 600 + len(found.dead_letters)
    assert found.committed == {0: done}, "the last chunk was committed"
    assert (
        f"{done} rows committed, lag {2600 - done}, dead letters: wrong_type {len(found.dead_letters)}\n"
    ) in worker.log
    assert "dead letter at partition 0 offset 600: wrong_type spo2" in worker.log

    # Each process starts counting anew.
    again = stage.worker(settings)
    assert again.wait(timeout=60) == 1, again.log
    more = read_accounts(settings)
    assert 450 <= len(more.dead_letters) - len(found.dead_letters) < ENOUGH

    through = stage.worker(settings.model_copy(update={"max_dead_letter_ratio": 1.0}))
    stage.wait_committed(settings, 2600)
    through.stop()
    assert len(read_accounts(settings).dead_letters) == 2000


@pytest.mark.kafka
def test_a_stop_within_the_first_transaction_says_that_nothing_was_committed(stage: Stage) -> None:
    settings = stage.settings(partitions=1, model="fragile", commit_interval_ms=10_000, chunk_size=50)
    bad = {"patient_id": "p1", "event_time": "2026-01-05T08:30:00Z", "spo2": "?"}
    stage.send(settings, [("p1", orjson.dumps(bad))] * 2000)
    worker = stage.worker(settings)
    assert worker.wait(timeout=60) == 1, worker.log
    assert "0 rows committed, lag 2000, dead letters: none\n" in worker.log, "not all were read again"
    assert "dead letter at" not in worker.log
    assert "uncommitted messages are read again at the next start" in worker.log
    found = read_accounts(settings)
    assert (found.results, found.dead_letters, found.metrics, found.committed) == ([], [], [], {})

"""Tests of the watch itself: it replaces clients that stop responding, and says how old its numbers are."""

import threading
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException

from broker.settings import Settings
from tests.faults import watch
from tests.faults.watch import Offsets, Watch
from tests.kafka import wait_until

Ask = Callable[[], tuple[Offsets, Offsets]]


def hangs() -> tuple[Offsets, Offsets]:
    threading.Event().wait()
    raise AssertionError


def raises() -> tuple[Offsets, Offsets]:
    raise KafkaException(KafkaError(KafkaError.UNKNOWN_LEADER_EPOCH))


def fails() -> tuple[Offsets, Offsets]:
    raise KeyError("topic")


def watching(asks: list[Ask], monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A watch that gets these clients, one after the other."""
    left = iter(asks)
    monkeypatch.setattr(watch, "Asker", lambda _: next(left))
    monkeypatch.setattr(watch, "BLIND_S", 0.3)
    return Watch(Settings())


@pytest.mark.parametrize("blind", [hangs, raises, fails])
def test_clients_that_do_not_respond_are_replaced(blind: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    one = watching([blind, blind, lambda: ({0: 7}, {0: 5})], monkeypatch)
    wait_until(lambda: one.rows == 5, timeout=60, what="an answer of the third clients")
    assert one.sent == 7
    one.stop()


def test_a_stalled_group_is_distinguished_from_a_blind_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([({0: 7}, {0: 5})] * 30)

    def ask() -> tuple[Offsets, Offsets]:
        answer = next(answers, None)
        return answer if answer else raises()

    one = watching([ask, ask, ask, *[raises] * 100], monkeypatch)
    wait_until(lambda: one.rows == 5, timeout=60, what="an answer")
    assert one.sight.startswith("as seen 0.")
    assert "since then" not in one.sight
    setback = one.note_fault()
    wait_until(lambda: "UNKNOWN_LEADER_EPOCH" in one.sight, timeout=60, what="an error")
    assert setback.seconds is None
    one.stop()

"""Bounded calls: one that never returns must not block the worker."""

import gc
import signal
import threading
import weakref

import pytest
from confluent_kafka import KafkaError, KafkaException

from broker.bounded import Bounded
from consumer.errors import KafkaCallError
from consumer.sending import kafka_call
from tests.kafka import wait_until


@pytest.fixture
def threads() -> set[threading.Thread]:
    """The threads that were there before."""
    return {*threading.enumerate()}


class Used:
    """An object that a call uses."""

    def __call__(self) -> int:
        return threading.get_ident()

    def fail(self) -> None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def test_results_and_errors_come_through() -> None:
    bounded = Bounded()
    assert bounded(lambda: 3, seconds=10) == 3
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 // 0, seconds=10)
    assert bounded(lambda: 4, seconds=10) == 4


def test_all_calls_share_a_thread() -> None:
    bounded = Bounded()
    made_in = {bounded(threading.get_ident, seconds=10) for _ in range(10)}
    assert len(made_in) == 1
    assert threading.get_ident() not in made_in


def test_nobody_waits_for_a_hanging_call(threads: set[threading.Thread]) -> None:
    bounded, for_ever = Bounded(), threading.Event()
    with pytest.raises(TimeoutError):
        bounded(for_ever.wait, seconds=0.05)
    assert bounded(lambda: 5, seconds=10) == 5, "the next call waited for the hanging one, or took its result"
    assert len({*threading.enumerate()} - threads) == 2

    for_ever.set()

    wait_until(
        lambda: len({*threading.enumerate()} - threads) == 1, timeout=60, what="the lost call's thread gone"
    )


def test_the_next_call_does_not_wait_for_an_interrupted_one() -> None:
    """Otherwise its time would run out before it started, and it would still run when nobody waits for it any more."""
    bounded, for_ever = Bounded(), threading.Event()
    main, interrupted = threading.get_ident(), threading.Event()

    def interrupt() -> None:
        # Python misses a signal that arrives just as its main thread starts to wait, so one is not enough.
        for _ in range(20):
            if interrupted.wait(1):
                return
            signal.pthread_kill(main, signal.SIGINT)

    def wait() -> None:
        threading.Thread(target=interrupt, daemon=True).start()
        for_ever.wait()

    # A shell makes its background processes ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        bounded(wait, seconds=30)
    interrupted.set()
    signal.signal(signal.SIGINT, before)

    assert bounded(lambda: 6, seconds=10) == 6

    for_ever.set()


def test_a_finished_call_keeps_nothing_alive() -> None:
    """A replaced producer must be freed, together with its connections."""
    bounded = Bounded()
    used = [Used(), Used()]
    gone = [weakref.ref(one) for one in used]
    bounded(used[0], seconds=10)
    with pytest.raises(KafkaCallError), kafka_call("sending offsets"):
        bounded(used[1].fail, seconds=10)

    gc.disable()
    try:
        used.clear()
        wait_until(
            lambda: not any(ref() for ref in gone), timeout=60, what="both freed without garbage collection"
        )
    finally:
        gc.enable()


def test_the_thread_ends_with_its_owner(threads: set[threading.Thread]) -> None:
    bounded = Bounded()
    bounded(lambda: None, seconds=10)
    assert {*threading.enumerate()} - threads

    del bounded
    gc.collect()

    wait_until(lambda: not {*threading.enumerate()} - threads, timeout=60, what="no thread")

"""A call that never returns must not keep the worker."""

import threading

import pytest

from consumer.bounded import bounded


def test_results_and_errors_come_through() -> None:
    assert bounded(lambda: 3, seconds=10) == 3
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 // 0, seconds=10)


def test_nobody_waits_for_a_call_that_hangs() -> None:
    for_ever = threading.Event()
    with pytest.raises(TimeoutError):
        bounded(for_ever.wait, seconds=0.05)
    for_ever.set()

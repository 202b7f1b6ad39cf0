"""How long a transaction gathers chunks."""

import pytest

from consumer.worker import gathering_time


@pytest.mark.parametrize("lag", [0, 1, 1_000])
def test_what_comes_as_fast_as_it_is_scored_is_committed_at_the_interval(lag: int) -> None:
    assert gathering_time(0.025, rows=100, lag=lag) == 0.025


def test_a_long_backlog_is_committed_in_larger_transactions() -> None:
    assert gathering_time(0.025, rows=100, lag=1_001) == 0.2
    assert gathering_time(1.0, rows=100, lag=1_001) == 1.0, "what the user wants to be longer stays so"


def test_an_interval_of_none_stays_none() -> None:
    assert gathering_time(0, rows=1, lag=1_000_000) == 0

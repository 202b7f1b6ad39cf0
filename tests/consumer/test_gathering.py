"""How long a transaction gathers chunks."""

import pytest

from consumer.chunks import BLOCK_ROWS
from consumer.worker import gathering_time, room


@pytest.mark.parametrize("lag", [0, 1, 200])
def test_without_a_long_backlog_commits_keep_to_the_interval(lag: int) -> None:
    assert gathering_time(0.025, rows=100, lag=lag) == 0.025


def test_a_long_backlog_is_committed_in_larger_transactions() -> None:
    assert gathering_time(0.025, rows=100, lag=201) == 0.2
    assert gathering_time(1.0, rows=100, lag=201) == 1.0, "an interval that the user set longer was shortened"


def test_a_zero_interval_stays_zero() -> None:
    assert gathering_time(0, rows=1, lag=1_000_000) == 0


def test_a_block_is_small_enough_to_be_scored_before_its_transaction_is_due() -> None:
    assert room(0.025, open_for=0.0, rows=0, lag=700, rate=10_000) == 250
    assert room(0.025, open_for=0.02, rows=200, lag=0, rate=10_000) == 50
    assert room(0.025, open_for=0.03, rows=300, lag=0, rate=10_000) <= 0
    assert room(0.025, open_for=0.0, rows=0, lag=1_000, rate=0.0) == 0, "the cost of rows is not known yet"


@pytest.mark.parametrize("rows", [0, 100, 5_000])
@pytest.mark.parametrize("lag", [0, 1_000, 100_000])
@pytest.mark.parametrize("open_for", [0.0, 0.1])
def test_a_transaction_is_not_overdue_after_its_block(rows: int, lag: int, open_for: float) -> None:
    rate = 50_000
    taken = min(BLOCK_ROWS, max(0, room(0.025, open_for=open_for, rows=rows, lag=lag, rate=rate)))
    if taken:
        gathers = gathering_time(0.025, rows=rows + taken, lag=lag - taken)
        assert open_for + taken / rate <= gathers + 1e-9


def test_in_a_long_backlog_blocks_reach_their_largest_size() -> None:
    assert room(0.025, open_for=0.1, rows=20_000, lag=1_000_000, rate=200_000) >= BLOCK_ROWS


def test_without_an_interval_a_block_is_one_chunk() -> None:
    assert room(0, open_for=0.0, rows=0, lag=1_000_000, rate=1e6) == 0

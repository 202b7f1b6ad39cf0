"""Collecting: when a chunk closes, and what it contains."""

from typing import Any

import pytest
from confluent_kafka import KafkaError

from consumer.chunks import BLOCK_BYTES, BLOCK_ROWS, POLL_S, STEP, Block, Collector, Pace
from schemas.metrics import ClosedBy
from tests.consumer.fakes import Clock, FakeMessage, Queue, chunk_of, messages


def collector(queue: Queue, clock: Clock, **changes: Any) -> Collector:
    size, wait = changes.pop("chunk_size", 3), changes.pop("max_wait", 0.0)
    options: dict[str, Any] = {"pace": lambda: Pace(size, wait), "on_error": pytest.fail, "clock": clock}
    return Collector(queue, **(options | changes))


def offsets(chunk: Block | None) -> list[int]:
    assert chunk is not None
    return chunk.offsets


def test_a_full_chunk_closes_at_once_and_leaves_the_rest() -> None:
    clock = Clock()
    queue = Queue(clock, messages((0, 0), (0, 1), (0, 2), (0, 3)))
    collect = collector(queue, clock, max_wait=5.0)

    chunk = collect.collect()
    assert chunk is not None
    assert (chunk.offsets, chunk.closed_by, len(chunk)) == ([0, 1, 2], ClosedBy.FULL, 3)
    assert clock.now == 1000.0, "a full chunk waited"
    assert len(queue.queued) == 1


def test_without_max_wait_a_chunk_takes_what_is_there_and_never_waits() -> None:
    clock = Clock()
    queue = Queue(clock, messages((0, 0), (0, 1)))
    queue.later = [(1000.001, FakeMessage(offset=2))]

    chunk = collector(queue, clock).collect()
    assert chunk is not None
    assert (chunk.offsets, chunk.closed_by) == ([0, 1], ClosedBy.DRAINED)
    assert clock.now == 1000.0


def test_collect_waits_for_the_first_row_and_takes_what_came_with_it() -> None:
    clock = Clock()
    queue = Queue(clock)
    collect = collector(queue, clock)
    assert collect.collect(patience=2.0) is None
    assert clock.now == 1002.0, "collect waits only as long as its patience"

    queue.later = [(1002.5, FakeMessage(offset=7))]
    chunk = collect.collect(patience=2.0)
    assert (offsets(chunk), clock.now) == ([7], 1002.5), "one message is enough to go on"


def test_max_wait_runs_from_the_first_row_not_from_the_last() -> None:
    clock = Clock()
    queue = Queue(clock)
    queue.later = [(1000.5 + 0.4 * number, FakeMessage(offset=number)) for number in range(6)]
    collect = collector(queue, clock, chunk_size=100, max_wait=1.0)

    chunk = None
    while chunk is None:
        chunk = collect.collect()
    assert (chunk.offsets, chunk.closed_by) == ([0, 1, 2], ClosedBy.WAITED)
    assert chunk.first_at == 1000.5
    assert clock.now == pytest.approx(1001.5)


def test_a_waiting_chunk_returns_control_within_its_patience() -> None:
    clock = Clock()
    queue = Queue(clock, messages((0, 0)))
    collect = collector(queue, clock, max_wait=60.0)
    assert collect.collect() is None
    assert clock.now <= 1000.0 + 2 * POLL_S


def test_a_chunk_that_fills_while_it_waits_is_full() -> None:
    clock = Clock()
    queue = Queue(clock, messages((0, 0)))
    queue.later = [(1000.01, FakeMessage(offset=1)), (1000.02, FakeMessage(offset=2))]
    collect = collector(queue, clock, max_wait=60.0)

    chunk = collect.collect()
    assert chunk is not None
    assert (chunk.offsets, chunk.closed_by) == ([0, 1, 2], ClosedBy.FULL)


@pytest.mark.parametrize("closed_by", [ClosedBy.REVOKED, ClosedBy.STOPPED])
def test_closing_returns_pending_rows_once(closed_by: ClosedBy) -> None:
    clock = Clock()
    collect = collector(Queue(clock, messages((0, 4), (1, 9))), clock, max_wait=60.0)
    assert collect.collect() is None

    chunk = collect.close(closed_by)
    assert chunk is not None
    assert (chunk.partitions, chunk.offsets, chunk.closed_by) == ([0, 1], [4, 9], closed_by)
    assert collect.close(closed_by) is None


def test_discarded_messages_are_gone() -> None:
    clock = Clock()
    collect = collector(Queue(clock, messages((0, 4))), clock, max_wait=60.0)
    assert collect.collect() is None
    collect.discard()
    assert collect.close(ClosedBy.STOPPED) is None


def test_errors_are_passed_on_and_never_become_rows() -> None:
    clock = Clock()
    heard: list[str] = []
    trouble = FakeMessage(error=KafkaError(KafkaError._TRANSPORT))
    queue = Queue(clock, [trouble, *messages((0, 0)), trouble])
    collect = collector(queue, clock, on_error=lambda error: heard.append(error.name()))

    assert offsets(collect.collect()) == [0]
    assert heard == ["_TRANSPORT", "_TRANSPORT"]
    queue.queued = [trouble]
    assert collect.collect() is None


def test_exceptions_from_on_error_are_raised() -> None:
    clock = Clock()

    def refuse(error: KafkaError) -> None:
        raise RuntimeError(error.name())

    queue = Queue(clock, [FakeMessage(error=KafkaError(KafkaError._FATAL))])
    with pytest.raises(RuntimeError, match="_FATAL"):
        collector(queue, clock, on_error=refuse).collect()


def test_a_block_takes_the_queued_full_chunks_and_leaves_the_rest_for_the_next() -> None:
    clock = Clock()
    queue = Queue(clock, messages(*((0, offset) for offset in range(8))))
    collect = collector(queue, clock)

    block = collect.collect(rows=100)
    assert block is not None
    assert [(chunk.offsets, chunk.closed_by) for chunk in block.chunks] == [
        ([0, 1, 2], ClosedBy.FULL),
        ([3, 4, 5], ClosedBy.FULL),
    ]
    assert (block.closed_by, collect.pending) == (ClosedBy.FULL, [0, 0])
    queue.queued = [*messages((0, 8))]
    assert offsets(collect.collect(rows=100)) == [6, 7, 8]
    queue.queued = [*messages((0, 9))]
    last = collect.collect(rows=100)
    assert last is not None
    assert (last.offsets, last.closed_by, last.chunks) == ([9], ClosedBy.DRAINED, [last])


@pytest.mark.parametrize(("rows", "taken"), [(0, 3), (2, 3), (5, 3), (6, 6), (8, 6), (100, 9)])
def test_a_block_stays_within_its_rows_but_always_takes_one_chunk(rows: int, taken: int) -> None:
    clock = Clock()
    queue = Queue(clock, messages(*((0, offset) for offset in range(11))))
    block = collector(queue, clock).collect(rows=rows)
    assert (len(offsets(block)), clock.now) == (taken, 1000.0)


def test_a_block_is_bounded_in_rows_and_in_bytes() -> None:
    clock = Clock()
    queue = Queue(clock, messages(*((0, offset) for offset in range(10_000))))
    assert len(offsets(collector(queue, clock, chunk_size=7).collect(rows=10_000))) == BLOCK_ROWS // 7 * 7
    queue.queued = [FakeMessage(bytes(BLOCK_BYTES // 100), offset=offset) for offset in range(4_000)]
    collect = collector(queue, clock, chunk_size=7)
    assert len(offsets(collect.collect(rows=10_000))) == STEP // 7 * 7
    assert len(offsets(collect.collect(rows=10_000))) == (STEP % 7 + STEP) // 7 * 7
    queue.queued = [FakeMessage(bytes(BLOCK_BYTES // 100), offset=offset) for offset in range(4_000)]
    assert len(offsets(collector(queue, clock, chunk_size=2_000).collect(rows=10_000))) == 2_000, (
        "one chunk is always taken"
    )


def test_the_rest_of_a_block_waits_from_the_time_it_was_taken() -> None:
    clock = Clock()
    queue = Queue(clock, messages(*((0, offset) for offset in range(4))))
    collect = collector(queue, clock, max_wait=1.0)
    assert offsets(collect.collect(rows=100)) == [0, 1, 2]
    clock.now += 0.7  # scoring took that long
    queue.later = [(1000.9, FakeMessage(offset=4)), (1001.1, FakeMessage(offset=5))]
    rest = None
    while rest is None:
        rest = collect.collect(rows=100)
    assert (rest.offsets, rest.closed_by, rest.first_at) == ([3, 4], ClosedBy.WAITED, 1000.0)
    assert clock.now == pytest.approx(1001.0)


def test_rows_revoked_while_a_block_is_gathered_are_closed_in_chunks() -> None:
    clock = Clock()
    closed: list[Block | None] = []

    class Revoking(Queue):
        def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Any]:
            if len(collect.pending) == STEP:
                closed.append(collect.close(ClosedBy.REVOKED))
            return super().consume(num_messages, timeout)

    collect = collector(
        Revoking(clock, messages(*((0, offset) for offset in range(STEP)))), clock, chunk_size=150
    )
    assert collect.collect(rows=BLOCK_ROWS) is None
    (block,) = closed
    assert block is not None
    assert [(len(chunk), chunk.closed_by) for chunk in block.chunks] == [
        *[(150, ClosedBy.FULL)] * 3,
        (50, ClosedBy.REVOKED),
    ]


def test_order_is_kept_and_spans_give_first_and_last_offset_of_each_partition() -> None:
    read = [(1, 5), (0, 7), (1, 6), (0, 9), (2, 0), (1, 8)]
    chunk = chunk_of(messages(*read))
    assert [*zip(chunk.partitions, chunk.offsets, strict=True)] == read
    assert chunk.spans == {1: (5, 8), 0: (7, 9), 2: (0, 0)}

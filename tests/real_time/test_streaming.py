"""Splitting, joining and timing, for anything that a process function may return."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_time import (
    Classifier,
    ResultShapeError,
    ResultTypeError,
    StreamMetrics,
    StreamMismatchError,
    benchmark_chunk_size,
    compare_batch_vs_streaming,
    process_stream,
    stream_dataframe,
    streaming,
)

from .conftest import indexes

Fn = Callable[[pd.DataFrame], Any]


class Clock:
    """Stands still unless told otherwise."""

    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(streaming, "perf_counter_ns", clock)
    return clock


def numbers(size: int) -> pd.DataFrame:
    return pd.DataFrame({"x": np.arange(size, dtype=float)})


def with_index(size: int) -> st.SearchStrategy[pd.DataFrame]:
    return indexes(size).map(lambda index: numbers(size).set_axis(index))


some_frames = st.integers(0, 25).flatmap(with_index)


# --- splitting ------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(df=some_frames, chunk_size=st.integers(1, 30))
def test_chunks_are_consecutive_slices(df: pd.DataFrame, chunk_size: int) -> None:
    chunks = list(stream_dataframe(df, chunk_size))
    assert [len(chunk) for chunk in chunks[:-1]] == [chunk_size] * (len(chunks) - 1)
    assert all(1 <= len(chunk) <= chunk_size for chunk in chunks)
    if chunks:
        pd.testing.assert_frame_equal(pd.concat(chunks), df, check_freq=False)
    else:
        assert df.empty


@pytest.mark.parametrize(
    ("chunk_size", "error"),
    [
        *((not_an_integer, TypeError) for not_an_integer in (True, np.True_, 2.5, 2.0, "2", None)),
        *((too_small, ValueError) for too_small in (0, -1, np.int64(0))),
    ],
)
def test_a_bad_chunk_size_is_refused_by_the_call(chunk_size: Any, error: type[Exception]) -> None:
    for df in (numbers(3), numbers(0)):
        for call in (stream_dataframe, lambda df, size: process_stream(df, size, list)):
            with pytest.raises(error, match="chunk_size must be"):
                call(df, chunk_size)
        with pytest.raises(error, match="chunk_size must be"):
            compare_batch_vs_streaming(df, lambda chunk: chunk, chunk_size)


@pytest.mark.parametrize("chunk_size", [3, np.int64(3), np.uint8(3), 2**70])
def test_any_positive_integer_is_a_chunk_size(chunk_size: Any) -> None:
    assert [len(chunk) for chunk in stream_dataframe(numbers(3), chunk_size)] == [3]


# --- joining --------------------------------------------------------------------------------------

RETURNS: dict[str, tuple[Fn, list[Any]]] = {
    "frame": (lambda chunk: chunk * 2, ["x"]),
    "frame without the index": (lambda chunk: (chunk * 2).reset_index(drop=True), ["x"]),
    "series": (lambda chunk: chunk["x"] * 2, ["x"]),
    "nameless series": (lambda chunk: pd.Series(chunk["x"].to_numpy() * 2), ["result"]),
    "1-D array": (lambda chunk: chunk["x"].to_numpy() * 2, ["result"]),
    "2-D array": (lambda chunk: chunk.to_numpy() * 2, [0]),
    "list": (lambda chunk: [x * 2 for x in chunk["x"]], ["result"]),
    "list of lists": (lambda chunk: [[x * 2] for x in chunk["x"]], [0]),
}


@pytest.mark.parametrize("kind", RETURNS)
@settings(max_examples=20, deadline=None)
@given(df=some_frames.filter(len), chunk_size=st.integers(1, 30))
def test_results_keep_the_input_index(kind: str, df: pd.DataFrame, chunk_size: int) -> None:
    process_fn, columns = RETURNS[kind]
    results, _ = process_stream(df, chunk_size, process_fn)
    expected = (df * 2).set_axis(columns, axis=1)
    pd.testing.assert_frame_equal(results, expected, check_column_type=False, check_exact=True)


def test_all_chunks_of_a_list_get_one_dtype() -> None:
    for chunk_size in (1, 2, 9):
        results, _ = process_stream(numbers(3), chunk_size, lambda chunk: [x or None for x in chunk["x"]])
        assert results["result"].dtype == "float64"
        assert results["result"].tolist()[1:] == [1.0, 2.0]


@settings(max_examples=50, deadline=None)
@given(df=some_frames, chunk_size=st.integers(1, 30))
def test_reordered_rows_are_matched_by_label_or_refused(df: pd.DataFrame, chunk_size: int) -> None:
    def reverse(chunk: pd.DataFrame) -> pd.DataFrame:
        return chunk.iloc[np.arange(len(chunk))[::-1]]

    chunks = list(stream_dataframe(df, chunk_size))
    if all(c.index.is_unique or c.index.equals(reverse(c).index) for c in chunks):
        results, _ = process_stream(df, chunk_size, reverse)
        assert results.index.equals(df.index)
        assert all(
            r["x"].equals(c["x"])
            for r, c in zip(stream_dataframe(results, chunk_size), chunks, strict=True)
            if c.index.is_unique
        )
    else:
        with pytest.raises(ResultShapeError, match="another order"):
            process_stream(df, chunk_size, reverse)


def test_a_default_index_is_not_taken_for_labels() -> None:
    shuffled = numbers(3).set_axis([2, 0, 1])
    results, _ = process_stream(shuffled, 3, lambda chunk: pd.DataFrame({"y": chunk["x"].to_numpy()}))
    assert results["y"].to_dict() == {2: 0.0, 0: 1.0, 1: 2.0}


def test_a_single_chunk_with_its_index_is_returned_as_the_same_object() -> None:
    made = []

    def process_fn(chunk: pd.DataFrame) -> pd.DataFrame:
        made.append(pd.DataFrame({"y": chunk["x"].to_numpy()}, index=chunk.index))
        return made[-1]

    results, _ = process_stream(numbers(5), 5, process_fn)
    assert results is made[0]


def test_reusing_a_buffer_for_each_chunk_does_no_harm() -> None:
    buffer = np.empty(1)

    def process_fn(chunk: pd.DataFrame) -> Any:
        buffer[:] = chunk["x"]
        return buffer

    assert process_stream(numbers(3), 1, process_fn)[0]["result"].tolist() == [0.0, 1.0, 2.0]


def test_a_process_function_that_writes_to_its_chunk_leaves_the_input_alone() -> None:
    df = numbers(4)

    def process_fn(chunk: pd.DataFrame) -> pd.DataFrame:
        chunk["x"] = 7.0
        return chunk

    for chunk_size in (2, 4):
        assert process_stream(df, chunk_size, process_fn)[0]["x"].tolist() == [7.0] * 4
    assert df["x"].tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("shorten", [lambda r: r[:-1], lambda r: r[:0]], ids=["one short", "empty"])
@pytest.mark.parametrize("kind", RETURNS)
def test_a_result_of_another_length_is_refused(kind: str, shorten: Fn) -> None:
    def process_fn(chunk: pd.DataFrame) -> Any:
        result = RETURNS[kind][0](chunk)
        return result if chunk["x"].iloc[0] == 0 else shorten(result)

    with pytest.raises(ResultShapeError, match="for the 2 rows of chunk 2") as caught:
        process_stream(numbers(4), 2, process_fn)
    assert caught.value.chunk == 2


@pytest.mark.parametrize(
    "second",
    [
        lambda c: c.rename(columns={"x": "y"}),
        lambda c: c.assign(y=1),
        lambda c: c["x"].to_numpy(),
        lambda c: c[[]],
    ],
    ids=["renamed", "one more", "no names", "none"],
)
def test_columns_that_differ_from_the_previous_chunk_are_refused(second: Fn) -> None:
    with pytest.raises(ResultShapeError, match="other columns for chunk 2"):
        process_stream(numbers(4), 2, lambda chunk: second(chunk) if chunk["x"].iloc[0] else chunk)


@pytest.mark.parametrize("result", [None, 1.0, "ab", (1, 2), {"a": 1}, iter([1, 2])])
def test_a_result_without_rows_is_refused(result: Any) -> None:
    with pytest.raises(ResultTypeError, match=f"chunk 1 it returned {type(result).__name__}"):
        process_stream(numbers(2), 2, lambda _: result)


@pytest.mark.parametrize("result", [np.array(1.0), np.zeros((2, 1, 1))])
def test_an_array_of_zero_or_three_dimensions_is_refused(result: Any) -> None:
    with pytest.raises(ResultShapeError, match="one or two dimensions; for chunk 1"):
        process_stream(numbers(2), 2, lambda _: result)


def test_an_empty_frame_gives_an_empty_result_and_zeros() -> None:
    df = numbers(0).set_axis(pd.DatetimeIndex([], name="at"))
    results, metrics = process_stream(df, 100, lambda _: pytest.fail("called with no rows"))
    assert results.empty
    assert results.index.equals(df.index)
    assert metrics == StreamMetrics(latency_ms=0.0, throughput_rows_per_s=0.0)
    assert set(compare_batch_vs_streaming(df, lambda chunk: chunk, 100).values()) == {0.0}


# --- timing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [1, 3, 10, 50])
def test_metrics_are_milliseconds_per_row_and_rows_per_second(chunk_size: int, clock: Clock) -> None:
    def two_milliseconds_a_row(chunk: pd.DataFrame) -> pd.DataFrame:
        clock.now_ns += 2_000_000 * len(chunk)
        return chunk

    _, metrics = process_stream(numbers(10), chunk_size, two_milliseconds_a_row)
    assert metrics == StreamMetrics(latency_ms=2.0, throughput_rows_per_s=500.0)


def test_each_chunk_is_reported_with_its_own_metrics(clock: Clock) -> None:
    def as_many_milliseconds_a_row_as_the_last_one_says(chunk: pd.DataFrame) -> pd.Series:
        clock.now_ns += 1_000_000 * len(chunk) * int(chunk["x"].iloc[-1])
        return chunk["x"]

    told: list[StreamMetrics] = []
    _, metrics = process_stream(
        numbers(5), 2, as_many_milliseconds_a_row_as_the_last_one_says, on_chunk=told.append
    )
    assert told == [
        StreamMetrics(latency_ms=each, throughput_rows_per_s=1000 / each) for each in (1.0, 3.0, 4.0)
    ]
    assert metrics.latency_ms == (2 * 1 + 2 * 3 + 1 * 4) / 5


@pytest.mark.parametrize(
    "parts",
    [
        [np.array([1, 2]), np.array([1.5])],
        [np.array([True, False]), np.array([3])],
        [np.array(["a", "b"]), np.array(["long"])],
        [np.array([7.0, 8.0]), pd.DataFrame({"result": [9.0]})],
        [np.ma.masked_array([1.0, 2.0], mask=[True, False]), np.ma.masked_array([3.0], mask=[True])],
    ],
    ids=["int, float", "bool, int", "text", "array, frame", "masked"],
)
def test_arrays_are_joined_like_frames(parts: list[Any]) -> None:
    given = iter(parts)
    results, _ = process_stream(numbers(3), 2, lambda _: next(given))
    frames = [pd.DataFrame(part, columns=["result"]) for part in parts]
    pd.testing.assert_frame_equal(results, pd.concat(frames, ignore_index=True).set_axis(results.index))


@pytest.mark.parametrize("chunk_size", [1, 10])
def test_only_scoring_is_timed(chunk_size: int, clock: Clock) -> None:
    class SlowToJoin(pd.Series):  # type: ignore[misc]  # pandas is untyped
        def to_frame(self, *args: Any, **kwargs: Any) -> Any:
            clock.now_ns += 1_000_000_000
            return super().to_frame(*args, **kwargs)

    def process_fn(chunk: pd.DataFrame) -> pd.Series:
        clock.now_ns += 1_000_000 * len(chunk)
        return SlowToJoin(chunk["x"])

    assert process_stream(numbers(10), chunk_size, process_fn)[1].latency_ms == 1.0


def test_a_coarse_clock_still_gives_finite_numbers(clock: Clock) -> None:
    _, metrics = process_stream(numbers(10), 3, lambda chunk: chunk)
    assert 0 < metrics.latency_ms < 1e-6
    assert np.isfinite(metrics.throughput_rows_per_s)


def test_metrics_are_frozen() -> None:
    with pytest.raises(AttributeError):
        StreamMetrics(1.0, 2.0).latency_ms = 3.0  # type: ignore[misc]


# --- comparing ------------------------------------------------------------------------------------


def test_comparing_times_the_second_round(clock: Clock) -> None:
    costs = iter([5_000, 5_000, 5_000, 40, 6, 8])  # ms: the whole frame, then two chunks; then the same again

    def process_fn(chunk: pd.DataFrame) -> pd.DataFrame:
        clock.now_ns += next(costs) * 1_000_000
        return chunk

    assert compare_batch_vs_streaming(df=numbers(4), process_fn=process_fn, chunk_size=2) == {
        "batch_time_s": 0.04,
        "stream_time_s": 0.014,
        "stream_latency_ms_per_row": 3.5,
        "stream_throughput_rows_per_s": pytest.approx(4 / 0.014),
    }


@pytest.mark.parametrize(
    "process_fn",
    [
        lambda chunk: chunk["x"] - chunk["x"].mean(),
        lambda chunk: (chunk["x"] + 1) * (1 + 1e-8 * len(chunk)),
        lambda chunk: chunk["x"].where(chunk["x"] < len(chunk)),
        lambda chunk: chunk["x"].astype(str) + str(len(chunk)),
    ],
    ids=["all", "a little", "nan", "text"],
)
def test_comparing_raises_when_chunks_change_the_values(process_fn: Fn) -> None:
    with pytest.raises(StreamMismatchError, match="in chunks of 2") as caught:
        compare_batch_vs_streaming(numbers(5), process_fn, 2)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "process_fn",
    [
        lambda chunk: chunk["x"] * (1 + 1e-12 * len(chunk)),
        lambda chunk: chunk["x"].where(chunk["x"] > 2),
        lambda chunk: [None if x < 2 else x for x in chunk["x"]],
        lambda chunk: chunk["x"].astype(str),
    ],
    ids=["rounding", "nan", "none", "text"],
)
def test_comparing_treats_rounding_and_missing_values_as_equal(process_fn: Fn) -> None:
    result = compare_batch_vs_streaming(numbers(5), process_fn, 2)
    assert all(type(value) is float for value in result.values())


def test_benchmarking_has_a_row_for_each_chunk_size(model: Classifier, patients: pd.DataFrame) -> None:
    table = benchmark_chunk_size(patients, model, iter([10, 50]))
    assert list(table) == ["chunk_size", "latency_ms", "throughput"]
    assert table["chunk_size"].tolist() == [10, 50]
    np.testing.assert_allclose(table["throughput"], 1000 / table["latency_ms"])


# --- purity ---------------------------------------------------------------------------------------


def test_the_core_does_not_import_kafka() -> None:
    code = "import real_time, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {"broker", "schemas", "consumer", "producer", "vitalstream"}
    assert not set(run.stdout.split()) & (ours | {"confluent_kafka", "orjson", "pydantic"})

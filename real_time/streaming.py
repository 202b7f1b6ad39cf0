"""Processes a DataFrame in chunks: slices it, scores and times each chunk, and joins the results."""

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd

ProcessFn: TypeAlias = Callable[[pd.DataFrame], Any]
"""Takes a chunk and returns a DataFrame, Series, 1-D or 2-D ndarray or list with one entry per row."""

RESULT = "result"
"""The column name for an unnamed 1-D result."""

_Part: TypeAlias = "pd.DataFrame | np.ndarray[Any, Any]"
"""A chunk's result: a frame or, to save work, an array for a single unnamed column."""

_RESULT_COLUMN = pd.Index([RESULT])  # building an index of strings costs several times the rest of a frame

# Two computations of the same score may round differently, relative to the score or, for 1 - p, to one.
RTOL, ATOL = 1e-9, 1e-15


class ChunkSizeError(ValueError):
    """The chunk size is an integer below one."""


class ChunkSizeTypeError(TypeError):
    """The chunk size is not an integer."""


class ResultTypeError(TypeError):
    """`process_fn` returned something that has no rows."""


class ResultShapeError(ValueError):
    """`process_fn` returned a result that does not match its chunk or the previous result's columns."""

    def __init__(self, message: str, *, chunk: int) -> None:
        super().__init__(message)
        self.chunk = chunk


class StreamMismatchError(ValueError):
    """Scoring in chunks and scoring at once gave different values."""


class Classifier(Protocol):
    """A fitted classifier with scikit-learn's interface."""

    def predict_proba(self, X: Any, /) -> Any:
        """One row of class probabilities per row of X."""


@dataclass(frozen=True)
class StreamMetrics:
    """What scoring cost: mean milliseconds per row, and rows per second."""

    latency_ms: float
    throughput_rows_per_s: float


def stream_dataframe(df: pd.DataFrame, chunk_size: int) -> Iterator[pd.DataFrame]:
    """Yield slices of `df` with `chunk_size` rows each, in order and with their index; the last may be shorter.

    Raises ChunkSizeTypeError or ChunkSizeError at the call unless `chunk_size` is an integer of at least 1.
    """
    size, rows = _checked_chunk_size(chunk_size), df.iloc
    return (rows[start : start + size] for start in range(0, len(df), size))


def process_stream(
    df: pd.DataFrame,
    chunk_size: int,
    process_fn: ProcessFn,
    *,
    on_chunk: Callable[[StreamMetrics], object] | None = None,
) -> tuple[pd.DataFrame, StreamMetrics]:
    """Pass `df` to `process_fn` chunk by chunk; return its results with the index and in the order of `df`.

    A 1-D result becomes one column: `result`, or the Series' name. Result rows are matched with the chunk's rows by
    position, or by label if they have the chunk's labels in another order. Only `process_fn` is timed.
    It is not called for an empty frame: the result is then empty and the metrics are zero. `on_chunk` receives each
    chunk's own metrics, in order, before the next chunk starts.

    Raises ResultTypeError, or ResultShapeError if a result's length differs from its chunk's or its columns from the
    previous chunk's.
    """
    results, elapsed_ns = _timed_stream(df, chunk_size, process_fn, on_chunk)
    return results, _metrics(len(df), elapsed_ns)


def compare_batch_vs_streaming(df: pd.DataFrame, process_fn: ProcessFn, chunk_size: int) -> dict[str, float]:
    """Time `process_fn` on the whole frame and in chunks, each after one warm-up round.

    Raises StreamMismatchError if the two differ by more than rounding.
    """
    size = _checked_chunk_size(chunk_size)
    for _ in range(2):  # the first round is the warm-up
        batch, batch_ns = _timed_stream(df, max(len(df), 1), process_fn)
        streamed, stream_ns = _timed_stream(df, size, process_fn)
    _require_same_values(batch, streamed, size)
    metrics = _metrics(len(df), stream_ns)
    return {
        "batch_time_s": batch_ns / 1e9,
        "stream_time_s": stream_ns / 1e9,
        "stream_latency_ms_per_row": metrics.latency_ms,
        "stream_throughput_rows_per_s": metrics.throughput_rows_per_s,
    }


def benchmark_chunk_size(df: pd.DataFrame, model: Classifier, chunk_sizes: Iterable[int]) -> pd.DataFrame:
    """One row per chunk size: `chunk_size`, `latency_ms` (per row) and `throughput` (rows per second)."""

    def positive_probability(chunk: pd.DataFrame) -> Any:
        return model.predict_proba(chunk)[:, 1]

    process_stream(df.head(1), 1, positive_probability)  # warm-up, so that the first size does not pay for it
    rows = []
    for chunk_size in chunk_sizes:
        _, metrics = process_stream(df, chunk_size, positive_probability)
        rows.append((chunk_size, metrics.latency_ms, metrics.throughput_rows_per_s))
    return pd.DataFrame(rows, columns=["chunk_size", "latency_ms", "throughput"])


def _checked_chunk_size(chunk_size: Any) -> int:
    try:
        size = None if isinstance(chunk_size, bool) else operator.index(chunk_size)
    except TypeError:
        size = None
    if size is None:
        raise ChunkSizeTypeError(f"chunk_size must be an integer, not {type(chunk_size).__name__}")
    if size < 1:
        raise ChunkSizeError(f"chunk_size must be at least 1, not {size}")
    return size


def _timed_stream(
    df: pd.DataFrame,
    chunk_size: int,
    process_fn: ProcessFn,
    on_chunk: Callable[[StreamMetrics], object] | None = None,
) -> tuple[pd.DataFrame, int]:
    """All results on the index of `df`, and the nanoseconds spent in `process_fn`."""
    parts: list[_Part] = []
    total_ns, result = 0, None
    for number, chunk in enumerate(stream_dataframe(df, chunk_size), start=1):
        start = perf_counter_ns()
        result = process_fn(chunk)
        elapsed_ns = perf_counter_ns() - start
        rows = len(chunk)
        part = _part(result, chunk, rows, number)
        if parts and not _have_same_columns(part, parts[-1]):
            raise ResultShapeError(
                f"process_fn returned other columns for chunk {number} than for the previous one: return the "
                "same each time",
                chunk=number,
            )
        parts.append(part)
        total_ns += elapsed_ns
        if on_chunk is not None:
            on_chunk(_metrics(rows, elapsed_ns))
    joined = _joined(parts, df.index)
    return (joined.infer_objects() if isinstance(result, list) else joined), total_ns


def _joined(parts: "list[_Part]", index: pd.Index) -> pd.DataFrame:
    if not parts:
        return pd.DataFrame(index=index)
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts) and len({array.dtype for array in arrays}) == 1:
        joined = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        return pd.DataFrame(joined, index=index, columns=_RESULT_COLUMN, copy=False)
    frames = [*map(_in_frame, parts)]
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True).set_axis(index)


def _in_frame(part: "_Part") -> pd.DataFrame:
    return pd.DataFrame(part, columns=_RESULT_COLUMN) if isinstance(part, np.ndarray) else part


def _have_same_columns(part: "_Part", before: "_Part") -> bool:
    if isinstance(part, np.ndarray) and isinstance(before, np.ndarray):
        return True
    return bool(_in_frame(part).columns.equals(_in_frame(before).columns))


def _metrics(rows: int, elapsed_ns: int) -> StreamMetrics:
    if rows == 0:
        return StreamMetrics(latency_ms=0.0, throughput_rows_per_s=0.0)
    elapsed_ns = max(elapsed_ns, 1)  # a clock too coarse to see the call still gives finite numbers
    return StreamMetrics(latency_ms=elapsed_ns / 1e6 / rows, throughput_rows_per_s=rows * 1e9 / elapsed_ns)


def _part(result: Any, chunk: pd.DataFrame, rows: int, number: int) -> _Part:
    """`result` as a DataFrame on the chunk's index; a one-dimensional array is copied and stays an array."""
    # Copied, because process_fn may reuse its output buffer.
    if type(result) is np.ndarray and result.shape == (rows,):
        return result.copy()
    if not isinstance(result, pd.DataFrame | pd.Series | np.ndarray | list):
        raise ResultTypeError(
            f"process_fn must return a DataFrame, Series, array or list; for chunk {number} it returned "
            f"{type(result).__name__}"
        )
    shape = (len(result),) if isinstance(result, list) else result.shape
    if len(shape) not in (1, 2):
        raise ResultShapeError(
            f"process_fn must return one or two dimensions; for chunk {number} it returned {len(shape)}",
            chunk=number,
        )
    if shape[0] != rows:
        raise ResultShapeError(
            f"process_fn returned {shape[0]} rows for the {rows} rows of chunk {number}", chunk=number
        )
    if isinstance(result, pd.DataFrame):
        return _on_index(result, chunk.index, number)
    if isinstance(result, pd.Series):
        name = RESULT if result.name is None else result.name
        return _on_index(result.to_frame(name), chunk.index, number)
    if isinstance(result, np.ndarray):  # copied, too
        columns = _RESULT_COLUMN if result.ndim == 1 else None
        return pd.DataFrame(result, index=chunk.index, columns=columns, copy=True)
    # Lists stay objects until all chunks are joined, so that a chunk without None does not get a different dtype.
    columns = None if pd.api.types.is_list_like(result[0]) else [RESULT]
    return pd.DataFrame(result, index=chunk.index, columns=columns, dtype=object)


def _on_index(result: pd.DataFrame, index: pd.Index, number: int) -> pd.DataFrame:
    """`result` with its rows on `index`: by position, or by label if it has these labels in another order."""
    if result.index.is_(index):
        return result
    if result.index.equals(index) or not _same_labels(result.index, index):
        return result.set_axis(index)
    if not result.index.is_unique:
        raise ResultShapeError(
            f"process_fn returned the rows of chunk {number} in another order, and its index has duplicates: "
            "return them in the chunk's order",
            chunk=number,
        )
    return result.loc[index].set_axis(index)


def _same_labels(result: pd.Index, index: pd.Index) -> bool:
    """Whether `result` has the labels of `index`; a default index (0, 1, 2...) does not count as labels."""
    if isinstance(result, pd.RangeIndex) and result.start == 0 and result.step == 1:
        return False
    return result.nlevels == index.nlevels and bool(result.isin(index).all())


def _require_same_values(batch: pd.DataFrame, streamed: pd.DataFrame, chunk_size: int) -> None:
    try:
        pd.testing.assert_frame_equal(streamed, batch, check_dtype=False, rtol=RTOL, atol=ATOL)
    except AssertionError:
        raise StreamMismatchError(
            f"scoring in chunks of {chunk_size} gives other values than scoring the whole frame at once: "
            "process_fn must not let one row's result depend on the rows around it"
        ) from None  # pandas quotes the values

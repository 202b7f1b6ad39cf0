"""Chunk metrics: a worker's report on each chunk, on their own topic."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import orjson

from schemas.reading import MessageError, reader


class ClosedBy(StrEnum):
    """Why a chunk closed."""

    FULL = "full"
    """It had `chunk_size` rows."""
    DRAINED = "drained"
    """Nothing more was queued."""
    WAITED = "waited"
    """`max_wait_ms` had passed since its first row."""
    REVOKED = "revoked"
    """A partition was revoked."""
    STOPPED = "stopped"
    """The worker was asked to stop."""


@dataclass(kw_only=True)  # frozen and with slots, it takes three times as long to make and to encode
class ChunkMetrics:
    """One chunk: `rows` = `scored` + `dead_lettered`.

    `latency_ms` (mean per row) and `throughput_rows_per_s` are the core's StreamMetrics of the chunk. The
    end-to-end times run from each scored message's source timestamp to its encoding; None if no row had one. `lag` is
    the number of messages behind the chunk on the worker's partitions, up to the last stable offset. `offsets` maps
    "topic-partition" to [first, last] of the chunk. `model` is the sha256 of the model's file, `at` RFC 3339.
    `chunk_size` and `max_wait_ms` are what the chunk was collected by; None in messages of earlier versions. Of those
    scored, `no_input` had too few features to ask the model.
    """

    chunk_id: str
    worker: str
    closed_by: ClosedBy
    rows: int
    scored: int
    dead_lettered: int
    latency_ms: float
    throughput_rows_per_s: float
    end_to_end_ms_p50: float | None
    end_to_end_ms_p99: float | None
    end_to_end_ms_max: float | None
    lag: int
    offsets: dict[str, list[int]]
    model: str
    at: str
    chunk_size: int | None = None
    max_wait_ms: float | None = None
    no_input: int = 0
    skipped: int = 0


_read = reader(ChunkMetrics)

_FIRST: Final = b'{"chunk_id":'
"""Starts each value and occurs nowhere inside: quotes in texts are escaped, and no inner object has this field."""


def encode_metrics(chunks: Sequence[ChunkMetrics]) -> list[bytes]:
    """A value for the metrics topic for each chunk, in order."""
    first, *values = orjson.dumps(chunks)[1:-1].split(b"," + _FIRST)
    return [first, *(_FIRST + value for value in values)]


def decode_metrics(value: bytes | None) -> ChunkMetrics:
    """Read a value of the metrics topic; fields added later are ignored. Raises MessageError."""
    metrics = _read(value)
    try:
        return replace(metrics, closed_by=ClosedBy(metrics.closed_by))
    except ValueError:
        raise MessageError("a message is not a ChunkMetrics: closed_by is not a known reason") from None

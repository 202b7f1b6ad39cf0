"""Decode, score, encode: turns a block of messages into everything to be sent for it."""

import math
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from broker.roles import Role
from broker.settings import Settings
from consumer.chunks import Block
from consumer.errors import ModelFailedError
from consumer.histories import Histories
from consumer.limits import RejectLimit
from consumer.names import NameCheck
from consumer.observer import FIRST_ROWS, Observer
from consumer.sending import Output, Records
from real_time.inference import ModelOutputError, RiskScorer
from real_time.streaming import StreamMetrics, process_stream
from real_time.usable import Model
from schemas.clock import rfc3339
from schemas.contract import NO_FAULT, RISK_PROBABILITY, Reason
from schemas.dead_letters import DeadLetter, dead_letter
from schemas.decoding import make_decoder
from schemas.mapping import BY_CODE
from schemas.metrics import ChunkMetrics, ClosedBy, encode_metrics
from schemas.presence import features_present
from schemas.result_format import Write, as_json
from schemas.results import encode_results
from schemas.vitals import Reject

# If each of this many rows fails, the model is broken, not the messages.
SYSTEMIC_ROWS = 10
# Kafka's overhead for the key and value of a message, estimated generously.
RECORD_OVERHEAD = 512
_READ_AGAIN = "uncommitted messages are read again at the next start"

Item = TypeVar("Item")
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Limits:
    """The longest message, in bytes, that the result and the dead-letter topic accept."""

    result: int
    dead_letter: int


class ChunkScorer:
    """Scores blocks chunk by chunk with one model. Knows messages and bytes, but no transactions."""

    def __init__(
        self,
        model: Model,
        *,
        settings: Settings,
        worker: str,
        limits: Limits,
        observer: Observer,
        clock: Callable[[], float],
        write: Write = as_json,
        histories: Histories | None = None,
    ) -> None:
        """`histories` is for models with a history."""
        self._histories = histories
        self._model = model
        self._write = write
        self._decode = make_decoder(settings, model)
        self._topic = settings.input_topic
        self._min_features = settings.min_features
        self._skip_foreign = settings.skip_foreign
        self._worker = worker
        self._limits = limits
        self._observer = observer
        self._clock = clock
        self._reject_limit = RejectLimit(settings.max_dead_letter_ratio)
        self._names = NameCheck(self._decode.names)
        self._keys_unknown = settings.value_format in BY_CODE
        self._unseen = [*model.features]
        self._rows_looked_at = 0

    def restart(self) -> None:
        """Uncommitted messages will be scored again."""
        self._reject_limit.restart()
        self._names.restart()

    @property
    def doubts_names(self) -> bool:
        """Whether messages came and none had one of the model's features yet, not even as null."""
        return self._names.doubts

    def __call__(self, block: Block, *, lag: int) -> Output:
        """Everything to send for `block`; `lag` is the number of messages after it.

        Raises:
            ModelFailedError: the model failed on every row of a chunk, or gave a result of the wrong shape.
            NoFeatureError: none of the first messages has any of the model's features.
            TooManyRejectedError: too large a share of a chunk and those before it was rejected.
        """
        decoded = self._decode(block.messages)
        if self._unseen:
            self._look_for_unseen(decoded.frame)
        if self._unseen or not self._names.found:
            self._look_at_names(block, accepted=len(decoded.frame) + self._coded_for_others(decoded.rejects))
        features, told = decoded.frame, None
        if self._histories is not None:
            known = self._histories(decoded, block)
            decoded, features, told = known.decoded, known.features, known.told
        frame = decoded.frame
        positions = frame.index.to_numpy()
        present = features_present(frame)
        no_input = present < self._min_features
        asked = np.zeros(len(block), np.bool_)
        asked[positions] = ~no_input
        probability, timings, failed = score(
            _with_gaps(features, len(block)), self._model.scorer, asked, chunk_size=block.pace.chunk_size
        )
        probability = probability[positions]
        now = self._clock()
        at = rfc3339(now)
        rows = block.only(positions.tolist())
        results = encode_results(
            patient_ids=decoded.patient_ids,
            event_times=decoded.event_times,
            probabilities=probability.tolist(),
            labels=self._model.scorer.labels(probability),
            implausible=decoded.implausible,
            threshold=self._model.scorer.threshold,
            model=self._model.sha256,
            scored_at=at,
            topic=self._topic,
            partitions=rows.partitions,
            offsets=rows.offsets,
            features_present=present.tolist(),
            no_input=no_input.tolist(),
            mapping=self._decode.mapping,
            told=told,
        )
        results = self._write(results)
        keys = _keys(rows, decoded.patient_ids)
        if self._keys_unknown and keys:
            self._look_at_keys(rows, decoded.patient_ids)
        rejects, skipped = self._without_foreign(decoded.rejects)
        unpublishable = self._unpublishable(positions, failed, keys, results)
        if unpublishable:
            rejects = sorted([*rejects, *unpublishable], key=lambda reject: reject.position)
            kept = np.flatnonzero(~np.isin(positions, [reject.position for reject in rejects]))
            positions, no_input = positions[kept], no_input[kept]
            keys, results = _take(keys, kept), _take(results, kept)
        self._limit_rejects(block, [*decoded.rejects, *unpublishable])
        metrics = self._metrics(
            block,
            timings,
            now=now,
            lag=lag,
            scored=positions,
            no_input=positions[no_input],
            skipped=skipped,
        )
        self._observer.scored(metrics)
        letters = [self._dead_letter(block, reject) for reject in rejects]
        return Output(
            [
                Records(Role.RESULTS, results, keys),
                Records(
                    Role.DEAD_LETTERS,
                    [letter.value for letter in letters],
                    [letter.key for letter in letters],
                    [letter.headers for letter in letters],
                ),
                Records(Role.METRICS, encode_metrics(metrics)),
            ],
            chunks=len(metrics),
            rows=len(block),
        )

    def _look_at_names(self, block: Block, *, accepted: int) -> None:
        self._names.look(block.messages, accepted=accepted)
        for name, wanted in self._names.look_alikes():
            self._observer.looks_alike(name, wanted, mapped=self._decode.names.mapped)
        if told := self._names.foreign_codes():
            self._observer.foreign_codes(told)
        self._names.require()

    def _coded_for_others(self, rejects: list[Reject]) -> int:
        """Count messages that were not scored because they have none of the mapping's codes."""
        coded = self._decode.names.coded
        return sum(one.reason is Reason.NOT_FOR_US and not one.field for one in rejects) if coded else 0

    def _without_foreign(self, rejects: list[Reject]) -> tuple[list[Reject], list[int]]:
        """The rejects that become dead letters, and the positions of those that don't, because they are for others."""
        if not self._skip_foreign:
            return rejects, []
        ours = [reject for reject in rejects if reject.reason is not Reason.NOT_FOR_US]
        return ours, [reject.position for reject in rejects if reject.reason is Reason.NOT_FOR_US]

    def _limit_rejects(self, block: Block, rejects: Sequence[Reject]) -> None:
        sizes = _sizes(len(block), block.pace.chunk_size)
        for rows, among_them in zip(sizes, _by_chunk(rejects, block), strict=True):
            self._reject_limit.update(*_at_fault(rows, among_them))

    def _look_at_keys(self, rows: Block, patient_ids: list[str]) -> None:
        self._keys_unknown = False
        if any(key != id_.encode() for key, id_ in zip(rows.keys, patient_ids, strict=True)):
            self._observer.keyed_otherwise()

    def _look_for_unseen(self, frame: pd.DataFrame) -> None:
        absent = pd.isna(frame[self._unseen].to_numpy()).all(axis=0)
        self._unseen = [name for name, still in zip(self._unseen, absent, strict=True) if still]
        self._rows_looked_at += len(frame)
        if self._unseen and self._rows_looked_at >= FIRST_ROWS:
            self._observer.unseen(self._unseen)
            self._unseen = []

    def _unpublishable(
        self, positions: Ints, failed: list[int], keys: list[bytes], results: list[bytes]
    ) -> list[Reject]:
        rejects = [Reject(position, Reason.MODEL_REJECTED, RISK_PROBABILITY) for position in failed]
        room = self._limits.result - RECORD_OVERHEAD
        if max(map(len, keys), default=0) + max(map(len, results), default=0) > room:
            already = set(failed)
            rejects += [
                Reject(position, Reason.TOO_LARGE, "")
                for position, key, result in zip(positions.tolist(), keys, results, strict=True)
                if len(key) + len(result) > room and position not in already
            ]
        return rejects

    def _dead_letter(self, block: Block, reject: Reject) -> DeadLetter:
        message: Any = block.messages[reject.position]
        partition, offset = block.partitions[reject.position], block.offsets[reject.position]
        self._observer.rejected(partition, offset, reject.reason, reject.field)
        return dead_letter(
            key=message.key(),
            value=message.value(),
            headers=message.headers(),
            reason=reject.reason,
            field=reject.field,
            topic=self._topic,
            partition=partition,
            offset=offset,
            timestamp=message.timestamp()[1],
            max_bytes=self._limits.dead_letter,
        )

    def _metrics(
        self,
        block: Block,
        timings: Sequence[StreamMetrics],
        *,
        now: float,
        lag: int,
        scored: Ints,
        no_input: Ints,
        skipped: Sequence[int],
    ) -> list[ChunkMetrics]:
        """The metrics of each chunk; `scored`, `no_input` and `skipped` are positions in the block."""
        waits = _waits_ms(block.only(scored.tolist()), now)
        self._observer.waited(waits[np.isfinite(waits)])
        at, wait = rfc3339(now), round(block.pace.max_wait * 1000, 3)
        shape = len(block), block.pace.chunk_size
        left = lag + len(block)
        made = []
        for rows, spans, timing, count, unscored, foreign, (p50, p99, longest) in zip(
            _sizes(*shape),
            block.spans_by_chunk,
            timings,
            _counts(scored, *shape),
            _counts(no_input, *shape),
            _counts(skipped, *shape),
            _quantiles(waits, scored, block),
            strict=True,
        ):
            left -= rows
            partition, (first, _) = next(iter(spans.items()))
            made.append(
                ChunkMetrics(
                    # No two committed chunks contain the same message, so the first one identifies a chunk.
                    chunk_id=f"{self._topic}-{partition}@{first}",
                    worker=self._worker,
                    closed_by=ClosedBy.FULL if left > lag else block.closed_by,
                    rows=rows,
                    scored=count,
                    dead_lettered=rows - count - foreign,
                    latency_ms=timing.latency_ms,
                    throughput_rows_per_s=timing.throughput_rows_per_s,
                    end_to_end_ms_p50=p50,
                    end_to_end_ms_p99=p99,
                    end_to_end_ms_max=longest,
                    lag=left,
                    offsets={f"{self._topic}-{of}": list(span) for of, span in spans.items()},
                    model=self._model.sha256,
                    at=at,
                    chunk_size=block.pace.chunk_size,
                    max_wait_ms=wait,
                    no_input=unscored,
                    skipped=foreign,
                )
            )
        return made


def score(
    frame: pd.DataFrame, scorer: RiskScorer, asked: Bools, *, chunk_size: int
) -> tuple[Floats, list[StreamMetrics], list[int]]:
    """The probability of each row of `frame`, the core's metrics of each chunk, and the positions of rows to reject.

    The model is asked only about the `asked` rows; the others' probability is NaN, and metrics don't count them. Rows
    are rejected if the model raises on them, which bisection finds, or if their probability is neither NaN nor between
    0 and 1; the returned probability of a rejected row is meaningless. The index of `frame` counts from 0.

    Raises:
        ModelFailedError: the model failed on all rows of a chunk, at least 10, or its result has the wrong shape.
    """
    tolerant = _Tolerant(scorer.behind_history, frame, asked)
    timings: list[StreamMetrics] = []
    try:
        scores, _ = process_stream(frame, chunk_size, tolerant, on_chunk=timings.append)
    except ModelOutputError as error:
        raise ModelFailedError(f"{error}; {_READ_AGAIN}") from None
    probabilities: Floats = scores.to_numpy()[:, 0]
    impossible = np.flatnonzero((probabilities < 0) | (probabilities > 1)).tolist()
    rejected = sorted({*tolerant.raised, *impossible})
    if not asked.all():
        counts = _counts(np.flatnonzero(asked), len(frame), chunk_size)
        timings = [*map(_of_asked, timings, _sizes(len(frame), chunk_size), counts)]
    if impossible:
        _require_some_sound(rejected, tolerant.raised, asked, chunk_size)
    return probabilities, timings, rejected


def _of_asked(timing: StreamMetrics, rows: int, asked: int) -> StreamMetrics:
    """A chunk's metrics for the rows that the model was asked about; the core has counted all rows."""
    if not asked:
        return StreamMetrics(latency_ms=0.0, throughput_rows_per_s=0.0)
    return StreamMetrics(timing.latency_ms * rows / asked, timing.throughput_rows_per_s * asked / rows)


def _require_some_sound(
    rejected: list[int], raised: Mapping[int, str], asked: Bools, chunk_size: int
) -> None:
    """Raise ModelFailedError if all rows of a chunk are rejected, and they are not few."""
    counts = _counts(rejected, len(asked), chunk_size)
    of = _counts(np.flatnonzero(asked), len(asked), chunk_size)
    for number, (bad, rows) in enumerate(zip(counts, of, strict=True)):
        if bad == rows >= SYSTEMIC_ROWS:
            names = [name for position, name in raised.items() if position // chunk_size == number]
            raise _failed_on_all(rows, names[-1] if names else "")


def _failed_on_all(rows: int, error_name: str) -> ModelFailedError:
    why = f"raised {error_name}" if error_name else "gave no probability between 0 and 1"
    return ModelFailedError(
        f"the model {why} on all {rows} rows of a chunk, so the model is at fault, not the messages; {_READ_AGAIN}"
    )


class _Tolerant:
    """A process_fn that asks a scorer about some rows, and halves a chunk on which it raises.

    `raised` has, by position, the single rows that remain, with only the name of the error's class: its text may
    contain a patient's values.
    """

    def __init__(self, scorer: Callable[[pd.DataFrame], Floats], frame: pd.DataFrame, asked: Bools) -> None:
        """`frame` is of all chunks."""
        self._scorer = scorer
        self._asked = asked
        # At once, because a selection of rows costs ten times a slice of them.
        self._kept = None if asked.all() else frame[asked]
        self._places = np.cumsum(asked)
        self.raised: dict[int, str] = {}

    def __call__(self, chunk: pd.DataFrame) -> Floats:
        if self._kept is None:
            return self._ask(chunk)
        first, last = chunk.index[0], chunk.index[-1]
        asked = self._asked[first : last + 1]
        risk = np.full(len(chunk), np.nan)
        if asked.any():
            end = self._places[last]
            risk[asked] = self._ask(self._kept.iloc[end - np.count_nonzero(asked) : end])
        return risk

    def _ask(self, chunk: pd.DataFrame) -> Floats:
        before = len(self.raised)
        risk = self._bisect(chunk)
        raised = len(self.raised) - before
        if raised and raised == len(chunk) >= SYSTEMIC_ROWS:
            raise _failed_on_all(len(chunk), [*self.raised.values()][-1])
        return risk

    def _bisect(self, frame: pd.DataFrame) -> Floats:
        try:
            return self._scorer(frame)
        except (ModelOutputError, MemoryError):
            raise
        except Exception as error:
            name = type(error).__name__
        if len(frame) == 1:
            self.raised[frame.index[0]] = name
            return np.full(1, np.nan)
        half = len(frame) // 2
        return np.concatenate([self._bisect(frame.iloc[:half]), self._bisect(frame.iloc[half:])])


def _with_gaps(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    """`frame`, indexed by position, extended to this many rows: rejected messages keep their places."""
    return frame if len(frame) == rows else frame.reindex(pd.RangeIndex(rows))


def _sizes(rows: int, chunk_size: int) -> list[int]:
    """The number of rows of each chunk."""
    return [min(chunk_size, rows - start) for start in range(0, rows, chunk_size)]


def _counts(positions: Sequence[int] | Ints, rows: int, chunk_size: int) -> list[int]:
    """How many of the positions are in each chunk, given the chunks' rows."""
    numbers = np.asarray(positions, np.int64) // chunk_size
    counts: list[int] = np.bincount(numbers, minlength=math.ceil(rows / chunk_size)).tolist()
    return counts


def _by_chunk(rejects: Sequence[Reject], block: Block) -> list[list[Reject]]:
    """The rejects of each chunk, in order of their positions there."""
    found: list[list[Reject]] = [[] for _ in _sizes(len(block), block.pace.chunk_size)]
    for one in sorted(rejects, key=lambda reject: reject.position):
        number, position = divmod(one.position, block.pace.chunk_size)
        found[number].append(replace(one, position=position))
    return found


def _at_fault(rows: int, rejects: list[Reject]) -> tuple[int, list[Reject]]:
    """How many messages of a chunk may be at fault, and the rejects among them by position in the chunk."""
    innocent = [reject.position for reject in rejects if reject.reason in NO_FAULT]
    if not innocent:
        return rows, rejects
    faulty = [reject for reject in rejects if reject.reason not in NO_FAULT]
    faulty = [replace(one, position=one.position - bisect(innocent, one.position)) for one in faulty]
    return rows - len(innocent), faulty


def _keys(rows: Block, patient_ids: list[str]) -> list[bytes]:
    keys: list[Any] = rows.keys
    if None in keys:
        return [id_.encode() if key is None else key for key, id_ in zip(keys, patient_ids, strict=True)]
    return keys


def _take(items: Sequence[Item], rows: Ints) -> list[Item]:
    return [items[row] for row in rows.tolist()]


def _waits_ms(rows: Block, now: float) -> Floats:
    """Milliseconds from source timestamp to now; infinite for rows without one."""
    return np.where(rows.timestamps >= 0, now * 1000 - rows.timestamps, np.inf)


def _quantiles(waits: Floats, positions: Ints, block: Block) -> list[list[float | None]]:
    """Median, 99th percentile (nearest rank) and maximum of each chunk's rows at these positions; None without rows."""
    grid = np.full((len(block.chunks), min(len(block), block.pace.chunk_size)), np.inf)
    grid.flat[positions] = waits
    grid.sort(axis=1)
    counts = np.isfinite(grid).sum(axis=1, keepdims=True)
    ranks = np.maximum(1, np.ceil(counts * [0.5, 0.99, 1.0])).astype(np.int64) - 1
    found: list[list[float | None]] = np.round(np.take_along_axis(grid, ranks, axis=1), 3).tolist()
    for number in np.flatnonzero(counts == 0).tolist():
        found[number] = [None, None, None]
    return found

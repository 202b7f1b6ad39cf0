"""Decode, score, encode: a chunk of messages becomes everything that is sent because of it."""

import math
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from broker.settings import Settings
from consumer.chunks import Chunk
from consumer.errors import ModelFailedError
from consumer.limits import RejectLimit
from consumer.names import NameCheck
from consumer.observer import FIRST_ROWS, Observer
from consumer.sending import Output
from real_time.inference import ModelOutputError, RiskScorer
from real_time.streaming import StreamMetrics, process_stream
from real_time.usable import Model
from schemas.clock import rfc3339
from schemas.contract import NO_FAULT, RISK_PROBABILITY, Reason
from schemas.dead_letters import DeadLetter, dead_letter
from schemas.decoding import make_decoder
from schemas.mapping import BY_CODE
from schemas.metrics import ChunkMetrics
from schemas.presence import features_present
from schemas.result_format import Write, as_json
from schemas.results import encode_results
from schemas.vitals import Reject

# When each of so many rows fails, it is the model that is broken, not the messages.
SYSTEMIC_ROWS = 10
# Kafka's own bytes around the key and value of a message, generously.
RECORD_OVERHEAD = 512
_READ_AGAIN = "what is not committed yet is read again at the next start"

Item = TypeVar("Item")
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Limits:
    """The longest message, in bytes, that the result and the dead-letter topic take."""

    result: int
    dead_letter: int


class ChunkScorer:
    """Scores chunks with one model. Knows messages and bytes, and nothing of transactions."""

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
    ) -> None:
        self._model = model
        self._write = write
        self._decode = make_decoder(settings, model)
        self._reads_json = settings.value_format == "json"
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
        """What was not committed is going to be scored again."""
        self._reject_limit.restart()
        self._names.restart()

    @property
    def doubts_names(self) -> bool:
        """Whether messages came and none had one of the model's features yet, not even as null."""
        return self._names.doubts

    def __call__(self, chunk: Chunk, *, lag: int) -> Output:
        """Everything to send for `chunk`; `lag` is the number of messages behind it.

        Raises:
            ModelFailedError: the model failed on every row, or gave a result of the wrong shape.
            NoFeatureError: none of the first messages has any of the model's features.
            TooManyRejectedError: of this chunk and those before it, too large a share was rejected.
        """
        decoded = self._decode(chunk.messages)
        if self._unseen:
            self._look_for_unseen(decoded.frame)
        if self._reads_json and (self._unseen or not self._names.found):
            self._look_at_names(chunk, accepted=len(decoded.frame))
        present = features_present(decoded.frame)
        no_input = present < self._min_features
        probability, stream_metrics, failed = score(decoded.frame, self._model.scorer, no_input)
        now = self._clock()
        at = rfc3339(now)
        positions = decoded.frame.index.tolist()
        rows = chunk.only(positions)
        results = encode_results(
            patient_ids=decoded.patient_ids,
            event_times=decoded.event_times,
            probabilities=probability.tolist(),
            labels=self._model.scorer.label(probability).to_numpy(object, na_value=None).tolist(),
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
        )
        results = self._write(results)
        keys = _keys(rows, decoded.patient_ids)
        if self._keys_unknown and keys:
            self._look_at_keys(rows, decoded.patient_ids)
        rejects, skipped = self._without_foreign(decoded.rejects)
        unpublishable = self._unpublishable(positions, failed, keys, results)
        if unpublishable:
            rejects += unpublishable
            rejects.sort(key=lambda reject: reject.position)
            out = {reject.position for reject in rejects}
            kept = [row for row, position in enumerate(positions) if position not in out]
            positions, keys, results = _take(positions, kept), _take(keys, kept), _take(results, kept)
            no_input = no_input[kept]
        self._reject_limit.update(*_at_fault(len(chunk), decoded.rejects, unpublishable))
        waits = _waits_ms(chunk.only(positions), now)
        unscored = int(np.count_nonzero(no_input))
        metrics = self._metrics(
            chunk,
            positions,
            stream_metrics,
            waits=waits,
            at=at,
            lag=lag,
            no_input=unscored,
            skipped=skipped,
        )
        self._observer.waited(waits)
        self._observer.scored(metrics)
        return Output(
            keys=keys,
            results=results,
            dead_letters=[self._dead_letter(chunk, reject) for reject in rejects],
            metrics=metrics.encode(),
            rows=len(chunk),
        )

    def _look_at_names(self, chunk: Chunk, *, accepted: int) -> None:
        self._names.look((message.value() for message in chunk.messages), accepted=accepted)
        for name, wanted in self._names.look_alikes():
            self._observer.looks_alike(name, wanted, mapped=self._decode.names.mapped)
        self._names.require()

    def _without_foreign(self, rejects: list[Reject]) -> tuple[list[Reject], int]:
        """The rejects that become dead letters, and how many do not because they are for others."""
        if not self._skip_foreign:
            return [*rejects], 0
        ours = [reject for reject in rejects if reject.reason is not Reason.NOT_FOR_US]
        return ours, len(rejects) - len(ours)

    def _look_at_keys(self, rows: Chunk, patient_ids: list[str]) -> None:
        self._keys_unknown = False
        pairs = zip(rows.messages, patient_ids, strict=True)
        if any(message.key() != id_.encode() for message, id_ in pairs):
            self._observer.keyed_otherwise()

    def _look_for_unseen(self, frame: pd.DataFrame) -> None:
        absent = pd.isna(frame[self._unseen].to_numpy()).all(axis=0)
        self._unseen = [name for name, still in zip(self._unseen, absent, strict=True) if still]
        self._rows_looked_at += len(frame)
        if self._unseen and self._rows_looked_at >= FIRST_ROWS:
            self._observer.unseen(self._unseen)
            self._unseen = []

    def _unpublishable(
        self, positions: list[int], failed: list[int], keys: list[bytes], results: list[bytes]
    ) -> list[Reject]:
        rejects = [Reject(position, Reason.MODEL_REJECTED, RISK_PROBABILITY) for position in failed]
        room = self._limits.result - RECORD_OVERHEAD
        if max(map(len, keys), default=0) + max(map(len, results), default=0) > room:
            already = set(failed)
            rejects += [
                Reject(position, Reason.TOO_LARGE, "")
                for position, key, result in zip(positions, keys, results, strict=True)
                if len(key) + len(result) > room and position not in already
            ]
        return rejects

    def _dead_letter(self, chunk: Chunk, reject: Reject) -> DeadLetter:
        message: Any = chunk.messages[reject.position]
        partition, offset = chunk.partitions[reject.position], chunk.offsets[reject.position]
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
        chunk: Chunk,
        scored: list[int],
        stream_metrics: StreamMetrics,
        *,
        waits: Floats,
        at: str,
        lag: int,
        no_input: int,
        skipped: int,
    ) -> ChunkMetrics:
        p50, p99, longest = _quantiles(waits)
        return ChunkMetrics(
            # No two committed chunks hold the same message, so its first one names a chunk.
            chunk_id=f"{self._topic}-{chunk.partitions[0]}@{chunk.offsets[0]}",
            worker=self._worker,
            closed_by=chunk.closed_by,
            rows=len(chunk),
            scored=len(scored),
            dead_lettered=len(chunk) - len(scored) - skipped,
            latency_ms=stream_metrics.latency_ms,
            throughput_rows_per_s=stream_metrics.throughput_rows_per_s,
            end_to_end_ms_p50=p50,
            end_to_end_ms_p99=p99,
            end_to_end_ms_max=longest,
            lag=lag,
            offsets={f"{self._topic}-{partition}": list(span) for partition, span in chunk.spans().items()},
            model=self._model.sha256,
            at=at,
            chunk_size=chunk.pace.chunk_size,
            max_wait_ms=round(chunk.pace.max_wait * 1000, 3),
            no_input=no_input,
            skipped=skipped,
        )


def score(
    frame: pd.DataFrame, scorer: RiskScorer, no_input: Bools
) -> tuple[Floats, StreamMetrics, list[int]]:
    """The probability of each row of `frame`, the core's metrics, and the index labels of rows to reject.

    The model is not asked about rows with `no_input`: their probability is NaN. Rejected are the rows on which it
    raises, found by bisection, and those whose probability is neither NaN nor within 0 and 1. What is returned as their
    probability means nothing.

    Raises:
        ModelFailedError: the model failed on every one of 10 rows or more, or its result has the wrong shape.
    """
    if not no_input.any():
        return _ask(frame, scorer)
    probabilities = np.full(len(frame), np.nan)
    probabilities[~no_input], metrics, rejected = _ask(frame[~no_input], scorer)
    return probabilities, metrics, rejected


def _ask(frame: pd.DataFrame, scorer: RiskScorer) -> tuple[Floats, StreamMetrics, list[int]]:
    tolerant = _Bisecting(scorer.probability)
    try:
        scores, metrics = process_stream(frame, max(1, len(frame)), tolerant)
    except ModelOutputError as error:
        raise ModelFailedError(f"{error}; {_READ_AGAIN}") from None
    if frame.empty:
        return np.empty(0), metrics, []
    probabilities = scores.to_numpy()[:, 0]
    impossible = (probabilities < 0) | (probabilities > 1)
    rejected = (
        sorted({*tolerant.rejected, *frame.index[impossible]}) if impossible.any() else tolerant.rejected
    )
    if len(rejected) == len(frame) >= SYSTEMIC_ROWS:
        why = (
            f"raised {tolerant.error_name}" if tolerant.error_name else "gave no probability between 0 and 1"
        )
        raise ModelFailedError(
            f"the model {why} on all {len(frame)} rows of a chunk that it was asked about, so the model is at fault, "
            f"not the messages; {_READ_AGAIN}"
        )
    return probabilities, metrics, rejected


class _Bisecting:
    """A scorer that halves a frame on which the model raises until only the offending rows are left."""

    def __init__(self, scorer: Callable[[pd.DataFrame], Floats]) -> None:
        self._scorer = scorer
        self.rejected: list[int] = []
        self.error_name = ""

    def __call__(self, frame: pd.DataFrame) -> Floats:
        try:
            return self._scorer(frame)
        except (ModelOutputError, MemoryError):
            raise
        except Exception as error:
            # The name of its class only: the text may hold a patient's values.
            self.error_name = type(error).__name__
        if len(frame) == 1:
            self.rejected.append(frame.index[0])
            return np.full(1, np.nan)
        half = len(frame) // 2
        return np.concatenate([self(frame.iloc[:half]), self(frame.iloc[half:])])


def _at_fault(
    rows: int, decoded: Sequence[Reject], unpublishable: Sequence[Reject]
) -> tuple[int, list[Reject]]:
    """How many messages of a chunk may be at fault, and the rejects among them by their positions there."""
    rejects = sorted([*decoded, *unpublishable], key=lambda reject: reject.position)
    innocent = [reject.position for reject in rejects if reject.reason in NO_FAULT]
    faulty = [reject for reject in rejects if reject.reason not in NO_FAULT]
    if innocent:
        faulty = [replace(one, position=one.position - bisect(innocent, one.position)) for one in faulty]
    return rows - len(innocent), faulty


def _keys(rows: Chunk, patient_ids: list[str]) -> list[bytes]:
    keys: list[Any] = [message.key() for message in rows.messages]
    if None in keys:
        return [id_.encode() if key is None else key for key, id_ in zip(keys, patient_ids, strict=True)]
    return keys


def _take(items: Sequence[Item], rows: list[int]) -> list[Item]:
    return [items[row] for row in rows]


def _waits_ms(rows: Chunk, now: float) -> Floats:
    """Milliseconds from source timestamp to now of the rows that have a timestamp, ascending."""
    times = np.array([message.timestamp()[1] for message in rows.messages], np.int64)
    return np.sort(now * 1000 - times[times >= 0])


def _quantiles(waits: Floats) -> tuple[float | None, float | None, float | None]:
    """Median, 99th percentile (nearest rank) and maximum; None of no rows."""
    if not len(waits):
        return None, None, None
    p50, p99, longest = (round(float(waits[math.ceil(q * len(waits)) - 1]), 3) for q in (0.5, 0.99, 1.0))
    return p50, p99, longest

"""Whether what was published of each message is what decoding and scoring it here gives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from audit.bitmap import Bitmap, Bools, Ints
from audit.findings import Findings, Invariant
from audit.letters import cause
from audit.model import NOT_A_NUMBER, OfflineModel, ulps
from audit.published import Floats, Published, UInts, fingerprints
from audit.reading import Batch
from schemas.contract import RISK_PROBABILITY, Reason
from schemas.presence import features_present
from schemas.vitals import Decoded, Decoder

_ANY_MODEL_ERROR = Exception  # a model raises what it likes; its text may hold values, and is not looked at


class Values:
    """Compares batches of the input topic with what was published of them."""

    def __init__(
        self,
        model: OfflineModel,
        *,
        decode: Decoder,
        min_features: int,
        topic: str,
        published: Published,
        results: Bitmap,
        dead_letters: Bitmap,
        foreign: Bitmap,
        findings: Findings,
    ) -> None:
        self.foreign = foreign  # the messages that are for others are added
        self.compared = 0
        self.ulp = 0  # the largest difference that was found
        self._model = model
        self._decode = decode
        self._min_features = min_features
        self._topic = topic
        self._published = published
        self._results = results
        self._dead_letters = dead_letters
        self._findings = findings

    def check(self, batch: Batch, numbers: Ints) -> None:
        """Compare a batch of messages that have these numbers."""
        decoded = self._decode(batch.messages)
        check = _Check(batch, numbers, self._topic, self._findings)
        self._check_rejected(check, decoded)
        foreign = [one.position for one in decoded.rejects if one.reason is Reason.NOT_FOR_US]
        self.foreign.add(numbers[foreign])
        accepted = decoded.frame.index.to_numpy()
        present = features_present(decoded.frame)
        enough = present >= self._min_features
        self._check_accepted(check, decoded.frame, accepted, enough)
        by_model = self._results.has(numbers[accepted])
        others = by_model & ~self._published.comparable.has(numbers[accepted])
        check.accuse(accepted[others], "its result is by another model or mapping")
        rows = np.flatnonzero(by_model & ~others)
        earlier = self._check_carried(check, decoded, accepted, rows, present)
        self._check_scores(check, decoded.frame.iloc[rows], accepted[rows], enough[rows] | earlier)

    def _check_rejected(self, check: "_Check", decoded: Decoded) -> None:
        """What can't be decoded has no result, and a dead letter with the same cause."""
        rows = np.array([reject.position for reject in decoded.rejects], dtype=np.int64)
        causes = np.array([cause(reject.reason, reject.field) for reject in decoded.rejects], dtype=np.int64)
        numbers = check.numbers[rows]
        check.accuse(rows[self._results.has(numbers)], "has a result, but can't be decoded")
        wrong = self._dead_letters.has(numbers) & (self._published.causes(numbers) != causes)
        check.accuse(rows[wrong], "its dead letter gives another reason or field than decoding it does")

    def _check_accepted(self, check: "_Check", frame: pd.DataFrame, rows: Ints, enough: Bools) -> None:
        """What can be decoded is a dead letter only if the model refuses it, or its result was too large."""
        dead = self._dead_letters.has(check.numbers[rows]) & ~self._results.has(check.numbers[rows])
        told = self._published.causes(check.numbers[rows])
        by_model = dead & (told == cause(Reason.MODEL_REJECTED, RISK_PROBABILITY))
        too_large = told == cause(Reason.TOO_LARGE, "")
        check.accuse(rows[dead & ~by_model & ~too_large], "is a dead letter, but can be decoded")
        check.accuse(rows[by_model & ~enough], "is a dead letter of the model, which is not asked about it")
        asked = np.flatnonzero(by_model & enough)
        if len(asked):
            scores, refused = self._score(frame.iloc[asked])
            accepted = ~refused & ~((scores < 0) | (scores > 1))
            check.accuse(rows[asked][accepted], "is a dead letter of the model, which accepts it")

    def _check_carried(
        self, check: "_Check", decoded: Decoded, accepted: Ints, rows: Ints, present: Ints
    ) -> Bools:
        """What a result carries on is its own message's: a right score must not be shown for a wrong patient.

        Tells of each result whether it is of an earlier version, which asked the model about every message.
        """
        told = self._published.carried(check.numbers[accepted[rows]])
        no_input = (present < self._min_features).tolist()
        right = told == _carried(check, decoded, present.tolist(), no_input)[rows]
        earlier = np.zeros(len(rows), dtype=np.bool_)
        if not right.all():
            unsaid = _carried(check, decoded, [None] * len(present), [False] * len(present))
            earlier = ~right & (told == unsaid[rows])
        check.accuse(
            accepted[rows][~right & ~earlier],
            "its key, patient, time, implausible features, features_present or no_input are not its message's (or "
            "the worker had other --ranges or --min-features)",
        )
        return earlier

    def _check_scores(self, check: "_Check", frame: pd.DataFrame, rows: Ints, asked: Bools) -> None:
        """The model was asked about the `asked` rows; the others have no score."""
        if len(rows) == 0:
            return
        told = self._published.probabilities(check.numbers[rows])
        found, refused = np.full(len(rows), np.nan), np.zeros(len(rows), dtype=np.bool_)
        if asked.any():
            found[asked], refused[asked] = self._score(frame if asked.all() else frame[asked])
        check.accuse(rows[refused], "has a result, but the model raises on it")
        distances = ulps(told, found)
        self.compared += len(rows)
        finite = ~(np.isnan(told) | np.isnan(found))
        self.ulp = max(self.ulp, int(distances[finite].max(initial=0)))
        wrong = ~self._model.agrees(told, found) & ~refused
        for row, distance in zip(rows[wrong], distances[wrong], strict=True):
            problem = f"its probability is {_apart(int(distance))}"
            check.accuse(np.array([row]), problem)

    def _score(self, frame: pd.DataFrame) -> tuple[Floats, Bools]:
        """Probabilities, and the rows on which the model raises, found by halving."""
        try:
            with threadpool_limits(limits=1, user_api="blas"):
                risk = self._model.scorer.probability(frame)
            return risk, np.zeros(len(frame), dtype=np.bool_)
        except _ANY_MODEL_ERROR:
            if len(frame) == 1:
                return np.array([np.nan]), np.array([True])
        half = len(frame) // 2
        (a, b), (c, d) = self._score(frame.iloc[:half]), self._score(frame.iloc[half:])
        return np.concatenate([a, c]), np.concatenate([b, d])


class _Check:
    """A batch being compared; rows are positions in it."""

    def __init__(self, batch: Batch, numbers: Ints, topic: str, findings: Findings) -> None:
        self.numbers = numbers
        self._batch = batch
        self._topic = topic
        self._findings = findings

    def keys(self, rows: Ints) -> list[Any]:
        return [self._batch.messages[row].key() for row in rows.tolist()]

    def accuse(self, rows: Ints, problem: str) -> None:
        for row in rows.tolist():
            partition, offset = int(self._batch.partitions[row]), int(self._batch.offsets[row])
            self._findings.add(Invariant.CORRECT, self._topic, partition, offset, problem)


def _carried(
    check: _Check, decoded: Decoded, present: Sequence[int | None], no_input: Sequence[bool]
) -> UInts:
    """Fingerprints of what the results of a batch must say of their messages."""
    own = check.keys(decoded.frame.index.to_numpy())
    keys = [id_.encode() if key is None else key for key, id_ in zip(own, decoded.patient_ids, strict=True)]
    identity = decoded.patient_ids, decoded.event_times
    return fingerprints(keys, *identity, decoded.implausible, present, no_input)


def _apart(distance: int) -> str:
    if distance == NOT_A_NUMBER:
        return "null where offline scoring gives a number, or the other way round"
    return f"{distance} units in the last place off offline scoring"

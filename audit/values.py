"""Whether what was published for each message equals the result of decoding and scoring it here."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from audit.bitmap import Bitmap, Bools, Ints
from audit.findings import Findings, Invariant
from audit.history import Fold, Known, taken
from audit.letters import cause
from audit.model import NOT_A_NUMBER, OfflineModel, ulps
from audit.published import Floats, Published, UInts, fingerprints, past_fingerprints
from audit.reading import Batch
from schemas.contract import RISK_PROBABILITY, Reason
from schemas.presence import features_present
from schemas.vitals import Decoded, Decoder

_ANY_MODEL_ERROR = Exception  # models may raise anything; the text may hold values, and is ignored


class Values:
    """Compares batches of the input topic with what was published: each result with the model that it names.

    A dead letter names no model, so it is correct if any of them confirms it. `doubted` counts those that none confirms
    while another model has scored, too. `without_past` counts differing scores of a model with a history in a partition
    of `gone`, whose first messages may have been deleted; later ones may be known from a saved state.
    """

    def __init__(
        self,
        models: Sequence[tuple[OfflineModel, Decoder]],
        *,
        min_features: int,
        topic: str,
        published: Published,
        results: Bitmap,
        dead_letters: Bitmap,
        foreign: Bitmap,
        gone: set[int],
        findings: Findings,
    ) -> None:
        self.folds: dict[str, Fold] = {}  # by recipe
        self.without_past = 0
        self.foreign = foreign  # receives the messages that are for others
        self.doubted = 0
        self._published = published
        self._results = results
        self._dead_letters = dead_letters
        self._topic = topic
        self._findings = findings
        self._gone = gone
        for model, decode in models:
            if model.recipe_sha256 is not None and model.recipe_sha256 not in self.folds:
                self.folds[model.recipe_sha256] = Fold(model, decode)
        self._by_model = [
            _ByModel(model, decode, min_features=min_features, published=published)
            for model, decode in models
        ]

    @property
    def checked(self) -> str:
        """How many scores were compared, and the largest difference."""
        compared, ulp = (sum(one.compared for one in self._by_model), max(one.ulp for one in self._by_model))
        by = f" by {len(self._by_model)} models" if len(self._by_model) > 1 else ""
        return f"{compared:,} probabilities{by}, at most {ulp} ulp apart"

    def lost(self, partition: int) -> None:
        """Messages of this partition were deleted before they were read."""
        self._gone.add(partition)
        for fold in self.folds.values():
            fold.begins.pop(partition, None)

    def check(self, batch: Batch, numbers: Ints) -> None:
        """Compare a batch of messages that have these numbers."""
        by = self._published.by(numbers)
        others = ~self._results.has(numbers)
        letters = self._dead_letters.has(numbers) & others
        wrong: dict[int, str] = {}
        known = {recipe: fold.take(batch) for recipe, fold in self.folds.items()}
        for place, one in enumerate(self._by_model, 1):
            check = _Check(batch, numbers, results=by == place, letters=letters, others=others)
            self.foreign.add(one.check(check, known.get(one.recipe_sha256 or "")))
            if one.recipe_sha256 is not None:
                self._excuse(check, self.folds[one.recipe_sha256].begins)
            self._accuse(batch, check.wrong_results)
            wrong = check.wrong_letters
            letters = np.zeros(len(batch), dtype=np.bool_)
            letters[[*wrong]] = True
            others = letters
        if self._published.unknown:
            self.doubted += len(wrong)
        else:
            self._accuse(batch, wrong)

    def _excuse(self, check: "_Check", begins: Mapping[int, int]) -> None:
        """Leaves out what depends on deleted messages, which can't be judged."""
        for row in check.wrong_scores:
            partition, offset = int(check.partitions[row]), int(check.offsets[row])
            if partition in self._gone and (partition not in begins or offset < begins[partition]):
                self.without_past += check.wrong_results.pop(row, None) is not None
                self.without_past += check.wrong_letters.pop(row, None) is not None

    def _accuse(self, batch: Batch, problems: Mapping[int, str]) -> None:
        for row, problem in sorted(problems.items()):
            place = int(batch.partitions[row]), int(batch.offsets[row])
            self._findings.add(Invariant.CORRECT, self._topic, *place, problem)


class _ByModel:
    """Compares with one model. `ulp` is the largest difference found."""

    def __init__(
        self, model: OfflineModel, decode: Decoder, *, min_features: int, published: Published
    ) -> None:
        self.compared = 0
        self.ulp = 0
        self.recipe_sha256 = model.recipe_sha256
        self._model = model
        self._decode = decode
        self._min_features = min_features
        self._published = published

    def check(self, check: "_Check", known: Known | None) -> Ints:
        """Compare the results and dead letters in `check`; returns the numbers of messages that are for others.

        `known` is what the model's history knows, if it has one, by position in the whole batch.
        """
        decoded = self._decode(check.batch.messages)
        if known is not None:
            decoded = taken(decoded, check.batch)
        self._check_rejected(check, decoded)
        accepted = decoded.frame.index.to_numpy()
        present = features_present(decoded.frame)
        enough = present >= self._min_features
        asked = decoded.frame if known is None else known.features.loc[check.rows[accepted]]
        self._check_letters(check, asked, accepted, enough)
        rows = np.flatnonzero(check.results[accepted])
        earlier = self._check_carried(check, decoded, accepted, rows, present)
        self._check_past(check, known, accepted[rows])
        self._check_scores(check, asked.iloc[rows], accepted[rows], enough[rows] | earlier)
        return check.numbers[[one.position for one in decoded.rejects if one.reason is Reason.NOT_FOR_US]]

    def _check_rejected(self, check: "_Check", decoded: Decoded) -> None:
        """A message that can't be decoded must have no result, and a dead letter with the same cause."""
        rows = np.array([reject.position for reject in decoded.rejects], dtype=np.int64)
        causes = np.array([cause(reject.reason, reject.field) for reject in decoded.rejects], dtype=np.int64)
        check.accuse(rows[check.results[rows]], "has a result, but can't be decoded")
        wrong = check.letters[rows] & (self._published.causes(check.numbers[rows]) != causes)
        check.accuse(rows[wrong], "its dead letter gives a different reason or field from decoding it")

    def _check_letters(self, check: "_Check", frame: pd.DataFrame, rows: Ints, enough: Bools) -> None:
        """A decodable message may be dead-lettered only because of the model, its result's size or a later schema."""
        dead = check.letters[rows]
        told = self._published.causes(check.numbers[rows])
        by_model = dead & (told == cause(Reason.MODEL_REJECTED, RISK_PROBABILITY))
        too_large = told == cause(Reason.TOO_LARGE, "")
        registered_since = told == cause(Reason.UNKNOWN_SCHEMA, "")
        check.accuse(
            rows[dead & ~by_model & ~too_large & ~registered_since], "is a dead letter, but can be decoded"
        )
        check.accuse(
            rows[by_model & ~enough],
            "was dead-lettered as rejected by the model, which is not asked about it",
        )
        asked = np.flatnonzero(by_model & enough)
        if len(asked):
            scores, refused = self._score(frame.iloc[asked])
            accepted = ~refused & ~((scores < 0) | (scores > 1))
            check.accuse_score(
                rows[asked][accepted], "was dead-lettered as rejected by the model, which accepts it"
            )

    def _check_carried(
        self, check: "_Check", decoded: Decoded, accepted: Ints, rows: Ints, present: Ints
    ) -> Bools:
        """A result must carry its own message's data: a right score must not be shown for the wrong patient.

        Returns for each result whether it is from an earlier version, which scored every message.
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

    def _check_past(self, check: "_Check", known: Known | None, rows: Ints) -> None:
        """Check what a result says about its patient's past: nothing if the model has no history."""
        told = [None] * len(rows) if known is None else known.told.loc[check.rows[rows]].tolist()
        wrong = past_fingerprints(told) != self._published.pasts(check.numbers[rows])
        check.accuse_score(
            rows[wrong], "what it says about the patient's past does not follow from the messages"
        )

    def _check_scores(self, check: "_Check", frame: pd.DataFrame, rows: Ints, asked: Bools) -> None:
        """Check the scores of the `asked` rows; the others have none."""
        if len(rows) == 0:
            return
        told = self._published.probabilities(check.numbers[rows])
        found, refused = np.full(len(rows), np.nan), np.zeros(len(rows), dtype=np.bool_)
        if asked.any():
            found[asked], refused[asked] = self._score(frame if asked.all() else frame[asked])
        check.accuse_score(rows[refused], "has a result, but the model raises on it")
        distances = ulps(told, found)
        self.compared += len(rows)
        finite = ~(np.isnan(told) | np.isnan(found))
        self.ulp = max(self.ulp, int(distances[finite].max(initial=0)))
        wrong = ~self._model.agrees(told, found) & ~refused
        for row, distance in zip(rows[wrong], distances[wrong], strict=True):
            problem = f"its probability is {_apart(int(distance))}"
            check.accuse_score(np.array([row]), problem)

    def _score(self, frame: pd.DataFrame) -> tuple[Floats, Bools]:
        """Probabilities, and the rows on which the model raises, found by bisection."""
        try:
            with threadpool_limits(limits=1, user_api="blas"):
                risk = self._model.scorer.behind_history(frame)
            return risk, np.zeros(len(frame), dtype=np.bool_)
        except _ANY_MODEL_ERROR:
            if len(frame) == 1:
                return np.array([np.nan]), np.array([True])
        half = len(frame) // 2
        (a, b), (c, d) = self._score(frame.iloc[:half]), self._score(frame.iloc[half:])
        return np.concatenate([a, c]), np.concatenate([b, d])


class _Check:
    """The messages of a batch that have one of these results or dead letters, or are among `others`.

    Rows are positions among them; rows of offenders are positions in the whole batch.
    """

    def __init__(self, batch: Batch, numbers: Ints, *, results: Bools, letters: Bools, others: Bools) -> None:
        kept = results | letters | others
        self.batch = batch.kept(kept)
        self.numbers = numbers[kept]
        self.results = results[kept]
        self.letters = letters[kept]
        self.wrong_results: dict[int, str] = {}
        self.wrong_letters: dict[int, str] = {}
        self.wrong_scores: set[int] = set()
        """The findings of both in which only the score is wrong."""
        self.partitions, self.offsets = batch.partitions, batch.offsets
        self.rows = np.flatnonzero(kept)

    def keys(self, rows: Ints) -> list[Any]:
        return [self.batch.messages[row].key() for row in rows.tolist()]

    def accuse(self, rows: Ints, problem: str) -> None:
        for row in rows.tolist():
            wrong = self.wrong_results if self.results[row] else self.wrong_letters
            wrong.setdefault(int(self.rows[row]), problem)

    def accuse_score(self, rows: Ints, problem: str) -> None:
        known = {*self.wrong_results, *self.wrong_letters}
        self.accuse(rows, problem)
        self.wrong_scores |= {*self.rows[rows].tolist()} - known


def _carried(
    check: _Check, decoded: Decoded, present: Sequence[int | None], no_input: Sequence[bool]
) -> UInts:
    """Fingerprints of what the results of a batch must say about their messages."""
    own = check.keys(decoded.frame.index.to_numpy())
    keys = [id_.encode() if key is None else key for key, id_ in zip(own, decoded.patient_ids, strict=True)]
    identity = decoded.patient_ids, decoded.event_times
    return fingerprints(keys, *identity, decoded.implausible, present, no_input)


def _apart(distance: int) -> str:
    if distance == NOT_A_NUMBER:
        return "null where offline scoring gives a number, or vice versa"
    return f"{distance} units in the last place away from offline scoring"

"""Tests a model before it scores: whether a row's score depends on that row alone.

Libraries accept transformers that take means over the given rows, fill a gap from the row above or draw from a
posterior; a patient's risk then changes with the chunk size. Scoring some rows in several ways reveals such a model: in
tests its scores differed by 0.03 or more, those of all other models by no more than rounding explains (see _tolerance).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from real_time.compiled import Floats
from real_time.features import Dtype, Feature
from real_time.inference import ModelOutputError, RiskScorer
from real_time.model_file import ModelError
from real_time.prepared import Prepared

_CANDIDATES: Final = 256
_ROWS: Final = 24  # without a gap, and as many with gaps
_TRIES: Final = 16  # of rows with one gap, where it raises on some of those with more
_ENOUGH: Final = 8  # of these
_TRIED: Final = 16  # one by one, where it raises on some of a candidate's neighbours
_ALONE: Final = 8  # are scored one by one
_GAPS: Final = 0.3  # the share of missing values
# The tolerance: see _tolerance.
_LARGEST: Final = 1e-6  # steep nets in single precision come close to it
_SHARE: Final = 0.01
_ULPS: Final = 4
_FINER: Final = 1 / 64  # of the precision: no 1 - p is that small, nor a mean of fewer than 64 of them
_CLEAR: Final = 1e-3  # scores this far from 0 and 1 show the model's precision
_DOUBLE: Final = 1e-12  # a larger difference there is not double precision's
# Vitals and laboratory values lie around these; a feature's name need not say which of them apply to it.
_CENTERS: Final = (0.3, 1.0, 4.0, 7.4, 16.0, 25.0, 37.0, 60.0, 80.0, 98.0, 120.0)
_STEPS: Final = 64  # from the lowest to the highest typical value of a feature whose typical values are known
_TEXTS: Final = ("a", "b")  # where categories are not known

_RAISES: Final = -np.inf  # in place of a probability


class DependentRowsError(ModelError):
    """A row's score depends on something other than the row: other rows, chance, or what was scored before."""


class FailsOnEveryRowError(ModelError):
    """The model has no probability for any of the probe rows."""


def require_independent_rows(scorer: RiskScorer, features: Sequence[str]) -> bool:
    """Raise unless each probe row gets the same score twice, in any order and among any other rows.

    For a model with a history, the probe rows and the `features` are what the history returns. Returns whether the
    model, or a part of it, computes in single precision.

    Raises DependentRowsError, FailsOnEveryRowError or ModelOutputError.
    """
    with threadpool_limits(limits=1), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        ask = _Tolerant(scorer.behind_history)
        rows = _rows(ask, features, _drawn(scorer.prepared))
        expected = ask(rows)
        half = len(rows) // 2
        some = np.linspace(0, len(rows) - 1, min(_ALONE, len(rows))).astype(int)
        depends = ": it depends on the rows next to it"
        found = {
            "twice in the same way: it depends on chance, or on what was scored before": ask(rows),
            f"in another order{depends}": ask(rows.iloc[::-1])[::-1],
            f"in two halves{depends}": np.concatenate([ask(rows.iloc[:half]), ask(rows.iloc[half:])]),
        }
        alone = found[f"alone{depends}"] = expected.copy()
        alone[some] = ask.singly(rows.iloc[some])
        single = _in_single_precision(expected, [*found.values()])
        tolerance = _tolerance(expected, single=single)
        for how, scores in found.items():
            _compare(expected, scores, tolerance, how)
        return single


class _Tolerant:
    """Scores rows; where the model raises, the scores are _RAISES and `error_name` is the class of the exception."""

    def __init__(self, score: Callable[[pd.DataFrame], Floats]) -> None:
        self._score = score
        self.error_name = ""

    def __call__(self, rows: pd.DataFrame) -> Floats:
        try:
            return self._score(rows)
        except (ModelOutputError, MemoryError):
            raise
        except Exception as error:
            self.error_name = type(error).__name__
            return np.full(len(rows), _RAISES)

    def singly(self, rows: pd.DataFrame, *, enough: int | None = None) -> Floats:
        """Score rows one by one until `enough` of them did not raise; the rest count as if they had raised."""
        scores = np.full(len(rows), _RAISES)
        for row in range(len(rows)):
            scores[row : row + 1] = self(rows.iloc[[row]])
            if np.count_nonzero(~np.isneginf(scores)) == enough:
                break
        return scores


def _in_single_precision(expected: Floats, found: Sequence[Floats]) -> bool:
    """Whether all scores fit single precision, or clear ones differ by more than double precision explains.

    The second case reveals a model that computes only partly in single precision. Scores of 0 and 1 reveal nothing.
    """
    scores = expected[(expected > 0) & (expected < 1)]
    if scores.size and (scores == scores.astype(np.float32)).all():
        return True
    clear = (expected > _CLEAR) & (expected < 1 - _CLEAR)
    return any((_apart(expected, one)[clear] > _DOUBLE).any() for one in found)


def _tolerance(expected: Floats, *, single: bool) -> Floats:
    """How much rounding may change each score.

    A score near 0 or 1 is usually the logistic function of a large margin: a sum whose terms may cancel. An error in
    the margin changes the score's distance from 0 or 1 by the same share, so each score is judged by that distance.
    1 % allows for terms of 100,000 in single precision.

    A score that is one minus another is no finer than the numbers next to 1. The tolerance allows for that, except
    near 0 for a single-precision model that also has scores far finer than that.
    """
    scores = np.nan_to_num(np.clip(expected, 0, 1))
    rounding = np.full(len(scores), np.finfo(np.float64).eps)
    if single:
        coarsest = np.finfo(np.float32).eps
        are_finer = ((scores > 0) & (scores < coarsest * _FINER)).any()
        rounding = np.maximum(rounding, coarsest * scores if are_finer else coarsest)
    tolerance: Floats = np.minimum(_LARGEST, _SHARE * np.minimum(scores, 1 - scores) + _ULPS * rounding)
    return tolerance


def _apart(expected: Floats, found: Floats) -> Floats:
    """The absolute differences; 1 where only one of the two is a number."""
    apart = np.where(np.isnan(expected) & np.isnan(found), 0, np.abs(expected - found))
    return np.where(np.isnan(apart), 1, apart)


def _compare(expected: Floats, found: Floats, tolerance: Floats, how: str) -> None:
    apart = _apart(expected, found)
    if (np.isinf(expected) != np.isinf(found)).any():
        problem = "raises on some rows, and does not where they are scored"
    elif (apart > tolerance).any():
        problem = f"gives the same rows other scores, by up to {apart.max():.2g}, where they are scored"
    else:
        return
    raise DependentRowsError(
        f"the model {problem} {how}. A patient's risk would change with the chunk that the message is in: use a model "
        "whose steps look at one row at a time, with what they learned when they were fitted"
    )


# --- rows


def _drawn(prepared: Prepared) -> dict[str, Sequence[Any]]:
    """The values to draw from, for each feature whose values are known."""
    found = {feature.name: _values(feature) for feature in prepared.described}
    found |= {name: learned.values for name, learned in prepared.learned.items() if learned.values}
    return {name: values for name, values in found.items() if values}


def _values(feature: Feature) -> Sequence[Any]:
    if feature.dtype == Dtype.CATEGORY:
        return feature.values or _TEXTS
    if feature.dtype == Dtype.BOOLEAN:
        return (False, True)
    if feature.typical is None:
        return ()
    low, _, high = feature.typical
    return [*np.linspace(low, high, _STEPS)]


def _rows(ask: _Tolerant, features: Sequence[str], drawn: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Rows that the model can score; the least certain come first, because they show a difference best."""
    random = np.random.default_rng(3)
    candidates = _candidates(features, drawn, _CANDIDATES, random)
    whole = _best(candidates, ask(candidates))
    if whole.empty:
        few = candidates.head(2 * _ROWS)
        whole = _best(few, ask.singly(few))
    one = np.arange(len(whole))[:, None] % len(features) == np.arange(len(features))
    gapped = whole.mask(one | (random.random(one.shape) < _GAPS))
    found = _best(gapped, ask(gapped))
    if found.empty:
        few = whole.mask(one).head(_TRIES)
        found = _best(few, ask.singly(few, enough=_ENOUGH))
    rows = pd.concat([whole, found], ignore_index=True)
    if rows.empty:
        what = f"raises {ask.error_name}" if ask.error_name else "gives no probability between 0 and 1"
        raise FailsOnEveryRowError(
            f"the model {what} on every one of {_CANDIDATES} probe rows, so it would on each message: a worker "
            "passes numbers or NaN, except for features that the model or its card describes as categories or "
            "booleans; `vitalstream model pin --data FILE` learns these from the rows it was fitted on"
        )
    return rows


def made_up_rows(prepared: Prepared, count: int) -> pd.DataFrame:
    """`count` complete rows for a model whose features have names."""
    return _candidates(prepared.features or (), _drawn(prepared), count, np.random.default_rng(3))


def _candidates(
    features: Sequence[str], drawn: Mapping[str, Sequence[Any]], count: int, random: np.random.Generator
) -> pd.DataFrame:
    """Two thirds look like vitals in their own units; the rest are around 0, as if already scaled."""
    shape = (count, len(features))
    vitals = random.choice(_CENTERS, shape) * random.normal(1, 0.15, shape)
    scaled = random.normal(size=shape) * random.choice([0.3, 1, 3], (count, 1))
    values = np.where(np.arange(count)[:, None] % 3 == 0, scaled, vitals)
    rows = pd.DataFrame(values, columns=[*features])
    for name, known in drawn.items():
        rows[name] = pd.Series(random.choice(np.array(known, dtype=object), count)).infer_objects()
    return rows


def _best(rows: pd.DataFrame, scores: Floats) -> pd.DataFrame:
    """Up to _ROWS of the rows that have a probability or NaN."""
    usable = np.flatnonzero(np.isnan(scores) | ((scores >= 0) & (scores <= 1)))
    doubt = np.argsort(np.abs(scores[usable] - 0.5), kind="stable")  # NaN comes last
    return rows.iloc[usable[doubt[:_ROWS]]]

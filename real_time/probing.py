"""Tests a model before it scores: whether a row's score depends on that row alone.

Libraries accept transformers that take means over the given rows, fill a gap from the row above or draw from a
posterior; a patient's risk then changes with the chunk size. Scoring some rows in several ways shows it: such models
differed by 0.03 or more in tests, all others by less than 1e-7.
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
_TOLERANCE: Final = 1e-6  # a net in single precision differs by 6e-8
# Around these, vitals and laboratory values lie; which of them a feature has, its name need not tell.
_CENTERS: Final = (0.3, 1.0, 4.0, 7.4, 16.0, 25.0, 37.0, 60.0, 80.0, 98.0, 120.0)
_STEPS: Final = 64  # from the lowest to the highest typical value of a feature whose typical values are known
_TEXTS: Final = ("a", "b")  # where categories are not known

_RAISES: Final = -np.inf  # in place of a probability


class DependentRowsError(ModelError):
    """A row's score depends on something else than the row: other rows, chance, or what was scored before."""


class FailsOnEveryRowError(ModelError):
    """The model has no probability for any of the probe rows."""


def require_independent_rows(scorer: RiskScorer, features: Sequence[str]) -> None:
    """Return if the score of each probe row is the same twice, in any order and among any others.

    Behind a history, the rows are what that gives, and so are the `features`.

    Raises DependentRowsError, FailsOnEveryRowError or ModelOutputError.
    """
    with threadpool_limits(limits=1), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        ask = _Tolerant(scorer.behind_history)
        rows = _rows(ask, features, _drawn(scorer.prepared))
        expected = ask(rows)
        _compare(
            expected, ask(rows), "twice in the same way: it depends on chance, or on what was scored before"
        )
        depends = ": it depends on the rows next to it"
        _compare(expected, ask(rows.iloc[::-1])[::-1], "in another order" + depends)
        half = len(rows) // 2
        halves = np.concatenate([ask(rows.iloc[:half]), ask(rows.iloc[half:])])
        _compare(expected, halves, "in two halves" + depends)
        alone = np.linspace(0, len(rows) - 1, min(_ALONE, len(rows))).astype(int)
        _compare(expected[alone], ask.singly(rows.iloc[alone]), "alone" + depends)


class _Tolerant:
    """Asks for scores; of rows on which the model raises they are _RAISES, and `error_name` is the class of that."""

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
        """Each alone, until it did not raise on `enough` of them; the rest counts as if it did."""
        scores = np.full(len(rows), _RAISES)
        for row in range(len(rows)):
            scores[row : row + 1] = self(rows.iloc[[row]])
            if np.count_nonzero(~np.isneginf(scores)) == enough:
                break
        return scores


def _compare(expected: Floats, found: Floats, how: str) -> None:
    if (np.isinf(expected) != np.isinf(found)).any():
        problem = "raises on some rows, and does not where they are scored"
    else:
        apart = np.where(np.isnan(expected) & np.isnan(found), 0, np.abs(expected - found))
        largest = float(np.where(np.isnan(apart), 1, apart).max())  # 1: a number here and none there
        if largest <= _TOLERANCE:
            return
        problem = f"gives the same rows other scores, by up to {largest:.2g}, where they are scored"
    raise DependentRowsError(
        f"the model {problem} {how}. A patient's risk would change with the chunk that the message is in: use a model "
        "whose steps look at one row at a time, with what they learned when they were fitted"
    )


# --- rows


def _drawn(prepared: Prepared) -> dict[str, Sequence[Any]]:
    """The values to draw from, by feature whose values are known."""
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
    """Rows that the model scores, the least certain scores first, because they show a difference best."""
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
    """This many complete rows for a model whose features have names."""
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

"""The same scores, faster: a fitted model's arithmetic without the checks that `predict_proba` repeats on every call.

scikit-learn spends 0.2 to 6 ms per call on checking and wrapping, whatever the number of rows; for a chunk of 100 rows
that is most of the time. Here the fitted arrays and compiled trees are used directly (real_time/arithmetic.py). Some
of them are private, so a path is used only after it has matched the model on a frame of probe rows: bit for bit for
trees, within a few ulp of the summed terms for linear models, and within 1e-9 of the score for anything computed from
such sums. If a model has no such path or it fails, the model is asked with plain arrays instead of frames, provided
both give the same bits. Otherwise it is asked as usual.

In this arithmetic a row's score never depends on the rows next to it. For linear models `predict_proba` does not
promise that, because BLAS sums a row in a different order when there are more rows.
"""

import warnings
from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from real_time.arithmetic import arithmetic
from real_time.columns import Columns
from real_time.compiled import Floats
from real_time.features import Dtype
from real_time.prepared import Prepared
from real_time.steps import PROBE_HOLES, Arithmetic, AskTheModelError, NoFastPathError, Step, probes
from real_time.texts import Texts

Result = TypeVar("Result")
Bools = NDArray[np.bool_]

_CLASSES: Final = 2
_CHUNKS: Final = (1, 7)
_NO_CATEGORY: Final = -12_345.5


class FastPath:
    """A faster way to a model's scores, verified against the model; `how` names it and what ruled out a faster one.

    Raises NoFastPathError if there is none.
    """

    how: str

    def __init__(self, prepared: Prepared, *, ask: Step, columns: Columns) -> None:
        """`ask` returns the model's usual probabilities of the positive class, and `columns` are the model's columns.

        Rows are always arrays of numbers, as `columns` converts them from a frame.
        """
        if not columns.have_arrays:
            raise NoFastPathError("some of its features have pandas' category type")
        model, positive, texts = prepared.classifier, prepared.positive, columns.texts
        self._features = prepared.feature_count
        try:
            self._try("its fast path", lambda: arithmetic(model, positive, texts), prepared, texts, ask)
        except NoFastPathError as error:
            if columns.have_texts:
                raise
            why = str(error)
            try:
                self._try(
                    "asking with plain arrays", lambda: _plain(model, positive, why), prepared, texts, ask
                )
            except NoFastPathError as other:
                raise NoFastPathError(f"{why}, and {other}") from None

    def __call__(self, X: Floats) -> Floats | None:
        """The probabilities of the rows of X, or None if the model itself must be asked."""
        if X.shape[1] != self._features:
            return None
        if self._without_gaps and np.isnan(X[:, self._without_gaps]).any():
            return None
        try:
            return self._probability(X).astype(np.float64, copy=False)
        except AskTheModelError:
            return None

    def _try(
        self, what: str, make: Callable[[], Arithmetic], prepared: Prepared, texts: Texts, ask: Step
    ) -> None:
        """Build a path, use it and verify it. Raises NoFastPathError if any of these fails."""
        try:
            made = make()
            self._probability, self._slack, self.how = made.probability, made.slack, made.how
            self._without_gaps: list[int] = []
            alike = self._is_verified(prepared, texts, ask)
        except NoFastPathError:
            raise
        except Exception as error:  # another scikit-learn version may differ in private parts
            raise NoFastPathError(f"{what} failed with {type(error).__name__}") from None
        if not alike:
            raise NoFastPathError(f"{what} gives other scores than predict_proba")

    def _is_verified(self, prepared: Prepared, texts: Texts, ask: Step) -> bool:
        """Whether it matches the model on probe rows: complete ones, ones with gaps, ones with unknown categories."""
        categories = _categories(prepared, texts)
        booleans = [n for n, feature in enumerate(prepared.described) if feature.dtype == Dtype.BOOLEAN]
        whole = probes(self._features)
        for column, values in categories.items():
            whole[:, column] = np.random.default_rng(column).choice(values, len(whole))
        holes = np.asarray(np.random.default_rng(1).random(whole.shape) < PROBE_HOLES)
        holes[:, [*categories]] = False
        self._without_gaps = _without_gaps(ask, whole, holes)
        holes[:, self._without_gaps] = False
        strange = [rows for rows in _strange(whole, categories, booleans) if _takes(self, rows[:1])]
        with_gaps = [np.where(holes, np.nan, whole)] if holes.any() else []
        return self._agrees(whole, ask) and self._agrees(
            np.concatenate([*with_gaps, *strange, whole[:1]]), ask
        )

    def _agrees(self, rows: Floats, ask: Step) -> bool:
        for count in (*_CHUNKS, len(rows)):
            X = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
            found, expected = self(X), _quietly(ask, X)
            if found is None or not self._is_near(found, expected, X):
                return False
        return True

    def _is_near(self, found: Floats, expected: Floats, X: Floats) -> bool:
        if self._slack is None:
            return np.array_equal(found, expected, equal_nan=True)
        return bool((np.abs(found - expected) <= self._slack(X, expected)).all())


def _categories(prepared: Prepared, texts: Texts) -> dict[int, Floats]:
    """By column, the numbers of the categories that the model knows; booleans count as categories."""
    found = {}
    for place, feature in enumerate(prepared.described):
        learned = prepared.learned.get(feature.name)
        if feature.dtype == Dtype.BOOLEAN:
            found[place] = np.array([0.0, 1.0])
        elif learned is not None and learned.values:
            found[place] = texts.learned(learned.values)
    return found


def _without_gaps(ask: Step, whole: Floats, holes: Bools) -> list[int]:
    """The columns with holes in which the model accepts no missing value; all of them if that cannot be determined."""
    if _takes(ask, np.where(holes, np.nan, whole)):
        return []
    columns: list[int] = np.flatnonzero(holes.any(axis=0)).tolist()
    gaps = np.eye(whole.shape[1], dtype=bool)
    refused = [column for column in columns if not _takes(ask, np.where(gaps[column], np.nan, whole[:1]))]
    others = holes.copy()
    others[:, refused] = False
    return refused if _takes(ask, np.where(others, np.nan, whole)) else columns


def _strange(whole: Floats, categories: dict[int, Floats], booleans: Collection[int]) -> list[Floats]:
    """For each category column, some rows in which it is missing and some in which its category is unknown."""
    count = max(1, len(whole) // (2 * len(categories) or 1))
    found: list[Floats] = []
    for column in categories:
        for value in (np.nan,) if column in booleans else (np.nan, _NO_CATEGORY):
            rows = np.roll(whole, -count * len(found), axis=0)[:count]
            rows[:, column] = value
            found.append(rows)
    return found


def _takes(ask: Callable[[Floats], Floats | None], rows: Floats) -> bool:
    """Whether the model, or a path, scores these rows; a model rejects rows with a ValueError."""
    try:
        return _quietly(ask, rows) is not None
    except ValueError:
        return False


def _plain(model: Any, positive: int, why: str) -> Arithmetic:
    """The model's own predict_proba, called with arrays."""

    def probability(X: Floats) -> Floats:
        found = _quietly(model.predict_proba, X)
        if np.shape(found) != (len(X), _CLASSES):
            raise AskTheModelError
        column: Floats = np.array(found[:, positive])  # a model may reuse its output buffer
        return column

    return Arithmetic(probability, None, f"predict_proba on plain arrays: {why}")


def _quietly(ask: Callable[[Floats], Result], X: Floats) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about an array for a model fitted with feature names
        return ask(X)

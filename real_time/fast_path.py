"""The same scores sooner: a fitted model's arithmetic without the checks that `predict_proba` makes each time.

scikit-learn spends 0.2 to 6 ms a call on checking and wrapping, whatever the number of rows; on a chunk of 100
rows that is most of the time. Here the fitted arrays and compiled trees are used directly (real_time/arithmetic.py).
Some of them are private, so a path is used only after it has given, on a set of probe rows, what the model gives for
a frame of them: the same bits for trees, for linear models a sum within a few ulp of its terms, and for what is
worked out of such sums 1e-9 of the score. A model that has no such path, or whose path fails, is asked with plain
arrays in place of frames where it gives the same bits for both. Otherwise it is asked as usual.

In a model's arithmetic no row's score depends on the rows next to it. For linear models that is more than
`predict_proba` promises, because BLAS sums a row in another order when there are more of them.
"""

import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from real_time.arithmetic import arithmetic
from real_time.compiled import Floats
from real_time.prepared import Prepared
from real_time.steps import PROBE_HOLES, Arithmetic, AskTheModelError, NoFastPathError, Step, probes

_CLASSES: Final = 2
_CHUNKS: Final = (1, 7)
_NO_CATEGORY: Final = -12_345.5


class FastPath:
    """A shorter way to a model's scores, verified against it; `how` names it, and why it is no shorter one.

    Raises NoFastPathError when there is none.
    """

    how: str

    def __init__(self, prepared: Prepared, *, ask: Step) -> None:
        """`ask` asks the model as usual for the probabilities of the positive class: its rows are those of a frame.

        Booleans are 1 and 0 here; a model with features that are text or pandas' categories has no fast path.
        """
        model, positive = prepared.classifier, prepared.positive
        self._features = prepared.feature_count
        try:
            self._try("its fast path", lambda: arithmetic(model, positive), prepared, ask)
        except NoFastPathError as error:
            why = str(error)
            try:
                self._try("asking with plain arrays", lambda: _plain(model, positive, why), prepared, ask)
            except NoFastPathError as other:
                raise NoFastPathError(f"{why}, and {other}") from None

    def __call__(self, X: Floats) -> Floats | None:
        """The probabilities of the rows of X, or None where the model itself must be asked."""
        if X.shape[1] != self._features or (not self._takes_nan and np.isnan(X).any()):
            return None
        try:
            return self._probability(X).astype(np.float64, copy=False)
        except AskTheModelError:
            return None

    def _try(self, what: str, make: Callable[[], Arithmetic], prepared: Prepared, ask: Step) -> None:
        """Make a path, take it and verify it; raise NoFastPathError where one of these fails."""
        try:
            made = make()
            self._probability, self._slack, self.how, self._takes_nan = (
                made.probability,
                made.slack,
                made.how,
                True,
            )
            alike = self._is_verified(_known_numbers(prepared), ask)
        except NoFastPathError:
            raise
        except Exception as error:  # private parts of another scikit-learn version
            raise NoFastPathError(f"{what} failed with {type(error).__name__}") from None
        if not alike:
            raise NoFastPathError(f"{what} gives other scores than predict_proba")

    def _is_verified(self, known: dict[int, Floats], ask: Step) -> bool:
        """Whether it gives what the model gives for rows of values, of holes too, and of categories it doesn't know."""
        whole = probes(self._features)
        for column, values in known.items():
            whole[:, column] = np.random.default_rng(column).choice(values, len(whole))
        holes = np.asarray(np.random.default_rng(1).random(whole.shape) < PROBE_HOLES)
        holes[:, [*known]] = False
        holed = np.where(holes, np.nan, whole)
        self._takes_nan = _takes(ask, holed)
        strange = whole.copy()
        strange[::3, [*known]], strange[1::3, [*known]] = np.nan, _NO_CATEGORY
        tried = [
            whole,
            *([holed] if self._takes_nan else []),
            *([strange] if known and _takes(ask, strange) else []),
        ]
        return all(self._agrees(rows, ask) for rows in tried)

    def _agrees(self, rows: Floats, ask: Step) -> bool:
        for count in (*_CHUNKS, len(rows)):
            X = np.ascontiguousarray(rows[:count])
            found, expected = self(X), _quietly(ask, X)
            if found is None or not self._is_near(found, expected, X):
                return False
        return True

    def _is_near(self, found: Floats, expected: Floats, X: Floats) -> bool:
        if self._slack is None:
            return np.array_equal(found, expected, equal_nan=True)
        return bool((np.abs(found - expected) <= self._slack(X, expected)).all())


def _known_numbers(prepared: Prepared) -> dict[int, Floats]:
    """By column, the numbers that are categories to the model."""
    known = [(place, prepared.learned.get(name)) for place, name in enumerate(prepared.features or ())]
    return {place: np.array(one.values, np.float64) for place, one in known if one is not None and one.values}


def _takes(ask: Step, rows: Floats) -> bool:
    """Whether the model has scores for these rows; it refuses them with a ValueError, and so it will as a path."""
    try:
        _quietly(ask, rows)
    except ValueError:
        return False
    return True


def _plain(model: Any, positive: int, why: str) -> Arithmetic:
    """The model's own predict_proba, asked with arrays."""

    def probability(X: Floats) -> Floats:
        found = _quietly(model.predict_proba, X)
        if np.shape(found) != (len(X), _CLASSES):
            raise AskTheModelError
        column: Floats = np.array(found[:, positive])  # a model may fill the same buffer at each call
        return column

    return Arithmetic(probability, None, f"predict_proba on plain arrays: {why}")


def _quietly(ask: Step, X: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the model was fitted with feature names
        return ask(X)

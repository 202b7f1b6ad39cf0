"""Computes what fitted transformers and classifiers compute, directly from their fitted arrays.

A step takes rows by features, and a row's result never depends on the rows next to it. Much of what is read here is
private, so fast_path.py verifies each model's result before it is used.
"""

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from real_time.compiled import Floats
from real_time.linear_sums import linear_sums
from real_time.steps import (
    LARGEST_DOUBLE,
    Arithmetic,
    AskTheModelError,
    Fill,
    NoFastPathError,
    Rescale,
    Step,
    chain,
    within,
)
from real_time.texts import Texts, unlike
from real_time.trees import TREES

# How far a linear model's sum may be from the model's own, which adds the same terms in another order. For many terms
# the bound grows with their number's square root, because rounding errors add up like a random walk.
ULPS: Final = 4
# The same for anything computed from such sums: calibrated, averaged or stacked.
RTOL, ATOL = 1e-9, 1e-12
# Largest lookup table of an encoder, in numbers: a thousand one-hot categories in all.
_LARGEST_TABLE: Final = 1_000_000


def arithmetic(model: Any, positive: int, texts: Texts) -> Arithmetic:
    """The arithmetic of a fitted binary classifier, for the probability of `classes_[positive]`.

    It takes rows of numbers, with text categories numbered by `texts`. Raises NoFastPathError for unsupported kinds.
    """
    if linear := LINEAR.get(type(model)):
        return linear(model, positive, ())
    if trees := TREES.get(_name(model)):
        return trees(model, positive)
    if composed := COMPOSED.get(type(model)):
        return composed(model, positive, texts)
    raise NoFastPathError(f"there is no fast path for {type(model).__name__}")


def _name(part: Any) -> str:
    return f"{type(part).__module__.partition('.')[0]}.{type(part).__name__}"


# --- linear models


def _linear(model: Any, positive: int, before: Sequence[Step] = ()) -> Arithmetic:
    """A linear model after the steps `before`."""
    (weights,), (intercept,) = model.coef_, model.intercept_
    margin, prepared = linear_sums(weights, intercept, before), chain(before)

    def probability(X: Floats) -> Floats:
        total = margin(X)
        expit(total, out=total)
        return total if positive else 1 - total

    def slack(X: Floats, expected: Floats) -> Floats:
        # An error in the sum moves the probability p by p (1 - p) times as much, the slope of the logistic function.
        # Its exponential and division round too, and doubles below `tiny` have fewer bits.
        limits, sizes = np.finfo(np.float64), np.abs(prepared(X) * weights).sum(axis=1) + abs(intercept)
        ulps = max(ULPS, len(weights) ** 0.5)
        found: Floats = ulps * limits.eps * expected * (1 + (1 - expected) * sizes) + limits.tiny
        return found if positive else found + limits.eps  # 1 - p is as coarse as 1

    return Arithmetic(probability, slack, "the linear model's arithmetic", margin)


def _sgd(model: SGDClassifier, positive: int, before: Sequence[Step] = ()) -> Arithmetic:
    if model.loss != "log_loss":
        raise NoFastPathError(f"there is no fast path for SGDClassifier with loss {model.loss}")
    return _linear(model, positive, before)


# --- pipelines and transformers


def _pipeline(model: Pipeline, positive: int, texts: Texts) -> Arithmetic:
    *before, (_, last) = model.steps
    steps = [step for _, part in before for step in _transform(part, texts)]
    if linear := LINEAR.get(type(last)):
        return linear(last, positive, steps)
    ending = arithmetic(last, positive, texts)
    if not steps:
        return ending
    slack = ending.slack
    return Arithmetic(
        probability=chain([*steps, ending.probability]),
        slack=None if slack is None else lambda X, expected: slack(chain(steps)(X), expected),
        how=ending.how,
        margin=None if ending.margin is None else chain([*steps, ending.margin]),
    )


def _transform(transformer: Any, texts: Texts) -> list[Step]:
    """The steps of a fitted transformer; empty if it passes everything through."""
    if transformer is None or transformer == "passthrough":
        return []
    if type(transformer) is Pipeline:
        return [step for _, part in transformer.steps for step in _transform(part, texts)]
    if type(transformer) is FunctionTransformer and transformer.func is None:
        return []
    if kind := TRANSFORMERS.get(type(transformer)):
        return [kind(transformer)]
    if of_categories := OF_CATEGORIES.get(type(transformer)):
        return [of_categories(transformer, texts)]
    raise NoFastPathError(f"there is no fast path for {type(transformer).__name__}")


def _imputer(imputer: SimpleImputer, texts: Texts) -> Step:
    values = texts.learned(imputer.statistics_)
    if not _is_nan(imputer.missing_values):
        raise NoFastPathError("there is no fast path for an imputer whose missing_values is not NaN")
    if np.isnan(values).any():
        raise NoFastPathError("there is no fast path for an imputer that drops columns")
    if not imputer.add_indicator:
        return Fill(values)
    marked = imputer.indicator_.features_

    def transform(X: Floats) -> Floats:
        missing = np.isnan(X)
        return np.hstack([np.where(missing, values, X), missing[:, marked]])

    return transform


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and np.isnan(value)


def _standard_scaler(scaler: StandardScaler) -> Step:
    return _rescale(scaler.mean_ if scaler.with_mean else None, scaler.scale_ if scaler.with_std else None)


def _robust_scaler(scaler: RobustScaler) -> Step:
    return _rescale(
        scaler.center_ if scaler.with_centering else None, scaler.scale_ if scaler.with_scaling else None
    )


def _max_abs_scaler(scaler: MaxAbsScaler) -> Step:
    if getattr(scaler, "clip", False):
        raise NoFastPathError("there is no fast path for a MaxAbsScaler that clips")
    return _rescale(None, scaler.scale_)


def _rescale(center: Floats | None, scale: Floats | None) -> Step:
    return Rescale(0.0 if center is None else center, 1.0 if scale is None else scale)


def _min_max_scaler(scaler: MinMaxScaler) -> Step:
    factor, shift = scaler.scale_, scaler.min_
    if scaler.clip:
        raise NoFastPathError("there is no fast path for a MinMaxScaler that clips")
    return lambda X: X * factor + shift


def _encoder(encoder: Any, texts: Texts) -> Step:
    """Looks up the encoder's own output for each category, for a missing value and for an unknown category."""
    known = [categories.tolist() for categories in encoder.categories_]
    widths = getattr(encoder, "_n_features_outs", [1] * len(known))
    if sum(map(len, known)) * sum(widths) > _LARGEST_TABLE:
        raise NoFastPathError("there is no fast path for an encoder with that many categories")
    ends = itertools.accumulate(widths, initial=0)
    blocks = [slice(*pair) for pair in itertools.pairwise(ends)]
    look_ups = [
        _look_up(texts.learned(known[column]), _Table.of(encoder, known, column, block))
        for column, block in enumerate(blocks)
    ]

    def transform(X: Floats) -> Floats:
        within(LARGEST_DOUBLE, X)
        return np.hstack([look_up(X[:, column]) for column, look_up in enumerate(look_ups)])

    return transform


class _Table(NamedTuple):
    """An encoder's output for each category of a column, for missing and unknown values; None if it refuses those."""

    known: Floats
    missing: Floats | None
    unknown: Floats | None

    @classmethod
    def of(cls, encoder: Any, known: Sequence[list[Any]], column: int, block: slice) -> "_Table":
        """The table of one column, whose part of the encoder's output is `block`."""
        first, own = [categories[0] for categories in known], known[column]

        def encoded(*values: Any) -> Floats:
            rows = [[*first[:column], value, *first[column + 1 :]] for value in values]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = encoder.transform(np.array(rows, object))
            return np.asarray(found.toarray() if hasattr(found, "toarray") else found, np.float64)[:, block]

        def tried(value: Any) -> Floats | None:
            try:
                return encoded(value)
            except ValueError:
                return None

        return cls(encoded(*own), tried(None if None in own else np.nan), tried(unlike(own)))


def _look_up(numbers: Floats, table: _Table) -> Step:
    """Maps a column's numbers to rows of its table; `numbers` are those of its known categories."""
    order = np.argsort(numbers)[: np.count_nonzero(~np.isnan(numbers))]
    ascending, count = np.append(numbers[order], np.inf), len(order)
    refused = np.array([*[False] * count, table.missing is None, table.unknown is None])
    nothing = np.full_like(table.known[:1], np.nan)
    others = [nothing if rows is None else rows for rows in (table.missing, table.unknown)]
    rows = np.vstack([table.known[order], *others])

    def look_up(values: Floats) -> Floats:
        missing = np.isnan(values)
        place = np.searchsorted(ascending, np.where(missing, 0.0, values))
        place[ascending[place] != values] = count + 1
        place[missing] = count
        if refused[place].any():
            raise AskTheModelError
        found: Floats = rows[place]
        return found

    return look_up


def _column_transformer(transformer: ColumnTransformer, texts: Texts) -> Step:
    if transformer.transformer_weights:
        raise NoFastPathError("there is no fast path for a ColumnTransformer with weights")
    places = transformer._transformer_to_input_indices
    parts = [
        (places[name], chain(_transform(part, texts)))
        for name, part, _ in transformer.transformers_
        if len(places[name]) and not (isinstance(part, str) and part == "drop")
    ]
    return lambda X: np.hstack([step(X[:, columns]) for columns, step in parts])


# --- models of models


def _frozen(model: FrozenEstimator, positive: int, texts: Texts) -> Arithmetic:
    return arithmetic(model.estimator, positive, texts)


def _calibrated(model: CalibratedClassifierCV, positive: int, texts: Texts) -> Arithmetic:
    parts = [_calibrated_part(part, texts) for part in model.calibrated_classifiers_]

    def probability(X: Floats) -> Floats:
        total = np.zeros(len(X))
        for step, _, calibrate in parts:
            one = calibrate(step(X))
            one = one if positive else 1.0 - one
            total += np.where((one > 1.0) & (one <= 1.0 + 1e-5), 1.0, one)  # as the model does
        total /= len(parts)
        return total

    return _composed(probability, [inner for _, inner, _ in parts], "calibrated")


def _calibrated_part(part: Any, texts: Texts) -> tuple[Step, Arithmetic, Step]:
    """The step whose output is calibrated, its arithmetic, and the calibrator."""
    inner = arithmetic(part.estimator, 1, texts)
    # scikit-learn prefers the decision function.
    step = inner.margin if hasattr(part.estimator, "decision_function") else inner.probability
    if part.method not in ("sigmoid", "isotonic") or len(part.calibrators) != 1 or step is None:
        raise NoFastPathError(f"there is no fast path for calibration with method {part.method}")
    (calibrator,) = part.calibrators
    if isinstance(calibrator, IsotonicRegression):
        return step, inner, _isotonic(calibrator)
    return step, inner, lambda values: expit(-(calibrator.a_ * values + calibrator.b_))


def _isotonic(calibrator: IsotonicRegression) -> Step:
    dtype, clips = calibrator.X_thresholds_.dtype, calibrator.out_of_bounds == "clip"

    def calibrate(values: Floats) -> Floats:
        values = values.astype(dtype)
        if clips:
            values = np.clip(values, calibrator.X_min_, calibrator.X_max_)
        found: Floats = calibrator.f_(values).astype(dtype)
        return found

    return calibrate


def _voting(model: VotingClassifier, positive: int, texts: Texts) -> Arithmetic:
    parts = [arithmetic(part, positive, texts) for part in model.estimators_]

    def probability(X: Floats) -> Floats:
        votes = np.asarray([part.probability(X) for part in parts])
        found: Floats = np.average(votes, axis=0, weights=model._weights_not_none)
        return found

    return _composed(probability, parts, "votes averaged")


def _stacking(model: StackingClassifier, positive: int, texts: Texts) -> Arithmetic:
    parts: list[Arithmetic] = []
    columns: list[Step] = []
    for part, method in zip(model.estimators_, model.stack_method_, strict=True):
        inner = arithmetic(part, 1, texts)
        step = {"predict_proba": inner.probability, "decision_function": inner.margin}.get(method)
        if step is None:
            raise NoFastPathError(f"there is no fast path for stacking with {method}")
        parts.append(inner)
        columns.append(step)
    last = arithmetic(model.final_estimator_, positive, texts)

    def probability(X: Floats) -> Floats:
        found = [step(X)[:, None] for step in columns]
        return last.probability(np.hstack([*found, X] if model.passthrough else found))

    return _composed(probability, [*parts, last], "stacked")


def _composed(probability: Step, parts: Sequence[Arithmetic], what: str) -> Arithmetic:
    """Combine several; the result has the model's bits if all of them do."""
    exact = all(part.slack is None for part in parts)
    how = f"{', '.join(dict.fromkeys(part.how for part in parts))}; {what}"
    return Arithmetic(probability, None if exact else lambda _, expected: RTOL * expected + ATOL, how)


TRANSFORMERS: Final[dict[type, Callable[[Any], Step]]] = {
    MaxAbsScaler: _max_abs_scaler,
    MinMaxScaler: _min_max_scaler,
    RobustScaler: _robust_scaler,
    StandardScaler: _standard_scaler,
}

OF_CATEGORIES: Final[dict[type, Callable[[Any, Texts], Step]]] = {
    ColumnTransformer: _column_transformer,
    OneHotEncoder: _encoder,
    OrdinalEncoder: _encoder,
    SimpleImputer: _imputer,
    TargetEncoder: _encoder,
}

LINEAR: Final[dict[type, Callable[[Any, int, Sequence[Step]], Arithmetic]]] = {
    LinearDiscriminantAnalysis: _linear,
    LogisticRegression: _linear,
    LogisticRegressionCV: _linear,
    SGDClassifier: _sgd,
}

COMPOSED: Final[dict[type, Callable[[Any, int, Texts], Arithmetic]]] = {
    CalibratedClassifierCV: _calibrated,
    FrozenEstimator: _frozen,
    Pipeline: _pipeline,
    StackingClassifier: _stacking,
    VotingClassifier: _voting,
}

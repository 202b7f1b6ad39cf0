"""The same scores sooner: a fitted model's arithmetic without the checks that `predict_proba` makes each time.

scikit-learn spends 0.2 to 6 ms a call on checking and wrapping, whatever the number of rows; on a chunk of 100
rows that is most of the time. Here the fitted arrays and compiled trees are used directly. Some of them are
private, so a path is used only after it has given, on a set of probe rows, what `predict_proba` gives: the same
bits for trees, and for linear models a sum within a few ulp of its terms. Otherwise the model is asked as usual.

A path sees one row at a time in effect: no row's score depends on the rows beside it. For linear models that is
more than `predict_proba` promises, because BLAS sums a row in another order when there are more of them.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy.special import expit
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from real_time.compiled import AddLeaves, Floats, Tree, compiled

Step: TypeAlias = Callable[[Floats], Floats]
"""Rows by features to what the next step wants; the last one gives the probability of the positive class."""

# Values beyond these are left to the model, which refuses them: trees compare float32, and nobody takes infinity.
LARGEST_SINGLE, LARGEST_DOUBLE = float(np.finfo(np.float32).max), float(np.finfo(np.float64).max)
# By how much a linear model's sum may differ from the model's own: they add the same terms in another order. Of many
# terms, it is the square root of their number: their roundings add up as steps of a random walk do.
ULPS = 4

PROBE_ROWS = 256
PROBE_HOLES = 0.3  # the share of missing values


class NoFastPathError(ValueError):
    """There is none for this model; the message says why."""


class FastPath:
    """A model's arithmetic, verified against the model itself; `how` names it, and why it is not a faster one.

    Raises NoFastPathError when the model is of a kind that has no path, or its path gives other scores.
    """

    def __init__(self, model: Any, positive: int = 1) -> None:
        """`positive` is the column of `predict_proba` whose probabilities are wanted."""
        self._positive = positive
        self._features = getattr(model, "n_features_in_", 0)
        self._takes_nan = True
        try:
            before, ending = _steps(model, positive)
            self._transforms, self._last, self._sizes, self.how = before, *ending
            self._largest = LARGEST_SINGLE if self._sizes is None else LARGEST_DOUBLE
            self._verify(model)
        except NoFastPathError:
            raise
        except Exception as error:  # private parts of another scikit-learn version
            raise NoFastPathError(f"its fast path failed with {type(error).__name__}") from None

    def __call__(self, X: Floats) -> Floats | None:
        """The probabilities of the rows of X, or None where the model itself must be asked."""
        if X.shape[1] != self._features:
            return None
        if not self._takes_nan and np.isnan(X).any():
            return None
        X = self._transformed(X)
        # Only now: a scaler can make a value too large, and leaves one that was infinite so.
        if np.fmax.reduce(X, axis=None) > self._largest or np.fmin.reduce(X, axis=None) < -self._largest:
            return None
        return self._last(X)

    def _transformed(self, X: Floats) -> Floats:
        for step in self._transforms:
            X = step(X)
        return X

    def _verify(self, model: Any) -> None:
        whole = _probes(self._features)
        self._compare(model, whole)
        holed = np.where(np.random.default_rng(1).random(whole.shape) < PROBE_HOLES, np.nan, whole)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.predict_proba(holed)
        except ValueError:
            self._takes_nan = False
        else:
            self._compare(model, holed)

    def _compare(self, model: Any, probes: Floats) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the model was fitted with feature names
            expected = model.predict_proba(probes)[:, self._positive]
        for rows in (1, 7, len(probes)):
            X = np.ascontiguousarray(probes[:rows])
            found = self(X)
            if found is None or not self._agree(found, expected[:rows], X):
                raise NoFastPathError("its fast path gives other scores than predict_proba")

    def _agree(self, found: Floats, expected: Floats, X: Floats) -> bool:
        if self._sizes is None:
            return np.array_equal(found, expected, equal_nan=True)
        # What the sum differs by moves the probability p by p (1 - p) times as much: the logistic function's slope.
        # Its exponential and division round too, and below `tiny` doubles have fewer bits.
        limits, moved = np.finfo(np.float64), (1 - expected) * self._sizes(self._transformed(X))
        ulps = max(ULPS, X.shape[1] ** 0.5)
        slack = ulps * limits.eps * expected * (1 + moved) + limits.tiny
        if self._positive == 0:  # one minus the other probability, and as coarse as that
            slack += limits.eps
        return bool((np.abs(found - expected) <= slack).all())


def _probes(features: int) -> Floats:
    """Rows of many magnitudes, in float64 and never near each other."""
    random = np.random.default_rng(0)
    scale = np.power(10.0, random.integers(-3, 5, size=(PROBE_ROWS, 1)))
    center = random.choice([0.0, 1.0, 37.0, 100.0], (PROBE_ROWS, 1))
    probes: Floats = random.normal(size=(PROBE_ROWS, features)) * scale + center
    return probes


class _Ending(NamedTuple):
    """The last step."""

    step: Step
    sizes: Step | None
    """Its terms' sizes summed, where `step` adds them in another order than the model. None: the bits are the same."""
    how: str


def _steps(model: Any, positive: int) -> tuple[list[Step], _Ending]:
    """The steps of a model before the last one, and that."""
    if type(model) is Pipeline:
        *transformers, last = (step for _, step in model.steps)
        before = [_TRANSFORMS[type(one)](one) for one in transformers if _transforms(one)]
        inner, ending = _steps(last, positive)
        return before + inner, ending
    if type(model) not in _CLASSIFIERS:
        raise NoFastPathError(f"there is no fast path for {type(model).__name__}")
    return [], _CLASSIFIERS[type(model)](model, positive)


def _transforms(transformer: Any) -> bool:
    if transformer is None or transformer == "passthrough":
        return False
    if type(transformer) not in _TRANSFORMS:
        raise NoFastPathError(f"there is no fast path for {type(transformer).__name__}")
    return True


def _imputer(imputer: SimpleImputer) -> Step:
    values = np.asarray(imputer.statistics_, dtype=np.float64)
    if imputer.add_indicator or np.isnan(values).any() or not _is_nan(imputer.missing_values):
        raise NoFastPathError("there is no fast path for an imputer that adds or drops columns")
    return lambda X: np.where(np.isnan(X), values, X)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and np.isnan(value)


def _standard_scaler(scaler: StandardScaler) -> Step:
    return _shift_then_scale(
        scaler.mean_ if scaler.with_mean else None, scaler.scale_ if scaler.with_std else None
    )


def _robust_scaler(scaler: RobustScaler) -> Step:
    return _shift_then_scale(
        scaler.center_ if scaler.with_centering else None, scaler.scale_ if scaler.with_scaling else None
    )


def _shift_then_scale(center: Floats | None, scale: Floats | None) -> Step:
    def transform(X: Floats) -> Floats:
        if center is not None:
            X = X - center
        return X if scale is None else X / scale

    return transform


def _min_max_scaler(scaler: MinMaxScaler) -> Step:
    factor, shift = scaler.scale_, scaler.min_
    if scaler.clip:
        raise NoFastPathError("there is no fast path for a MinMaxScaler that clips")
    return lambda X: X * factor + shift


def _logistic(model: LogisticRegression, positive: int) -> _Ending:
    (weights,), (intercept,) = model.coef_, model.intercept_

    def probability(X: Floats) -> Floats:
        # Column by column, so that each row is summed in the same order however many there are, and whatever the
        # processor: an audit elsewhere must come to the same bits.
        total = X[:, 0] * weights[0]
        for column in range(1, len(weights)):
            total += X[:, column] * weights[column]
        total += intercept
        result: Floats = expit(total, out=total)
        return result if positive else 1 - result

    def sizes(X: Floats) -> Floats:
        total: Floats = np.abs(X * weights).sum(axis=1) + abs(intercept)
        return total

    return _Ending(probability, sizes, "the linear model's arithmetic")


class _Ensemble(NamedTuple):
    """A model whose probability is worked out of a sum: a start, and one leaf of each tree added to it in order."""

    trees: list[Tree]
    start: float
    add: AddLeaves  # by scikit-learn's own code, tree by tree
    finish: Callable[[Floats], Floats]
    single: bool  # whether the trees compare float32


def _trees(ensemble: _Ensemble, features: int) -> _Ending:
    add, how = _fastest(ensemble, features)
    start, finish = ensemble.start, ensemble.finish

    def probability(X: Floats) -> Floats:
        total = np.full(len(X), start)
        add(X, total)
        return finish(total)

    return _Ending(probability, None, how)


def _fastest(ensemble: _Ensemble, features: int) -> tuple[AddLeaves, str]:
    """Compiled code if there is numba and it gives the same sums to the bit, else what scikit-learn has."""
    try:
        add = compiled(ensemble.trees, features=features, single=ensemble.single)
        same = _same_sums(add, ensemble.add, _tree_probes(ensemble.trees, features))
        why = "" if same else "compiled, they give other scores"
    except ModuleNotFoundError:
        why = "install numba for compiled ones"
    except Exception as error:  # numba and NumPy of versions that do not go together, for example
        why = f"compiling them failed with {type(error).__name__}"
    return (ensemble.add, f"scikit-learn's trees: {why}") if why else (add, "compiled trees")


def _same_sums(add: AddLeaves, reference: AddLeaves, probes: Floats) -> bool:
    found, expected = np.zeros(len(probes)), np.zeros(len(probes))
    add(probes, found)
    reference(probes, expected)
    return np.array_equal(found, expected)


def _tree_probes(trees: list[Tree], features: int) -> Floats:
    """Rows on thresholds and one bit beside them in either precision, then with holes, then any."""
    random = np.random.default_rng(2)
    edges = _probes(features)
    split_on = np.concatenate([tree.feature[tree.left >= 0] for tree in trees])
    thresholds = np.concatenate([tree.threshold[tree.left >= 0] for tree in trees])
    for feature in np.unique(split_on):
        edges[:, feature] = random.choice(thresholds[split_on == feature], len(edges))
    for row, tree in enumerate(trees[: len(edges)]):
        if tree.left[0] >= 0:  # the way from the root hangs on equality
            edges[row, tree.feature[0]] = tree.threshold[0]
    edges = np.clip(edges, -LARGEST_SINGLE / 2, LARGEST_SINGLE / 2)  # a threshold may be infinite
    singles = edges.astype(np.float32)
    rows = [edges, singles.astype(np.float64), _probes(features)]
    for direction in (-np.inf, np.inf):
        rows.append(np.nextafter(edges, direction))
        rows.append(np.nextafter(singles, np.float32(direction)).astype(np.float64))
    whole = np.concatenate(rows)
    holed = np.where(random.random(whole.shape) < PROBE_HOLES, np.nan, whole)
    return np.concatenate([whole, holed])


def _hist_gradient_boosting(model: HistGradientBoostingClassifier, positive: int) -> _Ending:
    if model.is_categorical_ is not None:
        raise NoFastPathError("there is no fast path for categorical features")
    predictors = [predictor for (predictor,) in model._predictors]
    bitsets, feature_map = model._bin_mapper.make_known_categories_bitsets()
    loss = model._loss

    def add(X: Floats, total: Floats) -> None:
        X = np.ascontiguousarray(X)
        for predictor in predictors:
            total += predictor.predict(X, bitsets, feature_map, 1)

    return _trees(
        _Ensemble(
            trees=[_histogram_tree(predictor.nodes) for predictor in predictors],
            start=float(model._baseline_prediction.item()),
            add=add,
            finish=lambda total: _column(loss.predict_proba(total.reshape(-1, 1)), positive),
            single=False,
        ),
        model.n_features_in_,
    )


def _histogram_tree(nodes: Any) -> Tree:
    left, right = (np.where(nodes["is_leaf"], -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    feature, nan_left = nodes["feature_idx"], nodes["missing_go_to_left"]
    return Tree(left, right, feature, nodes["num_threshold"], nan_left, nodes["value"])


def _forest(model: RandomForestClassifier | ExtraTreesClassifier, positive: int) -> _Ending:
    trees = [estimator.tree_ for estimator in model.estimators_]

    def add(X: Floats, total: Floats) -> None:
        single = np.ascontiguousarray(X, dtype=np.float32)
        for tree in trees:
            total += tree.predict(single)[:, positive]

    return _trees(
        _Ensemble(
            trees=[_tree(tree, tree.value[:, 0, positive]) for tree in trees],
            start=0.0,
            add=add,
            finish=lambda total: total / len(trees),
            single=True,
        ),
        model.n_features_in_,
    )


def _gradient_boosting(model: GradientBoostingClassifier, positive: int) -> _Ending:
    from sklearn.ensemble._gradient_boosting import predict_stages

    if model.init_ != "zero" and type(model.init_) is not DummyClassifier:
        raise NoFastPathError("there is no fast path for an initial estimator of one's own")
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_)))
    estimators, rate, loss = model.estimators_, model.learning_rate, model._loss

    def add(X: Floats, total: Floats) -> None:
        predict_stages(estimators, np.ascontiguousarray(X, dtype=np.float32), rate, total.reshape(-1, 1))

    return _trees(
        _Ensemble(
            trees=[_stage(estimator.tree_, rate) for (estimator,) in estimators],
            start=float(start.item()),
            add=add,
            finish=lambda total: _column(loss.predict_proba(total.reshape(-1, 1)), positive),
            single=True,
        ),
        model.n_features_in_,
    )


def _tree(tree: Any, value: Floats) -> Tree:
    left, right, nan_left = tree.children_left, tree.children_right, tree.missing_go_to_left
    return Tree(left, right, tree.feature, tree.threshold, nan_left, value)


def _stage(tree: Any, rate: float) -> Tree:
    whole = _tree(tree, rate * tree.value[:, 0, 0])
    return whole._replace(nan_left=np.zeros(len(whole.left), bool))  # predict_stages knows nothing of NaN


def _column(probabilities: Floats, column: int) -> Floats:
    return probabilities[:, column]


_TRANSFORMS: dict[type, Callable[[Any], Step]] = {
    SimpleImputer: _imputer,
    StandardScaler: _standard_scaler,
    RobustScaler: _robust_scaler,
    MinMaxScaler: _min_max_scaler,
}

_CLASSIFIERS: dict[type, Callable[[Any, int], _Ending]] = {
    LogisticRegression: _logistic,
    HistGradientBoostingClassifier: _hist_gradient_boosting,
    RandomForestClassifier: _forest,
    ExtraTreesClassifier: _forest,
    GradientBoostingClassifier: _gradient_boosting,
}

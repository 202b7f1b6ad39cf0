"""Tree ensembles of scikit-learn, XGBoost and LightGBM, each as a start value plus one leaf of every tree.

Compiled code (real_time/compiled.py) adds them if it gives the same bits, otherwise the library does.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.special import expit
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier

from real_time import boosters
from real_time.boosters import NotReadableError
from real_time.compiled import Floats, Sums, Tree, compiled, logistic_single
from real_time.steps import LARGEST_SINGLE, PROBE_HOLES, Arithmetic, NoFastPathError, Step, probes, within

COMPILED: Final = "compiled trees"


class _Ensemble(NamedTuple):
    """A model whose probability follows from a sum: a start value, then one leaf of each tree added in order."""

    library: str
    trees: list[Tree]
    start: float
    total: Step
    """The library's own code for the sum."""
    finish: Step
    """Maps the sum to the probability."""
    single: bool
    """Whether the trees compare values as float32."""
    sums: Sums = "float64"
    decides: bool = False
    """Whether the model's decision_function returns the sum."""


def _trees(ensemble: _Ensemble, features: int) -> Arithmetic:
    total, how = _fastest(ensemble, features)

    def margin(X: Floats) -> Floats:
        return total(within(LARGEST_SINGLE, X))

    def probability(X: Floats) -> Floats:
        return ensemble.finish(margin(X))

    return Arithmetic(probability, None, how, margin if ensemble.decides else None)


def _fastest(ensemble: _Ensemble, features: int) -> tuple[Step, str]:
    """Compiled code if numba is installed and the sums are bit-identical, otherwise the library's own."""
    try:
        total = _compiled_total(ensemble, features)
        rows = _tree_probes(ensemble.trees, features)
        why = "" if np.array_equal(total(rows), ensemble.total(rows)) else "compiled ones give other scores"
    except ModuleNotFoundError:
        why = "install numba to compile them"
    except Exception as error:  # for example, incompatible versions of numba and NumPy
        why = f"compiling them failed with {type(error).__name__}"
    return (ensemble.total, f"{ensemble.library}'s trees: {why}") if why else (total, COMPILED)


def _compiled_total(ensemble: _Ensemble, features: int) -> Step:
    add = compiled(ensemble.trees, features=features, single=ensemble.single, sums=ensemble.sums)

    def total(X: Floats) -> Floats:
        found = np.full(len(X), ensemble.start, ensemble.sums)
        add(X, found)
        return found

    return total


def _tree_probes(trees: list[Tree], features: int) -> Floats:
    """Rows exactly on the trees' thresholds and one ulp off in either precision, ordinary rows, and all with holes."""
    random = np.random.default_rng(2)
    edges = probes(features)
    split_on = np.concatenate([tree.feature[tree.left >= 0] for tree in trees])
    thresholds = np.concatenate([tree.threshold[tree.left >= 0] for tree in trees])
    for feature in np.unique(split_on):
        edges[:, feature] = random.choice(thresholds[split_on == feature], len(edges))
    for row, tree in enumerate(trees[: len(edges)]):
        if tree.left[0] >= 0:  # so that the path from the root depends on equality
            edges[row, tree.feature[0]] = tree.threshold[0]
    edges = np.clip(edges, -LARGEST_SINGLE / 2, LARGEST_SINGLE / 2)  # a threshold may be infinite
    singles = edges.astype(np.float32)
    rows = [edges, singles.astype(np.float64), probes(features)]
    for direction in (-np.inf, np.inf):
        rows.append(np.nextafter(edges, direction))
        rows.append(np.nextafter(singles, np.float32(direction)).astype(np.float64))
    whole = np.concatenate(rows)
    holed = np.where(random.random(whole.shape) < PROBE_HOLES, np.nan, whole)
    return np.concatenate([whole, holed])


def _hist_gradient_boosting(model: HistGradientBoostingClassifier, positive: int) -> Arithmetic:
    if model.is_categorical_ is not None:
        raise NoFastPathError("there is no fast path for categorical features")
    predictors = [predictor for (predictor,) in model._predictors]
    bitsets, feature_map = model._bin_mapper.make_known_categories_bitsets()
    loss, start = model._loss, float(model._baseline_prediction.item())

    def total(X: Floats) -> Floats:
        X, found = np.ascontiguousarray(X), np.full(len(X), start)
        for predictor in predictors:
            found += predictor.predict(X, bitsets, feature_map, 1)
        return found

    return _trees(
        _Ensemble(
            library="scikit-learn",
            trees=[_histogram_tree(predictor.nodes) for predictor in predictors],
            start=start,
            total=total,
            finish=lambda total: _column(loss.predict_proba(total.reshape(-1, 1)), positive),
            single=False,
            decides=True,
        ),
        model.n_features_in_,
    )


def _histogram_tree(nodes: Any) -> Tree:
    left, right = (np.where(nodes["is_leaf"], -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    feature, nan_left = nodes["feature_idx"], nodes["missing_go_to_left"]
    return Tree(left, right, feature, nodes["num_threshold"], nan_left, nodes["value"])


def _forest(model: RandomForestClassifier | ExtraTreesClassifier, positive: int) -> Arithmetic:
    return _mean_of([estimator.tree_ for estimator in model.estimators_], positive, model.n_features_in_)


def _decision_tree(model: DecisionTreeClassifier, positive: int) -> Arithmetic:
    return _mean_of([model.tree_], positive, model.n_features_in_)


def _mean_of(trees: list[Any], positive: int, features: int) -> Arithmetic:
    def total(X: Floats) -> Floats:
        single, found = np.ascontiguousarray(X, dtype=np.float32), np.zeros(len(X))
        for tree in trees:
            found += tree.predict(single)[:, positive]
        return found

    return _trees(
        _Ensemble(
            library="scikit-learn",
            trees=[_tree(tree, tree.value[:, 0, positive]) for tree in trees],
            start=0.0,
            total=total,
            finish=lambda total: total / len(trees),
            single=True,
        ),
        features,
    )


def _gradient_boosting(model: GradientBoostingClassifier, positive: int) -> Arithmetic:
    from sklearn.ensemble._gradient_boosting import predict_stages

    if model.init_ != "zero" and type(model.init_) is not DummyClassifier:
        raise NoFastPathError("there is no fast path for a custom initial estimator")
    start = float(model._raw_predict_init(np.zeros((1, model.n_features_in_))).item())
    estimators, rate, loss = model.estimators_, model.learning_rate, model._loss

    def total(X: Floats) -> Floats:
        found = np.full(len(X), start)
        predict_stages(estimators, np.ascontiguousarray(X, dtype=np.float32), rate, found.reshape(-1, 1))
        return found

    return _trees(
        _Ensemble(
            library="scikit-learn",
            trees=[_stage(estimator.tree_, rate) for (estimator,) in estimators],
            start=start,
            total=total,
            finish=lambda total: _column(loss.predict_proba(total.reshape(-1, 1)), positive),
            single=True,
            decides=True,
        ),
        model.n_features_in_,
    )


def _tree(tree: Any, value: Floats) -> Tree:
    left, right, nan_left = tree.children_left, tree.children_right, tree.missing_go_to_left
    return Tree(left, right, tree.feature, tree.threshold, nan_left, value)


def _stage(tree: Any, rate: float) -> Tree:
    whole = _tree(tree, rate * tree.value[:, 0, 0])
    return whole._replace(nan_left=np.zeros(len(whole.left), bool))  # predict_stages does not handle NaN


def _column(probabilities: Floats, column: int) -> Floats:
    return probabilities[:, column]


# --- boosting libraries


class _Library(NamedTuple):
    """How a boosting library predicts (see boosters.py)."""

    name: str
    read: Callable[[Any], tuple[list[Tree], float]]
    predict: Callable[..., Floats]
    logistic: Step
    sums: Sums
    """The type it adds and compares in."""


def _xgboost(model: Any, positive: int) -> Arithmetic:
    read, predict = boosters.xgboost_trees, boosters.xgboost_predict
    return _boosted(model, positive, _Library("XGBoost", read, predict, logistic_single, "float32"))


def _lightgbm(model: Any, positive: int) -> Arithmetic:
    read, predict = boosters.lightgbm_trees, boosters.lightgbm_predict
    return _boosted(model, positive, _Library("LightGBM", read, predict, expit, "float64"))


def _boosted(model: Any, positive: int, library: _Library) -> Arithmetic:
    """Compiled trees, otherwise the library itself without its checks of a frame."""

    def of_class(probability: Floats) -> Floats:
        return probability if positive else 1.0 - probability

    def probability(X: Floats) -> Floats:
        return of_class(library.predict(model, within(LARGEST_SINGLE, X)))

    try:
        trees, start = library.read(model)
    except NotReadableError as error:
        return Arithmetic(probability, None, f"{library.name}'s trees: {error}")
    ensemble = _Ensemble(
        library=library.name,
        trees=trees,
        start=start,
        total=lambda X: library.predict(model, X, margin=True),
        finish=lambda total: of_class(library.logistic(total)),
        single=library.sums == "float32",
        sums=library.sums,
    )
    found = _trees(ensemble, model.n_features_in_)
    return found if found.how == COMPILED else found._replace(probability=probability)


TREES: Final[dict[str, Callable[[Any, int], Arithmetic]]] = {
    "imblearn.BalancedRandomForestClassifier": _forest,
    "lightgbm.LGBMClassifier": _lightgbm,
    "sklearn.DecisionTreeClassifier": _decision_tree,
    "sklearn.ExtraTreesClassifier": _forest,
    "sklearn.GradientBoostingClassifier": _gradient_boosting,
    "sklearn.HistGradientBoostingClassifier": _hist_gradient_boosting,
    "sklearn.RandomForestClassifier": _forest,
    "xgboost.XGBClassifier": _xgboost,
}
"""By package and class name, because the boosting libraries are imported only when one of their models is loaded."""

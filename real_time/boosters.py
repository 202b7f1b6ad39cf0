"""Reads the fitted trees of XGBoost and LightGBM from their own model descriptions, for real_time/compiled.py.

Neither library is imported here; unpickling one of their models imports it. Both add a row's leaves in tree order,
XGBoost in float32 and LightGBM in float64, and apply the logistic function to the sum. The trees are used only after
they have reproduced the library's bits (see fast_path.py).
"""

import json
import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from real_time.compiled import Array, Floats, Tree


class NotReadableError(ValueError):
    """Compiled code does not support these trees; the message says why."""


# --- XGBoost


def xgboost_predict(model: Any, X: Floats, *, margin: bool = False) -> Floats:
    """The probability of `classes_[1]`, or its margin, as float32: the library's own, without its input checks."""
    found: Floats = model.get_booster().inplace_predict(
        X,
        iteration_range=(0, _xgboost_rounds(model)),
        predict_type="margin" if margin else "value",
        missing=model.missing,
    )
    return found


def xgboost_trees(model: Any) -> tuple[list[Tree], float]:
    """The trees of a binary XGBClassifier and the start of their sum. Raises NotReadableError."""
    booster = model.get_booster()
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    gradient = learner["gradient_booster"]
    if learner["objective"]["name"] != "binary:logistic" or gradient["name"] != "gbtree":
        raise NotReadableError("they are not summed for a logistic function")
    if not (isinstance(model.missing, float) and math.isnan(model.missing)):
        raise NotReadableError("a number marks missing values")
    rounds, indptr = _xgboost_rounds(model), gradient["model"]["iteration_indptr"]
    count = indptr[rounds] if rounds else indptr[-1]
    trees = [_xgboost_tree(tree) for tree in gradient["model"]["trees"][:count]]
    return trees, _xgboost_start(learner["learner_model_param"]["base_score"])


def _xgboost_start(base_score: str) -> float:
    """The margin of a probability, rounded as C's logf rounds; NumPy's float32 log rounds differently."""
    base = np.float32(base_score.strip("[]"))
    return float(np.float32(-math.log(np.float32(1) / base - np.float32(1))))


def _xgboost_rounds(model: Any) -> int:
    """Number of boosting rounds used to predict: up to the best one after early stopping; 0 means all."""
    best = model.get_booster().attributes().get("best_iteration")
    return 0 if best is None else int(best) + 1


def _xgboost_tree(tree: dict[str, Any]) -> Tree:
    if any(tree["split_type"]):
        raise NotReadableError("they split on categories")
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise NotReadableError("a leaf has several values")
    left, right = (np.asarray(tree[side], np.int64) for side in ("left_children", "right_children"))
    values = np.asarray(tree["split_conditions"], np.float32)
    # XGBoost goes left if x < threshold; Tree goes left up to and including, so take the next smaller float.
    below = np.nextafter(values, np.float32(-np.inf)).astype(np.float64)
    feature, nan_left = np.asarray(tree["split_indices"], np.int64), np.asarray(tree["default_left"], bool)
    return Tree(left, right, feature, below, nan_left, values.astype(np.float64))


# --- LightGBM

_NEXT_TO_ZERO: Final = float(np.float32(1e-35))


def lightgbm_predict(model: Any, X: Floats, *, margin: bool = False) -> Floats:
    """The probability of `classes_[1]`, or its margin: the library's own, in one thread, without its input checks."""
    found: Floats = model.booster_.predict(X, raw_score=margin, num_threads=1)
    return found


def lightgbm_trees(model: Any) -> tuple[list[Tree], float]:
    """The trees of a binary LGBMClassifier and the start of their sum. Raises NotReadableError."""
    dump = model.booster_.dump_model()
    if (
        dump["objective"] != "binary sigmoid:1"
        or dump["average_output"]
        or dump["num_tree_per_iteration"] != 1
    ):
        raise NotReadableError("they are not summed for a logistic function")
    return [_lightgbm_tree(tree["tree_structure"]) for tree in dump["tree_info"]], 0.0


def _lightgbm_tree(root: dict[str, Any]) -> Tree:
    nodes = [*_walk(root)]
    place = {id(node): number for number, node in enumerate(nodes)}

    def children(side: str) -> Array:
        return np.array([place[id(node[side])] if side in node else -1 for node in nodes], np.int64)

    return Tree(
        left=children("left_child"),
        right=children("right_child"),
        feature=np.array([node.get("split_feature", 0) for node in nodes], np.int64),
        threshold=_as_compared(np.array([node.get("threshold", np.inf) for node in nodes], np.float64)),
        nan_left=np.array([_lightgbm_nan_goes_left(node) for node in nodes], bool),
        value=np.array([node.get("leaf_value", 0.0) for node in nodes], np.float64),
    )


def _as_compared(threshold: Array) -> Array:
    """The thresholds to compare unrounded values with: LightGBM treats values close to zero as zero."""
    below_zero = (threshold >= -_NEXT_TO_ZERO) & (threshold < 0)
    above = (threshold >= 0) & (threshold < _NEXT_TO_ZERO)
    return np.where(
        below_zero, np.nextafter(-_NEXT_TO_ZERO, -np.inf), np.where(above, _NEXT_TO_ZERO, threshold)
    )


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node and all its descendants, parents first."""
    yield node
    for side in ("left_child", "right_child"):
        if side in node:
            yield from _walk(node[side])


def _lightgbm_nan_goes_left(node: dict[str, Any]) -> bool:
    if "leaf_coeff" in node:
        raise NotReadableError("their leaves are linear models")
    if "left_child" not in node:
        return False
    if node["decision_type"] != "<=":
        raise NotReadableError("they split on categories")
    if node["missing_type"] == "Zero":
        raise NotReadableError("zero marks missing values")
    if node["missing_type"] == "None":  # then a missing value counts as zero
        return bool(node["threshold"] >= 0)
    return bool(node["default_left"])

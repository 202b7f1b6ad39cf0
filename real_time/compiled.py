"""Trees as machine code: one call adds the leaves of all trees for many rows. Needs numba.

Rows descend a tree together, level by level, in blocks that fit the cache, with no branch to mispredict: a node's
children are adjacent, so the next node is the left child plus the result of a comparison, and a leaf points to itself
until the deepest path ends. Nothing is reordered: leaves are added in tree order with scikit-learn's comparisons, so
the bits are the same.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

AddLeaves: TypeAlias = Callable[[Floats, Floats], None]
"""Takes rows by features and one total per row, and adds the row's leaf of every tree to it, in order."""

Sums: TypeAlias = Literal["float64", "float32"]

BLOCK = 64
LARGEST = float(np.finfo(np.float64).max)


class Tree(NamedTuple):
    """A tree's nodes as columns, root first. A leaf has left child -1, and only its value counts."""

    left: Array
    right: Array
    feature: Array
    threshold: Array  # values up to it go left
    nan_left: Array
    value: Array


class _Nodes(NamedTuple):
    """The nodes of all trees, concatenated."""

    roots: Array
    depths: Array
    feature: Array
    threshold: Array
    child: Array
    value: Array


def compiled(trees: Sequence[Tree], *, features: int, single: bool, sums: Sums = "float64") -> AddLeaves:
    """Compile `trees`; `single` rounds compared values to float32, as forests do, and `sums` is the type of the sum.

    Raises ModuleNotFoundError if numba is not installed. Inputs must be finite or NaN.
    """
    add_leaves = _kernel(sums)
    nodes = _nodes(trees, features, sums)

    def add(X: Floats, total: Floats) -> None:
        add_leaves(X, total, *nodes, single)

    return add


def logistic_single(values: Floats) -> Floats:
    """XGBoost's float32 logistic function, bit for bit: it uses the C library's expf, which NumPy's exp is not."""
    found: Floats = _logistic_kernel()(values)
    return found


@functools.cache
def _kernel(sums: Sums) -> Any:
    from numba import from_dtype, types

    rows = types.Array(types.float64, 2, "A", readonly=True, aligned=False)  # any memory layout of a frame
    indices, bounds = types.Array(types.uint32, 1, "C"), types.Array(types.float64, 1, "C")
    values = types.Array(from_dtype(np.dtype(sums)), 1, "C")
    return _jitted(
        types.void(rows, values, indices, indices, indices, bounds, indices, values, types.boolean),
        _add_leaves,
    )


@functools.cache
def _logistic_kernel() -> Any:
    from numba import types

    values = types.Array(types.float32, 1, "C")
    return _jitted(values(values), _logistic)


def _jitted(signature: Any, function: Callable[..., Any]) -> Any:
    """Compile immediately for the given types, so that scoring never waits for the compiler."""
    from numba import njit

    try:
        return njit(signature, nogil=True, cache=True)(function)
    except (RuntimeError, OSError):  # the cache directory is missing, read-only or full
        return njit(signature, nogil=True)(function)


def _logistic(values: Floats) -> Floats:
    found: Floats = np.empty(len(values), np.float32)
    for row in range(len(values)):
        power = np.float32(math.exp(-values[row]))
        found[row] = np.float32(1) / (power + np.float32(1) + np.float32(1e-16))
    return found


def _add_leaves(  # noqa: PLR0917 - numba's arrays come one by one
    X: Floats,
    total: Floats,
    roots: Array,
    depths: Array,
    feature: Array,
    threshold: Array,
    child: Array,
    value: Array,
    single: bool,
) -> None:
    rows, features = X.shape
    # Each value is stored twice: a missing one is below every threshold in the first copy, above in the second.
    block = np.empty((BLOCK, 2 * features))
    at = np.empty(BLOCK, np.uint32)
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        for row in range(count):
            for column in range(features):
                x = X[start + row, column]
                if single:
                    x = np.float64(np.float32(x))
                block[row, column] = -np.inf if np.isnan(x) else x
                block[row, features + column] = np.inf if np.isnan(x) else x
        for tree in range(len(roots)):
            for row in range(count):
                at[row] = roots[tree]
            for _ in range(depths[tree]):
                for row in range(count):
                    node = at[row]
                    goes_right = block[np.uint32(row), feature[node]] > threshold[node]
                    at[row] = child[node] + np.uint32(goes_right)
            for row in range(count):
                total[start + row] += value[at[row]]


def _nodes(trees: Sequence[Tree], features: int, sums: Sums) -> _Nodes:
    sizes = [len(tree.left) for tree in trees]
    starts = np.cumsum([0, *sizes[:-1]])
    left, right, feature, threshold, nan_left, value = map(np.concatenate, zip(*trees, strict=True))
    first = np.repeat(starts, sizes)
    order, depth = _by_level(first + left, first + right, left < 0, starts)
    by_tree = np.argsort(first[order], kind="stable")
    order, depth = order[by_tree], depth[by_tree]
    places = np.arange(len(order))
    place = np.empty(len(left), np.int64)
    place[order] = places
    left, roots = left[order], place[starts]
    leaf = left < 0
    child = np.where(leaf, places, place[(first[order] + left).clip(0)])
    column = np.where(leaf, 0, feature[order] + np.where(nan_left[order], 0, features))
    # At an infinite threshold only missing values may go right.
    bound = np.where(leaf, np.inf, np.minimum(threshold[order], LARGEST))
    depths = np.maximum.reduceat(depth, roots)
    indices = (np.ascontiguousarray(one, np.uint32) for one in (roots, depths, column, child))
    roots, depths, column, child = indices
    return _Nodes(roots, depths, column, bound, child, np.ascontiguousarray(value[order], sums))


def _by_level(left: Array, right: Array, leaf: Array, roots: Array) -> tuple[Array, Array]:
    """The nodes of all trees level by level, siblings side by side, and each node's depth."""
    levels, level = [], roots
    while len(level):
        levels.append(level)
        parents = level[~leaf[level]]
        level = np.column_stack((left[parents], right[parents])).ravel()
    return np.concatenate(levels), np.repeat(np.arange(len(levels)), [*map(len, levels)])

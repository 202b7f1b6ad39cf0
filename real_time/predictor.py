"""Extracts the part of a model that predicts, without search or resampling wrappers, and limits it to one thread.

Neither changes a score. Scoring a small chunk in several threads or processes costs more than it saves; threads add a
forest's trees in the order they finish, which changes the last bit; and a wrapper hides a model with a fast path.
"""

import copy
import functools
from collections.abc import Callable
from inspect import getattr_static
from typing import Any, Final, NamedTuple

from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.pipeline import Pipeline

# The libraries' names for the number of threads.
_THREADS: Final = frozenset({"n_jobs", "nthread", "nthreads", "num_thread", "num_threads"})


_CATBOOST_DEFAULT: Final = 0.5  # even if no threshold was set


class OwnThreshold(NamedTuple):
    """The threshold that a model's own `predict` uses."""

    value: float
    label: Any
    """The class whose score it is compared with; None means `classes_[1]`."""
    of_probability: bool
    """Whether that score is a probability; otherwise it comes from `decision_function`."""


class Predictor(NamedTuple):
    """The part of a model that predicts."""

    classifier: Any
    threshold: OwnThreshold | None


def predictor(model: Any) -> Predictor:
    """The part of `model` that predicts. `model` is unchanged: changed parts are copies that share fitted data."""
    classifier, threshold = _unwrapped(model)
    return Predictor(_in_one_thread(classifier, {}), threshold or _catboost_threshold(classifier))


# --- wrappers


def _unwrapped(model: Any) -> Predictor:
    """`model` without its wrappers, and the threshold of the outermost wrapper that has one."""
    if _predicts_as(model, GridSearchCV) and hasattr(model, "best_estimator_"):
        return _unwrapped(model.best_estimator_)
    if _predicts_as(model, FixedThresholdClassifier):
        inner = _unwrapped(getattr(model, "estimator_", model.estimator))
        return inner._replace(threshold=_own_threshold(model) or inner.threshold)
    if type(model) is FrozenEstimator:
        return _unwrapped(model.estimator)
    if type(model) is Pipeline or _is_imblearn_pipeline(model):
        return _unwrapped_pipeline(model)
    return Predictor(model, None)


def _predicts_as(model: Any, kind: type) -> bool:
    """Whether `model` inherits its prediction code unchanged from the same base."""
    own = getattr_static(type(model), "predict_proba", None)
    return own is getattr_static(kind, "predict_proba")


def _is_imblearn_pipeline(model: Any) -> bool:
    return type(model).__name__ == "Pipeline" and type(model).__module__ == "imblearn.pipeline"


def _unwrapped_pipeline(pipeline: Any) -> Predictor:
    *before, (name, last) = pipeline.steps
    kept = [
        step for step in before if not hasattr(step[1], "fit_resample")
    ]  # samplers do nothing when predicting
    inner = _unwrapped(last)
    if type(pipeline) is Pipeline and inner.classifier is last:
        return Predictor(pipeline, inner.threshold)
    return inner._replace(classifier=Pipeline([*kept, (name, inner.classifier)]))


def _own_threshold(model: Any) -> OwnThreshold | None:
    if isinstance(model, TunedThresholdClassifierCV):
        label = getattr(model._curve_scorer, "_get_pos_label", lambda: None)()
        return OwnThreshold(float(model.best_threshold_), label, _is_of_probability(model))
    if isinstance(model, FixedThresholdClassifier):
        automatic = model.threshold == "auto"
        value = 0.5 if automatic else float(model.threshold)
        return OwnThreshold(value, model.pos_label, _is_of_probability(model))
    return None


def _is_of_probability(model: Any) -> bool:
    return bool(model.response_method != "decision_function")


def _catboost_threshold(classifier: Any) -> OwnThreshold | None:
    last = classifier.steps[-1][1] if type(classifier) is Pipeline else classifier
    value = float(last.get_probability_threshold()) if _is_catboost(last) else _CATBOOST_DEFAULT
    return None if value == _CATBOOST_DEFAULT else OwnThreshold(value, label=None, of_probability=True)


# --- threads


def _in_one_thread(part: Any, seen: dict[int, Any]) -> Any:
    """`part`, or a copy if something in it would use threads. `seen` maps IDs to the parts already visited."""
    if type(part) in (list, tuple):
        parts = [_in_one_thread(one, seen) for one in part]
        return part if all(map(_is, parts, part)) else type(part)(parts)
    if not _may_use_threads(part):
        return part
    if id(part) not in seen:
        seen[id(part)] = part  # returned unchanged if it contains itself
        seen[id(part)] = _copied_into_one_thread(part, seen)
    return seen[id(part)]


def _is(one: Any, other: Any) -> bool:
    return one is other


def _may_use_threads(part: Any) -> bool:
    if isinstance(part, type):
        return False
    # scikit-learn keeps calibrated classifiers in a class that is not an estimator.
    return callable(getattr(part, "get_params", None)) or type(part).__module__ == "sklearn.calibration"


def _copied_into_one_thread(part: Any, seen: dict[int, Any]) -> Any:
    if _is_catboost(part):
        return _catboost(part)
    attributes = getattr(part, "__dict__", {})
    changed = {name: _in_one_thread(value, seen) for name, value in attributes.items()}
    changed = {name: value for name, value in changed.items() if value is not attributes[name]}
    threads = _threads(part)
    if not changed and not threads:
        return part
    copied = copy.copy(part)
    copied.__dict__.update(changed)
    if threads:
        _own_state(copied)
        copied.set_params(**dict.fromkeys(threads, 1))
    return copied


def _threads(part: Any) -> list[str]:
    """The parameters that let `part` use threads."""
    get: Callable[..., dict[str, Any]] | None = getattr(part, "get_params", None)
    if get is None:
        return []
    # None means one thread in scikit-learn, but all cores in boosting libraries.
    one = (1, None) if type(part).__module__.startswith("sklearn.") else (1,)
    return [name for name, value in get(deep=False).items() if name in _THREADS and value not in one]


def _own_state(copied: Any) -> None:
    """XGBoost and LightGBM also store the thread count in an object that a copy shares with the original."""
    if type(copied).__module__.startswith("xgboost.") and "_Booster" in vars(copied):
        copied._Booster = copy.copy(copied.get_booster())
    if type(copied).__module__.startswith("lightgbm."):
        copied._other_params = {**copied._other_params}


def _is_catboost(part: Any) -> bool:
    return any(kind.__name__ == "CatBoostClassifier" for kind in type(part).__mro__)


def _catboost(part: Any) -> Any:
    """CatBoost rejects new parameters after fitting, and takes the thread count on each call."""
    copied = copy.copy(part)
    ask = copied.predict_proba
    copied.predict_proba = functools.update_wrapper(functools.partial(ask, thread_count=1), ask)
    return copied

"""The one preparation of a model: what predicts in it, its features, which class is the risk, which threshold counts.

Everything that scores, judges or shows a model asks here, so that none can contradict another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

import numpy as np
from sklearn.base import BaseEstimator

from real_time.model_file import ModelError
from real_time.predictor import OwnThreshold, predictor

_CLASSES: Final = 2
_OBVIOUS: Final = ({0, 1}, {-1, 1})  # pairs of which 1 is the positive one; False and True are such a pair
_DEFAULT_THRESHOLD: Final = 0.5


class NotABinaryClassifierError(ModelError):
    """The model is not a fitted classifier of two classes that has `predict_proba`."""


class ThresholdError(ModelError):
    """The threshold is not a number from 0 to 1, or the model's own one is not a threshold of the risk."""


class PositiveClassError(ModelError):
    """Which of the two classes is the risk is not known, or what was given is neither."""


class FeaturesError(ModelError):
    """The features that were given are not those of the model."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model as it is used.

    `classifier` is what predicts in it, `positive` the column of its `predict_proba` that is the risk.
    """

    kind: str
    classifier: Any
    features: tuple[str, ...] | None
    named: bool
    """Whether the classifier wants a frame; it was fitted without names, and wants an array, where they were given."""
    classes: tuple[Any, Any]
    positive: int
    threshold: float
    threshold_from: str

    @property
    def decision(self) -> str:
        """What risk and label mean, in a phrase."""
        return (
            f"the risk is the probability of {self.positive_class}, and the label is 1 from {self.threshold:g} upwards "
            f"({self.threshold_from} threshold)"
        )

    @property
    def positive_class(self) -> Any:
        """The class that is the risk."""
        return self.classes[self.positive]


def prepare(
    model: Any,
    *,
    threshold: float | None = None,
    positive_class: object = None,
    features: Sequence[str] | None = None,
) -> Prepared:
    """Prepare a fitted binary classifier; it stays as it is.

    `threshold` None is the model's own, else 0.5. `positive_class` is one of its classes or that one's text; {0, 1},
    {False, True} and {-1, 1} do without. `features` names the columns of a model that was fitted without names.

    Raises NotABinaryClassifierError, ThresholdError, PositiveClassError or FeaturesError.
    """
    _require_predict_proba(model)
    classifier, own = predictor(model)
    classes = _classes(classifier)
    positive = _positive(classes, positive_class)
    value, source = _threshold(threshold, own, classes, positive)
    names = _feature_names(classifier)
    return Prepared(
        kind=type(model).__name__,
        classifier=classifier,
        features=_with_given(names, features, classifier),
        named=names is not None or features is None or _feature_count(classifier) is None,
        classes=classes,
        positive=positive,
        threshold=value,
        threshold_from=source,
    )


# --- classes


def _require_predict_proba(model: Any) -> None:
    kind = type(model).__name__
    if isinstance(model, dict | list | tuple | np.ndarray):
        raise NotABinaryClassifierError(f"a {kind} is not a model: save the fitted classifier by itself")
    if kind == "Booster":
        raise NotABinaryClassifierError(
            "a bare Booster has no predict_proba: save the XGBClassifier or LGBMClassifier that was fitted"
        )
    if not callable(getattr(model, "predict_proba", None)):
        raise NotABinaryClassifierError(
            f"{kind} has no predict_proba: use a classifier that gives probabilities"
        )
    classes = getattr(model, "classes_", None)
    if classes is None and isinstance(model, BaseEstimator):
        raise NotABinaryClassifierError(f"{kind} has no classes_: fit it before using or saving it")
    if classes is None:
        return
    if any(np.ndim(label) for label in classes):
        raise NotABinaryClassifierError(f"{kind} has several outputs: fit it to one column of two classes")
    if len(classes) != _CLASSES:
        raise NotABinaryClassifierError(
            f"{kind} has {len(classes)} classes, and two are needed: risk is a yes or a no"
        )


def _classes(classifier: Any) -> tuple[Any, Any]:
    """Of a hand-written model without any, 0 and 1."""
    classes = getattr(classifier, "classes_", None)
    first, second = (0, 1) if classes is None else np.asarray(classes).tolist()
    return first, second


def _positive(classes: tuple[Any, Any], given: object) -> int:
    if given is not None:
        found = [place for place, label in enumerate(classes) if label == given or str(label) == str(given)]
        if len(found) != 1:
            raise PositiveClassError(f"the positive class {given} is none of the model's: {_listed(classes)}")
        return found[0]
    if all(isinstance(label, Real) for label in classes) and set(classes) in _OBVIOUS:
        return classes.index(1)
    raise PositiveClassError(
        f"the model's classes are {_listed(classes)}, and it is not said which of them is the risk: "
        f"give positive_class, on the command line --positive-class {classes[0]} or --positive-class {classes[1]}"
    )


def _listed(classes: tuple[Any, Any]) -> str:
    return " and ".join(map(str, classes))


# --- threshold


def _threshold(
    given: object, own: OwnThreshold | None, classes: tuple[Any, Any], positive: int
) -> tuple[float, str]:
    """The threshold, and where it is from."""
    if given is not None:
        return _checked_threshold(given), "the given"
    if own is None:
        return _DEFAULT_THRESHOLD, "the default"
    remedy = "give the threshold to use instead, on the command line --threshold"
    if not own.of_probability:
        raise ThresholdError(
            f"the model's own threshold, {own.value:g}, is for its decision_function, not for a probability: {remedy}"
        )
    label = classes[1] if own.label is None else own.label
    if label != classes[positive]:
        raise ThresholdError(
            f"the model's own threshold, {own.value:g}, is for the probability of {label}, "
            f"and the risk is that of {classes[positive]}: {remedy}"
        )
    return _checked_threshold(own.value), "the model's own"


def _checked_threshold(threshold: Any) -> float:
    if isinstance(threshold, Real) and not isinstance(threshold, bool) and 0 <= float(threshold) <= 1:
        return float(threshold)
    raise ThresholdError("threshold must be a number from 0 to 1")


# --- features


def _feature_names(model: Any) -> tuple[str, ...] | None:
    """The names the model was fitted with, from itself or from the part that sees the frame first."""
    for attribute in ("feature_names_in_", "feature_names_"):  # scikit-learn's, CatBoost's
        names = getattr(model, attribute, None)
        if names is not None:
            found = tuple(np.asarray(names, dtype=object).tolist())
            return None if _is_made_up(found) else found
    inner = _first_to_see_the_frame(model)
    return None if inner is None else _feature_names(inner)


def _is_made_up(names: tuple[str, ...]) -> bool:
    """Whether these are the names that CatBoost or LightGBM gives to columns that have none."""
    return any(
        all(name == f"{prefix}{place}" for place, name in enumerate(names)) for prefix in ("", "Column_")
    )


def _first_to_see_the_frame(model: Any) -> Any:
    for _, step in getattr(model, "steps", ()):
        if step not in (None, "passthrough"):
            return step
    for calibrated in getattr(model, "calibrated_classifiers_", ()):
        return calibrated.estimator
    return None


def _feature_count(model: Any) -> int | None:
    """How many features the model was fitted with, if it says so."""
    numbered = getattr(model, "feature_names_", None)  # CatBoost's, a copy of which forgets n_features_in_
    return getattr(model, "n_features_in_", None) if numbered is None else len(numbered)


def _with_given(
    names: tuple[str, ...] | None, given: Sequence[str] | None, classifier: Any
) -> tuple[str, ...] | None:
    """The model's own names, else those that are given."""
    if given is None:
        return names
    told = tuple(given)
    if names is not None and told != names:
        raise FeaturesError(
            f"the model was fitted with the features {', '.join(names)}, in this order, "
            "and others were given: leave them out"
        )
    count = _feature_count(classifier)
    if count is not None and len(told) != count:
        raise FeaturesError(f"the model was fitted with {count} features, and {len(told)} were given")
    if len({*told}) != len(told) or not all(told):
        raise FeaturesError("the features must have a name each, and no two the same one")
    return told

"""Prepares a model: its classifier, its features, its positive class and its threshold.

Everything that scores, checks or shows a model uses this, so that no two commands can disagree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Final

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from real_time.card import Card
from real_time.features import Dtype, Feature
from real_time.history import HistoryError, PatientHistory
from real_time.history.rows import ENCOUNTER_ID
from real_time.learned import Learned, learned_features
from real_time.model_file import ModelError
from real_time.predictor import OwnThreshold, predictor

_CLASSES: Final = 2
_OBVIOUS: Final = ({0, 1}, {-1, 1})  # pairs in which 1 is positive; {False, True} equals {0, 1}
_DEFAULT_THRESHOLD: Final = 0.5


class NotABinaryClassifierError(ModelError):
    """The model is not a fitted binary classifier with `predict_proba`."""


class ThresholdError(ModelError):
    """The threshold is not a number from 0 to 1, or the model's own threshold does not apply to the risk."""


class PositiveClassError(ModelError):
    """The positive class is unknown, or the given one is not a class of the model."""


class FeaturesError(ModelError):
    """The given features do not match the model's."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model ready for use.

    `classifier` is the part that predicts, `positive` the column of its `predict_proba` that is the risk.
    """

    kind: str
    classifier: Any
    features: tuple[str, ...] | None
    described: tuple[Feature, ...]
    """The same features with what the model or its card says about their values."""
    fields: tuple[Feature, ...]
    """The fields that messages carry: the features or, with a history, its input columns including encounter_id."""
    learned: Mapping[str, Learned]
    """What the model itself says about its features' values."""
    named: bool
    """Whether the classifier wants a frame. One whose names were given was fitted without them and wants an array."""
    classes: tuple[Any, Any]
    positive: int
    threshold: float
    threshold_from: str
    history: PatientHistory | None
    """Computes the classifier's features from a patient's rows, if the model has a history."""

    @property
    def decision(self) -> str:
        """A phrase that says what risk and label mean."""
        return (
            f"the risk is the probability of {self.positive_class}, and the label is 1 from {self.threshold:g} upwards "
            f"({self.threshold_from} threshold)"
        )

    @property
    def feature_count(self) -> int:
        """Number of features; 0 if the model does not say."""
        return len(self.features or ()) or _feature_count(self.classifier) or 0

    @property
    def positive_class(self) -> Any:
        """The class whose probability is the risk."""
        return self.classes[self.positive]


def prepare(
    model: Any,
    *,
    threshold: float | None = None,
    positive_class: object = None,
    features: Sequence[str] | None = None,
    card: Card | None = None,
) -> Prepared:
    """Prepare a fitted binary classifier without changing it.

    `threshold` defaults to the model's own, else 0.5. `positive_class` is one of its classes or its text; {0, 1},
    {False, True} and {-1, 1} need none. `features` names the columns of a model that was fitted without names. Anything
    not given comes from the `card`, and otherwise from the model.

    Raises NotABinaryClassifierError, ThresholdError, PositiveClassError, FeaturesError or HistoryError.
    """
    _require_predict_proba(model)
    predicting, own = predictor(model)
    history, classifier = _apart(predicting)
    columns = None if history is None else tuple(history.feature_names_in_[2:])  # without patient and time
    classes = _classes(classifier)
    told = card.positive_class if card else None
    positive = _positive(classes, told if positive_class is None else positive_class)
    value, source = _threshold(threshold, card, own, classes, positive)
    names = _feature_names(classifier)
    names_from = "--features"
    if features is None and card is not None:
        features, names_from = card.feature_names, "the card"
    if history is None:
        found = _with_given(names, features, classifier, names_from)
    else:
        _with_given(columns, features, None, names_from)
        found, features = names or tuple(history.get_feature_names_out()), None
    learned = {} if found is None else learned_features(classifier, found)
    described = _described(found or (), learned, card if history is None else None)
    return Prepared(
        kind=type(model).__name__,
        classifier=classifier,
        features=found,
        described=described,
        fields=described if columns is None else _columns_described(columns, card),
        learned=learned,
        named=names is not None or features is None or _feature_count(classifier) is None,
        classes=classes,
        positive=positive,
        threshold=value,
        threshold_from=source,
        history=history,
    )


# --- history


def _apart(model: Any) -> tuple[PatientHistory | None, Any]:
    """The history that a model begins with, if any, and the rest of the model."""
    history, rest = None, model
    if type(model) is Pipeline and isinstance(model.steps[0][1], PatientHistory):
        (_, history), *steps = model.steps
        rest = steps[0][1] if len(steps) == 1 else Pipeline(steps)
    if _holds_history(rest, set()):
        raise HistoryError(
            "a PatientHistory must be the first step of the model's outermost Pipeline: "
            "move whatever wraps it, such as a calibration, into a later step"
        )
    return history, rest


def _holds_history(part: Any, seen: set[int]) -> bool:
    if isinstance(part, PatientHistory):
        return True
    if isinstance(part, type) or id(part) in seen:
        return False
    seen.add(id(part))
    if isinstance(part, list | tuple):
        return any(_holds_history(one, seen) for one in part)
    if not (isinstance(part, BaseEstimator) or type(part).__module__ == "sklearn.calibration"):
        return False
    return any(_holds_history(one, seen) for one in vars(part).values())


# --- classes


def _require_predict_proba(model: Any) -> None:
    kind = type(model).__name__
    if isinstance(model, dict | list | tuple | np.ndarray):
        raise NotABinaryClassifierError(f"a {kind} is not a model: save the fitted classifier alone")
    if kind == "Booster":
        raise NotABinaryClassifierError(
            "a bare Booster has no predict_proba: save the XGBClassifier or LGBMClassifier that was fitted"
        )
    if not callable(getattr(model, "predict_proba", None)):
        raise NotABinaryClassifierError(
            f"{kind} has no predict_proba: use a classifier that predicts probabilities"
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
            f"{kind} has {len(classes)} classes, but risk is yes or no: fit it to a label with two classes"
        )


def _classes(classifier: Any) -> tuple[Any, Any]:
    """The model's classes; 0 and 1 for a hand-written model without any."""
    classes = getattr(classifier, "classes_", None)
    first, second = (0, 1) if classes is None else np.asarray(classes).tolist()
    return first, second


def _positive(classes: tuple[Any, Any], given: object) -> int:
    if given is not None:
        found = [place for place, label in enumerate(classes) if label == given or str(label) == str(given)]
        if len(found) != 1:
            raise PositiveClassError(
                f"positive class {given} is not a class of the model: give one of {_listed(classes)}"
            )
        return found[0]
    if all(isinstance(label, Real) for label in classes) and set(classes) in _OBVIOUS:
        return classes.index(1)
    raise PositiveClassError(
        f"the model's classes are {_listed(classes)}, and nothing says which of them is the risk: "
        f"give positive_class, or on the command line --positive-class {classes[0]} or --positive-class {classes[1]}"
    )


def _listed(classes: tuple[Any, Any]) -> str:
    return " and ".join(map(str, classes))


# --- threshold


def _threshold(
    given: object, card: Card | None, own: OwnThreshold | None, classes: tuple[Any, Any], positive: int
) -> tuple[float, str]:
    """The threshold, and where it comes from."""
    if given is not None:
        return _checked_threshold(given), "the given"
    source = "the model's own"
    if card is not None and card.threshold is not None:
        of = positive if card.positive_class is None else _positive(classes, card.positive_class)
        told = OwnThreshold(card.threshold, classes[of], True)
        if own is None or told != own._replace(label=_label(own, classes)):  # pin repeats the model's own
            source = "the card's"
        own = told
    if own is None:
        return _DEFAULT_THRESHOLD, "the default"
    remedy = "give a threshold for the risk, on the command line with --threshold"
    if not own.of_probability:
        raise ThresholdError(
            f"the model's own threshold, {own.value:g}, is for its decision_function, not for a probability: {remedy}"
        )
    label = _label(own, classes)
    if label != classes[positive]:
        raise ThresholdError(
            f"{source} threshold, {own.value:g}, is for the probability of {label}, "
            f"but the risk is the probability of {classes[positive]}: {remedy}"
        )
    return _checked_threshold(own.value), source


def _label(own: OwnThreshold, classes: tuple[Any, Any]) -> Any:
    return classes[1] if own.label is None else own.label


def _checked_threshold(threshold: Any) -> float:
    if isinstance(threshold, Real) and not isinstance(threshold, bool) and 0 <= float(threshold) <= 1:
        return float(threshold)
    raise ThresholdError("threshold must be a number from 0 to 1")


# --- features


def _feature_names(model: Any) -> tuple[str, ...] | None:
    """The names the model was fitted with, from the model or the part of it that sees the frame first."""
    for attribute in ("feature_names_in_", "feature_names_"):  # scikit-learn's, CatBoost's
        names = getattr(model, attribute, None)
        if names is not None:
            found = tuple(np.asarray(names, dtype=object).tolist())
            return None if _is_made_up(found) else found
    inner = _first_to_see_the_frame(model)
    return None if inner is None else _feature_names(inner)


def _is_made_up(names: tuple[str, ...]) -> bool:
    """Whether these are the names that CatBoost or LightGBM invents for unnamed columns."""
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
    """Number of features the model was fitted with, or None if it does not say."""
    numbered = getattr(model, "feature_names_", None)  # CatBoost: a copied model loses n_features_in_
    return getattr(model, "n_features_in_", None) if numbered is None else len(numbered)


def _with_given(
    names: tuple[str, ...] | None, given: Sequence[str] | None, classifier: Any, source: str
) -> tuple[str, ...] | None:
    """The model's own feature names, else the given ones."""
    if given is None:
        return names
    told = tuple(given)
    if names is not None and told != names:
        raise FeaturesError(
            f"the model was fitted with the features {', '.join(names)}, in this order, "
            f"but {source} gives others: leave them out"
        )
    count = _feature_count(classifier)
    if count is not None and len(told) != count:
        raise FeaturesError(
            f"the model was fitted with {count} features, but {source} gives {len(told)}: "
            "name all of them, in order"
        )
    if len({*told}) != len(told) or not all(told):
        raise FeaturesError("each feature must have a name, and no two may share one")
    return told


def _described(
    names: tuple[str, ...], learned: Mapping[str, Learned], card: Card | None
) -> tuple[Feature, ...]:
    """What the model says about each feature, and what its card adds."""
    told = {feature.name: feature for feature in (card and card.features) or ()}
    return tuple(_merged(learned.get(name), told.get(name), name) for name in names)


def _columns_described(columns: tuple[str, ...], card: Card | None) -> tuple[Feature, ...]:
    """A history's input columns: numbers and the encounter, with what the card adds."""
    found = _described(columns, {}, card)
    for one in found:
        if one.dtype == Dtype.CATEGORY and one.name != ENCOUNTER_ID:
            raise FeaturesError(
                f"the card or --data says that {one.name} is a {one.dtype}, but a history takes only numbers"
            )
    return tuple(Feature(one.name, Dtype.CATEGORY) if one.name == ENCOUNTER_ID else one for one in found)


def _merged(learned: Learned | None, told: Feature | None, name: str) -> Feature:
    if learned is None or learned.dtype is None:
        return told or Feature(name)
    known = learned.values if learned.dtype == Dtype.CATEGORY else None
    own = Feature(name, learned.dtype, known)
    if told is None:
        return own
    if told.dtype != own.dtype:
        raise FeaturesError(
            f"the card or --data says that {name} is a {told.dtype}, but the model was fitted with a {own.dtype}"
        )
    if known and told.values and {*told.values} != {*known}:
        raise FeaturesError(
            f"the card says that the values of {name} are {', '.join(told.values)}, "
            f"but the model was fitted with {', '.join(known)}"
        )
    return replace(told, values=known or told.values)

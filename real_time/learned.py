"""What a fitted model says about its features' values: encoders and boosters keep the categories they have seen."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from real_time.features import Dtype

_PANDAS_LIBRARIES = (
    "xgboost",
    "lightgbm",
)  # accept categories only as columns of pandas' category type


class Learned(NamedTuple):
    """What a model knows about a feature; None if it does not say."""

    dtype: Dtype | None
    values: tuple[Any, ...] | None
    """The known values without missing ones; numbers if they are category codes."""
    in_pandas: bool = False
    """Whether the column must have pandas' category type."""
    none: bool = False
    """Whether the model expects None for a missing value instead of NaN."""


def learned_features(model: Any, features: Sequence[str]) -> dict[str, Learned]:
    """By feature, what the parts of a model that see it unchanged know about it."""
    found: dict[str, Learned] = {}
    for part, names in _parts(model, tuple(features)):
        for name, learned in _told(part, names):
            if name not in found or learned.in_pandas:
                found[name] = learned
    return found


def takes_pandas_categories(model: Any) -> bool:
    """Whether some part of the model sees the columns unchanged and wants pandas' category type."""
    return any(_library(part) in _PANDAS_LIBRARIES for part, _ in _parts(model, ()))


def _parts(part: Any, names: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """The innermost parts that see input columns of `part` unchanged, each with the names of its columns."""
    if isinstance(part, ColumnTransformer):
        positions = part._transformer_to_input_indices
        for name, transformer, _ in part.transformers_:
            yield from _parts(transformer, tuple(names[n] for n in positions.get(name, ()) if n < len(names)))
    elif isinstance(part, Pipeline):
        for _, step in part.steps:
            yield from _parts(step, names)
            if not isinstance(step, SimpleImputer) and step not in (None, "passthrough"):
                break  # other steps may change the columns
    elif (encoder := getattr(part, "_preprocessor", None)) is not None:  # scikit-learn's histogram boosting
        yield from _parts(encoder, names)
    else:
        for inner in (*getattr(part, "estimators_", ()), *getattr(part, "calibrated_classifiers_", ())):
            yield from _parts(getattr(inner, "estimator", inner), names)
        yield part, names


def _told(part: Any, names: tuple[str, ...]) -> Iterator[tuple[str, Learned]]:
    if isinstance(part, OneHotEncoder | OrdinalEncoder | TargetEncoder):
        for name, values in zip(names, part.categories_, strict=False):
            yield name, _learned(values.tolist())
    elif type(part).__name__ == "XGBClassifier":
        yield from _told_by_xgboost(part.get_booster(), names)
    elif type(part).__name__ == "LGBMClassifier":
        yield from _told_by_lightgbm(part.booster_, names)
    elif _library(part) == "catboost":
        for place in (*part.get_cat_feature_indices(), *part.get_text_feature_indices()):
            yield names[place], Learned(Dtype.CATEGORY, None)


def _told_by_xgboost(booster: Any, names: tuple[str, ...]) -> Iterator[tuple[str, Learned]]:
    if booster.feature_names is None or "c" not in (booster.feature_types or ()):
        return
    # XGBoost before 3.1 did not store its categories.
    known = (
        dict(booster.get_categories(export_to_arrow=True).to_arrow())
        if hasattr(booster, "get_categories")
        else {}
    )
    for name, own, kind in zip(names, booster.feature_names, booster.feature_types, strict=True):
        if kind == "c":
            values = known.get(own)
            yield name, _learned(None if values is None else values.to_pylist(), in_pandas=True)


def _told_by_lightgbm(booster: Any, names: tuple[str, ...]) -> Iterator[tuple[str, Learned]]:
    categories = booster.pandas_categorical or []
    places = booster.params.get("categorical_column") or []
    if categories and isinstance(places, list):
        known = (
            categories if len(places) == len(categories) else [None] * len(places)
        )  # ordered ones are not listed
        for place, values in zip(places, known, strict=True):
            yield names[place], _learned(values, in_pandas=True)


def _learned(values: Sequence[Any] | None, *, in_pandas: bool = False) -> Learned:
    if values is None:
        return Learned(None, None, in_pandas)
    known = tuple(value for value in values if not _is_missing(value))
    return Learned(_dtype(known), known, in_pandas, none=any(value is None for value in values))


def _dtype(values: tuple[Any, ...]) -> Dtype | None:
    kinds = set(map(type, values))
    if not kinds:
        return None
    if kinds == {str}:
        return Dtype.CATEGORY
    return Dtype.BOOLEAN if kinds == {bool} else Dtype.NUMBER


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # noqa: PLR0124 - NaN alone is unlike itself


def _library(part: Any) -> str:
    return type(part).__module__.partition(".")[0]

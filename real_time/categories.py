"""Which of a model's features are categories, and which values they have, as far as its fitted encoders tell."""

from collections.abc import Iterator, Sequence
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder


def learned_categories(model: Any, features: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """By feature, the values with which an encoder was fitted to it; missing ones are left out."""
    return {
        name: tuple(value for value in values.tolist() if not _is_missing(value))
        for encoder, names in _encoders(model, tuple(features))
        for name, values in zip(names, encoder.categories_, strict=False)
    }


def _encoders(part: Any, names: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """The encoders in `part`, which is given the columns `names`, each with the columns that it sees as they come."""
    if isinstance(part, OneHotEncoder | OrdinalEncoder):
        yield part, names
    elif isinstance(part, ColumnTransformer):
        positions = part._transformer_to_input_indices
        for name, transformer, _ in part.transformers_:
            yield from _encoders(transformer, tuple(names[place] for place in positions.get(name, ())))
    elif isinstance(part, Pipeline):
        for _, step in part.steps:
            yield from _encoders(step, names)
            if not isinstance(step, SimpleImputer):  # others may change the columns
                break
    for inner in (*getattr(part, "estimators_", ()), *getattr(part, "calibrated_classifiers_", ())):
        yield from _encoders(getattr(inner, "estimator", inner), names)


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # noqa: PLR0124 - NaN alone is unlike itself

"""A model's card: a JSON file next to its pin with what the model itself does not say (see model-card.schema.json).

A card belongs to one model file and contains its hash.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from os import fspath
from pathlib import Path
from typing import Any, Final

from real_time.features import Dtype, Feature
from real_time.model_file import ModelError, ModelFileError, ModelPath, write_file

_LIBRARIES: Final = ("sklearn", "numpy", "joblib", "xgboost", "lightgbm", "catboost", "imblearn")
_NUMBERS: Final = (int, float)  # compared by exact type, because bool is a subclass of int


class CardError(ModelError):
    """A model's card is invalid."""


@dataclass(frozen=True, slots=True)
class History:
    """A model's history: the hash of its recipe, and its output columns."""

    recipe_sha256: str
    gives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """A description of a model; None leaves a value to the model or to the command's options."""

    sha256: str
    features: tuple[Feature, ...] | None = None
    """The message fields, in the model's order."""
    history: History | None = None
    positive_class: str | None = None
    threshold: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    """The versions of the libraries it was pinned with, by module."""
    name: str | None = None
    version: str | None = None
    note: str | None = None

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The features' names in order."""
        return None if self.features is None else tuple(feature.name for feature in self.features)

    def document(self) -> dict[str, Any]:
        """The card as a JSON object."""
        found = _filled(asdict(self))
        if self.features is not None:
            found["features"] = [_filled(asdict(feature)) for feature in self.features]
        return found


def card_path(path: ModelPath) -> Path:
    """The path of the card of model file `path`."""
    return Path(f"{fspath(path)}.card.json")


def read_card(path: ModelPath) -> Card | None:
    """The card of the model file `path`, or None if it has none. Raises CardError or ModelFileError."""
    card = card_path(path)
    try:
        document = json.loads(card.read_text(encoding="utf-8-sig"), parse_constant=_refuse)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelFileError(f"cannot read {card}: {error.strerror}") from None
    except ValueError:
        raise _bad(card, "it is not JSON") from None
    if not isinstance(document, dict):
        raise _bad(card, "it is not a JSON object")
    if unknown := sorted(document.keys() - _FIELDS.keys()):
        raise _bad(card, f"it has the unknown field {unknown[0]}")
    if "sha256" not in document:
        raise _bad(card, "it has no sha256")
    return Card(**{name: _parsed(card, name, value) for name, value in document.items()})


def write_card(path: ModelPath, card: Card) -> None:
    """Write the card of the model file `path` atomically. Raises ModelFileError."""
    text = json.dumps(card.document(), indent=2, ensure_ascii=False)
    write_file(card_path(path), f"{text}\n")


def library_versions() -> dict[str, str]:
    """By module, the versions of the model libraries that this process has imported."""
    return {name: sys.modules[name].__version__ for name in _LIBRARIES if name in sys.modules}


def other_versions(card: Card) -> list[str]:
    """A phrase for each library whose minor version differs between the card and this process."""
    loaded = library_versions()
    return [
        f"its card names {name} {told}, and {loaded[name]} is installed"
        for name, told in card.versions.items()
        if name in loaded and told.split(".")[:2] != loaded[name].split(".")[:2]
    ]


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


# --- reading


def _refuse(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}")


def _bad(card: Path, problem: str) -> CardError:
    return CardError(
        f"the card {card} cannot be used: {problem}; correct it, or delete it and run "
        f"`vitalstream model pin {str(card).removesuffix('.card.json')}`"
    )


def _parsed(card: Path, name: str, value: Any) -> Any:
    try:
        return _FIELDS[name](value)
    except ValueError as error:
        raise _bad(card, f"{name} {error}") from None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _text(value: Any) -> str:
    if _is_text(value):
        return str(value)
    raise ValueError("must be text")


def _sha256(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return value
    raise ValueError("must be a SHA-256 of 64 hexadecimal digits in lower case")


def _threshold(value: Any) -> float:
    if type(value) in _NUMBERS and 0 <= value <= 1:
        return float(value)
    raise ValueError("must be a number from 0 to 1")


def _versions(value: Any) -> dict[str, str]:
    if isinstance(value, dict) and all(isinstance(version, str) for version in value.values()):
        return value
    raise ValueError("must be an object of versions by library")


def _history(value: Any) -> History:
    if not isinstance(value, dict) or value.keys() != {"recipe_sha256", "gives"}:
        raise ValueError("must be an object with recipe_sha256 and gives")
    gives = value["gives"]
    if not isinstance(gives, list) or not gives or not all(map(_is_text, gives)):
        raise ValueError("must list columns in gives")
    return History(_sha256(value["recipe_sha256"]), tuple(gives))


def _features(value: Any) -> tuple[Feature, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of features")
    features = tuple(map(_feature, value))
    if len({feature.name for feature in features}) < len(features):
        raise ValueError("must give each feature a different name")
    return features


def _feature(value: Any) -> Feature:
    if not isinstance(value, dict) or not {"name", "dtype"} <= value.keys() <= _OF_FEATURE:
        raise ValueError("must be a list of objects with name, dtype and optionally values or typical")
    name, dtype = value["name"], value["dtype"]
    values, typical = value.get("values"), value.get("typical")
    if not isinstance(name, str) or not name or dtype not in [*Dtype]:
        raise ValueError("must give each feature a name and the dtype number, boolean or category")
    if "values" in value and not (dtype == Dtype.CATEGORY and _are_values(values)):
        raise ValueError(f"gives {name} values that are not distinct texts of a category")
    if "typical" in value and not (dtype == Dtype.NUMBER and _are_typical(typical)):
        raise ValueError(f"gives {name} typical values that are not three ascending numbers")
    return Feature(
        name,
        Dtype(dtype),
        None if values is None else tuple(values),
        None if typical is None else tuple(typical),
    )


def _are_values(values: Any) -> bool:
    texts = isinstance(values, list) and all(isinstance(value, str) for value in values)
    return texts and 0 < len({*values}) == len(values)


def _are_typical(typical: Any) -> bool:
    numbers = isinstance(typical, list) and all(type(value) in _NUMBERS for value in typical)
    return numbers and len(typical) == 3 and sorted(typical) == typical  # noqa: PLR2004 - as in Feature


_OF_FEATURE: Final = {"name", "dtype", "values", "typical"}
_FIELDS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "sha256": _sha256,
    "features": _features,
    "history": _history,
    "positive_class": _text,
    "threshold": _threshold,
    "versions": _versions,
    "name": _text,
    "version": _text,
    "note": _text,
}

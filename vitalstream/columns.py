"""Finds in a file of rows whether a model's features are numbers, booleans or categories, and of which values."""

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype

from broker.errors import SettingsError
from real_time.features import Dtype, Feature

_MOST_ROWS: Final = 200_000
_MOST_VALUES: Final = 1_000  # of a category
_QUANTILES: Final = (0.05, 0.5, 0.95)
_NUMBERS: Final = ("integer", "floating", "mixed-integer-float", "decimal", "empty")


def _csv(path: Path) -> pd.DataFrame:
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig") as file:
        header = file.readline()
    return pd.read_csv(path, sep=max(",;\t|", key=header.count), encoding="utf-8-sig", nrows=_MOST_ROWS)


def _parquet(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path)


def _ndjson(path: Path) -> pd.DataFrame:
    return pd.read_json(path, lines=True, convert_dates=False, dtype=False, nrows=_MOST_ROWS)


_READERS: Final[dict[str, Callable[[Path], pd.DataFrame]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".psv": _csv,
    ".parquet": _parquet,
    ".ndjson": _ndjson,
    ".jsonl": _ndjson,
}


def described(path: Path, features: Sequence[str]) -> tuple[Feature, ...]:
    """The features, as described by the columns of the same names in a CSV, Parquet or NDJSON file.

    Raises SettingsError if the file can't be read, or lacks such a column of numbers, booleans or text.
    """
    frame = _read(path)
    if missing := [name for name in features if name not in frame.columns]:
        raise SettingsError(f"--data {path}: has no column {', '.join(missing)}, which the model needs")
    return tuple(_described(path, name, frame[name]) for name in features)


def _read(path: Path) -> pd.DataFrame:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    reader = _READERS.get(suffixes[-1].lower() if suffixes else "")
    if reader is None:
        raise SettingsError(f"--data {path}: give a file that ends in {', '.join(_READERS)}")
    try:
        return reader(path)
    except OSError as error:
        raise SettingsError(f"--data {path}: {error.strerror or 'cannot be read'}; check the path") from None
    except ValueError:  # pandas and pyarrow raise subclasses, whose text may quote the file
        raise SettingsError(
            f"--data {path}: the content does not match the file's suffix; check the file"
        ) from None


def _described(path: Path, name: str, column: pd.Series) -> Feature:
    in_pandas = isinstance(column.dtype, pd.CategoricalDtype)
    values = column.cat.categories if in_pandas else column.dropna()
    kind = infer_dtype(values)
    if kind == "string":
        texts = tuple(values if in_pandas else sorted(values.unique()))
        return Feature(name, Dtype.CATEGORY, texts if 0 < len(texts) <= _MOST_VALUES else None)
    if kind == "boolean":
        return Feature(name, Dtype.BOOLEAN)
    if kind in _NUMBERS:
        return Feature(name, Dtype.NUMBER, typical=_typical(column))
    raise SettingsError(
        f"--data {path}: {name} has {kind} values, which are neither numbers, booleans nor text"
    )


def _typical(column: pd.Series) -> tuple[float, float, float] | None:
    numbers = column.astype(np.float64).to_numpy()
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return None
    low, middle, high = (float(f"{value:.4g}") for value in np.quantile(finite, _QUANTILES))
    return low, middle, high

"""Files of patient messages, read one record at a time whatever their size.

A record is a flat dict, `patient_id` and `event_time` first: what becomes one message. NaN and infinities,
which JSON cannot say, become null when it is encoded.
"""

import csv
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from broker.errors import SettingsError, VitalstreamError
from schemas.contract import EVENT_TIME, PATIENT_ID

Record = dict[str, Any]
Reader = Callable[[Path], Iterator[Record]]

PARQUET_BATCH: Final = 4096
_BUFFER = 1 << 16  # read a column chunk piece by piece: a row group may be larger than memory
_is_integer = re.compile("[+-]?[0-9]{1,18}").fullmatch  # what JSON writers take for an integer
_CHALLENGE_2019 = {"HR", "O2Sat", "SBP"}  # columns by which its files are known
_NULLS = {"", "na", "n/a", "nan", "null", "none"}


class SourceError(VitalstreamError):
    """A file is not what it should be; says where, never what is written there."""


@dataclass(frozen=True)
class Source:
    """Files and how each is read. Every iteration reads them anew, in constant memory."""

    files: tuple[tuple[Path, Reader], ...]

    def __iter__(self) -> Iterator[Record]:
        return chain.from_iterable(_explained(read, path) for path, read in self.files)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files in reading order."""
        return tuple(path for path, _ in self.files)


def find_source(paths: Sequence[Path], readers: dict[str, Reader]) -> Source:
    """The files among `paths` and, sorted by name, those in its directories that `readers` has a suffix for.

    Raises SettingsError where a path isn't there, or its suffix isn't known, or nothing is left to read.
    """
    files = tuple((path, readers[path.suffix.lower()]) for path in _expand(paths, readers))
    if not files:
        raise SettingsError(f"there is no {_listed(readers)} file in {_listed(paths)}")
    return Source(files)


def read_csv(path: Path) -> Iterator[Record]:
    """CSV with a header line. A cell that reads as a number is one; empty, NA and NaN are null.

    An event time without a zone is taken for UTC; anything else in that column is passed on as it is.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        _check_columns(path, header)
        convert = [_CELLS.get(name, number) for name in header]
        for row in lines:
            if len(row) != len(header):
                if not row:  # a blank line
                    continue
                raise SourceError(
                    f"{path}, line {lines.line_num}: {len(row)} cells, but the header has {len(header)}"
                )
            yield {name: to(cell) for name, to, cell in zip(header, convert, row, strict=True)}


def read_ndjson(path: Path) -> Iterator[Record]:
    """One JSON object a line, passed on as it is, but for a patient id that is a number: it becomes text.

    The first must have a patient id and an event time.
    """
    first = True
    with path.open("rb") as file:
        for line_number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                record = orjson.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise SourceError(f"{path}, line {line_number} is not a JSON object; mend or remove it")
            if first:
                _check_columns(path, record)
                first = False
            if type(record.get(PATIENT_ID)) in (int, float):
                record[PATIENT_ID] = str(record[PATIENT_ID])
            yield record


def read_parquet(path: Path) -> Iterator[Record]:
    """Parquet. Numbers keep their exact value; an event time of timestamp type is written as RFC 3339 in UTC,
    for which one without a zone is taken."""
    names: list[str] = pq.read_schema(path).names
    _check_columns(path, names)
    for batch in parquet_batches(path):
        columns = (
            texts(column) if name == PATIENT_ID else plain(column)
            for name, column in zip(names, batch.columns, strict=True)
        )
        for row in zip(*columns, strict=True):
            yield dict(zip(names, row, strict=True))


TABLES: Final[dict[str, Reader]] = {
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".ndjson": read_ndjson,
    ".jsonl": read_ndjson,
}
"""The general layout, `patient_id, event_time`, features: a reader by suffix."""


def parquet_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """The record batches of a Parquet file, only these columns, in this order."""
    with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
        missing = sorted({*(columns or ())} - {*file.schema_arrow.names})
        if missing:
            raise SourceError(f"{path} has no column {missing[0]}")
        for batch in file.iter_batches(PARQUET_BATCH, columns=columns):
            yield batch.select(columns) if columns else batch


@lru_cache(maxsize=1 << 16)  # vitals take few values, and a look-up is far cheaper than a conversion
def number(text: str) -> float | int | str | None:
    """A cell's text as a number where it is one, None where it says missing, else as it is."""
    text = text.strip()
    if text.lower() in _NULLS:
        return None
    try:
        value = float(text)
    except ValueError:
        return text
    if "_" in text:  # Python's way of grouping digits, nobody else's
        return text
    if _is_integer(text):
        return int(text)
    return value if math.isfinite(value) else None


def _instant(text: str) -> str:
    """An event time's text; one without a zone is taken for UTC and written as RFC 3339."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    if when.tzinfo is not None:
        return text
    return when.replace(tzinfo=UTC).isoformat().replace("+00:00", "Z")


_CELLS: dict[str, Callable[[str], Any]] = {PATIENT_ID: str, EVENT_TIME: _instant}


def plain(column: Any) -> list[Any]:
    """An Arrow column as values for JSON; a null among floats is NaN."""
    kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _instants(column)
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    if pa.types.is_floating(column.type) or (pa.types.is_primitive(kind) and not column.null_count):
        return list(column.to_numpy(zero_copy_only=False).tolist())  # several times faster than to_pylist
    return list(column.to_pylist())


def texts(column: Any) -> list[str | None]:
    """An Arrow column as text, None for null."""
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_integer(kind):
        column = column.cast(pa.string())
    return [None if value is None else str(value) for value in column.to_numpy(zero_copy_only=False).tolist()]


def _instants(column: Any) -> list[str | None]:
    """Timestamps as RFC 3339 in UTC, to the microsecond."""
    moments = column.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False)
    written = np.datetime_as_string(np.asarray(moments), unit="us", timezone="UTC").tolist()
    return [None if text == "NaT" else text for text in written]


def _check_columns(path: Path, names: Collection[str]) -> None:
    for name in (PATIENT_ID, EVENT_TIME):
        if name not in names:
            foreign = {*names} >= _CHALLENGE_2019
            remedy = "send it with --format physionet2019" if foreign else "rename the one that holds it"
            raise SourceError(f"{path} has no column {name}; {remedy}")


def _expand(paths: Sequence[Path], readers: dict[str, Reader]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.suffix.lower() in readers)
        elif not path.is_file():
            raise SettingsError(f"there is no file {path}")
        elif path.suffix.lower() not in readers:
            raise SettingsError(f"{path} can't be read: its name must end in {_listed(readers)}")
        else:
            yield path


def _explained(read: Reader, path: Path) -> Iterator[Record]:
    """The file's records; what the libraries say about bad content becomes a sentence without the content."""
    try:
        yield from read(path)
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not UTF-8 text; convert it") from None
    except csv.Error:
        raise SourceError(f"{path} is not valid CSV; check its quotes and for NUL bytes") from None
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} can't be read ({type(error).__name__})") from None


def _listed(items: Sequence[Path] | dict[str, Reader]) -> str:
    return " or ".join(map(str, items))

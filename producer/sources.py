"""Reads files of patient messages one record at a time, whatever their size.

A record is a flat dict, `patient_id` and `event_time` first, and becomes one message. NaN and infinities, which
JSON lacks, are encoded as null. A value that `values.py` can't read safely stops the file.
"""

import csv
import gzip
import json
import zlib
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from itertools import chain, islice
from operator import call, itemgetter
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from broker.errors import SettingsError, VitalstreamError
from producer.values import (
    NOBODY,
    UnreadableError,
    cell_id,
    cell_time,
    event_time,
    ids,
    instant,
    is_rfc3339,
    number,
    plain,
    text_id,
    time_texts,
    times,
    whole,
)
from schemas.contract import EVENT_TIME, PATIENT_ID
from schemas.lookalike import difference, look_alikes

Record = dict[str, Any]
Reader = Callable[[Path], Iterator[Record]]
Hear = Callable[[str], Any]
"""Called with each event time as written in the file."""

PARQUET_BATCH: Final = 4096
_LINES = 64  # of NDJSON, checked together
_BUFFER = 1 << 16  # read column chunks in pieces: a row group may be larger than memory
_CHALLENGES = {  # columns that identify their files
    "physionet2019": {"HR", "O2Sat", "SBP"},
    "physionet2012": {"record_id", "minute", "Parameter", "Value"},
}
_EVENTS_HEADER = b"Time,Parameter,Value"  # of a 2012 .txt file
_DELIMITERS = (",", ";", "\t")
_NAMED_DELIMITERS = (*_DELIMITERS, "|")


class SourceError(VitalstreamError):
    """A file is malformed. The message says where, never what is written there."""


@dataclass(frozen=True)
class Source:
    """Files and their readers. Every iteration reads them again, in constant memory.

    `left_out` are the visible files and folders in the given ones that have no reader.
    """

    files: tuple[tuple[Path, Reader], ...]
    left_out: tuple[Path, ...] = ()

    def __iter__(self) -> Iterator[Record]:
        return chain.from_iterable(_explained(read, path) for path, read in self.files)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files in reading order."""
        return tuple(path for path, _ in self.files)


def find_source(paths: Sequence[Path], readers: dict[str, Reader]) -> Source:
    """The files in `paths` and, sorted by name, those in its directories whose suffix is in `readers`.

    Raises SettingsError if a path is missing, its suffix is unknown, or nothing is left to read.
    """
    files = tuple((path, reader) for path in _expand(paths, readers) if (reader := _reader(path, readers)))
    if not files:
        raise SettingsError(f"there is no {_listed(readers)} file in {_listed(paths)}{_hint(paths)}")
    return Source(
        files, tuple(chain.from_iterable(_left_out(path, readers) for path in paths if path.is_dir()))
    )


def read_csv(path: Path, *, keep_going: bool = False, on_time: Hear | None = None) -> Iterator[Record]:
    """CSV with a header line, separated by commas, semicolons or tabs, gzipped or not.

    Cells that look like numbers are numbers; empty, NA, NaN and the like are null. An event time without a zone is UTC.
    """
    with (
        gzip.open(path, "rt", newline="", encoding="utf-8-sig")
        if _is_gzip(path)
        else path.open(newline="", encoding="utf-8-sig") as file
    ):
        first = file.readline()
        before = 0
        delimiter = max(_DELIMITERS, key=lambda one: len(next(csv.reader([first], delimiter=one), [])))
        if (named := _separator(first)) is not None:
            before, delimiter, first = 1, named, file.readline()
        if delimiter not in _NAMED_DELIMITERS:
            raise SourceError(f"{path}, line 1: sep= must name one of , ; | or a tab")
        if not first.strip():
            raise SourceError(
                f"{path} is empty or begins with an empty line; it needs a header with patient_id and event_time"
            )
        if "\0" in first:
            raise _not_utf8(path, 1)
        rows = csv.reader(chain([first], file), delimiter=delimiter, strict=True)
        yield from _csv_records(path, rows, before, keep_going=keep_going, on_time=on_time)


def _separator(line: str) -> str | None:
    """The separator that a `sep=` line names; None for any other line."""
    name, equals, rest = line.strip("\r\n").strip('"').partition("=")
    return rest if equals and name.lower() == "sep" else None


def _csv_records(
    path: Path, rows: Any, before: int, *, keep_going: bool, on_time: Hear | None
) -> Iterator[Record]:
    """The records of a CSV file whose header follows `before` lines."""
    line = before + 1  # where the row begins
    try:
        header = next(rows)
        convert = _converters(path, header, keep_going=keep_going)
        if on_time is not None:
            convert[header.index(EVENT_TIME)] = _heard(convert[header.index(EVENT_TIME)], on_time)
        line = before + rows.line_num + 1
        for row in rows:
            if len(row) == len(header):
                yield dict(zip(header, map(call, convert, row), strict=True))
            elif row:  # no blank line
                raise SourceError(f"{path}, line {line}: {len(row)} cells, but the header has {len(header)}")
            line = before + rows.line_num + 1
    except csv.Error:
        raise SourceError(
            f"{path} is not valid CSV from line {line} onwards; check its quotes, and for overlong cells and NUL bytes"
        ) from None
    except UnreadableError:
        raise _unreadable(path, line, header, convert, row) from None


def _converters(path: Path, header: list[str], *, keep_going: bool) -> list[Callable[[str], Any]]:
    if header[0].startswith("#"):
        raise SourceError(f"{path} begins with a comment; remove the lines before the header")
    _check_columns(path, header)
    convert = [_CELLS.get(name, number) for name in header]
    if not keep_going:
        return convert
    return [to if name == PATIENT_ID else _lenient(to) for name, to in zip(header, convert, strict=True)]


def _unreadable(
    path: Path, line: int, header: list[str], convert: Sequence[Callable[[str], Any]], row: list[str]
) -> SourceError:
    for name, to, cell in zip(header, convert, row, strict=True):
        try:
            to(cell)
        except UnreadableError as error:
            return SourceError(f"{path}, line {line}: {name} {error}")
    raise AssertionError("no cell of the row is unreadable")


def _lenient(to: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert(cell: str) -> Any:
        try:
            return to(cell)
        except UnreadableError:
            return cell

    return convert


def _heard(to: Callable[[str], Any], on_time: Hear) -> Callable[[str], Any]:
    def convert(cell: str) -> Any:
        on_time(cell)
        return to(cell)

    return convert


def read_ndjson(path: Path, *, keep_going: bool = False, on_time: Hear | None = None) -> Iterator[Record]:
    """One JSON object per line, unchanged except that numeric patient ids become text, event times RFC 3339, and NaN
    and infinities null.

    The first must have a patient id and an event time.
    """
    first = True
    before = 0
    with _binary(path) as file:
        while lines := [*islice(file, _LINES)]:
            records = (on_time is None and _usual(lines)) or _looked_at(
                path, before, lines, keep_going=keep_going, on_time=on_time
            )
            for record in records:
                if first:
                    _check_columns(path, record)
                    first = False
                yield record
            before += len(lines)
    if first:
        raise SourceError(f"{path} is empty; it needs one JSON object per line")


def _usual(lines: Sequence[bytes]) -> list[Record] | None:
    """The lines' records if none needs a closer look, as is nearly always so; None if one may need it."""
    try:
        records: list[Record] = [*map(orjson.loads, lines)]
        patients = [*map(itemgetter(PATIENT_ID), records)]
        moments = [*map(itemgetter(EVENT_TIME), records)]
        if not all(map(is_rfc3339, moments)):
            for record, moment in zip(records, moments, strict=True):
                record[EVENT_TIME] = instant(moment)
        usual = {*map(type, patients)} == {str} and NOBODY.isdisjoint(patients) and _are_once(lines, records)
    except (ValueError, LookupError, TypeError):
        return None
    return records if usual else None


def _are_once(lines: Sequence[bytes], records: Sequence[Record]) -> bool:
    """Whether no object has a name twice; False also if a quick check can't tell."""
    # Every name and every text has at least two quotes. If a line has no more than that, none was overlooked.
    quotes = b"".join(lines).count(b'"') - 2 * sum(map(len, records))
    return quotes == 4 * len(records) or quotes == 2 * sum(
        type(value) is str for record in records for value in record.values()
    )


def _looked_at(
    path: Path, before: int, lines: Sequence[bytes], *, keep_going: bool, on_time: Hear | None
) -> Iterator[Record]:
    for line_number, line in enumerate(lines, before + 1):
        text = line.removeprefix(BOM_UTF8) if line_number == 1 else line
        if not text.isspace():
            found = None if on_time else _usual([text])
            yield (found or [_unusual(path, line_number, text, keep_going=keep_going, on_time=on_time)])[0]


def _unusual(path: Path, line_number: int, line: bytes, *, keep_going: bool, on_time: Hear | None) -> Record:
    try:
        record = orjson.loads(line)
    except ValueError:
        record = _parsed_slowly(path, line_number, line)
    if type(record) is not dict:
        raise _no_object(path, line_number, line)
    _refuse_repeated(path, line_number, line)
    if on_time is not None and type(record.get(EVENT_TIME)) is str:
        on_time(record[EVENT_TIME])
    try:
        _convert(record, keep_going=keep_going)
    except UnreadableError as error:
        raise SourceError(f"{path}, line {line_number}: {error}") from None
    return record


def _parsed_slowly(path: Path, line_number: int, line: bytes) -> Record:
    """A line with NaN or Infinity, as Python's json writes them; nothing else outside JSON is accepted."""
    _refuse_repeated(path, line_number, line)
    try:
        record = json.loads(line, parse_constant=lambda _: None)
        orjson.dumps(record)  # rejects lone surrogates and integers of more than 64 bits
    except (ValueError, TypeError, RecursionError):
        raise _no_object(path, line_number, line) from None
    if type(record) is not dict:
        raise _no_object(path, line_number, line)
    return record


def _refuse_repeated(path: Path, line_number: int, line: bytes) -> None:
    """Raises SourceError if the outermost object has a name twice."""

    def pairs(found: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return found

    try:
        outermost = json.loads(line, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return  # reported better elsewhere
    if line.lstrip().startswith(b"{") and (twice := _twice([name for name, _ in outermost])) is not None:
        raise SourceError(f"{path}, line {line_number} has the field {twice} twice; keep one of them")


def _no_object(path: Path, line_number: int, line: bytes) -> SourceError:
    if line_number == 1 and line.lstrip().startswith(b"["):
        return SourceError(f"{path} holds a JSON array; write one object per line, as jq -c '.[]' does")
    if not _is_utf8(line) or (line_number == 1 and b"\0" in line):
        return _not_utf8(path, line_number)
    return SourceError(f"{path}, line {line_number} is not a JSON object; correct or remove it")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8(path: Path, line_number: int) -> SourceError:
    return SourceError(
        f"{path}, line {line_number} is not UTF-8 text; convert the file, for example with iconv"
    )


def _first_not_utf8(path: Path) -> int:
    with _binary(path) as file:
        return next((number for number, line in enumerate(file, 1) if not _is_utf8(line)), 1)


def _binary(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path, "rb") if _is_gzip(path) else path.open("rb")


def _convert(record: Record, *, keep_going: bool) -> None:
    patient = record.get(PATIENT_ID)
    if type(patient) is int:
        record[PATIENT_ID] = str(patient)
    elif isinstance(patient, float | str):
        try:
            record[PATIENT_ID] = text_id(patient) if isinstance(patient, str) else whole(patient)
        except UnreadableError as error:
            raise UnreadableError(f"{PATIENT_ID} {error}") from None
    if EVENT_TIME in record:
        try:
            record[EVENT_TIME] = event_time(record[EVENT_TIME])
        except UnreadableError as error:
            if not keep_going:
                raise UnreadableError(f"{EVENT_TIME} {error}") from None


def read_parquet(path: Path, *, keep_going: bool = False, on_time: Hear | None = None) -> Iterator[Record]:
    """Parquet. Numbers keep their exact value; an event time of timestamp type is written as RFC 3339 in UTC, and one
    without a zone is taken as UTC."""
    names: list[str] = pq.read_schema(path).names
    _check_columns(path, names)
    before = 0
    for batch in parquet_batches(path):
        columns = [
            _column(path, name, column, before, keep_going=keep_going)
            for name, column in zip(names, batch.columns, strict=True)
        ]
        if on_time is not None:
            for text in filter(None, time_texts(batch.column(EVENT_TIME))):
                on_time(text)
        for row in zip(*columns, strict=True):
            yield dict(zip(names, row, strict=True))
        before += len(batch)


def _column(path: Path, name: str, column: Any, before: int, *, keep_going: bool) -> list[Any]:
    try:
        if name == PATIENT_ID:
            return list(ids(column))
        return times(column, keep_going=keep_going) if name == EVENT_TIME else plain(column)
    except UnreadableError as error:
        raise SourceError(f"{path}, row {before + error.row + 1}: {name} {error}") from None


_READERS: Final = {
    ".csv": read_csv,
    ".csv.gz": read_csv,
    ".tsv": read_csv,
    ".tsv.gz": read_csv,
    ".parquet": read_parquet,
    ".ndjson": read_ndjson,
    ".ndjson.gz": read_ndjson,
    ".jsonl": read_ndjson,
    ".jsonl.gz": read_ndjson,
}
TABLES: Final[dict[str, Reader]] = {**_READERS}
"""The readers of the plain layout (`patient_id, event_time`, features), by the end of the file's name."""


def tables(*, keep_going: bool = False, on_time: Hear | None = None) -> dict[str, Reader]:
    """The readers of TABLES with these options.

    Args:
        keep_going: send values that can't be read safely, such as a bare date, as they are, to become dead letters;
            except patient ids.
        on_time: called with each event time before it is read.
    """
    return {
        suffix: partial(reader, keep_going=keep_going, on_time=on_time) for suffix, reader in _READERS.items()
    }


def parquet_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """The record batches of a Parquet file, with only these columns in this order."""
    with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
        names = file.schema_arrow.names
        missing = sorted({*(columns or ())} - {*names})
        if missing:
            raise SourceError(f"{path} has no column {missing[0]}")
        if columns and (twice := _twice(one for one in names if one in columns)) is not None:
            raise SourceError(f"{path} has the column {twice} twice; keep one of them")
        for batch in file.iter_batches(PARQUET_BATCH, columns=columns):
            yield batch.select(columns) if columns else batch


_CELLS: dict[str, Callable[[str], Any]] = {PATIENT_ID: cell_id, EVENT_TIME: cell_time}


def _check_columns(path: Path, names: Collection[str]) -> None:
    for name in (PATIENT_ID, EVENT_TIME):
        if name not in names:
            raise SourceError(f"{path} has no column {name}; {_remedy(name, names)}")
    if (twice := _twice(names)) is not None:
        raise SourceError(f"{path} has the column {twice} twice; keep one of them")
    if blank := next((name for name in names if name != name.strip()), None):
        raise SourceError(f"{path} has the column {blank!a}, with blanks at its start or end; remove them")


def _remedy(name: str, names: Collection[str]) -> str:
    if layout := next((layout for layout, known in _CHALLENGES.items() if known <= {*names}), None):
        return f"send it with --format {layout}"
    if len(names) == 1 and all(one in next(iter(names)) for one in (PATIENT_ID, EVENT_TIME)):
        return "separate its cells by commas, semicolons or tabs"
    if alike := look_alikes(names, [name]):
        other, _ = alike[0]
        return f"rename {other!a} to {name}: it has {difference(other, name)}"
    return "rename the one that holds it"


def _twice(names: Collection[str] | Iterator[str]) -> str | None:
    return next((name for name, count in Counter([*names]).items() if count > 1), None)


def _expand(paths: Sequence[Path], readers: dict[str, Reader]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(
                file for file in path.iterdir() if _is_visible_file(file) and _reader(file, readers)
            )
        elif not path.is_file():
            raise SettingsError(f"there is no file {path}")
        elif _reader(path, readers) is None:
            raise SettingsError(
                f"{path} can't be read: its name must end in {_listed(readers)}{_hint([path])}"
            )
        else:
            yield path


def _left_out(folder: Path, readers: dict[str, Reader]) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and not (path.is_file() and _reader(path, readers))
    )


def _is_visible_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")  # macOS's names for resource forks


def _reader(path: Path, readers: dict[str, Reader]) -> Reader | None:
    name = path.name.lower()
    return next((reader for suffix, reader in readers.items() if name.endswith(suffix)), None)


def _is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _hint(paths: Sequence[Path]) -> str:
    """The --format that the files there seem to have, if any."""
    there = chain.from_iterable(path.iterdir() if path.is_dir() else [path] for path in paths)
    found = next((hint for path in there if path.is_file() and (hint := _challenge(path))), None)
    return "" if found is None else f"; send {found}"


def _challenge(path: Path) -> str | None:
    match path.suffix.lower():
        case ".psv":
            return ".psv files with --format physionet2019"
        case ".txt":
            with path.open("rb") as file:
                if _EVENTS_HEADER in file.readline(_BUFFER):
                    return ".txt files with --format physionet2012"
    return None


def _explained(read: Reader, path: Path) -> Iterator[Record]:
    """The file's records; libraries' errors become a sentence that does not quote the content."""
    try:
        yield from read(path)
    except UnicodeDecodeError:
        raise _not_utf8(path, _first_not_utf8(path)) from None
    except csv.Error:
        raise SourceError(f"{path} is not valid CSV; check its quotes, and for NUL bytes") from None
    except UnreadableError as error:
        raise SourceError(f"{path}: a value {error}") from None
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} can't be read ({type(error).__name__})") from None


def _listed(items: Sequence[Path] | dict[str, Reader]) -> str:
    return " or ".join(map(str, items))

"""Reads the PhysioNet/CinC Challenges' own files as records of the standard features.

Times in them are relative to admission, so each stay begins at a fixed epoch of ours. Values are not changed, even
implausible ones. Variables with a standard feature are sent under its name, and with `all_variables` the others
under the Challenge's name; the outcome that the Challenge asks for is never sent.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from csv import reader as csv_reader
from functools import lru_cache, partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from producer.sources import Reader, Record, SourceError, parquet_batches
from producer.values import UnreadableError, cell_id, ids, number, plain
from schemas.clock import rfc3339
from schemas.contract import EVENT_TIME, PATIENT_ID, STANDARD_FEATURES

EPOCH: Final = 1_546_300_800
"""2019-01-01T00:00:00Z in Unix seconds, taken as every stay's admission."""

HOURLY: Final[dict[str, str]] = dict(
    zip(STANDARD_FEATURES, ("HR", "Resp", "Temp", "O2Sat", "SBP", "DBP", "MAP", "Age"), strict=True)
)
"""The 2019 Challenge's column for each standard feature."""

EVENTS: Final[dict[str, tuple[str, str]]] = dict(
    zip(
        STANDARD_FEATURES,
        (
            ("HR", ""),
            ("RespRate", ""),
            ("Temp", ""),
            ("SaO2", ""),
            ("SysABP", "NISysABP"),
            ("DiasABP", "NIDiasABP"),
            ("MAP", "NIMAP"),
            ("Age", ""),
        ),
        strict=True,
    )
)
"""The 2012 Challenge's parameter for each standard feature, and the one used in minutes that lack it: the arterial
line's pressure takes precedence over the cuff's."""

_NO_VARIABLES: Final = {*HOURLY.values(), "stay_id", "hour", "SepsisLabel"}
_PARAMETERS: Final = {parameter for group in EVENTS.values() for parameter in group if parameter}
_FEATURES: Final = {first for first, _ in EVENTS.values()}  # variables with a standard name
_FIXED: Final = frozenset({"Age", "Gender", "Height", "ICUType"})  # charted once per stay
_MISSING = -1  # in the files of 2012
_EVENTS_HEADER = "Time,Parameter,Value"

_Event = tuple[str | None, int, str, float]  # stay, minute, parameter, value


def read_psv(path: Path, *, all_variables: bool = False) -> Iterator[Record]:
    """2019: one stay per file, `p000001.psv`, one row per hour. The n-th row is at epoch + n hours."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv_reader(file, delimiter="|")
        header = next(rows, [])
        sent = _hourly(header, all_variables=all_variables)
        places = [_place(path, header, column) for column in sent.values()]
        for hour, row in enumerate(rows, 1):
            if len(row) != len(header):
                raise SourceError(
                    f"{path}, line {rows.line_num}: the number of values differs from the header's"
                )
            try:
                values = [number(row[place]) for place in places]
            except UnreadableError as error:
                raise SourceError(f"{path}, line {rows.line_num}: a value {error}") from None
            yield _record(path.stem, hour * 60, sent, values)


def read_hourly_parquet(path: Path, *, all_variables: bool = False) -> Iterator[Record]:
    """2019, all stays in one Parquet file: `stay_id, hour` and the variables."""
    sent = _hourly(pq.read_schema(path).names, all_variables=all_variables)
    for batch in parquet_batches(path, ["stay_id", "hour", *sent.values()]):
        stays, hours, *values = batch.columns
        _refuse_nulls(path, "hour", hours)
        rows = zip(*map(plain, values), strict=True)
        for stay, hour, row in zip(
            _ids(path, "stay_id", stays), plain(hours.cast(pa.int64())), rows, strict=True
        ):
            yield _record(stay, hour * 60, sent, row)


def _hourly(columns: Iterable[str], *, all_variables: bool) -> dict[str, str]:
    """The file's column for each field of the message."""
    others = [name for name in columns if name not in _NO_VARIABLES] if all_variables else []
    return HOURLY | dict(zip(others, others, strict=True))


def read_events_txt(path: Path, *, all_variables: bool = False) -> Iterator[Record]:
    """2012: one stay per file, lines of `Time,Parameter,Value`, RecordID among the first."""
    return _messages(_events_txt(path, all_variables=all_variables), all_variables=all_variables)


def read_events_parquet(path: Path, *, all_variables: bool = False) -> Iterator[Record]:
    """2012, all stays in one Parquet file: `record_id, minute, Parameter, Value`, ordered by the first two."""
    return _messages(_events_parquet(path, all_variables=all_variables), all_variables=all_variables)


_READERS: Final[dict[str, dict[str, Callable[..., Iterator[Record]]]]] = {
    "physionet2019": {".psv": read_psv, ".parquet": read_hourly_parquet},
    "physionet2012": {".txt": read_events_txt, ".parquet": read_events_parquet},
}
FORMATS: Final[dict[str, dict[str, Reader]]] = {layout: {**readers} for layout, readers in _READERS.items()}
"""The readers of each format, by suffix."""

ALL_VARIABLES: Final[dict[str, dict[str, Reader]]] = {
    layout: {suffix: partial(reader, all_variables=True) for suffix, reader in readers.items()}
    for layout, readers in _READERS.items()
}
"""The same readers, sending all variables."""


def _messages(events: Iterable[_Event], *, all_variables: bool) -> Iterator[Record]:
    """One record for each minute of a stay in which a variable to be sent was charted.

    The last of several values of a parameter in one minute counts. Parameters charted once, such as the age, are
    repeated in every record of the stay. -1 means missing.
    """
    for stay, of_stay in groupby(events, key=itemgetter(0)):
        fixed: dict[str, float] = {}
        for minute, of_minute in groupby(of_stay, key=itemgetter(1)):
            charted = {event[2]: event[3] for event in of_minute if event[3] != _MISSING}
            if not _FIXED.isdisjoint(charted):
                fixed |= {name: charted.pop(name) for name in sorted(_FIXED) if name in charted}
            if charted:
                charted |= fixed
                get = charted.get
                record = _record(
                    stay, minute, EVENTS, [get(name, get(other)) for name, other in EVENTS.values()]
                )
                if all_variables:
                    record |= {name: value for name, value in charted.items() if name not in _FEATURES}
                yield record


def _events_txt(path: Path, *, all_variables: bool) -> Iterator[_Event]:
    stay: str | None = path.stem
    with path.open(newline="", encoding="utf-8-sig") as file:
        if next(file, "").strip() != _EVENTS_HEADER:
            raise SourceError(
                f"{path} does not begin with {_EVENTS_HEADER}; is it a file of the 2012 Challenge?"
            )
        for line_number, line in enumerate(file, 2):
            try:
                time, parameter, value = line.rstrip("\r\n").split(",")
                if parameter == "RecordID":
                    stay = cell_id(value)
                elif parameter in _PARAMETERS or (all_variables and parameter):
                    yield stay, _minute(time), parameter, float(value)
            except UnreadableError as error:
                raise SourceError(f"{path}, line {line_number}: RecordID {error}") from None
            except ValueError:
                raise SourceError(f"{path}, line {line_number} is not HH:MM,Parameter,Value") from None


def _events_parquet(path: Path, *, all_variables: bool) -> Iterator[_Event]:
    wanted = pa.array(sorted(_PARAMETERS))
    for batch in parquet_batches(path, ["record_id", "minute", "Parameter", "Value"]):
        names = batch.column(2).cast(pa.string())
        kept = batch.filter(pc.not_equal(names, "") if all_variables else pc.is_in(names, value_set=wanted))
        stays, minutes, parameters, values = kept.columns
        _refuse_nulls(path, "minute", minutes)
        yield from zip(
            _ids(path, "record_id", stays),
            plain(minutes.cast(pa.int64())),
            plain(parameters),
            plain(values),
            strict=True,
        )


def _ids(path: Path, name: str, column: Any) -> list[str | None]:
    try:
        return ids(column)
    except UnreadableError as error:
        raise SourceError(f"{path}: {name} {error}") from None


def _refuse_nulls(path: Path, name: str, column: Any) -> None:
    if column.null_count:
        raise SourceError(f"{path} has rows without {name}; remove them")


def _record(stay: str | None, minute: int, fields: Mapping[str, Any], values: Sequence[Any]) -> Record:
    return {PATIENT_ID: stay, EVENT_TIME: _time(minute), **dict(zip(fields, values, strict=True))}


@lru_cache(maxsize=1 << 14)
def _time(minute: int) -> str:
    return rfc3339(EPOCH + minute * 60)


def _minute(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _place(path: Path, header: list[str], column: str) -> int:
    if header.count(column) > 1:
        raise SourceError(f"{path} has the column {column} twice; keep one of them")
    if column not in header:
        raise SourceError(f"{path} has no column {column}; is it a file of the 2019 Challenge?")
    return header.index(column)

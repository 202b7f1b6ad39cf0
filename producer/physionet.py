"""The PhysioNet/CinC Challenges' own files as records of the standard features.

Their times are relative to admission, so each stay begins at a fixed epoch of ours. Values are passed on as
they are, implausible ones too. Of their variables only those that have a standard feature are kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from csv import reader as csv_reader
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from producer.sources import Reader, Record, SourceError, parquet_batches
from producer.values import ids, number, plain
from schemas.clock import rfc3339
from schemas.contract import EVENT_TIME, PATIENT_ID, STANDARD_FEATURES

EPOCH: Final = 1_546_300_800
"""2019-01-01T00:00:00Z, the moment of every stay's admission, in Unix seconds."""

HOURLY: Final[dict[str, str]] = dict(
    zip(STANDARD_FEATURES, ("HR", "Resp", "Temp", "O2Sat", "SBP", "DBP", "MAP", "Age"), strict=True)
)
"""Standard feature: its column in the Challenge of 2019."""

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
"""Standard feature: its parameter in the Challenge of 2012, and the one taken where a minute lacks that: the
arterial line's pressure stands before the cuff's."""

_PARAMETERS = pa.array([parameter for group in EVENTS.values() for parameter in group if parameter])
_MISSING = -1  # in the files of 2012

_Event = tuple[str | None, int, str, float]  # stay, minute, parameter, value


def read_psv(path: Path) -> Iterator[Record]:
    """2019: one stay a file, `p000001.psv`, one row an hour. The n-th row is at epoch + n hours."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv_reader(file, delimiter="|")
        header = next(rows, [])
        places = [_place(path, header, column) for column in HOURLY.values()]
        for hour, row in enumerate(rows, 1):
            if len(row) != len(header):
                raise SourceError(f"{path}, line {rows.line_num}: not as many values as the header has")
            yield _record(path.stem, hour * 60, [number(row[place]) for place in places])


def read_hourly_parquet(path: Path) -> Iterator[Record]:
    """2019, all stays in one Parquet file: `stay_id, hour` and the variables."""
    for batch in parquet_batches(path, ["stay_id", "hour", *HOURLY.values()]):
        stays, hours, *values = batch.columns
        _refuse_nulls(path, "hour", hours)
        rows = zip(*map(plain, values), strict=True)
        for stay, hour, row in zip(ids(stays), plain(hours.cast(pa.int64())), rows, strict=True):
            yield _record(stay, hour * 60, row)


def read_events_txt(path: Path) -> Iterator[Record]:
    """2012: one stay a file, lines of `Time,Parameter,Value`, RecordID among the first."""
    return _messages(_events_txt(path))


def read_events_parquet(path: Path) -> Iterator[Record]:
    """2012, all stays in one Parquet file: `record_id, minute, Parameter, Value`, ordered by the first two."""
    return _messages(_events_parquet(path))


FORMATS: Final[dict[str, dict[str, Reader]]] = {
    "physionet2019": {".psv": read_psv, ".parquet": read_hourly_parquet},
    "physionet2012": {".txt": read_events_txt, ".parquet": read_events_parquet},
}
"""A reader by suffix, by format."""


def _messages(events: Iterable[_Event]) -> Iterator[Record]:
    """One record for each minute of a stay in which a standard vital was charted.

    Of several values of a parameter in one minute the last in the file stands. The age, charted once, is
    repeated in every record of its stay. -1 is missing.
    """
    for stay, of_stay in groupby(events, key=itemgetter(0)):
        age: float | None = None
        for minute, of_minute in groupby(of_stay, key=itemgetter(1)):
            charted: dict[str, float | None] = {
                event[2]: event[3] for event in of_minute if event[3] != _MISSING
            }
            age = charted.pop("Age", age)
            if charted:
                charted["Age"] = age
                get = charted.get
                yield _record(stay, minute, [get(name, get(other)) for name, other in EVENTS.values()])


def _events_txt(path: Path) -> Iterator[_Event]:
    wanted = {*_PARAMETERS.to_pylist()}
    stay = path.stem
    with path.open(newline="", encoding="utf-8") as file:
        next(file, None)  # the header
        for line_number, line in enumerate(file, 2):
            try:
                time, parameter, value = line.rstrip("\r\n").split(",")
                if parameter == "RecordID":
                    stay = value
                elif parameter in wanted:
                    yield stay, _minute(time), parameter, float(value)
            except ValueError:
                raise SourceError(f"{path}, line {line_number} is not HH:MM,Parameter,Value") from None


def _events_parquet(path: Path) -> Iterator[_Event]:
    for batch in parquet_batches(path, ["record_id", "minute", "Parameter", "Value"]):
        kept = batch.filter(pc.is_in(batch.column(2).cast(pa.string()), value_set=_PARAMETERS))
        stays, minutes, parameters, values = kept.columns
        _refuse_nulls(path, "minute", minutes)
        yield from zip(
            ids(stays), plain(minutes.cast(pa.int64())), plain(parameters), plain(values), strict=True
        )


def _refuse_nulls(path: Path, name: str, column: Any) -> None:
    if column.null_count:
        raise SourceError(f"{path} has rows without {name}; remove them")


def _record(stay: str | None, minute: int, values: Sequence[Any]) -> Record:
    return {
        PATIENT_ID: stay,
        EVENT_TIME: _time(minute),
        **dict(zip(STANDARD_FEATURES, values, strict=True)),
    }


@lru_cache(maxsize=1 << 14)
def _time(minute: int) -> str:
    return rfc3339(EPOCH + minute * 60)


def _minute(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _place(path: Path, header: list[str], column: str) -> int:
    if column not in header:
        raise SourceError(f"{path} has no column {column}; is it a file of the 2019 Challenge?")
    return header.index(column)

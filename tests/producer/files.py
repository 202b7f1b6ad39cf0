"""Small simulated files in every layout that replay reads."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from producer.physionet import EVENTS, HOURLY
from producer.sources import Record
from producer.ward import Ward, record
from schemas.contract import STANDARD_FEATURES

START = datetime(2026, 1, 1, tzinfo=UTC)


def simulated(rows: int, *, patients: int = 6) -> list[Record]:
    return [record(reading) for reading in islice(Ward(patients=patients).readings(START, 300), rows)]


def write_csv(path: Path, records: list[Record]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*records[0]])
        writer.writeheader()
        writer.writerows(records)


def write_parquet(path: Path, records: Iterable[Record]) -> None:
    pq.write_table(pa.Table.from_pylist([*records]), path)


def write_ndjson(path: Path, records: Iterable[Record]) -> None:
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))


@dataclass(frozen=True)
class Stay:
    """A stay of hourly rows, keyed by standard feature."""

    name: str
    hours: list[dict[str, Any]]


def stays(count: int = 4, hours: int = 12) -> list[Stay]:
    """Simulated stays whose hourly rows have at least a heart rate."""
    found = []
    for number in range(count):
        one = Ward(patients=1, seed=number, deteriorating=0)
        readings = islice((r for r in one.readings(START, 3600) if r.values[0] is not None), hours)
        rows = [dict(zip(STANDARD_FEATURES, reading.values, strict=True)) for reading in readings]
        found.append(Stay(f"{100001 + number}", rows))
    return found


def write_psv(folder: Path, of: list[Stay]) -> None:
    """The 2019 Challenge's layout: one file per stay; columns that we do not read are included."""
    header = [*list(HOURLY.values())[:7], "EtCO2", "Age", "ICULOS", "SepsisLabel"]
    for stay in of:
        lines = ["|".join(header)]
        for hour, row in enumerate(stay.hours, 1):
            cells = [_cell(row[name]) for name in STANDARD_FEATURES]
            lines.append("|".join([*cells[:7], "NaN", cells[7], str(hour), "0"]))
        (folder / f"p{stay.name}.psv").write_text("\n".join(lines) + "\n")


def write_hourly_parquet(path: Path, of: list[Stay]) -> None:
    rows = [
        {
            "stay_id": f"p{stay.name}",
            "hour": hour,
            **{HOURLY[name]: value for name, value in row.items()},
            "SepsisLabel": 0,
        }
        for stay in of
        for hour, row in enumerate(stay.hours, 1)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_event_txt(folder: Path, of: list[Stay]) -> None:
    """The 2012 Challenge's layout: one file per stay, descriptors at 00:00, one line per value."""
    for stay in of:
        lines = ["Time,Parameter,Value", f"00:00,RecordID,{stay.name}", f"00:00,Age,{stay.hours[0]['age']}"]
        lines += ["00:00,Gender,-1", "00:00,Height,-1"]
        lines += [
            f"{minute // 60:02}:{minute % 60:02},{name},{value}" for minute, name, value in _events(stay)
        ]
        (folder / f"{stay.name}.txt").write_text("\n".join(lines) + "\n")


def write_event_parquet(path: Path, of: list[Stay]) -> None:
    rows = []
    for stay in of:
        events = [(0, "Age", stay.hours[0]["age"]), (0, "Height", -1.0), *_events(stay)]
        rows += [
            {"record_id": int(stay.name), "minute": minute, "Parameter": name, "Value": float(value)}
            for minute, name, value in events
        ]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.set_column(2, "Parameter", table["Parameter"].dictionary_encode()), path)


WRITERS: dict[str, Callable[[Path, list[Stay]], None]] = {
    "psv": write_psv,
    "hourly": lambda folder, of: write_hourly_parquet(folder / "stays.parquet", of),
    "txt": write_event_txt,
    "events": lambda folder, of: write_event_parquet(folder / "events.parquet", of),
}
"""Each writes stays into a folder."""


def _events(stay: Stay) -> list[tuple[int, str, Any]]:
    return [
        (hour * 60 + 7, EVENTS[name][0], value)
        for hour, row in enumerate(stay.hours, 1)
        for name, value in row.items()
        if value is not None and name != "age"
    ]


def _cell(value: Any) -> str:
    return "NaN" if value is None else str(value)


def moment(hours: int, minutes: int = 0) -> str:
    """An event time this long after the PhysioNet formats' epoch."""
    when = datetime(2019, 1, 1, tzinfo=UTC) + timedelta(hours=hours, minutes=minutes)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")

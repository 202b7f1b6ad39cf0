"""Files to records, in every layout."""

import gzip
import tracemalloc
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import takewhile
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from broker.errors import SettingsError
from producer.physionet import ALL_VARIABLES, EVENTS, FORMATS, HOURLY
from producer.replay import encode
from producer.sources import TABLES, Record, SourceError, find_source, tables
from schemas.contract import STANDARD_FEATURES
from tests.producer.files import (
    WRITERS,
    moment,
    simulated,
    stays,
    write_csv,
    write_ndjson,
    write_parquet,
)
from tests.schemas.messages import decoder

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
T = "2026-01-01T00:00:00Z"
LENIENT = tables(keep_going=True)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is missing")


def sent(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Records as they arrive: converted to JSON and back, so NaN is None."""
    return [orjson.loads(encode(record)[1]) for record in records]


def table(path: Path) -> list[dict[str, Any]]:
    return sent(find_source([path], TABLES))


@pytest.mark.parametrize(
    ("name", "write"), [("a.csv", write_csv), ("a.parquet", write_parquet), ("a.ndjson", write_ndjson)]
)
def test_every_layout_survives_a_round_trip(tmp_path: Path, name: str, write: Any) -> None:
    records = simulated(50)
    write(tmp_path / name, records)
    assert table(tmp_path / name) == records


def test_integers_stay_integers_without_nulls(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"patient_id": 7, "event_time": T, "heart_rate": 80}])
    (tmp_path / "a.csv").write_text("patient_id,event_time,heart_rate\n7,2026-01-01T00:00:00Z,80\n")
    for name in ("a.parquet", "a.csv"):
        key, value = encode(next(iter(find_source([tmp_path / name], TABLES))))
        assert (key, value) == (
            b"7",
            b'{"patient_id":"7","event_time":"2026-01-01T00:00:00Z","heart_rate":80}',
        )


def test_csv_cells_are_typed(tmp_path: Path) -> None:
    cells = {
        "80": 80, "80.5": 80.5, " 80 ": 80, "-3": -3, "1e2": 100.0, "": None, "NA": None, "NaN": None, "null": None,
        "inf": None, "1_000": "1_000", "high": "high", " > 200 ": " > 200 ", "1 234": "1 234", "\u22123": "\u22123",
        "99999999999999999999999": 1e23,
    }  # fmt: skip
    lines = [f"007,2026-01-01T00:00:00+01:00,{cell}" for cell in cells]
    (tmp_path / "a.csv").write_text(
        "\ufeffpatient_id,event_time,x\r\n" + "\r\n".join(lines), encoding="utf-8"
    )
    found = table(tmp_path / "a.csv")
    assert [row["x"] for row in found] == [*cells.values()]
    assert {row["patient_id"] for row in found} == {"007"}
    assert {row["event_time"] for row in found} == {"2026-01-01T00:00:00+01:00"}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-01 08:30:00", "2026-01-01T08:30:00Z"),
        ("2026-01-01T08:30:00.25", "2026-01-01T08:30:00.25Z"),
        ("2026-01-01T08:30:00Z", "2026-01-01T08:30:00Z"),
    ],
)
def test_csv_times_without_a_zone_are_utc(tmp_path: Path, written: str, read: str) -> None:
    (tmp_path / "a.csv").write_text(f"patient_id,event_time\np,{written}\n")
    assert [row["event_time"] for row in table(tmp_path / "a.csv")] == [read]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_parquet_timestamps_become_rfc3339(tmp_path: Path, unit: str, zone: str | None) -> None:
    when = datetime(2026, 1, 1, 8, 30, tzinfo=UTC if zone is None else timezone(timedelta(hours=1)))
    column = pa.array([when if zone else when.replace(tzinfo=None), None], pa.timestamp(unit, zone))
    pq.write_table(pa.table({"patient_id": ["a", "b"], "event_time": column}), tmp_path / "a.parquet")
    first, second = table(tmp_path / "a.parquet")
    hour = "07" if zone else "08"
    assert (first["event_time"], second["event_time"]) == (f"2026-01-01T{hour}:30:00.000000Z", None)


def test_parquet_types_keep_their_values(tmp_path: Path) -> None:
    columns = {
        "patient_id": pa.array([1, None], pa.int64()),
        "event_time": [T, T],
        "single": pa.array([36.6, None], pa.float32()),
        "nan": [float("nan"), float("inf")],
        "count": pa.array([3, None], pa.int16()),
        "exact": pa.array([Decimal("1.5"), None]),
        "flag": [True, None],
        "ward": pa.array(["A", None]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    first, second = table(tmp_path / "a.parquet")
    single = pa.scalar(36.6, pa.float32()).as_py()
    assert first == {
        "patient_id": "1", "event_time": T, "single": single, "nan": None, "count": 3, "exact": 1.5,
        "flag": True, "ward": "A",
    }  # fmt: skip
    assert second == dict.fromkeys(columns) | {"event_time": T}


def test_ndjson_is_passed_on_unchanged(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(
        b'{"patient_id":5,"event_time":"2026-01-01T00:00:00Z","note":{"a":[1]}}\n\n{"x":1}'
    )
    assert table(tmp_path / "a.ndjson") == [
        {"patient_id": "5", "event_time": T, "note": {"a": [1]}},
        {"x": 1},
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "patient_id"),
        ("a.csv", b"patient_id,x\nSECRET,1\n", "event_time"),
        ("a.csv", b"patient_id,event_time\np,2026-01-01T00:00:00Z\nSECRET\n", "line 3"),
        ("a.csv", b"patient_id,event_time\nSECRET\xff,t\n", "UTF-8"),
        ("a.csv", b'patient_id,event_time\n"' + b"SECRET" * 30000, "CSV"),
        ("a.ndjson", b'{"patient_id":"p","event_time":"2026-01-01T00:00:00Z"}\n\n[SECRET]\n', "line 3"),
        ("a.parquet", b"SECRET not parquet", "a.parquet"),
    ],
)
def test_a_bad_file_is_named_without_its_content(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=said) as error:
        table(tmp_path / name)
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.ndjson"])
@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"event_time": T, "x": 1}, "has no column patient_id; rename the one that holds it"),
        ({"patient_id": "p", "x": 1}, "has no column event_time; rename the one that holds it"),
        (
            {"HR": 80, "O2Sat": 97, "SBP": 120},
            "has no column patient_id; send it with --format physionet2019",
        ),
        (
            {"record_id": 1, "minute": 7, "Parameter": "HR", "Value": 80},
            "has no column patient_id; send it with --format physionet2012",
        ),
    ],
)
def test_every_layout_needs_a_patient_and_a_time(
    tmp_path: Path, name: str, record: dict[str, Any], said: str
) -> None:
    write = {".csv": write_csv, ".parquet": write_parquet, ".ndjson": write_ndjson}[Path(name).suffix]
    write(tmp_path / name, [record])
    with pytest.raises(SourceError) as error:
        table(tmp_path / name)
    assert str(error.value) == f"{tmp_path / name} {said}"


def test_the_files_of_a_directory_are_read_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "notes.md"):
        (tmp_path / name).write_text(f"patient_id,event_time\n{name},{T}\n")
    write_ndjson(tmp_path / "c.jsonl", [{"patient_id": "c", "event_time": T}])
    source = find_source([tmp_path, tmp_path / "a.csv"], TABLES)
    assert [record["patient_id"] for record in source] == ["a.csv", "b.csv", "c", "a.csv"]
    assert len(sent(source)) == 4  # and again


def test_unreadable_paths_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("")
    for path, said in (
        (tmp_path / "none.csv", "no file"),
        (tmp_path / "a.xlsx", "csv"),
        (tmp_path, "no .csv"),
    ):
        with pytest.raises(SettingsError, match=said):
            find_source([path], TABLES)


@pytest.mark.parametrize("layout", WRITERS)
def test_physionet_stays_arrive_whole(tmp_path: Path, layout: str) -> None:
    simulation = stays()
    WRITERS[layout](tmp_path, simulation)
    year = "physionet2019" if layout in ("psv", "hourly") else "physionet2012"
    prefix, minute = ("p", 0) if year == "physionet2019" else ("", 7)
    expected = [
        {"patient_id": prefix + stay.name, "event_time": moment(hour, minute), **row}
        for stay in simulation
        for hour, row in enumerate(stay.hours, 1)
    ]
    records = [*find_source([tmp_path], FORMATS[year])]
    assert sent(records) == expected
    assert decoder(STANDARD_FEATURES)([encode(record)[1] for record in records]).rejects == []


def test_columns_of_the_2019_challenge(tmp_path: Path) -> None:
    """A file as the Challenge publishes it, without the laboratory columns."""
    (tmp_path / "p000001.psv").write_text(
        "HR|O2Sat|Temp|SBP|MAP|DBP|Resp|EtCO2|Age|Gender|ICULOS|SepsisLabel\n"
        "NaN|NaN|NaN|NaN|NaN|NaN|NaN|NaN|83.14|0|1|0\n"
        "97|95|36.7|98|75.33|61|19|NaN|83.14|0|2|0\n"
    )
    empty, second = sent(find_source([tmp_path], FORMATS["physionet2019"]))
    assert empty == dict.fromkeys(empty) | {"patient_id": "p000001", "event_time": moment(1), "age": 83.14}
    assert second == {
        "patient_id": "p000001", "event_time": moment(2), "heart_rate": 97, "respiratory_rate": 19,
        "temperature": 36.7, "spo2": 95, "systolic_bp": 98, "diastolic_bp": 61, "mean_arterial_pressure": 75.33,
        "age": 83.14,
    }  # fmt: skip


def test_messy_values_of_the_2012_challenge(tmp_path: Path) -> None:
    """Values that repeat or conflict, -1, lab results alone, and an arterial line alongside a cuff."""
    (tmp_path / "132539.txt").write_text(
        "Time,Parameter,Value\n00:00,RecordID,132539\n00:00,Age,54\n00:00,Height,-1\n"
        "00:07,HR,73\n00:07,HR,75\n00:07,NISysABP,147\n00:07,SysABP,150\n00:07,DiasABP,-1\n00:07,NIDiasABP,65\n"
        "00:09,Glucose,205\n00:09,,3\n"
        "47:59,Temp,-17.8\n"
    )
    first, second = sent(find_source([tmp_path], FORMATS["physionet2012"]))
    assert first == dict.fromkeys(first) | {
        "patient_id": "132539", "event_time": moment(0, 7), "heart_rate": 75, "systolic_bp": 150,
        "diastolic_bp": 65, "age": 54,
    }  # fmt: skip
    assert second == dict.fromkeys(first) | {
        "patient_id": "132539", "event_time": moment(47, 59), "temperature": -17.8, "age": 54,
    }  # fmt: skip


@pytest.mark.parametrize("layout", WRITERS)
def test_all_variables_are_added_to_the_standard_ones(tmp_path: Path, layout: str) -> None:
    """The outcome and row numbers are not variables; Height is -1 in all these files, which means missing."""
    WRITERS[layout](tmp_path, stays())
    year = "physionet2019" if layout in ("psv", "hourly") else "physionet2012"
    standard = sent(find_source([tmp_path], FORMATS[year]))
    rows = sent(find_source([tmp_path], ALL_VARIABLES[year]))
    others = [{name: row.pop(name) for name in [*row] if name not in standard[0]} for row in rows]
    assert rows == standard
    expected = {"EtCO2": None, "ICULOS": 1} if layout == "psv" else {}
    assert others[0] == expected


def test_all_variables_of_the_2019_challenge(tmp_path: Path) -> None:
    cells = dict.fromkeys(HOURLY.values(), 1.0) | {
        "Lactate": 2.5,
        "Gender": 1,
        "ICULOS": 1,
        "SepsisLabel": 1,
    }
    (tmp_path / "p1.psv").write_text(f"{'|'.join(cells)}\n{'|'.join(map(str, cells.values()))}\n")
    write_parquet(tmp_path / "a.parquet", [{"stay_id": "p1", "hour": 1, **cells}])
    for row in sent(find_source([tmp_path], ALL_VARIABLES["physionet2019"])):
        assert row == {
            "patient_id": "p1", "event_time": moment(1), **dict.fromkeys(STANDARD_FEATURES, 1.0),
            "Lactate": 2.5, "Gender": 1, "ICULOS": 1,
        }  # fmt: skip


def test_all_variables_of_the_2012_challenge(tmp_path: Path) -> None:
    """Lab results have their own rows; values charted once are in every row; cuff and arterial line are separate."""
    events = [
        (0, "Age", 54), (0, "Gender", 0), (0, "Height", -1), (0, "ICUType", 4), (0, "Weight", 80.5),
        (7, "SysABP", 150), (7, "NISysABP", 147), (7, "Lactate", 1.5), (7, "Lactate", 1.75),
        (9, "Glucose", 205), (9, "", 3), (11, "TroponinI", -1),
    ]  # fmt: skip
    lines = [f"00:{minute:02},{name},{value}" for minute, name, value in events]
    (tmp_path / "7.txt").write_text("\n".join(["Time,Parameter,Value", "00:00,RecordID,7.0", *lines]))
    table = [
        {"record_id": 7, "minute": minute, "Parameter": name, "Value": float(value)}
        for minute, name, value in events
    ]
    write_parquet(tmp_path / "a.parquet", table)
    fixed = {**dict.fromkeys(STANDARD_FEATURES), "patient_id": "7", "age": 54, "Gender": 0, "ICUType": 4}
    rows = sent(find_source([tmp_path], ALL_VARIABLES["physionet2012"]))
    assert rows[:3] == rows[3:]
    assert rows[:3] == [
        fixed | {"event_time": moment(0), "Weight": 80.5},
        fixed | {"event_time": moment(0, 7), "systolic_bp": 150, "NISysABP": 147, "Lactate": 1.75},
        fixed | {"event_time": moment(0, 9), "Glucose": 205},
    ]


@pytest.mark.parametrize(
    ("year", "name", "content", "said"),
    [
        ("physionet2019", "p1.psv", "{columns}\n{ones}\n36,6{ones_but_first}\n", ", line 3: a value holds a number"),
        ("physionet2019", "p1.psv", "{columns}|HR\n{ones}|1\n", " has the column HR twice; keep one of them"),
        ("physionet2012", "1.txt", "00:00,RecordID,1\n00:07,HR,80\n", " does not begin with Time,Parameter,Value"),
        ("physionet2012", "1.txt", "Time,Parameter,Value\n00:00,RecordID,1.5\n", ", line 2: RecordID holds a number"),
    ],
)  # fmt: skip
def test_impossible_contents_of_a_physionet_file_are_refused(
    tmp_path: Path, year: str, name: str, content: str, said: str
) -> None:
    cells = {"columns": "|".join(HOURLY.values()), "ones": "|".join("1" * 8), "ones_but_first": "|1" * 7}
    (tmp_path / name).write_text(content.format(**cells))
    for readers in (FORMATS, ALL_VARIABLES):
        with pytest.raises(SourceError) as error:
            sent(find_source([tmp_path], readers[year]))
        assert str(error.value).startswith(f"{tmp_path / name}{said}")


def test_physionet_ids_that_could_mix_up_patients_are_refused(tmp_path: Path) -> None:
    hour = {"stay_id": 1.5, "hour": 1, **dict.fromkeys(HOURLY.values(), 1.0)}
    event = {"record_id": 2.0**53, "minute": 1, "Parameter": "HR", "Value": 80.0}
    for year, row, name in (("physionet2019", hour, "stay_id"), ("physionet2012", event, "record_id")):
        write_parquet(tmp_path / "a.parquet", [row])
        with pytest.raises(SourceError, match=f"a.parquet: {name} holds a number "):
            sent(find_source([tmp_path], FORMATS[year]))


@pytest.mark.parametrize("layout", ["psv", "txt"])
def test_a_byte_order_mark_in_a_physionet_file_is_ignored(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path, stays(1))
    readers = FORMATS["physionet2019" if layout == "psv" else "physionet2012"]
    expected = sent(find_source([tmp_path], readers))
    for path in tmp_path.iterdir():
        path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert sent(find_source([tmp_path], readers)) == expected


@pytest.mark.parametrize(
    ("year", "name", "content"),
    [
        ("physionet2019", "p1.psv", "HR|Temp\n80|SECRET\n"),
        ("physionet2012", "1.txt", "Time,Parameter,Value\n00:07,HR,SECRET\n"),
        ("physionet2012", "1.txt", "Time,Parameter,Value\nSECRET\n"),
    ],
)
def test_a_bad_physionet_file_is_named_without_its_content(
    tmp_path: Path, year: str, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=name) as error:
        sent(find_source([tmp_path], FORMATS[year]))
    assert "SECRET" not in str(error.value)


@needs_data
@pytest.mark.real_data
def test_real_stays_of_the_2019_challenge() -> None:
    source = find_source([DATA / "physionet2019_site_b.parquet"], FORMATS["physionet2019"])
    first = next(
        row for row in sent(record for record, _ in zip(source, range(5), strict=False)) if row["spo2"]
    )
    assert first == {
        "patient_id": "p100001", "event_time": moment(2), "heart_rate": 93, "respiratory_rate": 22,
        "temperature": None, "spo2": 92.5, "systolic_bp": 110, "diastolic_bp": 56, "mean_arterial_pressure": 76,
        "age": 73,
    }  # fmt: skip
    assert sum(1 for _ in source) == pq.read_metadata(source.paths[0]).num_rows


@needs_data
@pytest.mark.real_data
def test_all_variables_of_the_real_files() -> None:
    hourly = DATA / "physionet2019_site_b.parquet"
    row = next(iter(find_source([hourly], ALL_VARIABLES["physionet2019"])))
    assert len(row) == 2 + 40
    events = pq.read_table(DATA / "physionet2012_set_a_events.parquet").to_pandas()
    events = events[(events.Value != -1) & (events.record_id < 133_000)]
    charted = events[~events.Parameter.isin(["Age", "Gender", "Height", "ICUType"])]
    source = find_source([DATA / "physionet2012_set_a_events.parquet"], ALL_VARIABLES["physionet2012"])
    rows = [*takewhile(lambda row: int(row["patient_id"]) < 133_000, source)]
    assert len(rows) == charted.groupby(["record_id", "minute"]).ngroups
    named = {first: name for name, (first, _) in EVENTS.items()}
    last = charted.drop_duplicates(["record_id", "minute", "Parameter"], keep="last")
    for parameter, values in last.groupby("Parameter").Value:
        if (name := named.get(parameter, parameter)) not in (
            "systolic_bp",
            "diastolic_bp",
            "mean_arterial_pressure",
        ):
            assert [row[name] for row in rows if row.get(name) is not None] == values.tolist()


@needs_data
@pytest.mark.real_data
def test_real_events_of_the_2012_challenge() -> None:
    path = DATA / "physionet2012_set_a_events.parquet"
    records = [*find_source([path], FORMATS["physionet2012"])]
    events = pq.read_table(path).to_pandas()
    vitals = events[events.Parameter.isin([
        "HR", "RespRate", "Temp", "SaO2", "SysABP", "NISysABP", "DiasABP", "NIDiasABP", "MAP", "NIMAP",
    ])]  # fmt: skip
    vitals = vitals[vitals.Value != -1]
    assert len(records) == vitals.groupby(["record_id", "minute"]).ngroups
    pulse = vitals[vitals.Parameter == "HR"].drop_duplicates(["record_id", "minute"], keep="last")
    assert sum(record["heart_rate"] or 0 for record in records) == pytest.approx(float(pulse.Value.sum()))
    assert decoder(STANDARD_FEATURES)([encode(record)[1] for record in records]).rejects == []


@pytest.mark.parametrize(
    ("name", "write"), [("a.csv", write_csv), ("a.parquet", write_parquet), ("a.ndjson", write_ndjson)]
)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str, write: Any) -> None:
    path = tmp_path / name
    write(path, simulated(2000) * 100)
    source = find_source([path], TABLES)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    try:
        rows, peak = 0, 0
        for rows, _ in enumerate(source, 1):
            if rows % 5000 == 0:
                peak = max(peak, pa.total_allocated_bytes() - before)
        peak += tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 200_000
    assert peak < 8e6  # the columns alone would take 20 MB, the records 150


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as error:
        table(path)
    return str(error.value).removeprefix(str(path))


def columns(path: Path, **found: Any) -> None:
    pq.write_table(pa.table(found), path)


def test_a_null_among_ids_does_not_become_a_patient_called_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns(path, patient_id=[10001.0, None, float("nan")], event_time=[T] * 3)
    assert [row["patient_id"] for row in table(path)] == ["10001", None, None]


@pytest.mark.parametrize(
    ("ids", "read"),
    [
        (pa.array([b"a", None], pa.binary()), ["a", None]),
        (pa.array([b"ab"], pa.binary(2)), ["ab"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array([2**63 - 1]), ["9223372036854775807"]),
        (pa.array([Decimal("123456789012345678901234567890")]), ["123456789012345678901234567890"]),
    ],
)
def test_ids_of_every_type_become_text_unchanged(tmp_path: Path, ids: Any, read: list[str | None]) -> None:
    columns(tmp_path / "a.parquet", patient_id=ids, event_time=[T] * len(ids))
    assert [row["patient_id"] for row in table(tmp_path / "a.parquet")] == read


@pytest.mark.parametrize("ids", [[2.0**53], [1.5], [1.2345678901234568e29], [b"\xff"], [True], [[1]]])
def test_ids_that_could_mix_up_patients_are_refused(tmp_path: Path, ids: list[Any]) -> None:
    columns(tmp_path / "a.parquet", patient_id=ids, event_time=[T] * len(ids))
    assert refusal(tmp_path / "a.parquet").startswith(", row 1: patient_id ")


@pytest.mark.parametrize("readers", [TABLES, LENIENT])
def test_ids_that_pandas_wrote_as_floats_because_of_nulls_are_restored(tmp_path: Path, readers: Any) -> None:
    frame = pd.DataFrame({"patient_id": [10001, None], "event_time": T, "x": 1})
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert "10001.0" in (tmp_path / "a.csv").read_text()
    assert [row["patient_id"] for row in sent(find_source([tmp_path], readers))] == ["10001", None]


@pytest.mark.parametrize("readers", [TABLES, LENIENT])
@pytest.mark.parametrize("written", ["1.5", "1e+29", "9007199254740993.0", "10001,0"])
def test_csv_ids_that_could_mix_up_patients_are_refused_even_with_keep_going(
    tmp_path: Path, readers: Any, written: str
) -> None:
    (tmp_path / "a.csv").write_text(f"patient_id;event_time\n007;{T}\n{written};{T}\n")
    with pytest.raises(SourceError, match=r", line 3: patient_id holds a number ") as error:
        sent(find_source([tmp_path], readers))
    assert written not in str(error.value)


@pytest.mark.parametrize("readers", [TABLES, LENIENT])
@pytest.mark.parametrize(("name", "place"), [("a.parquet", "row 2"), ("a.ndjson", "line 2")])
def test_missing_ids_that_pandas_wrote_as_text_are_refused(
    tmp_path: Path, readers: Any, name: str, place: str
) -> None:
    ids = pd.Series(["p", float("nan")]).astype(str)
    write = write_parquet if name == "a.parquet" else write_ndjson
    write(tmp_path / name, [{"patient_id": str(one), "event_time": T} for one in ids])
    with pytest.raises(SourceError, match=f"{place}: patient_id is a common placeholder for a missing id"):
        sent(find_source([tmp_path], readers))


@pytest.mark.parametrize(
    ("written", "read"), [("5", "5"), ("5.0", "5"), ("1e3", "1000"), ("null", None), ("true", True)]
)
def test_ndjson_ids_become_text_unless_invalid(tmp_path: Path, written: str, read: Any) -> None:
    (tmp_path / "a.ndjson").write_text(f'{{"patient_id":{written},"event_time":"{T}"}}\n')
    assert [row["patient_id"] for row in table(tmp_path / "a.ndjson")] == [read]


@pytest.mark.parametrize("written", ["1.5", "123456789012345678901234567890", "9007199254740993.0"])
def test_ndjson_ids_that_could_mix_up_patients_are_refused(tmp_path: Path, written: str) -> None:
    (tmp_path / "a.ndjson").write_text(f'{{"patient_id":{written},"event_time":"{T}"}}\n')
    assert refusal(tmp_path / "a.ndjson").startswith(", line 1: patient_id ")


@pytest.mark.parametrize("at", [1, 256, 257, 700])
@pytest.mark.parametrize(
    ("line", "what"),
    [
        (f'{{"patient_id":"a","event_time":"{T}","x":1,"x":2}}', " has the field x twice"),
        (f'{{"patient_id":"nan","event_time":"{T}"}}', ": patient_id is a common placeholder"),
        ('{"patient_id":"a","event_time":"2026-01-05"}', ": event_time is not a time with one meaning"),
        ("1", " is not a JSON object"),
    ],
)
def test_one_bad_line_among_many_is_noticed_wherever_it_is(
    tmp_path: Path, at: int, line: str, what: str
) -> None:
    path = tmp_path / "a.ndjson"
    usual = orjson.dumps({"patient_id": "a", "event_time": T, "note": "b"}).decode()
    path.write_text("\n".join([usual] * (at - 1) + [line] + [usual] * 300))
    records = iter(find_source([path], TABLES))
    assert [next(records) for _ in range(at - 1)] == [orjson.loads(usual)] * (at - 1)
    with pytest.raises(SourceError, match=f"line {at}{what}"):
        next(records)


def test_a_line_parsed_separately_keeps_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    lines: list[Record] = [{"patient_id": f"p{number}", "event_time": T} for number in range(600)]
    lines[299] = {"patient_id": 299, "event_time": "2026-01-01 00:00", "note": 'a "quoted" word'}
    path.write_bytes(b"\n\n".join(map(orjson.dumps, lines)))
    lines[299] |= {"patient_id": "299", "event_time": T}
    assert table(path) == lines


def test_a_duplicate_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"patient_id,event_time,x,x\np,{T},80,180\n")
    lines = f'{{"patient_id":"p","event_time":"{T}","x":1}}\n{{"patient_id":"p","event_time":"{T}","x":80,"x":180}}\n'
    (tmp_path / "a.ndjson").write_text(lines)
    (tmp_path / "b.ndjson").write_text(f'{{"patient_id":"p","patient_id":"q","event_time":"{T}","x":1}}\n')
    (tmp_path / "c.ndjson").write_text(f'{{"patient_id":1,"event_time":"{T}","x":80,"x":180}}\n')
    names = ["patient_id", "event_time", "x", "x"]
    pq.write_table(pa.table([["p"], [T], [80], [180]], names=names), tmp_path / "a.parquet")
    said = {
        name: refusal(tmp_path / name) for name in ("a.csv", "a.parquet", "a.ndjson", "b.ndjson", "c.ndjson")
    }
    assert said == {
        "a.csv": " has the column x twice; keep one of them",
        "a.parquet": " has the column x twice; keep one of them",
        "a.ndjson": ", line 2 has the field x twice; keep one of them",
        "b.ndjson": ", line 1 has the field patient_id twice; keep one of them",
        "c.ndjson": ", line 1 has the field x twice; keep one of them",
    }


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.ndjson"])
def test_times_are_read_the_same_in_every_layout(tmp_path: Path, name: str) -> None:
    times = {
        "2026-01-05 08:30:00+00:00": "2026-01-05T08:30:00+00:00",
        "2026-01-05 08:30:00 UTC": "2026-01-05T08:30:00Z",
        "2026-01-05 08:30:00+01": "2026-01-05T08:30:00+01:00",
        "2026-01-05T08:30:00+0100": "2026-01-05T08:30:00+01:00",
        " 2026-01-05T08:30:00.123456789 ": "2026-01-05T08:30:00.123456789Z",
        "2026-01-05T08:30:00.123456789012-05:00": "2026-01-05T08:30:00.123456789012-05:00",
    }
    write = {".csv": write_csv, ".parquet": write_parquet, ".ndjson": write_ndjson}[Path(name).suffix]
    write(tmp_path / name, [{"patient_id": "p", "event_time": time, "x": 1} for time in times])
    assert [row["event_time"] for row in table(tmp_path / name)] == [*times.values()]


@pytest.mark.parametrize(
    "unclear", ["2026-01-05", "2026-W02-1", "yesterday", "1767601800", "05.01.2026 08:30"]
)
@pytest.mark.parametrize(
    ("name", "place"), [("a.csv", "line 3"), ("a.parquet", "row 2"), ("a.ndjson", "line 2")]
)
def test_a_time_that_must_be_guessed_stops_the_file(
    tmp_path: Path, unclear: str, name: str, place: str
) -> None:
    write = {".csv": write_csv, ".parquet": write_parquet, ".ndjson": write_ndjson}[Path(name).suffix]
    write(tmp_path / name, [{"patient_id": "p", "event_time": time, "x": 1} for time in (T, unclear)])
    assert refusal(tmp_path / name).startswith(f", {place}: event_time ")
    kept = sent(find_source([tmp_path / name], LENIENT))
    assert [row["event_time"] for row in kept] == [T, unclear]


def test_decimals_are_exact(tmp_path: Path) -> None:
    values = [f"{number / 10:.1f}" for number in range(2000)]
    column = pa.array([*map(Decimal, values)], pa.decimal128(12, 1))
    columns(tmp_path / "a.parquet", patient_id=["p"] * 2000, event_time=[T] * 2000, x=column)
    assert [row["x"] for row in table(tmp_path / "a.parquet")] == [*map(float, values)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "patient_id;event_time;x\np;{T};80\n"),
        ("a.tsv", "patient_id\tevent_time\tx\np\t{T}\t80\n"),
        ("d.csv", '"sep=;"\npatient_id;event_time;x\np;{T};80\n'),
        ("e.csv", "sep=|\r\npatient_id|event_time|x\r\np|{T}|80\r\n"),
        ("b.csv", "sep=;\npatient_id;event_time;x\np;{T};80\n"),
        ("a.ndjson", '\ufeff{{"patient_id":"p","event_time":"{T}","x":80,"y":NaN}}\n'),
    ],
)
@pytest.mark.parametrize("gzipped", [False, True])
def test_safe_csv_dialects_are_read(tmp_path: Path, name: str, text: str, gzipped: bool) -> None:
    content = text.format(T=T).encode()
    path = tmp_path / name
    if gzipped:
        path, content = tmp_path / f"{name}.gz", gzip.compress(content)
    path.write_bytes(content)
    (row,) = table(path)
    assert row == {"patient_id": "p", "event_time": T, "x": 80} | ({"y": None} if "y" in row else {})
    assert ("y" in row) == ("ndjson" in name)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"patient_id;event_time;x\np;2026-01-01T00:00:00Z;36,6\n", ", line 2: x "),
        ("a.csv", b"", " is empty"),
        ("a.ndjson", b"", " is empty"),
        ("a.csv", b"# made by a tool\npatient_id,event_time\n", " begins with a comment"),
        ("a.csv", b"patient_id, event_time\n", " has no column event_time; rename ' event_time' to event_time"),
        ("a.csv", b"Patient_ID,event_time\n", " has no column patient_id; rename 'Patient_ID' to patient_id"),
        (
            "a.csv",
            "p\u0430tient_id,event_time\n".encode(),
            " has no column patient_id; rename 'p\\u0430tient_id' to patient_id: it has U+0430 CYRILLIC SMALL LETTER A "
            "in place of a",
        ),
        (
            "a.ndjson",
            '{"patient_id":"p","event\u00a0time":"t"}'.encode(),
            " has no column event_time; rename 'event\\xa0time' to event_time: it has U+00A0 NO-BREAK SPACE in "
            "place of _",
        ),
        ("a.csv", b"patient_id,event_time, x\n", " has the column ' x', with blanks at its start or end; remove them"),
        ("a.csv", "patient_id,event_time\n".encode("utf-16"), ", line 1 is not UTF-8 text"),
        ("a.csv", "patient_id,event_time\n".encode("utf-16-le"), ", line 1 is not UTF-8 text"),
        ("a.ndjson", '{"patient_id":"p"}\n'.encode("utf-16"), ", line 1 is not UTF-8 text"),
        ("a.ndjson", '{"patient_id":"é"}\n'.encode("latin-1"), ", line 1 is not UTF-8 text"),
        ("a.csv", "patient_id,event_time,x\n,,ä\n,,".encode() + b"\xe4\n", ", line 3 is not UTF-8 text"),
        ("a.csv.gz", gzip.compress(b"patient_id,event_time\n,\n,\xe4\n", mtime=0), ", line 3 is not UTF-8 text"),
        ("a.csv", b"patient_id|event_time|x\n", " has no column patient_id; separate its cells by commas, semicolons"),
        ("a.csv", b"patient_id event_time x\n", " has no column patient_id; separate its cells by commas, semicolons"),
        ("a.csv", b"sep=\npatient_id,event_time\n", ", line 1: sep= must name one of "),
        ("a.ndjson", b'[{"patient_id":"p"}]', " holds a JSON array; write one object per line"),
        ("a.csv", b'patient_id,event_time\n,\n"q,2026\nr,2026\n', " is not valid CSV from line 3 onwards"),
        ("a.csv.gz", b"no gzip", " can't be read (BadGzipFile)"),
        ("a.csv.gz", gzip.compress(b"patient_id,event_time\n", mtime=0)[:-4], " can't be read (EOFError)"),
    ],
    ids=str,
)  # fmt: skip
def test_other_csv_dialects_are_refused_with_a_remedy(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).startswith(said)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([timedelta(1)]),
        pa.array([[b"a"]]),
        pa.array([[Decimal("1.5")]]),
        pa.array([[datetime(2026, 1, 5)]]),
        pa.array([{"a": [1], "b": timedelta(1)}]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    ],
)
def test_a_column_that_json_cannot_represent_is_refused(tmp_path: Path, column: Any) -> None:
    columns(tmp_path / "a.parquet", patient_id=["p"], event_time=[T], x=column)
    said = refusal(tmp_path / "a.parquet")
    assert said.startswith(", row 1: x is of type ")
    assert said.endswith("; write it as numbers or text")


def test_columns_that_json_can_represent_are_read(tmp_path: Path) -> None:
    found = {
        "id": (pa.array([UUID(int=5), None], pa.uuid()), [str(UUID(int=5)), None]),
        "time": (pa.array([time(8, 30, 0, 1), None]), ["08:30:00.000001", None]),
        "date": (pa.array([date(2026, 1, 5), None]), ["2026-01-05", None]),
        "list": (pa.array([[1.5, None, float("nan")], None]), [[1.5, None, None], None]),
        "object": (pa.array([{"a": "b"}, None]), [{"a": "b"}, None]),
        "large": (pa.array([2**64 - 1, None], pa.uint64()), [2**64 - 1, None]),
    }
    ids, as_read = found["id"]
    columns(
        tmp_path / "a.parquet",
        patient_id=ids,
        event_time=[T, T],
        **{name: column for name, (column, _) in found.items()},
    )
    rows = table(tmp_path / "a.parquet")
    assert [row["patient_id"] for row in rows] == as_read
    assert {name: [row[name] for row in rows] for name in found} == {
        name: read for name, (_, read) in found.items()
    }


def test_other_files_in_a_folder_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"patient_id,event_time\np,{T}\n")
    for name in ("notes.md", "b.xlsx", ".hidden", "._a.csv"):
        (tmp_path / name).write_text("")
    (tmp_path / "c.csv").mkdir()
    assert [path.name for path in find_source([tmp_path], TABLES).left_out] == ["b.xlsx", "c.csv", "notes.md"]
    assert find_source([tmp_path / "a.csv"], TABLES).left_out == ()


def test_hidden_files_in_a_folder_are_not_read(tmp_path: Path) -> None:
    for name in ("a.csv", "._a.csv", ".b.csv"):
        (tmp_path / name).write_text(f"patient_id,event_time\n{name},{T}\n")
    (tmp_path / "c.csv").mkdir()
    assert [row["patient_id"] for row in sent(find_source([tmp_path], TABLES))] == ["a.csv"]


def test_for_a_folder_in_another_format_the_error_names_the_flag(tmp_path: Path) -> None:
    for name, content, flag in (
        ("p1.psv", "", "; send .psv files with --format physionet2019"),
        ("1.txt", "Time,Parameter,Value\n", "; send .txt files with --format physionet2012"),
        ("notes.txt", "Time flies\n", ".jsonl.gz"),
    ):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(SettingsError, match=f"{flag}$"):
            find_source([folder / name], TABLES)
        with pytest.raises(SettingsError, match=flag if "send" in flag else f"in {folder}$"):
            find_source([folder], TABLES)

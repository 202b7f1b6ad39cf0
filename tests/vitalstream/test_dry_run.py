"""`vitalstream replay --dry-run`: what would be sent, and how the file was understood, without a broker."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from broker.errors import VitalstreamError
from producer.replay import encode
from producer.sources import SourceError, find_source
from tests.producer.files import WRITERS, simulated, stays, write_csv, write_ndjson, write_parquet
from vitalstream import dry_run
from vitalstream.cli import app
from vitalstream.layouts import readers

T = "2026-01-05T08:30:00Z"


def dry(*arguments: str | Path) -> str:
    """What the command prints on stdout; exceptions are re-raised."""
    command = ["replay", "--dry-run", "--bootstrap-servers", "127.0.0.1:1", *map(str, arguments)]
    result = CliRunner().invoke(app, command, catch_exceptions=False, env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    return result.stdout


def document(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(dry(*arguments, "--json"))
    return found


def columns(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {column["name"]: column for column in found["columns"]}


WARD = (
    "patient_id,event_time,heart_rate,temperature,ward,lactate,spo2\n"
    "10001.0,2026-01-05 08:30:00,80,98.6,A,1.5,97\n"
    ",2026-01-05 08:31:00+01,81,36.6,B,-,?\n"
    "007,2026-01-05 09:30:00,82.5,,A,2,>200\n"
    "007,2026-01-05 09:31:00,82.5,,A,2,\n"
)


MAPPING = """
root = "data"
patient_id = { path = "pid" }
event_time = { path = "at", as = "epoch_ms" }
[features]
temperature = { path = "temp.v", unit = "[degF]" }
"""


def test_messages_are_shown_as_they_would_be_sent(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("patient_id,event_time,temperature\n007,2026-01-05T08:30:00Z,37\n")
    (mapping := tmp_path / "ward.toml").write_text(MAPPING)
    (first,) = document(tmp_path / "a.csv", "--mapping", mapping)["first"]
    assert first == {
        "key": "007",
        "value": {"data": {"pid": "007", "at": 1767601800000, "temp": {"v": 98.6}}},
    }
    hl7 = dry(tmp_path / "a.csv", "--value-format", "hl7v2", "--mapping", "hl7v2")
    assert "\nOBX|1|NM|8310-5^^LN||37|Cel^^UCUM|||||F|||20260105083000+0000\n" in hl7
    schema = {"type": "record", "name": "A", "fields": [{"name": "patient_id", "type": "string"}]}
    (file := tmp_path / "a.avsc").write_text(json.dumps(schema))
    assert "hex of 4 bytes: 06303037" in dry(
        tmp_path / "a.csv", "--value-format", "avro", "--schema-file", file
    )


def test_json_says_how_each_column_was_understood(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(WARD)
    found = document(tmp_path)
    assert (found["sent"], found["messages"], found["whole"], found["dead_letters"]) == (0, 4, True, 2)
    assert found["first"] == [
        {"key": None if key is None else key.decode(), "value": orjson.loads(value)}
        for key, value in [*map(encode, find_source([tmp_path], readers("plain")))][:3]
    ]
    by_name = columns(found)
    roles = {name: (column["role"], column["type"], column["unit"]) for name, column in by_name.items()}
    assert roles == {
        "patient_id": ("patient id", "text", None),
        "event_time": ("event time", "text", None),
        "heart_rate": ("vital", "number", "/min"),
        "temperature": ("vital", "number", "°C"),
        "ward": ("passed on", "text", None),
        "lactate": ("passed on", "number, text", None),
        "spo2": ("vital", "whole number, text", "%"),
    }
    time = by_name["event_time"]
    assert (time["lowest"], time["highest"]) == ("2026-01-05T08:31:00+01:00", "2026-01-05T09:31:00Z")
    assert time["zones"] == ["+01:00", "none"]
    temperature = by_name["temperature"]
    assert (temperature["lowest"], temperature["highest"], temperature["implausible"]) == (36.6, 98.6, 1)
    assert {name: column["nulls"] for name, column in by_name.items() if column["nulls"]} == {
        "patient_id": 1, "temperature": 2, "spo2": 1,
    }  # fmt: skip
    assert by_name["ward"]["examples"] == ["A", "B"]
    rejected = {name: (column["rejected"], column["rejected_examples"]) for name, column in by_name.items()}
    assert rejected == {
        "patient_id": (1, ["null"]),
        "event_time": (0, []),
        "heart_rate": (0, []),
        "temperature": (0, []),
        "ward": (4, ["A", "B"]),
        "lactate": (1, ["-"]),
        "spo2": (2, ["?", ">200"]),
    }


def test_a_table_with_notes_on_what_needs_a_second_look(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(WARD)
    lines = dry(tmp_path).splitlines()
    assert lines[0] == "read all 4 messages; nothing was sent. The first messages as they would be sent:"
    assert lines[1].startswith('10001  {"patient_id":"10001","event_time":"2026-01-05T08:30:00Z",')
    assert lines[2].startswith('no key  {"patient_id":null,')
    cells = [line.split() for line in lines]
    assert ["heart_rate", "vital,", "/min", "number", "80", "to", "82.5", "0"] in cells
    assert ["spo2", "vital,", "%", "whole", "number,", "text", "97", "1"] in cells
    assert lines[-7:] == [
        "event_time: without a zone, taken as UTC; others have +01:00",
        "patient_id: no patient id in 1 message (null), which become dead letters",
        "temperature: outside physiologic limits in 1 message, so missing to the model; is the unit right?",
        "lactate: no number in 1 message (-), which become dead letters, if the model has this feature",
        "spo2: no number in 2 messages (?, >200), which become dead letters",
        "ward, lactate: ignored unless the model has a feature of that name",
        "dead letters with a model of the standard features: 2 of 4 messages",
    ]


def test_a_dry_run_shows_what_devices_would_send(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(WARD + "007,2026-01-05 09:32:00,,,,,\n")
    found = document(tmp_path, "--as-arrived")
    assert (found["messages"], found["rows_read"], found["rows_without_measurement"]) == (10, 5, 1)
    first = found["first"][0]["value"]
    assert first.items() >= {"patient_id": None}.items()  # its zone puts it before the others
    assert len(first) < 5
    assert dry(tmp_path, "--as-arrived").splitlines()[:2] == [
        "5 rows read and split into one message per device; 1 without a measurement were left out",
        "read all 10 messages; nothing was sent. The first messages as they would be sent:",
    ]
    assert document(tmp_path, "--as-arrived", "--seed", "1")["first"] != found["first"]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.ndjson", "a.ndjson.gz"])
@pytest.mark.parametrize(
    ("time", "zones"),
    [
        ("2026-01-05 08:30:00", ["none"]),
        ("2026-01-05T08:30:00Z", ["Z"]),
        ("2026-01-05 08:30:00 UTC", ["Z"]),
        ("20260105T083000+0100", ["+01:00"]),
    ],
)
def test_a_dry_run_says_in_which_zone_times_are_read(
    tmp_path: Path, name: str, time: str, zones: list[str]
) -> None:
    path = tmp_path / name.removesuffix(".gz")
    write = {".csv": write_csv, ".parquet": write_parquet, ".ndjson": write_ndjson}[path.suffix]
    write(path, [{"patient_id": "p", "event_time": time, "x": 1}])
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    assert columns(document(tmp_path / name))["event_time"]["zones"] == zones


@pytest.mark.parametrize(("tz", "zones"), [(None, ["none"]), ("Europe/Berlin", ["+01:00"])])
def test_a_dry_run_says_whether_parquet_timestamps_have_a_zone(
    tmp_path: Path, tz: str | None, zones: list[str]
) -> None:
    moments = pa.array([datetime(2026, 1, 5, tzinfo=UTC if tz else None), None], pa.timestamp("us", tz))
    pq.write_table(pa.table({"patient_id": ["p", "q"], "event_time": moments}), tmp_path / "a.parquet")
    found = document(tmp_path)
    assert columns(found)["event_time"]["zones"] == zones
    assert found["dead_letters"] == 1  # the null


def test_only_the_first_messages_of_a_long_file_are_read_and_this_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / "a.csv", simulated(30))
    monkeypatch.setattr(dry_run, "CHECKED_FIRST", 20)
    for arguments, messages, whole, first in (
        ((), 20, False, "read the first 20 messages of more;"),
        (("--limit", "4"), 4, False, "read the first 4 messages of more;"),
        (("--skip", "10"), 20, True, "read all 20 messages after skipping 10;"),
        (("--skip", "40"), 0, True, "read all 0 messages after skipping 40;"),
    ):
        found = document(tmp_path, *arguments)
        assert (found["messages"], found["whole"]) == (messages, whole)
        assert dry(tmp_path, *arguments).startswith(first)


def test_a_malformed_file_is_refused_just_as_by_a_replay(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("patient_id,event_time\np,2026-01-05\n")
    with pytest.raises(SourceError, match=r"line 2: event_time .*; nothing was sent$"):
        dry(tmp_path)
    found = document(tmp_path, "--keep-going")
    assert columns(found)["event_time"]["rejected_examples"] == ["2026-01-05"]
    assert found["dead_letters"] == 1


def test_fields_that_only_some_messages_have_are_shown(tmp_path: Path) -> None:
    lines = [
        {"patient_id": "p", "event_time": T, "x": [1]},
        {"patient_id": "p", "event_time": T, "y": {"a": 1}},
    ]
    (tmp_path / "a.ndjson").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    by_name = columns(document(tmp_path))
    assert [(by_name[name]["type"], by_name[name]["nulls"]) for name in "xy"] == [("list", 1), ("object", 1)]


@pytest.mark.parametrize("layout", WRITERS)
def test_physionet_files_are_understood(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path, stays())
    year = "physionet2019" if layout in ("psv", "hourly") else "physionet2012"
    shown = dry(tmp_path, "--format", year)
    assert "event_time: the files count from admission, taken to be 2019-01-01T" in shown
    assert "with --all-variables" in shown
    assert "with --all-variables" not in dry(tmp_path, "--format", year, "--all-variables")
    with pytest.raises(VitalstreamError, match="no format moon"):
        dry(tmp_path, "--format", "moon")
    with pytest.raises(
        VitalstreamError, match="--all-variables: plain files are sent with all their columns"
    ):
        dry(tmp_path, "--all-variables")


def test_columns_that_only_look_like_a_standard_feature_are_named(tmp_path: Path) -> None:
    names = ["heart\u00a0rate", "\u0455po2", "Temperature", "age", "Age", "rate"]
    (tmp_path / "a.csv").write_text(
        f"patient_id,event_time,{','.join(names)}\np,{T},1,2,3,4,5,6\n", encoding="utf-8"
    )
    result = CliRunner().invoke(app, ["replay", "--dry-run", str(tmp_path)], catch_exceptions=False)
    told = [line.partition("; a model")[0] for line in result.stderr.splitlines()]
    assert told == [
        "column 'heart\\xa0rate' is not heart_rate: it has U+00A0 NO-BREAK SPACE in place of _",
        "column '\\u0455po2' is not spo2: it has U+0455 CYRILLIC SMALL LETTER DZE in place of s",
        "column 'Temperature' is not temperature: it has T in place of t",
    ]


def test_other_files_in_a_folder_are_reported_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(WARD)
    for name in "uvwxy":
        (tmp_path / f"{name}.md").write_text("")
    result = CliRunner().invoke(app, ["replay", "--dry-run", "--json", str(tmp_path)], catch_exceptions=False)
    assert result.stderr.startswith("not read: u.md, v.md, w.md and 2 more; files to read end in .csv or ")
    assert json.loads(result.stdout)["messages"] == 4


def test_control_characters_in_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"patient_id,event_time,spo2,\x1b[1m\n\x1b[31mp,{T},\x1b[2J,x\n")
    assert "\x1b" not in dry(tmp_path)

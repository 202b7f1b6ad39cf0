"""A file of any layout is sent exactly as it says, to the last digit, or refused: random small tables and an oracle."""

import gzip
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from producer.replay import encode
from producer.sources import TABLES, SourceError, find_source
from producer.values import NULLS

Table = dict[str, list[Any]]

_REFUSED = object()


def _is_plain_text(text: str) -> bool:
    """Whether a cell with this text can only be text, and not a number or a missing value."""
    try:
        float(text.replace(",", "."))
    except ValueError:
        return text.strip().lower() not in NULLS
    return False


def _columns(rows: int) -> st.SearchStrategy[Table]:
    def lists(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
        return st.lists(values, min_size=rows, max_size=rows)

    text = st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1, max_size=8
    )
    whole = st.integers(-(2**62), 2**62)
    floats = st.floats(allow_nan=False, allow_infinity=False)
    ids = st.one_of(
        lists(text.filter(_is_plain_text) | st.none()),
        lists(st.integers(0, 10**6).map(lambda number: f"{number:07}x")),
        lists(whole),
        lists(st.integers(0, 2**54).map(float) | st.none()),
        lists(floats | st.none()),
    )
    zones: Any = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
    moments = st.datetimes(datetime(1900, 1, 1), datetime(2199, 1, 1), timezones=zones | st.none())
    numbers = lists(floats | st.none()) | lists(whole)
    return st.fixed_dictionaries(
        {"patient_id": ids, "event_time": lists(moments), "x": numbers, "y": numbers}
    )


tables = st.integers(1, 4).flatmap(_columns)


def _csv(delimiter: str) -> Callable[[Path, Table], None]:
    def write(path: Path, table: Table) -> None:
        pd.DataFrame(table | {"event_time": [*map(str, table["event_time"])]}).to_csv(
            path, index=False, sep=delimiter
        )

    return write


def _ndjson(path: Path, table: Table) -> None:
    rows = (dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True))
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows), encoding="utf-8")


def _parquet(path: Path, table: Table) -> None:
    times = [moment.isoformat() for moment in table["event_time"]]
    pq.write_table(pa.table({**table, "event_time": times}), path)


def _parquet_of_pandas(path: Path, table: Table) -> None:
    """Timestamps, if all or none of the times have a zone; nulls turn numbers into floats."""
    moments: Any = table["event_time"]
    if len({moment.tzinfo is None for moment in moments}) == 1:
        moments = pd.to_datetime(pd.Series(moments), utc=moments[0].tzinfo is not None)
    else:
        moments = [*map(str, moments)]
    pd.DataFrame(table | {"event_time": moments}).to_parquet(path)


WRITERS = {
    "a.csv": _csv(","),
    "b.csv": _csv(";"),
    "a.tsv": _csv("\t"),
    "a.ndjson": _ndjson,
    "a.parquet": _parquet,
    "b.parquet": _parquet_of_pandas,
}


def _id(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return None
    return str(int(value)) if abs(value) < 2**53 and value.is_integer() else _REFUSED


def _number(value: Any) -> float | None:
    """What a worker reads: a double."""
    return None if value is None or math.isnan(value) else float(value)


def _instant(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "gzipped"), [(name, gzipped) for name in WRITERS for gzipped in {False, "parquet" not in name}]
)
@settings(max_examples=60, deadline=None)
@given(table=tables)
@example(
    table={
        "patient_id": [10001.0, None],
        "event_time": [datetime(2026, 1, 5)] * 2,
        "x": [80.1, None],
        "y": [1, 2],
    }
)
@example(table={"patient_id": [1.5], "event_time": [datetime(2026, 1, 5)], "x": [None], "y": [2.0**60]})
def test_a_file_is_sent_exactly_or_refused(name: str, gzipped: bool, table: Table) -> None:
    written = pd.DataFrame(table).to_dict("list") if WRITERS[name] not in (_ndjson, _parquet) else table
    ids = [_id(value) for value in written["patient_id"]]
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        WRITERS[name](path, table)
        if gzipped:
            path.with_name(f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        if _REFUSED in ids:
            with pytest.raises(
                SourceError, match="patient_id holds a number that is not an exact whole number"
            ):
                [*find_source([Path(folder)], TABLES)]
            return
        messages = [encode(record) for record in find_source([Path(folder)], TABLES)]
    sent = [orjson.loads(value) for _, value in messages]
    assert [row["patient_id"] for row in sent] == ids
    assert [key for key, _ in messages] == [None if one is None else one.encode() for one in ids]
    times = [datetime.fromisoformat(row["event_time"]) for row in sent]
    assert times == [*map(_instant, table["event_time"])]
    for column in ("x", "y"):
        assert [_number(row[column]) for row in sent] == [*map(_number, table[column])]

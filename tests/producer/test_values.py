"""IDs, times and numbers as files write them: the right value or a refusal, never a guess."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from producer.values import UnreadableError, cell_id, cell_time, ids, instant, number, plain, times


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-05T08:30:00Z",
        "2026-01-05t08:30:00.1234567890123z",
        "2026-01-05T08:30:00.000+01:00",
        "2016-12-31T23:59:60-00:00",
    ],
)
def test_valid_rfc3339_is_passed_on_unchanged(text: str) -> None:
    assert instant(text) == text


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-05 08:30:00+00:00", "2026-01-05T08:30:00+00:00"),
        ("2026-01-05 08:30:00+01", "2026-01-05T08:30:00+01:00"),
        ("2026-01-05 08:30:00 UTC", "2026-01-05T08:30:00Z"),
        ("2026-01-05T08:30:00-0530", "2026-01-05T08:30:00-05:30"),
        (" 2026-01-05T08:30:00Z ", "2026-01-05T08:30:00Z"),
        ("20260105T083000Z", "2026-01-05T08:30:00Z"),
        ("20260105T083000.250+0100", "2026-01-05T08:30:00.250+01:00"),
        ("2026-01-05 08:30:00.123456789", "2026-01-05T08:30:00.123456789Z"),
        ("2026-01-05 08:30", "2026-01-05T08:30:00Z"),
    ],
)
def test_an_unambiguous_time_becomes_rfc3339_and_keeps_its_digits(written: str, read: str) -> None:
    assert instant(written) == read


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-05", "20260105", "2026-W02-1T08:30:00Z", "2026-005T08:30:00Z", "05.01.2026 08:30", "01/05/2026 08:30",
        "2026-02-29T08:30:00Z", "2026-01-05T24:00:00Z", "2026-01-05T08", "2026-01-05T08:30.5Z", "1767601800",
        "2026-01-05 08:30:00 CET", "2026-01-05T08:30:00Z\n2026", "yesterday",
    ],
)  # fmt: skip
def test_no_time_is_guessed(text: str) -> None:
    with pytest.raises(UnreadableError, match="is not a time with one meaning; write RFC 3339"):
        instant(text)


@pytest.mark.parametrize("missing", ["", " ", "NaN", "NaT", "NULL", "<NA>", "#N/A", "None"])
def test_a_missing_cell_is_null_in_every_column(missing: str) -> None:
    assert (cell_id(missing), cell_time(missing), number(missing)) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("10001.0", "10001"),
        (" 10001.00 ", "10001"),
        ("10001.", "10001"),
        ("1e+05", "100000"),  # as R writes it
        ("1.0001E4", "10001"),
        ("-1.0", "-1"),
        ("9007199254740991.0", "9007199254740991"),
    ],
)
def test_an_id_cell_turned_into_a_float_by_nulls_is_restored(text: str, read: str) -> None:
    assert cell_id(text) == read


@pytest.mark.parametrize(
    "text",
    ["007", "10001", "90071992547409930", "007.0", "1.2.840", "12E4", "A-1.0", "1_000.0", "p 1", " p1", "+", "."],
)  # fmt: skip
def test_an_id_cell_that_is_not_a_float_stays_unchanged(text: str) -> None:
    assert cell_id(text) == text


@pytest.mark.parametrize(
    "text", ["1.5", ".5", "10001.10", "1e+29", "1.2345678901234568e+29", "1E-05", "9007199254740992.0", "inf"]
)
def test_an_id_cell_that_could_mean_several_patients_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError, match="write it without decimal point and exponent"):
        cell_id(text)


@pytest.mark.parametrize("text", ["10001,0", "1,234"])
def test_an_id_cell_with_a_comma_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError, match="decimal point"):
        cell_id(text)


@pytest.mark.parametrize(
    ("column", "read"),
    [
        (pa.array([10001.0, None, float("nan"), -0.0]), ["10001", None, None, "0"]),
        (pa.array([2.0**53 - 1]), ["9007199254740991"]),
        (pa.array([2**63 - 1, None]), ["9223372036854775807", None]),
        (
            pa.array([Decimal("123456789012345678901234567890"), None]),
            ["123456789012345678901234567890", None],
        ),
        (pa.array([Decimal("10001.00")]), ["10001"]),
        (pa.array([b"a", None]), ["a", None]),
        (pa.array([b"a"], pa.large_binary()), ["a"]),
        (pa.array([b"a"], pa.binary(1)), ["a"]),
        (pa.array([b"a", None]).dictionary_encode(), ["a", None]),
        (pa.array([10001.0, None]).dictionary_encode(), ["10001", None]),
        (pa.array(["007", None], pa.large_string()), ["007", None]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_an_id_is_exactly_what_the_file_says(column: Any, read: list[str | None]) -> None:
    assert ids(column) == read


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0, 2.0**53]),
        pa.array([1.0, 1.2345678901234568e29]),
        pa.array([1.0, float("inf")]),
        pa.array([1.0, 10.5]),
        pa.array([1.0, 2.0**24], pa.float32()),
        pa.array([Decimal("1.0"), Decimal("1.5")]),
        pa.array([b"a", b"\xff"]),
        pa.array([b"a", b"\xff"], pa.large_binary()),
    ],
)
def test_an_id_that_could_mean_several_patients_is_refused_with_its_row(column: Any) -> None:
    with pytest.raises(UnreadableError, match="write it as text") as error:
        ids(column)
    assert error.value.row == 1


@pytest.mark.parametrize("text", ["nan", "NaN", "None", "<NA>", "null"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_text_made_from_a_missing_id_is_refused(text: str, kind: Any) -> None:
    with pytest.raises(UnreadableError, match="write null") as error:
        ids(pa.array(["nan-1", None, text]).cast(kind))
    assert error.value.row == 2


@pytest.mark.parametrize("column", [pa.array([True]), pa.array([[1]]), pa.array([datetime(2026, 1, 1)])])
def test_an_id_of_another_type_is_refused(column: Any) -> None:
    with pytest.raises(UnreadableError, match="is of type"):
        ids(column)


@pytest.mark.parametrize("text", ["2026-01-05 08:30:00", "2026-01-05T08:30:00.5+0100"])
def test_times_are_read_the_same_in_every_column_type(text: str) -> None:
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        assert times(pa.array([text, None], kind)) == [instant(text), None]
    assert times(pa.array([text, None]).dictionary_encode()) == [instant(text), None]
    assert times(pa.array([text.encode(), None])) == [instant(text), None]


def test_timestamps_keep_their_nanoseconds_and_their_null() -> None:
    nanoseconds = pa.array([1_767_601_800_123_456_789, None], pa.timestamp("ns", "Europe/Berlin"))
    assert times(nanoseconds) == ["2026-01-05T08:30:00.123456789Z", None]
    seconds = pa.array([datetime(2026, 1, 5, 8, 30, tzinfo=UTC), None], pa.timestamp("s"))
    assert times(seconds) == ["2026-01-05T08:30:00.000000Z", None]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([None, date(2026, 1, 5)]),
        pa.array([None, 1_767_601_800]),
        pa.array([None, "2026-01-05"]),
        pa.array([None, 10**14], pa.timestamp("s")),
    ],
)
def test_an_unreadable_time_stops_at_its_row_or_is_passed_on(column: Any) -> None:
    with pytest.raises(UnreadableError, match="RFC 3339") as error:
        times(column)
    assert error.value.row == 1
    assert times(column, keep_going=True) == plain(column)


def test_decimals_are_exact() -> None:
    for digits in (1, 2):
        exact = [Decimal(n).scaleb(-digits) for n in range(20_000)]
        for kind in (pa.decimal128(7, digits), pa.decimal256(40, digits)):
            assert plain(pa.array(exact, kind)) == [float(value) for value in exact]
    whole = plain(pa.array([Decimal(80), None], pa.decimal128(6, 0)))
    assert (whole, type(whole[0])) == ([80, None], int)


@pytest.mark.parametrize("text", ["36,6", "1,234", "-0,5", "1,234,567"])
def test_a_number_with_a_comma_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError, match="decimal point"):
        number(text)


@pytest.mark.parametrize("text", ["True", "true", " TRUE", "False", "false", "FALSE"])
def test_a_cell_that_says_true_or_false_is_a_boolean(text: str) -> None:
    assert number(text) is (text.strip().lower() == "true")


@pytest.mark.parametrize("text", ["-", "?", ">200", "high", "1_000", "T", "yes", "tRUE"])
def test_a_cell_that_is_not_a_number_stays_text(text: str) -> None:
    assert number(text) == text

"""Patients' state as rows arrive: undone to the last bit, kept as bytes, dropped by partition."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_time.history import PatientHistory, Patients, Window
from real_time.history.records import (
    CorruptStateError,
    NewerStateError,
    OtherRecipeError,
    StateRecords,
)
from real_time.history.rows import Rows, encounter_number
from tests.real_time.test_history import PYTHON

NAN = math.nan
MINUTE = 60_000_000
VALUES = [NAN, -0.0, 0.0, math.inf, -math.inf, 80.1, 80.2, 1e300]
COLUMNS = ["p", "q"]
FITTED = PatientHistory(
    {"p": "1h", "q": "2h"}, windows=[Window("2h", "30min"), Window("5h")], forget_after="6h"
).fit(
    pd.DataFrame(
        {"patient_id": ["a"], "event_time": ["2026-01-05T08:00:00Z"], "p": 1.0, "q": 2.0, "encounter_id": "x"}
    )
)

Row = tuple[str, int, float, float, str | None]
"""Patient, minutes, two values, encounter."""

ROW = st.tuples(
    st.sampled_from("abc"),
    st.integers(0, 600),
    st.sampled_from(VALUES),
    st.sampled_from(VALUES),
    st.sampled_from([None, "x", "y"]),
)
CHUNKS = st.lists(st.lists(ROW, min_size=1, max_size=6), min_size=1, max_size=6)


def rows(*told: Row) -> Rows:
    return Rows(
        [patient for patient, *_ in told],
        np.array([minutes * MINUTE for _, minutes, *_ in told], float),
        np.array([[p, q] for _, _, p, q, _ in told], float).reshape(-1, 2),
        np.array([encounter_number(encounter) for *_, encounter in told], float),
    )


def bits(patients: Patients, partition: int = 0) -> dict[Any, bytes]:
    """What is known about each patient."""
    found, state = patients.of(partition)
    return {patient: row.tobytes() for patient, row in zip(found, state, strict=True)}


def applied(patients: Patients, chunks: Sequence[Sequence[Row]]) -> list[bytes]:
    pasts = [patients.apply(rows(*chunk)) for chunk in chunks]
    return [part.tobytes() for past in pasts for part in (past.features, past.ages, past.seen)]


# --- undone


@given(CHUNKS, CHUNKS)
@settings(max_examples=80, deadline=None)
def test_a_rollback_leaves_no_trace(kept: list[list[Row]], undone: list[list[Row]]) -> None:
    patients = FITTED.start()
    applied(patients, kept)
    patients.commit()
    before, known = bits(patients), len(patients)
    first = applied(patients, undone)
    patients.rollback()
    assert bits(patients) == before
    assert len(patients) == known
    assert patients.changed()[0] == []
    assert applied(patients, undone) == first, "rows applied again count once"
    patients.commit()
    whole = FITTED.start()
    applied(whole, [*kept, *undone])
    assert bits(patients) == bits(whole)


def test_a_rollback_restores_each_patient_from_before_the_first_of_several_chunks() -> None:
    patients = FITTED.start()
    patients.apply(rows(("a", 0, 1, 1, None)))
    patients.commit()
    before = bits(patients)
    for minutes in (1, 2, 3):
        patients.apply(rows(("a", minutes, minutes, 1, None), ("a", minutes, NAN, 2, None)))
    assert [patient for _, patient in patients.changed()[0]] == ["a"]
    patients.rollback()
    assert bits(patients) == before


def test_only_what_changed_since_the_last_commit_is_written() -> None:
    patients = FITTED.start()
    patients.apply(rows(("a", 0, 1, 1, None), ("b", 0, 1, 1, None)), [3, 5])
    patients.commit()
    patients.apply(rows(("c", 1, 1, 1, None), ("a", 1, 1, 1, None), ("a", 2, 1, 1, None)), [5, 3, 3])
    changed, state = patients.changed()
    assert sorted(changed) == [(3, "a"), (5, "c")]
    assert state[changed.index((3, "a"))].tobytes() == bits(patients, 3)["a"]


@given(st.lists(ROW, min_size=1, max_size=25))
@settings(max_examples=40, deadline=None)
def test_python_and_numba_keep_the_same_state(told: list[Row]) -> None:
    compiled, python = FITTED.start(), FITTED.start()
    python._fold = PYTHON.fold
    assert applied(compiled, [told]) == applied(python, [told])
    assert bits(compiled) == bits(python)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_one_patient_may_have_half_of_the_rows(size: int) -> None:
    random = np.random.default_rng(5)
    told: list[Row] = [
        (
            "hot" if random.random() < 0.5 else f"p-{random.integers(30)}",
            int(random.integers(600)),
            *random.choice(VALUES, 2).tolist(),
            None,
        )
        for _ in range(300)
    ]
    whole, chunked = FITTED.start(), FITTED.start()
    applied(whole, [told])
    applied(chunked, [told[at : at + size] for at in range(0, len(told), size)])
    assert bits(whole) == bits(chunked)


# --- what results say about it


def test_each_row_comes_with_rows_seen_and_ages() -> None:
    past = FITTED.start().apply(
        rows(("a", 0, 80, NAN, None), ("a", 30, NAN, 37, None), ("a", 20, NAN, NAN, None))
    )
    np.testing.assert_array_equal(past.seen, [[1, 0], [2, 30 * MINUTE], [3, 30 * MINUTE]])
    np.testing.assert_array_equal(past.ages, [[0, NAN], [30 * MINUTE, 0], [30 * MINUTE, 0]])


def test_rows_too_late_for_their_bucket_are_counted() -> None:
    patients = FITTED.start()
    past = patients.apply(rows(("a", 600, 1, 1, None), ("a", 560, 1, 1, None), ("a", 460, 1, 1, None)))
    assert past.late == patients.late == 1


# --- partitions


def test_the_matrix_grows_by_a_sixteenth_and_never_by_more_than_16_megabytes() -> None:
    patients = FITTED.start()
    sizes = [0]
    for number in range(0, 80_000, 500):
        names = [f"p-{number + one}" for one in range(500)]
        patients.restore(0, names, np.ones((500, patients.layout.cells)))
        if patients.nbytes > sizes[-1]:
            sizes.append(patients.nbytes)
    added = 8 * 500 * patients.layout.cells  # needed at once, and the rest is in advance
    steps = [after - before for before, after in pairwise(sizes)]
    assert all(
        step <= added + max(1 << 20, min(before // 16, 1 << 24))
        for before, step in zip(sizes, steps, strict=False)
    )
    assert len(steps) < 80_000 / 500 / 2, "not at each message"


def test_dropping_a_partition_drops_its_patients() -> None:
    patients = FITTED.start()
    patients.apply(rows(("a", 0, 1, 1, None), ("b", 0, 1, 1, None), ("c", 0, 1, 1, None)), [1, 2, 1])
    patients.commit()
    kept = bits(patients, 2)
    patients.drop(1)
    assert len(patients) == 1
    assert bits(patients, 2) == kept
    patients.apply(rows(("c", 1, NAN, NAN, None), ("d", 1, 1, 1, None), ("b", 1, 1, 1, None)), [1, 1, 2])
    fresh = FITTED.start()
    fresh.apply(rows(("c", 1, NAN, NAN, None), ("d", 1, 1, 1, None)), [1, 1])
    assert bits(patients, 1) == bits(fresh, 1), "nothing is left of the patient who used the slot before"


def test_a_patient_of_two_partitions_has_two_histories() -> None:
    patients = FITTED.start()
    past = patients.apply(rows(("a", 0, 1, 1, None), ("a", 1, 1, 1, None)), [1, 2])
    assert past.seen[:, 0].tolist() == [1, 1]


def test_restoring_a_partition_keeps_uncommitted_rows_undoable() -> None:
    patients = FITTED.start()
    patients.apply(rows(("a", 0, 1, 1, None)), [1])
    patients.restore(2, *FITTED_OF_B)
    patients.rollback()
    assert bits(patients, 1) == {}
    assert [*bits(patients, 2)] == ["b"]


def _of_b() -> tuple[list[Any], Any]:
    patients = FITTED.start()
    patients.apply(rows(("b", 3, -0.0, NAN, "x")))
    return patients.of(0)


FITTED_OF_B = _of_b()


# --- as bytes


def records() -> StateRecords:
    return StateRecords(FITTED.start().layout, FITTED.recipe_sha256)


@given(CHUNKS, CHUNKS)
@settings(max_examples=40, deadline=None)
def test_state_restored_from_bytes_continues_with_the_same_bits(
    before: list[list[Row]], after: list[list[Row]]
) -> None:
    kept, restored = FITTED.start(), FITTED.start()
    applied(kept, before)
    changed, state = kept.changed()
    kept.commit()
    values = records().encode(state)
    restored.restore(0, [patient for _, patient in changed], records().decode(values))
    assert bits(restored) == bits(kept)
    assert applied(restored, after) == applied(kept, after)


def test_the_layout_of_a_state_value_is_fixed() -> None:
    (value,) = records().encode(FITTED_OF_B[1])
    assert value[:8] == b"patient\x01"
    assert value[8:40].hex() == FITTED.recipe_sha256
    assert value[40:] == FITTED_OF_B[1].astype("<f8").tobytes()


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        (lambda value: b"", CorruptStateError, "something other than the state of a patient"),
        (lambda value: b"{}" * 200, CorruptStateError, "something other than the state of a patient"),
        (lambda value: value[:-8], CorruptStateError, r"a state in it has \d+ bytes, not \d+"),
        (lambda value: value + value, CorruptStateError, r"a state in it has \d+ bytes, not \d+"),
        (lambda value: b"patient\x02" + value[8:], NewerStateError, "of version 2, .* reads version 1"),
        (lambda value: b"patient\x02", NewerStateError, "of version 2, .* reads version 1"),
        (
            lambda value: value[:8] + bytes(32) + value[40:],
            OtherRecipeError,
            "of recipe 000000000000, and the model's history has recipe [0-9a-f]{12}",
        ),
    ],
)
def test_a_state_value_of_another_recipe_is_refused(change: Any, error: Any, problem: str) -> None:
    (good,) = records().encode(FITTED_OF_B[1])
    with pytest.raises(error, match=problem):
        records().decode([good, change(good)])


def test_no_values_are_no_rows() -> None:
    assert records().decode([]).shape == (0, FITTED.start().layout.cells)
    assert records().encode(np.zeros((0, FITTED.start().layout.cells))) == []

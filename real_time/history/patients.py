"""The state of every patient while rows arrive: one row of numbers per patient, with rollback to the last commit."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from real_time.compiled import Floats
from real_time.history.recipe import LATE, Layout
from real_time.history.rows import Rows, rows_of

_STEP_BYTES: Final = 1 << 20
_LONGEST_STEP_BYTES: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Past:
    """What is known about each row's patient, the row itself included."""

    features: Floats
    """Rows by the recipe's output columns."""
    ages: Floats
    """Rows by input columns: microseconds since the column's last value, NaN if there was none."""
    seen: Floats
    """Rows by two: the patient's row count, and the microseconds since its first row."""
    late: int
    """How many rows were too late for a window's bucket."""


class Patients:
    """The state of each patient so far.

    Each patient belongs to a partition, and `drop` forgets a whole partition; a frame counts as one. `rollback` undoes
    all rows since the last `commit`, to the last bit.
    """

    def __init__(self, layout: Layout, *, has_encounters: bool) -> None:
        # Imported here, so that only models with a history wait for numba.
        from real_time.history.fold import fold

        self.layout = layout
        self._fold = fold
        self.has_encounters = has_encounters
        self._names = pd.Index(layout.names)
        self._recipe = layout.arrays()
        self._index: defaultdict[int, dict[Any, int]] = defaultdict(dict)  # by partition, a patient's place
        self._patients: list[Any] = []  # by place
        self._partitions: list[int] = []  # by place
        self._free: list[int] = []
        self._state = np.zeros((0, layout.cells))  # by place; free places are all zeros
        self._touched = np.zeros(0, np.bool_)  # by place, since the last commit
        self._undo: list[tuple[np.ndarray, Floats]] = []  # places, and their rows before the first change
        self._added: list[int] = []  # places of new patients since the last commit

    def __len__(self) -> int:
        return len(self._patients) - len(self._free)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the rows take."""
        return self._state.nbytes

    @property
    def late(self) -> int:
        """How many of these patients' rows were too late for a window's bucket."""
        return int(self._state[:, LATE].sum())

    def advance(self, X: pd.DataFrame) -> pd.DataFrame:
        """Fold in the rows of X and commit; return each row's history features on the index of X."""
        past = self.apply(rows_of(X, self.layout.columns, has_encounters=self.has_encounters))
        self.commit()
        return pd.DataFrame(past.features, index=X.index, columns=self._names, copy=False)

    def apply(self, rows: Rows, partitions: Sequence[int] | None = None) -> Past:
        """Fold in rows in order; `partitions` has each row's partition if there are several."""
        places = self._places(rows.patients, [0] * len(rows) if partitions is None else partitions)
        self._remember(places)
        count, columns = len(rows), len(self.layout.columns)
        past = Past(
            np.empty((count, len(self._names))), np.empty((count, columns)), np.empty((count, 2)), late=0
        )
        late = self._fold(
            self._state,
            places,
            rows.times,
            rows.values,
            rows.encounters,
            *self._recipe,
            float(self.layout.forget_after),
            past.features,
            past.ages,
            past.seen,
        )
        return Past(past.features, past.ages, past.seen, late)

    # --- changes since the last commit

    def changed(self) -> tuple[list[tuple[int, Any]], Floats]:
        """Partition and patient of each state row that changed since the last commit, and those rows."""
        places = self._changed()
        changed = [(self._partitions[place], self._patients[place]) for place in places]
        return changed, self._state[places]

    def commit(self) -> None:
        """Keep all changes since the last commit."""
        self._touched[self._changed()] = False
        self._undo.clear()
        self._added.clear()

    def rollback(self) -> None:
        """Undo all changes since the last commit."""
        for places, before in self._undo:
            self._state[places] = before
        self._remove(self._added)
        self.commit()

    # --- partitions

    def restore(self, partition: int, patients: Sequence[Any], rows: Floats) -> None:
        """Set the state of distinct patients to rows that `changed` returned earlier."""
        added = [*self._added]
        self._state[self._places(patients, [partition] * len(patients))] = rows
        self._added = added  # restored patients are already committed

    def remove(self, partition: int, patients: Iterable[Any]) -> None:
        """Forget patients."""
        index = self._index[partition]
        self._remove([index[one] for one in patients if one in index])

    def drop(self, partition: int) -> None:
        """Forget all patients of a partition. Commit or roll back first."""
        self._remove([*self._index.pop(partition, {}).values()])

    def count(self, partition: int) -> int:
        """Number of patients in a partition."""
        return len(self._index[partition])

    def of(self, partition: int) -> tuple[list[Any], Floats]:
        """A partition's patients and their state rows."""
        index = self._index[partition]
        return [*index], self._state[[*index.values()]]

    # --- places

    def _places(self, patients: Sequence[Any], partitions: Sequence[int]) -> np.ndarray:
        known = map(dict.__getitem__, map(self._index.__getitem__, partitions), patients)
        try:
            return np.fromiter(known, np.int64, len(patients))
        except KeyError:  # rare: a new patient
            places = np.fromiter(map(self._place, partitions, patients), np.int64, len(patients))
        if len(self._patients) > len(self._state):
            self._grow()
        return places

    def _place(self, partition: int, patient: Any) -> int:
        place = self._index[partition].get(patient)
        return self._add(partition, patient) if place is None else place

    def _add(self, partition: int, patient: Any) -> int:
        if self._free:
            place = self._free.pop()
            self._patients[place], self._partitions[place] = patient, partition
        else:
            place = len(self._patients)
            self._patients.append(patient)
            self._partitions.append(partition)
        self._index[partition][patient] = place
        self._added.append(place)
        return place

    def _grow(self) -> None:
        """Grow by a bounded number of bytes: a large matrix moves cheaply (remapped), but new rows must be zeroed."""
        cells = self.layout.cells
        step = min(max(_STEP_BYTES, self._state.nbytes // 16), _LONGEST_STEP_BYTES) // (8 * cells)
        size = len(self._patients) + step
        self._state.resize((size, cells), refcheck=False)
        self._touched.resize(size, refcheck=False)

    def _remember(self, places: np.ndarray) -> None:
        """Save the rows of patients that are about to change for the first time since the last commit."""
        self._touched[self._added] = True
        untouched = np.unique(places[~self._touched[places]])
        if len(untouched):
            self._undo.append((untouched, self._state[untouched]))
            self._touched[untouched] = True

    def _changed(self) -> np.ndarray:
        return np.concatenate([np.array(self._added, np.int64), *(places for places, _ in self._undo)])

    def _remove(self, places: Sequence[int]) -> None:
        self._state[[*places]] = 0
        for place in places:
            self._index[self._partitions[place]].pop(self._patients[place], None)
            self._patients[place] = None
        self._free += places

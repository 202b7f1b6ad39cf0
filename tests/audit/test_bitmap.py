"""The bitmap behaves like a set of integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from audit.bitmap import Bitmap

SIZE = 203  # not a multiple of eight
members = st.lists(st.integers(0, SIZE - 1), max_size=40)
bounds = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE))


def ints(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def bitmap_of(values: set[int]) -> Bitmap:
    bitmap = Bitmap(SIZE)
    bitmap.add(ints([*values]))
    return bitmap


class BitmapAndSet(RuleBasedStateMachine):
    """A bitmap and a set give the same answers after any operations."""

    def __init__(self) -> None:
        super().__init__()
        self.bitmap, self.model = Bitmap(SIZE), set[int]()

    @rule(values=members)
    def add(self, values: list[int]) -> None:
        expected, seen = [], set(self.model)
        for value in values:
            expected.append(value in seen)
            seen.add(value)
        assert self.bitmap.add(ints(values)).tolist() == expected
        self.model = seen

    @rule(bounds=bounds)
    def add_range(self, bounds: tuple[int, int]) -> None:
        self.bitmap.add_range(*bounds)
        self.model |= {*range(*bounds)}

    @rule(bounds=bounds)
    def clear_range(self, bounds: tuple[int, int]) -> None:
        self.bitmap.clear_range(*bounds)
        self.model -= {*range(*bounds)}

    @rule(bounds=bounds)
    def ask_a_range(self, bounds: tuple[int, int]) -> None:
        inside = self.model & {*range(*bounds)}
        assert self.bitmap.count(*bounds) == len(inside)
        assert self.bitmap.last(*bounds) == max(inside, default=None)

    @rule(limit=st.integers(0, 60))
    def ask_for_the_first(self, limit: int) -> None:
        assert self.bitmap.first(limit).tolist() == sorted(self.model)[:limit]

    @invariant()
    def same_members(self) -> None:
        assert self.bitmap.count() == len(self.model)
        everything = ints([*range(SIZE)])
        assert np.flatnonzero(self.bitmap.has(everything)).tolist() == sorted(self.model)


TestBitmap = BitmapAndSet.TestCase
TestBitmap.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.bitmap._BLOCK", 3)
    monkeypatch.setattr("audit.bitmap._SHORT", 50)


@given(st.sets(st.integers(0, SIZE - 1)), st.sets(st.integers(0, SIZE - 1)))
def test_union_intersection_difference(a: set[int], b: set[int]) -> None:
    for bitmap, expected in (
        (bitmap_of(a) | bitmap_of(b), a | b),
        (bitmap_of(a) & bitmap_of(b), a & b),
        (bitmap_of(a) - bitmap_of(b), a - b),
    ):
        assert bitmap.first(SIZE).tolist() == sorted(expected)
        assert bitmap.count() == len(expected)

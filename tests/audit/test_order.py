"""Order: in each output partition, the offsets of an input partition only increase."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from audit.outputs import Order

records = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 9)), max_size=40)


@given(st.lists(records, max_size=4))
def test_an_offset_not_above_the_one_before_is_late(batches: list[list[tuple[int, int, int]]]) -> None:
    order = Order(outputs=3, inputs=4)
    last: dict[tuple[int, int], int] = {}
    for batch in batches:
        expected = []
        for output, source, offset in batch:
            expected.append(offset <= last.get((output, source), -1))
            last[output, source] = offset
        columns = np.array(batch, dtype=np.int64).reshape(-1, 3).T
        assert order.feed(*columns).tolist() == expected

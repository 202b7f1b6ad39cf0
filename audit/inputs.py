"""The pass over the input topic: which messages exist."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from audit.bitmap import Bitmap, Ints
from audit.outputs import Outputs
from audit.reading import Batch
from audit.scope import Scope


class Check(Protocol):
    """Examines messages further."""

    def check(self, batch: Batch, numbers: Ints) -> None:
        """Examine a batch of messages that have these numbers in the scope."""


class Unanswered:
    """Records which messages may have had a result or dead letter that was deleted."""

    def __init__(self, outputs: Sequence[Outputs]) -> None:
        self._outputs = outputs

    def check(self, batch: Batch, numbers: Ints) -> None:
        """Examine a batch of messages that have these numbers."""
        answered = np.zeros(len(numbers), dtype=np.bool_)
        for one in self._outputs:
            answered |= one.messages.has(numbers)
        rows = np.flatnonzero(~answered)
        for one in self._outputs:
            lacking = rows[one.heads.may_lack(batch, rows)]
            one.lacking.add(numbers[lacking])


class Inputs:
    """The messages of the input topic that are in scope."""

    def __init__(self, *, scope: Scope, checks: Sequence[Check]) -> None:
        self.messages = Bitmap(scope.size)
        self._scope = scope
        self._checks = checks

    def __call__(self, batch: Batch) -> None:
        """Add a batch; all of it is in scope."""
        numbers = self._scope.numbers(batch.partitions, batch.offsets)
        self.messages.add(numbers)
        for one in self._checks:
            one.check(batch, numbers)

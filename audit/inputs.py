"""The pass over the input topic: which messages there are."""

from typing import Protocol

from audit.bitmap import Bitmap, Ints
from audit.reading import Batch
from audit.scope import Scope


class Check(Protocol):
    """Looks closer at messages."""

    def check(self, batch: Batch, numbers: Ints) -> None:
        """Look at a batch of messages that have these numbers in the scope."""


class Inputs:
    """The messages of the input topic that are in scope."""

    def __init__(self, *, scope: Scope, check: Check | None) -> None:
        self.messages = Bitmap(scope.size)
        self._scope = scope
        self._check = check

    def __call__(self, batch: Batch) -> None:
        """Take a batch in; all of it is in scope."""
        numbers = self._scope.numbers(batch.partitions, batch.offsets)
        self.messages.add(numbers)
        if self._check is not None:
            self._check.check(batch, numbers)

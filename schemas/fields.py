"""Columns out of documents: for each field, what every message has there."""

from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

ABSENT: Final = object()
"""What a message has in a field it does not have at all."""


def field(name: str, documents: Sequence[dict[str, Any]]) -> list[Any]:
    """One field of every document; ABSENT where there is none."""
    try:
        return [document[name] for document in documents]
    except KeyError:
        return [document.get(name, ABSENT) for document in documents]


class Features:
    """Reads the features of a model, in which absent and null are the same: None."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._row = itemgetter(*names) if len(names) > 1 else lambda document: (document[names[0]],)

    def __call__(self, documents: Sequence[dict[str, Any]]) -> list[Any]:
        """All features of all documents, row by row."""
        try:
            return [*chain.from_iterable(map(self._row, documents))]
        except KeyError:
            return [document.get(name) for document in documents for name in self._names]

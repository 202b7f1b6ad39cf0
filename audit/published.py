"""What was published for each message, kept on disk until the message itself is read."""

import tempfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import orjson

from audit.bitmap import Ints

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Places: TypeAlias = np.ndarray[Any, np.dtype[np.uint16]]
UInts: TypeAlias = np.ndarray[Any, np.dtype[np.uint32]]


class Published:
    """For each message in scope, what its result and its dead letter say, in sparse files.

    Results take eighteen bytes: the probability, a fingerprint of everything else copied from the message, one of what
    is reported about the patient's past, and which of the `models` (given by their hashes) made it. Dead letters take
    eight: fingerprints of what they copied from the message, and of their cause. Without models, nothing is kept of
    results; otherwise, of those read with `mapping`. `unknown` counts the results of other models by the hash they
    name.
    """

    def __init__(self, size: int, *, models: Sequence[str], mapping: str | None) -> None:
        self.keeps_results = bool(models)
        self.mapping = mapping
        self.unknown: Counter[str] = Counter()
        self._models = {sha256: place for place, sha256 in enumerate(models, 1)}
        self._folder = tempfile.TemporaryDirectory(prefix="vitalstream-audit-")
        self._probabilities = self._file("probabilities", np.float64, size)
        self._carried = self._file("carried", np.uint32, size)
        self._pasts = self._file("pasts", np.uint32, size)
        self._by = self._file("models", np.uint16, size)
        self._contents = self._file("contents", np.uint32, size)
        self._causes = self._file("causes", np.uint32, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._probabilities, self._carried, self._pasts, self._by, self._contents, self._causes
        self._folder.cleanup()

    def add_results(
        self,
        numbers: Ints,
        probabilities: Floats,
        *,
        carried: UInts,
        pasts: UInts,
        models: Sequence[str],
    ) -> None:
        """Keep what results say; NaN stands for null. `models` are the hashes they name."""
        self._probabilities[numbers] = probabilities
        self._carried[numbers] = carried
        self._pasts[numbers] = pasts
        self._by[numbers] = [self._models.get(sha256, 0) for sha256 in models]
        self.unknown.update(sha256 for sha256 in models if sha256 not in self._models)

    def add_letters(self, numbers: Ints, *, contents: Sequence[int], causes: Sequence[int]) -> None:
        """Keep the fingerprints of dead letters."""
        self._contents[numbers] = contents
        self._causes[numbers] = causes

    def probabilities(self, numbers: Ints) -> Floats:
        """What the results say."""
        return np.array(self._probabilities[numbers])

    def by(self, numbers: Ints) -> Places:
        """Which of the models made each result, counted from 1; 0 for another model or no result."""
        return np.array(self._by[numbers])

    def carried(self, numbers: Ints) -> UInts:
        """The fingerprints of what the results copied from their messages."""
        return np.array(self._carried[numbers])

    def pasts(self, numbers: Ints) -> UInts:
        """The fingerprints of what the results say about patients' pasts."""
        return np.array(self._pasts[numbers])

    def contents(self, numbers: Ints) -> UInts:
        """The fingerprints of what the dead letters copied from their messages."""
        return np.array(self._contents[numbers])

    def causes(self, numbers: Ints) -> UInts:
        """The fingerprints of the dead letters' causes."""
        return np.array(self._causes[numbers])

    def _file(self, name: str, dtype: Any, size: int) -> Any:
        path = Path(self._folder.name) / name
        return np.memmap(path, dtype=dtype, mode="w+", shape=(max(1, size),))


def fingerprints(keys: Sequence[bytes | None], *columns: Sequence[Any]) -> UInts:
    """A fingerprint for each row of keys and columns, which hold what results say about their messages."""
    codes = (
        zlib.crc32(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS), zlib.crc32(key or b""))
        for key, *rest in zip(keys, *columns, strict=True)
    )
    return np.fromiter(codes, np.uint32, len(keys))


def past_fingerprints(told: Sequence[Any]) -> UInts:
    """A fingerprint of what each result says about its patient's past."""
    return fingerprints([None] * len(told), told)

"""What was published of each message, kept on disk until the message itself is read."""

import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import numpy as np
import orjson

from audit.bitmap import Bitmap, Bools, Ints
from schemas.contract import Reason

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
UInts: TypeAlias = np.ndarray[Any, np.dtype[np.uint32]]

REASONS: Final = [*Reason]


class Published:
    """By message in scope: the probability in its result, and a remark. Twelve bytes each, in a sparse file.

    The remark of a result is the fingerprint of all it holds of its message, of a dead letter the index of its
    reason. `comparable` are the results by the model `sha256`.
    """

    def __init__(self, size: int, *, sha256: str) -> None:
        self.sha256 = sha256
        self.comparable = Bitmap(size)
        self._folder = tempfile.TemporaryDirectory(prefix="vitalstream-audit-")
        self._probabilities = self._file("probabilities", np.float64, size)
        self._remarks = self._file("remarks", np.uint32, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._probabilities, self._remarks
        self._folder.cleanup()

    def add_results(
        self,
        numbers: Ints,
        probabilities: Floats,
        *,
        remarks: UInts,
        comparable: Bools,
    ) -> None:
        """Keep what results say; NaN stands for null."""
        self._probabilities[numbers] = probabilities
        self._remarks[numbers] = remarks
        self.comparable.add(numbers[comparable])

    def add_reasons(self, numbers: Ints, reasons: Sequence[Reason]) -> None:
        """Keep what dead letters say."""
        self._remarks[numbers] = [REASONS.index(reason) for reason in reasons]

    def probabilities(self, numbers: Ints) -> Floats:
        """What the results say."""
        return np.array(self._probabilities[numbers])

    def remarks(self, numbers: Ints) -> UInts:
        """Fingerprints of results, indices into REASONS of dead letters."""
        return np.array(self._remarks[numbers])

    def _file(self, name: str, dtype: Any, size: int) -> Any:
        path = Path(self._folder.name) / name
        return np.memmap(path, dtype=dtype, mode="w+", shape=(max(1, size),))


def fingerprints(keys: Sequence[bytes | None], *columns: Sequence[Any]) -> UInts:
    """A number for each row of keys and columns: of patient, time and implausible features."""
    codes = (
        zlib.crc32(orjson.dumps(rest), zlib.crc32(key or b""))
        for key, *rest in zip(keys, *columns, strict=True)
    )
    return np.fromiter(codes, np.uint32, len(keys))

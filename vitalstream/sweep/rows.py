"""The rows of a sweep: a file's or simulated ones, as messages, and as the frame a worker makes of them."""

from collections.abc import Iterable, Sequence
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

from broker.errors import SettingsError
from producer.replay import encode
from producer.sources import Reader, Record, find_source
from producer.ward import FRAME_START, Ward, record
from schemas.contract import STANDARD_FEATURES
from schemas.messages import plain
from schemas.vitals import Decoder

_PATIENTS, _INTERVAL_S = 200, 900


def load_records(
    data: Path | None, readers: dict[str, Reader], *, features: Sequence[str], rows: int
) -> list[Record]:
    """So many rows with all the features: of `data`, over and over if it has fewer, else simulated.

    Raises:
        SettingsError: there are no such rows; says which features are lacking.
        SourceError: `data` is malformed.
    """
    if data is None:
        _require(features, STANDARD_FEATURES, "simulated patients have no", "give rows with --data FILE")
        readings = Ward(patients=_PATIENTS).readings(FRAME_START, _INTERVAL_S)
        return [record(reading) for reading in islice(readings, rows)]
    found = [*islice(find_source([data], readers), rows)]
    if not found:
        raise SettingsError(f"--data: {data} has no rows")
    known = set(chain.from_iterable(found))
    _require(features, known, f"--data: {data} has no", "the model needs each of its features")
    return [*islice(cycle(found), rows)]


def load_frame(records: Sequence[Record], decode: Decoder) -> Any:
    """The records as the DataFrame a worker would score; those it would reject are left out."""
    return decode(plain(value for _, value in map(encode, records))).frame


def _require(features: Sequence[str], known: Iterable[str], problem: str, remedy: str) -> None:
    missing = sorted({*features} - {*known})
    if missing:
        raise SettingsError(f"{problem} {', '.join(missing)}; {remedy}")

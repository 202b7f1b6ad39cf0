"""The rows of a sweep, from a file or simulated, as messages."""

from collections.abc import Iterable, Sequence
from itertools import chain, cycle, islice
from pathlib import Path

import orjson
import pandas as pd

from broker.errors import SettingsError
from broker.settings import Settings
from producer.replay import encode
from producer.samples import load_sample
from producer.sources import Reader, find_source
from producer.ward import FRAME_START, Ward, record
from schemas.contract import STANDARD_FEATURES
from schemas.encoding import make_encoder, make_splitter
from schemas.messages import plain
from schemas.vitals import Decoder

_PATIENTS, _INTERVAL_S = 200, 900


Messages = list[tuple[bytes | None, bytes]]
"""Keys and values."""


def load_rows(
    data: Path | None, readers: dict[str, Reader], *, features: Sequence[str], rows: int
) -> Messages:
    """`count` rows with all the features: from `data`, repeated if it has fewer, else simulated.

    Raises:
        SettingsError: the rows lack features of the model; the message names them.
        SourceError: `data` is malformed.
    """
    if data is None:
        _require(features, STANDARD_FEATURES, "simulated patients have no", "give rows with --data FILE")
        readings = Ward(patients=_PATIENTS).readings(FRAME_START, _INTERVAL_S)
        return [encode(record(reading)) for reading in islice(readings, rows)]
    found = [*islice(find_source([data], readers), rows)]
    if not found:
        raise SettingsError(f"--data: {data} has no rows")
    known = set(chain.from_iterable(found))
    _require(features, known, f"--data: {data} has no", "the model needs each of its features")
    return [*map(encode, islice(cycle(found), rows))]


def written(settings: Settings, rows: Messages) -> Messages:
    """As many messages as rows, in the format and mapping of these settings.

    Raises:
        SettingsError: the rows can't be written so.
        RegistryError: the schema registry does not answer.
    """
    write, split = make_encoder(settings), make_splitter(settings)
    messages = ((key, write(one)) for key, row in rows for one in split([orjson.loads(row)]))
    return [*islice(messages, len(rows))]


def load_messages(data: Path, decode: Decoder, *, rows: int, value_format: str) -> Messages:
    """`count` messages in the mapping's shape from `data`, repeated if it has fewer; rejected ones are left out.

    Raises SettingsError if there are none.
    """
    if decode.reads_headers:
        raise SettingsError("--mapping reads headers, which the messages of --data don't have; leave one out")
    values = load_sample(data, option="--data", most=rows, value_format=value_format)
    decoded = decode(plain(values))
    accepted = zip(decoded.patient_ids, decoded.frame.index, strict=True)
    found = [(patient.encode(), values[position]) for patient, position in accepted]
    if not found:
        raise SettingsError(
            f"--data: {data} has no message that the mapping reads; see vitalstream mapping check"
        )
    return [*islice(cycle(found), rows)]


def load_frame(messages: Messages, decode: Decoder) -> pd.DataFrame:
    """The rows that a worker would score; messages it would reject are left out."""
    return decode(plain(value for _, value in messages)).frame


def _require(features: Sequence[str], known: Iterable[str], problem: str, remedy: str) -> None:
    missing = sorted({*features} - {*known})
    if missing:
        raise SettingsError(f"{problem} {', '.join(missing)}; {remedy}")

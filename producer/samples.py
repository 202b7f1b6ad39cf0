"""Files of messages as they stand on a topic: one a line, or one alone that may be of several lines."""

from codecs import BOM_UTF8
from itertools import islice
from pathlib import Path

import orjson

from broker.errors import SettingsError


def load_sample(file: Path, *, option: str, most: int) -> list[bytes]:
    """The first messages of a file, `most` at most, as they are there.

    Raises SettingsError, naming `option`, where it can't be read or has none.
    """
    try:
        with file.open("rb") as lines:
            found = [line.strip() for line in islice(lines, most)]
            rest = lines.read(1) if len(found) == most else b""
    except OSError as error:
        raise SettingsError(f"{option} {file}: {(error.strerror or '').lower()}; check the path") from None
    found = [line for line in found if line]
    if not found:
        raise SettingsError(f"{option} {file} has no messages; write one a line")
    found[0] = found[0].removeprefix(BOM_UTF8)
    whole = b"\n".join(found)
    return [whole] if not rest and len(found) > 1 and _is_one(whole) else found


def _is_one(text: bytes) -> bool:
    """Whether it is one JSON object; lines of several are none."""
    try:
        return isinstance(orjson.loads(text), dict)
    except ValueError:
        return False

"""Samples of messages: the newest of a topic, or those in a file."""

import re
from codecs import BOM_UTF8
from itertools import chain, islice
from pathlib import Path
from typing import Final

import orjson
from confluent_kafka import Message

from broker.admin import Admin
from broker.errors import SettingsError, TopicError
from broker.reading import end_offsets, first_offsets, newest
from broker.settings import Settings


def newest_messages(settings: Settings, topic: str, *, most: int) -> list[Message]:
    """The newest messages of a topic, by timestamp, oldest first.

    Raises BrokerError if the topic is missing or can't be read, SettingsError if it has no messages.
    """
    admin = Admin(settings)
    if topic not in admin.metadata.topics:
        raise TopicError(
            f"--topic {topic}: there is no such topic, or this user may not see it", topics=(topic,)
        )
    starts, ends = first_offsets(admin, topic), end_offsets(admin, topic)
    found = newest(settings, topic, starts, ends, count=most, keep=lambda message: message)
    messages = sorted(chain(*found.values()), key=lambda one: one.timestamp()[1])[-most:]
    if not messages:
        raise SettingsError(f"--topic {topic} has no messages; give a file of messages with --sample")
    return messages


def load_sample(file: Path, *, option: str, most: int, value_format: str = "json") -> list[bytes]:
    """The first messages of a file, `most` at most.

    A JSON or FHIR file has one message per line, or a single one over several lines. HL7 v2 messages begin with MSH; a
    file of any other format is one message. Raises SettingsError, naming `option`, if it can't be read or has no
    messages.
    """
    try:
        if value_format in ("json", "fhir"):
            found = _lines(file, most)
        else:
            content = file.read_bytes()
            found = _from_msh(content)[:most] if value_format == "hl7v2" else [content]
    except OSError as error:
        raise SettingsError(f"{option} {file}: {(error.strerror or '').lower()}; check the path") from None
    if not any(found):
        raise SettingsError(f"{option} {file} has no messages; {_HOW.get(value_format, 'write one into it')}")
    return found


_HOW: Final = {"json": "write one a line", "fhir": "write one a line", "hl7v2": "each begins with MSH"}
_MSH = re.compile(rb"^(?=MSH[^A-Za-z0-9\s])|(?<=[\r\n\x0b])(?=MSH[^A-Za-z0-9\s])")


def _from_msh(content: bytes) -> list[bytes]:
    return _MSH.split(content)[1:]


def _lines(file: Path, most: int) -> list[bytes]:
    with file.open("rb") as lines:
        found = [line.strip() for line in islice(lines, most)]
        rest = lines.read(1) if len(found) == most else b""
    found = [line for line in found if line]
    if not found:
        return []
    found[0] = found[0].removeprefix(BOM_UTF8)
    whole = b"\n".join(found)
    return [whole] if not rest and len(found) > 1 and _is_one(whole) else found


def _is_one(text: bytes) -> bool:
    """Whether the text is a single JSON object, rather than several lines of them."""
    try:
        return isinstance(orjson.loads(text), dict)
    except ValueError:
        return False

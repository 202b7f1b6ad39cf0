"""Samples of messages as they stand on a topic: the newest of it, or a file's."""

from codecs import BOM_UTF8
from itertools import chain, islice
from pathlib import Path

import orjson
from confluent_kafka import Message

from broker.admin import Admin
from broker.errors import SettingsError, TopicError
from broker.reading import end_offsets, first_offsets, newest
from broker.settings import Settings


def newest_messages(settings: Settings, topic: str, *, most: int) -> list[Message]:
    """The newest messages of a topic, by timestamp, the oldest of them first.

    Raises BrokerError where it is missing or can't be read, SettingsError where it has none.
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
        raise SettingsError(f"--topic {topic} has no messages; give a file of some with --sample")
    return messages


def load_sample(file: Path, *, option: str, most: int, alone: bool = False) -> list[bytes]:
    """The first messages of a file, `most` at most: one a line, or one alone that is of several lines.

    With `alone` the file is one message, bytes and all. Raises SettingsError, naming `option`, where it can't be
    read or has none.
    """
    try:
        if alone:
            return [file.read_bytes()]
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

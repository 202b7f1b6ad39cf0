"""Checks that each dead letter holds its own message unchanged."""

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from confluent_kafka import Message

from audit.bitmap import Bitmap, Ints
from audit.findings import Findings, Invariant
from audit.published import Published
from audit.reading import Batch, headers_of
from schemas.contract import Reason
from schemas.dead_letters import PREFIX, Headers, Origin


class Copies:
    """Compares batches of the input topic with their dead letters."""

    def __init__(self, *, topic: str, published: Published, dead_letters: Bitmap, findings: Findings) -> None:
        self._topic = topic
        self._published = published
        self._dead_letters = dead_letters
        self._findings = findings

    def check(self, batch: Batch, numbers: Ints) -> None:
        """Compare a batch of messages that have these numbers."""
        rows = np.flatnonzero(self._dead_letters.has(numbers))
        told = self._published.contents(numbers[rows])
        for row, content in zip(rows.tolist(), told.tolist(), strict=True):
            if content not in contents_of(batch.messages[row]):
                partition, offset = int(batch.partitions[row]), int(batch.offsets[row])
                problem = "its dead letter's key, value, headers or timestamp are not its message's"
                self._findings.add(Invariant.CORRECT, self._topic, partition, offset, problem)


def cause(reason: Reason, field: str) -> int:
    """The fingerprint of why a message is a dead letter."""
    return zlib.crc32(f"{reason} {field}".encode())


def content(letter: Message, origin: Origin) -> int:
    """The fingerprint of everything a dead letter copies from its message."""
    theirs = _theirs(letter)
    return _fingerprint(letter.key(), letter.value(), theirs, time=origin.timestamp, pointer=origin.pointer)


def contents_of(message: Message) -> Iterator[int]:
    """The fingerprints of a message's possible dead letters: a full copy, and pointers that contain less and less."""
    key, theirs, time = message.key(), _theirs(message), message.timestamp()[1]
    yield _fingerprint(key, message.value(), theirs, time=time, pointer=False)
    yield _fingerprint(key, b"", theirs, time=time, pointer=True)
    yield _fingerprint(key, b"", [], time=time, pointer=True)
    yield _fingerprint(None, b"", [], time=time, pointer=True)


def _theirs(message: Message) -> Headers:
    return [header for header in headers_of(message) if not header[0].startswith(PREFIX)]


def _fingerprint(key: Any, value: Any, theirs: Headers, *, time: int, pointer: bool) -> int:
    headers = (part for name, told in theirs for part in (name.encode(), told))
    return _crc32([b"%d %d" % (time, pointer), key, value, *headers])


def _crc32(parts: Iterable[bytes | None]) -> int:
    """A checksum of parts that may be empty or missing; their boundaries count, too."""
    code = 0
    for part in parts:
        code = zlib.crc32(b"%d " % (-1 if part is None else len(part)), code)
        code = zlib.crc32(part or b"", code)
    return code

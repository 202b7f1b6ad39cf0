"""Dead letters: messages that could not be scored, unchanged, with headers that give the reason."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from schemas.contract import Reason
from schemas.reading import MessageError

Headers = Sequence[tuple[str, bytes | None]]

PREFIX: Final = "dlq."
REASON: Final = "dlq.reason"
FIELD: Final = "dlq.field"
TOPIC: Final = "dlq.topic"
PARTITION: Final = "dlq.partition"
OFFSET: Final = "dlq.offset"
TIMESTAMP: Final = "dlq.timestamp"
POINTER: Final = "dlq.pointer"
REPLAYED: Final = "dlq.replayed"

REPLAYED_FROM: Final = "replayed.from"
"""Header of a replayed message: `topic-partition@offset` of its dead letter."""

_RECORD_OVERHEAD = 512  # what Kafka adds around key, value and headers of a lone message, generously
_HEADER_OVERHEAD = 10  # two lengths of up to five bytes each


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message for the dead-letter topic."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a dead letter's headers say: the reason, and the position of its source message.

    `field` is '' if no single field is at fault; `timestamp` is the source's, in ms since 1970, -1 if it had
    none. The content of a `pointer` must be fetched from the source topic.
    """

    reason: Reason
    field: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    pointer: bool = False


def dead_letter(
    *,
    key: bytes | None,
    value: bytes | None,
    headers: Headers | None,
    reason: Reason,
    field: str,
    topic: str,
    partition: int,
    offset: int,
    timestamp: int,
    max_bytes: int,
) -> DeadLetter:
    """The dead letter of a source message: its own bytes and headers plus `dlq.*`.

    `timestamp` is the source's in ms (-1: none). A message that would not fit into `max_bytes` becomes a
    pointer with an empty value; should even that not fit, the source's headers go first, then its key.
    `dlq.*` headers of the source, which make it a replayed dead letter, are replaced.
    """
    origin = Origin(reason, field, topic, partition, offset, timestamp)
    theirs = [header for header in headers or () if not header[0].startswith(PREFIX)]
    for letter in _from_full_to_bare(key, value, theirs, dead_letter_headers(origin)):
        if message_size(letter) <= max_bytes:
            break
    return letter


def dead_letter_headers(origin: Origin) -> list[tuple[str, bytes]]:
    """The `dlq.*` headers for `origin`."""
    texts = {
        REASON: origin.reason,
        FIELD: origin.field,
        TOPIC: origin.topic,
        PARTITION: str(origin.partition),
        OFFSET: str(origin.offset),
        TIMESTAMP: str(origin.timestamp),
    }
    return [(name, text.encode()) for name, text in texts.items()] + [(POINTER, b"1")] * origin.pointer


def read_dead_letter_headers(headers: Headers | None) -> Origin:
    """Read what `dead_letter_headers` wrote. Raises MessageError if the headers are not a dead letter's."""
    ours = {name: value or b"" for name, value in headers or () if name.startswith(PREFIX)}
    try:
        return Origin(
            reason=Reason(ours[REASON].decode()),
            field=ours[FIELD].decode(),
            topic=ours[TOPIC].decode(),
            partition=int(ours[PARTITION]),
            offset=int(ours[OFFSET]),
            timestamp=int(ours[TIMESTAMP]),
            pointer=POINTER in ours,
        )
    except (KeyError, ValueError):
        raise MessageError(
            "a message is not a dead letter: its dlq.* headers are missing or malformed"
        ) from None


def replay_mark(offset: int) -> list[tuple[str, bytes]]:
    """Headers of a mark, which is not a dead letter: the one at `offset` of its partition was replayed.

    A mark has no key and no value.
    """
    return [(REPLAYED, str(offset).encode())]


def read_replay_mark(headers: Headers | None) -> int | None:
    """The offset that `replay_mark` wrote; None if the headers are not a mark's."""
    text = next((value for name, value in headers or () if name == REPLAYED), None) or b""
    return int(text) if text.isdigit() else None


def _from_full_to_bare(
    key: bytes | None, value: bytes | None, theirs: Headers, ours: Headers
) -> Iterator[DeadLetter]:
    yield DeadLetter(key, value, [*theirs, *ours])
    pointer = [*ours, (POINTER, b"1")]
    yield DeadLetter(key, b"", [*theirs, *pointer])
    yield DeadLetter(key, b"", pointer)
    yield DeadLetter(None, b"", pointer)


def message_size(letter: DeadLetter) -> int:
    """The bytes that count against a topic's max.message.bytes, or a little more."""
    headers = sum(len(name.encode()) + len(value or b"") + _HEADER_OVERHEAD for name, value in letter.headers)
    return len(letter.key or b"") + len(letter.value or b"") + headers + _RECORD_OVERHEAD

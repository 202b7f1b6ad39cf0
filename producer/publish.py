"""Publishes lines of JSON to the input topic, each checked against the contract first."""

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Final

import orjson

from broker.errors import SettingsError
from broker.rights import require_rights
from broker.settings import Settings
from broker.topics import require_topics
from producer.replay import FLUSH_S, STOPPED_FLUSH_S
from producer.sender import DeliveryError, Sender
from schemas.contract import MAX_MESSAGE_BYTES, STANDARD_FEATURES, Reason
from schemas.decoding import make_decoder
from schemas.encoding import UnwritableRowError, make_encoder, make_splitter
from schemas.mapping import load_mapping
from schemas.messages import plain
from schemas.vitals import Decoder

_READ: Final = 1 << 16


@dataclass(frozen=True)
class Refusal:
    """A line that was not sent: its number from 1, the reason, and the field concerned ('' if none)."""

    line: int
    reason: Reason
    field: str


@dataclass(frozen=True)
class PublishSummary:
    """The numbers of messages sent, all acknowledged, and of lines refused."""

    sent: int
    refused: int


def publish(
    settings: Settings,
    stream: BufferedIOBase,
    *,
    on_refused: Callable[[Refusal], None] = lambda _: None,
) -> PublishSummary:
    """Send each line that decodes with the standard features, or the mapping's, unchanged to the input topic.

    If messages have schemas, lines are flat JSON and are encoded with the schema; each becomes one message, or one for
    each of its features if the mapping reads one feature per message.

    Lines are sent as soon as they arrive; blank ones are skipped. Refused ones are passed to `on_refused` and
    counted. A KeyboardInterrupt counts as the end of the input.

    Raises:
        SettingsError: there is no schema, or the mapping can't be used or reads headers.
        RegistryError: the schema registry does not answer.
        BrokerError: no broker answers, the topic is missing, or this user may not write to it.
        DeliveryError: a message could not be delivered in time; says how many were.
    """
    decode, write = _of_lines(settings)
    if decode.reads_headers:
        raise SettingsError(
            f"--mapping {settings.mapping} reads headers, which lines on stdin don't have; give a mapping with paths"
        )
    require_topics(settings, [settings.input_topic])
    require_rights(settings, "publish")
    sender = Sender(settings, topic=settings.input_topic)
    try:
        refused = _send(sender, stream, decode, write, on_refused)
        sender.flush(FLUSH_S)
    except DeliveryError as error:
        raise _with_counts(error, sender) from None
    return PublishSummary(sender.sent, refused)


def _of_lines(settings: Settings) -> tuple[Decoder, Callable[[bytes], list[bytes]]]:
    """The decoder of a line, and the function that encodes it as messages."""
    if settings.value_format not in ("avro", "json-schema"):
        return make_decoder(settings), lambda line: [line]
    write, split = make_encoder(settings), make_splitter(settings)
    mapping = settings.mapping and load_mapping(settings.mapping, value_format=settings.value_format)
    decode = Decoder([*mapping.features] if mapping else STANDARD_FEATURES)
    return decode, lambda line: [*map(write, split([orjson.loads(line)]))]


def _send(
    sender: Sender,
    stream: BufferedIOBase,
    decode: Decoder,
    write: Callable[[bytes], list[bytes]],
    on_refused: Callable[[Refusal], None],
) -> int:
    """Send the good lines; returns how many were refused."""
    refused = 0
    with suppress(KeyboardInterrupt):
        for lines in _arriving(stream):
            numbers, values = [*lines], [*lines.values()]
            decoded = decode(plain(values))
            for position, patient in zip(decoded.frame.index, decoded.patient_ids, strict=True):
                try:
                    messages = write(values[position])
                except UnwritableRowError:
                    on_refused(Refusal(numbers[position], Reason.WRONG_TYPE, ""))
                    refused += 1
                    continue
                for message in messages:
                    sender.send(patient.encode(), message)
            for reject in decoded.rejects:
                on_refused(Refusal(numbers[reject.position], reject.reason, reject.field))
            refused += len(decoded.rejects)
            sender.poll()
    return refused


def _with_counts(error: DeliveryError, sender: Sender) -> DeliveryError:
    with suppress(DeliveryError):
        sender.flush(STOPPED_FLUSH_S)
    problem = (
        f"{error}; check the brokers and the topic; sent {sender.sent:,}, of which the brokers acknowledged "
        f"{sender.acknowledged:,}, without a gap the first {sender.acknowledged_first:,} that follow the schema"
    )
    return DeliveryError(problem, sent=sender.sent, acknowledged=sender.acknowledged)


def _arriving(stream: BufferedIOBase) -> Iterator[dict[int, bytes]]:
    """Numbered lines without line ends or blank lines, as many at once as have arrived."""
    first, rest = 1, b""
    while piece := stream.read1(_READ):
        *lines, rest = (rest + piece).split(b"\n")
        yield _numbered(lines, first)
        first += len(lines)
        rest = rest[: MAX_MESSAGE_BYTES + 1]  # enough to be refused as too large
    yield _numbered([rest], first)


def _numbered(lines: list[bytes], first: int) -> dict[int, bytes]:
    if first == 1 and lines:
        lines = [lines[0].removeprefix(BOM_UTF8), *lines[1:]]
    return {number: line.rstrip(b"\r") for number, line in enumerate(lines, first) if line.strip()}

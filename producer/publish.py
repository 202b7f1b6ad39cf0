"""Publish: lines of JSON to the vitals topic, each checked against the contract first."""

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Final

from broker.errors import SettingsError
from broker.rights import require_rights
from broker.settings import Settings
from broker.topics import require_topics
from producer.replay import FLUSH_S, STOPPED_FLUSH_S
from producer.sender import DeliveryError, Sender
from schemas.contract import MAX_MESSAGE_BYTES, Reason
from schemas.decoding import make_decoder
from schemas.messages import plain
from schemas.vitals import Decoder

_READ: Final = 1 << 16


@dataclass(frozen=True)
class Refusal:
    """A line that was not sent: its number from 1, why, and the field concerned ('' where none is)."""

    line: int
    reason: Reason
    field: str


@dataclass(frozen=True)
class PublishSummary:
    """Messages sent, all of them acknowledged, and lines refused."""

    sent: int
    refused: int


def publish(
    settings: Settings,
    stream: BufferedIOBase,
    *,
    on_refused: Callable[[Refusal], None] = lambda _: None,
) -> PublishSummary:
    """Send each line that decodes with the standard features, or the mapping's, to the input topic, as it was given.

    Lines are sent as soon as they arrive; blank ones are skipped. Refused ones are told to `on_refused` and
    counted, and the others sent. A KeyboardInterrupt ends the input like its end does.

    Raises:
        SettingsError: the input topic is not of text, or the mapping can't be used or reads headers.
        BrokerError: no broker answers, the topic is missing, or this user may not write to it.
        DeliveryError: a message could not be delivered, or not in time; says how many were.
    """
    if settings.value_format not in ("json", "fhir", "hl7v2"):
        raise SettingsError(
            f"--value-format {settings.value_format}: publish sends lines of text as they are; leave it out, and send "
            "other formats with a program of your own"
        )
    decode = make_decoder(settings)
    if decode.reads_headers:
        raise SettingsError(
            f"--mapping {settings.mapping}: reads headers, which lines on stdin have not; give a mapping with paths"
        )
    require_topics(settings, [settings.input_topic])
    require_rights(settings, "publish")
    sender = Sender(settings, topic=settings.input_topic)
    try:
        refused = _send(sender, stream, decode, on_refused)
        sender.flush(FLUSH_S)
    except DeliveryError as error:
        raise _with_counts(error, sender) from None
    return PublishSummary(sender.sent, refused)


def _send(
    sender: Sender, stream: BufferedIOBase, decode: Decoder, on_refused: Callable[[Refusal], None]
) -> int:
    """How many lines were refused; the others are sent."""
    refused = 0
    with suppress(KeyboardInterrupt):
        for lines in _arriving(stream):
            numbers, values = [*lines], [*lines.values()]
            decoded = decode(plain(values))
            for position, patient in zip(decoded.frame.index, decoded.patient_ids, strict=True):
                sender.send(patient.encode(), values[position])
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
    """Lines by number, as many at once as have arrived, without their ends; no blank ones."""
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

"""Replays records to the input topic, as for a load test."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

import orjson

from broker.rights import require_rights
from broker.settings import Settings
from broker.topics import require_topics
from producer.pacing import Pacer
from producer.sender import DeliveryError, Sender
from producer.sources import Record, SourceError
from schemas.contract import PATIENT_ID
from schemas.encoding import Encoder, UnwritableRowError, make_encoder, make_splitter

FLUSH_S: Final = 40.0
STOPPED_FLUSH_S: Final = 5.0

_TICK_EVERY = 256  # messages between looks at the clock
_PROGRESS_S = 0.1


@dataclass(frozen=True)
class ReplaySummary:
    """What a replay did; `seconds` runs from the first message to the last acknowledgement.

    `complete` is False if it was stopped before all were sent.
    """

    sent: int
    acknowledged: int
    seconds: float
    complete: bool

    @property
    def rate(self) -> float:
        """Acknowledged messages a second."""
        return self.acknowledged / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Progress:
    """A replay's progress: messages sent and acknowledged, and the average rate."""

    sent: int
    acknowledged: int
    rate: float


def replay(
    settings: Settings,
    records: Iterable[Record],
    *,
    pacer: Pacer | None = None,
    skip: int = 0,
    limit: int | None = None,
    repeat: int = 1,
    stopped: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> ReplaySummary:
    """Send every record to the input topic, keyed by its patient id, and wait for the acknowledgements.

    If the mapping reads one feature per message, a record is sent as one message for each of its features.

    Args:
        records: sent `repeat` times, iterated from the start each time.
        pacer: when each message is due; without one they are sent as fast as possible.
        skip: leave out this many messages at the beginning, counted over all repetitions.
        limit: stop after sending this many messages.
        stopped: called often; once it returns true, sent messages are flushed and the summary returned.
        on_progress: called some ten times a second.

    Raises:
        SettingsError: a row can't be written in the value format.
        BrokerError: no broker answers, the topic is missing, or this user may not write to it.
        DeliveryError: a message could not be delivered in time.
        SourceError: a file is malformed, or a row is not as the schema of the topic has it.
        The last two say how many were sent and acknowledged, and how to continue.
    """
    write, split = make_encoder(settings), make_splitter(settings)
    require_topics(settings, [settings.input_topic])
    require_rights(settings, "replay")
    sender = Sender(settings, topic=settings.input_topic)
    run = _Run(sender, write, pacer, stopped, on_progress)
    try:
        every = chain.from_iterable(split(records) for _ in range(repeat))
        complete = run.send(islice(every, skip, None if limit is None else skip + limit))
        sender.flush(STOPPED_FLUSH_S if stopped() else FLUSH_S)
    except (SourceError, UnwritableRowError) as error:
        raise SourceError(f"{error}; {_how_to_go_on(sender, skip)}") from None
    except DeliveryError as error:
        problem = f"{error}; check the brokers and the topic; {_how_to_go_on(sender, skip)}"
        raise DeliveryError(problem, sent=sender.sent, acknowledged=sender.acknowledged) from None
    summary = ReplaySummary(sender.sent, sender.acknowledged, run.seconds, complete)
    run.report()
    return summary


def _how_to_go_on(sender: Sender, skip: int) -> str:
    with suppress(DeliveryError):
        sender.flush(STOPPED_FLUSH_S)
    sent, first = sender.sent, sender.acknowledged_first
    if not sent:
        return "nothing was sent"
    if first == sent:
        return f"sent {sent:,} before that: continue with --skip {skip + sent}"
    return (
        f"sent {sent:,}, of which the brokers acknowledged {sender.acknowledged:,}; "
        f"--skip {skip + first} omits none of the others, but may send up to {sent - first:,} a second time"
    )


def encode(record: Record, write: Encoder = orjson.dumps) -> tuple[bytes | None, bytes]:
    """A record as a message's key (the patient id, if it has one) and value."""
    patient = record.get(PATIENT_ID)
    key = patient.encode() if isinstance(patient, str) and patient else None
    return key, write(record)


class _Run:
    def __init__(
        self,
        sender: Sender,
        write: Encoder,
        pacer: Pacer | None,
        stopped: Callable[[], bool],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._sender = sender
        self._write = write
        self._pacer = pacer
        self._stopped = stopped
        self._on_progress = on_progress
        self._start = time.monotonic()
        self._next_report = self._start

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def send(self, records: Iterator[Record]) -> bool:
        """Whether all were sent, rather than stopped."""
        send, pacer, tick = self._sender.send, self._pacer, self._tick
        for count, record in enumerate(records):
            if pacer is not None and not pacer.wait(record, stopped=tick):
                return False
            if count % _TICK_EVERY == 0 and tick():
                return False
            if not send(*encode(record, self._write), stopped=tick):
                return False
        return True

    def _tick(self) -> bool:
        self._sender.poll()
        if time.monotonic() >= self._next_report:
            self.report()
        return self._stopped()

    def report(self) -> None:
        sender, seconds = self._sender, self.seconds
        rate = sender.sent / seconds if seconds else 0.0
        self._on_progress(Progress(sender.sent, sender.acknowledged, rate))
        self._next_report = time.monotonic() + _PROGRESS_S

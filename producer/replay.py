"""Replay: records to the vitals topic, as a load test sends them."""

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

FLUSH_S: Final = 40.0
STOPPED_FLUSH_S: Final = 5.0

_TICK_EVERY = 256  # messages between looks at the clock
_PROGRESS_S = 0.1


@dataclass(frozen=True)
class ReplaySummary:
    """What a replay did; `seconds` runs from the first message to the last acknowledgement."""

    sent: int
    acknowledged: int
    seconds: float

    @property
    def rate(self) -> float:
        """Acknowledged messages a second."""
        return self.acknowledged / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Progress:
    """How far a replay is: messages sent and acknowledged, and the rate of sending so far."""

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

    Args:
        records: sent `repeat` times over, iterated anew each time.
        pacer: when each is due; as fast as possible where there is none.
        skip: leave out so many messages at the beginning, all repetitions taken together.
        limit: stop after so many messages are sent.
        stopped: asked often; once it is true, what has been sent is flushed and the summary returned.
        on_progress: called some ten times a second.

    Raises:
        BrokerError: no broker answers, the topic is missing, or this user may not write to it.
        DeliveryError: a message could not be delivered, or not in time.
        SourceError: a file is malformed; says how much was sent before that.
    """
    require_topics(settings, [settings.input_topic])
    require_rights(settings, "replay")
    sender = Sender(settings, topic=settings.input_topic)
    run = _Run(sender, pacer or Pacer(), stopped, on_progress)
    try:
        every = chain.from_iterable(records for _ in range(repeat))
        run.send(islice(every, skip, None if limit is None else skip + limit))
    except SourceError as error:
        with suppress(DeliveryError):
            sender.flush(STOPPED_FLUSH_S)
        raise SourceError(f"{error}; {_sent_before(sender, skip)}") from None
    sender.flush(STOPPED_FLUSH_S if stopped() else FLUSH_S)
    summary = ReplaySummary(sender.sent, sender.acknowledged, run.seconds)
    run.report()
    return summary


def _sent_before(sender: Sender, skip: int) -> str:
    if not sender.sent:
        return "nothing was sent"
    if sender.acknowledged < sender.sent:
        return f"sent {sender.sent:,} before that, of which the brokers acknowledged {sender.acknowledged:,}"
    return f"sent {sender.sent:,} before that: go on with --skip {skip + sender.sent}"


def encode(record: Record) -> tuple[bytes | None, bytes]:
    """A record as a message's key, the patient id where it has one, and value."""
    patient = record.get(PATIENT_ID)
    key = patient.encode() if isinstance(patient, str) and patient else None
    return key, orjson.dumps(record, default=str)


class _Run:
    def __init__(
        self,
        sender: Sender,
        pacer: Pacer,
        stopped: Callable[[], bool],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._sender = sender
        self._pacer = pacer
        self._stopped = stopped
        self._on_progress = on_progress
        self._start = time.monotonic()
        self._next_report = self._start

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def send(self, records: Iterator[Record]) -> None:
        send, wait, tick = self._sender.send, self._pacer.wait, self._tick
        for count, record in enumerate(records):
            if not wait(record, stopped=tick) or (count % _TICK_EVERY == 0 and tick()):
                break
            if not send(*encode(record), stopped=tick):
                break

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

"""Sends a simulated ward to the input topic at a given rate, with occasional malformed messages."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from typing import Any, Final

import orjson
from confluent_kafka import KafkaError, Message, Producer

from broker.errors import BrokerError
from broker.settings import Settings
from producer.arrivals import DEVICES, AsArrived
from producer.pacing import Pacer, poisson
from producer.physiology import AWAY
from producer.replay import encode
from producer.sender import PRODUCER_DEFAULTS
from producer.sources import Record
from producer.ward import FRAME_START, Ward, record
from schemas.contract import EVENT_TIME, MAX_MESSAGE_BYTES, STANDARD_FEATURES, Reason
from vitalstream.demo.accounts import Accounts, Position

WARD_HOURS: Final = 48.0
"""Hours of ward time in a demo, however long it runs."""

DETERIORATING: Final = 0.3
MALFORMED_EVERY: Final = 100  # messages

_FLUSH_S = 10.0


class SimulationError(BrokerError):
    """A simulated message could not be sent."""


class Simulation:
    """Sends `messages` messages of a ward at `rate` a second, as independent arrivals.

    The same arguments make the same messages. `accounts` records each acknowledged one.
    """

    def __init__(
        self, settings: Settings, accounts: Accounts, *, patients: int, seed: int, rate: float, messages: int
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._pacer = Pacer(poisson(rate, seed=seed))
        self._messages = messages
        self._records = self._simulated(patients, seed)
        self._at = ""
        self._failure = ""
        self._producer = Producer(
            settings.client({**PRODUCER_DEFAULTS, "delivery.report.only.error": False, "log_level": 0})
        )

    def send_first(self) -> None:
        """Send the first message alone, as it takes longer than the others.

        Raises SimulationError if it is not acknowledged.
        """
        self._send(*next(self._records))
        self._finish()

    def run(self, stopped: Callable[[], bool]) -> None:
        """Send the others, each when due, until all are sent or `stopped`; then wait for acknowledgements.

        Raises SimulationError if one is not acknowledged.
        """

        def tick() -> bool:
            self._producer.poll(0)
            return stopped()

        for reading, value in self._records:
            if tick() or not self._pacer.wait(reading, stopped=tick):
                break
            self._send(reading, value)
        self._finish()

    @property
    def clock(self) -> str:
        """The ward time of the latest message sent, RFC 3339."""
        return self._at

    def _simulated(self, patients: int, seed: int) -> Iterator[tuple[Record, bytes]]:
        ticks = max(1.0, self._messages / (patients * (1 - AWAY) * len(DEVICES)))
        ward = Ward(patients=patients, seed=seed, deteriorating=DETERIORATING)
        readings = ward.readings(FRAME_START, WARD_HOURS * 3600 / ticks)
        arrivals = AsArrived(map(record, readings), seed=seed)
        flaws = cycle(FLAWS.values())
        for number, sent in enumerate(islice(arrivals, self._messages), 1):
            flawed = number % MALFORMED_EVERY == MALFORMED_EVERY // 2
            yield sent, next(flaws)(sent) if flawed else encode(sent)[1]

    def _send(self, reading: Record, value: bytes) -> None:
        key, _ = encode(reading)
        at = time.time()
        self._producer.produce(
            self._settings.input_topic,
            value,
            key,
            timestamp=round(at * 1000),
            on_delivery=partial(self._delivered, at),
        )
        self._producer.poll(0)
        self._at = reading[EVENT_TIME]
        self._raise_failure()

    def _finish(self) -> None:
        if self._producer.flush(_FLUSH_S):
            raise SimulationError(
                f"messages to {self._settings.input_topic} were not acknowledged within {_FLUSH_S:g} s"
            )
        self._raise_failure()

    def _delivered(self, at: float, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = self._failure or error.name()
            return
        place: Any = (message.topic(), message.partition(), message.offset())
        self._accounts.sent(Position(*place), at)

    def _raise_failure(self) -> None:
        if self._failure:
            raise SimulationError(f"a message to {self._settings.input_topic} failed with {self._failure}")


def _with(reading: Record, **changes: Any) -> bytes:
    return orjson.dumps({**reading, **changes})


def _without_time(reading: Record) -> bytes:
    return orjson.dumps({name: value for name, value in reading.items() if name != EVENT_TIME})


FLAWS: Final[dict[Reason, Callable[[Record], bytes]]] = {
    Reason.NOT_JSON: lambda reading: orjson.dumps(reading)[:-1],
    Reason.WRONG_TYPE: lambda reading: _with(reading, **{STANDARD_FEATURES[0]: "eighty"}),
    Reason.MISSING_FIELD: _without_time,
    Reason.BAD_TIME: lambda reading: _with(reading, **{EVENT_TIME: "yesterday"}),
    Reason.NOT_OBJECT: lambda reading: orjson.dumps([*reading.values()]),
    Reason.EMPTY: lambda _: b"",
    Reason.TOO_LARGE: lambda reading: _with(reading, note="x" * MAX_MESSAGE_BYTES),
}
"""How to spoil a message so that it becomes a dead letter of each reason."""

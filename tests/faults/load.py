"""Vitals that keep coming, whatever happens to the brokers."""

import threading
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any, Self

from broker.settings import Settings
from producer.pacing import Pacer, at_rate
from producer.replay import Progress, replay

Records = Sequence[dict[str, Any]]

PATIENT = {
    "message.timeout.ms": "600000",  # keeps trying for as long as a broker may be down
    "topic.metadata.refresh.interval.ms": "1000",  # finds added partitions
}


class Load:
    """`replay` in a thread, over and over, at a limited rate, until stopped."""

    def __init__(self, settings: Settings, records: Records, *, rate: float) -> None:
        self._settings = settings.model_copy(update={"kafka": PATIENT})
        self._records = records
        self._rate = rate
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True, name="load")
        self._error: Exception | None = None
        self.acknowledged = 0

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> int:
        """Stop sending; returns the number of messages sent, all acknowledged by the broker."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self.acknowledged

    def _send(self) -> None:
        try:
            summary = replay(
                self._settings,
                self._until_stopped(),
                pacer=Pacer(at_rate(self._rate)),
                on_progress=self._note,
            )
            self.acknowledged = summary.acknowledged
        except Exception as error:
            self._error = error

    def _until_stopped(self) -> Iterator[dict[str, Any]]:
        """The records, over and over. A normal end gives a broker more time to come back than Ctrl-C would."""
        for record in cycle(self._records):
            if self._stopped.is_set():
                return
            yield record

    def _note(self, progress: Progress) -> None:
        self.acknowledged = progress.acknowledged


def soiled(records: Records, *, every: int = 61) -> Records:
    """The same records, of which some can't be scored, so that every transaction has dead letters."""
    spoilt: tuple[dict[str, Any], ...] = ({"heart_rate": "fast"}, {"event_time": "yesterday"}, {"spo2": True})
    return [
        row | spoilt[number // every % 3] if number % every == 7 else row
        for number, row in enumerate(records)
    ]

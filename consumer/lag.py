"""The worker's lag, in time and in messages, as far as librdkafka's statistics show it."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from consumer.observer import Observer

log = logging.getLogger("vitalstream.worker")

# An idle consumer's fetch is answered every half second (fetch.wait.max.ms).
SILENCE_S = 5.0
# A transaction marker takes an offset without being a message, and may look like a remaining one.
TOLERANCE = 1


def lag_listener(
    topic: str, hear: Callable[[dict[int, int]], None], observer: Observer
) -> Callable[[str], None]:
    """A `stats_cb` that passes the last stable offsets of `topic` to `hear`, or tells `observer` that no broker
    answers.

    It never raises.
    """

    def listen(text: str) -> None:
        try:
            statistics = orjson.loads(text)
            if answering(statistics):
                hear(stable_offsets(statistics, topic))
            else:
                observer.kafka_error("_ALL_BROKERS_DOWN")
        except Exception as error:  # raised in a callback, it would lose the messages of the call in progress
            log.warning("librdkafka's statistics could not be read: %s", type(error).__name__)

    return listen


def answering(statistics: dict[str, Any]) -> bool:
    """Whether any broker has answered within `SILENCE_S`. A frozen broker stays connected for a minute."""
    idle = [broker["rxidle"] for broker in statistics["brokers"].values()]
    return any(0 <= microseconds < SILENCE_S * 1e6 for microseconds in idle)


def stable_offsets(statistics: dict[str, Any], topic: str) -> dict[int, int]:
    """Each partition's last stable offset, as of its latest fetch."""
    partitions = statistics["topics"].get(topic, {"partitions": {}})["partitions"]
    ends = {int(number): partition["ls_offset"] for number, partition in partitions.items()}
    return {number: end for number, end in ends.items() if number >= 0 and end >= 0}


def is_behind(lags: Mapping[int, int]) -> bool:
    """Whether any partition has more left than `TOLERANCE`."""
    return any(lag > TOLERANCE for lag in lags.values())


class Oldest:
    """The time since which the oldest uncommitted message has waited, by the caller's clock.

    A message that is still in the topic has no known time; the one before it, or the moment at which the lag
    was noticed, stands in for it.
    """

    def __init__(self) -> None:
        self._in_hand: float | None = None  # collected, not committed
        self._doubtful = False  # whether collected messages may have been committed after all
        self._before: float | None = None  # since when messages left at the last commit have waited
        self._noticed: float | None = None

    @property
    def since(self) -> float | None:
        """None if nothing waits."""
        if self._in_hand is not None or self._noticed is None:
            return self._in_hand
        return self._before if self._before is not None else self._noticed

    def collected(self, since: float) -> None:
        """A chunk whose oldest message has waited `since` then was collected."""
        self._in_hand = since if self._in_hand is None else min(self._in_hand, since)
        self._doubtful = False

    def committed(self, left_since: float | None = None) -> None:
        """All collected messages are committed; the rest waits since `left_since`, by default as long as those."""
        self._before = self._in_hand if left_since is None else left_since
        self._in_hand = None

    def taken_back(self) -> None:
        """Collected messages are read again or already committed; the next lags will show which."""
        self._doubtful = True

    def behind(self, behind: bool, now: float) -> None:
        """Whether uncollected messages remain."""
        if behind:
            self._noticed = now if self._noticed is None else self._noticed
            return
        self._before = self._noticed = None
        if self._doubtful:
            self._in_hand = None

"""The demo's reader: a read_committed consumer of the results, metrics and dead letters."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from confluent_kafka import Message

from broker.settings import Settings
from schemas.contract import Reason
from schemas.dead_letters import read_dead_letter_headers
from schemas.metrics import ChunkMetrics, decode_metrics
from schemas.results import decode_result
from vitalstream.board import Board
from vitalstream.demo.accounts import Accounts, Position
from vitalstream.follow import Follower

_PATIENCE_S = 0.1
_LAST_PATIENCE_S = 0.6  # longer than a broker may delay its answer


class Reader:
    """Follows the worker's three topics and records what arrives in `accounts`."""

    def __init__(self, settings: Settings, accounts: Accounts) -> None:
        self._accounts = accounts
        self._handlers = {
            settings.output_topic: self._on_result,
            settings.metrics_topic: self._on_metrics,
            settings.dead_letter_topic: self._on_dead_letter,
        }
        self._follower = Follower(settings, settings.output_topics, from_beginning=True)
        self.board = Board()
        self.latest: ChunkMetrics | None = None
        self.dead_letters: Counter[Reason] = Counter()
        self.chunks = 0
        self.scored = 0
        self.scoring_ms = 0.0  # spent scoring, by the worker's metrics

    @property
    def latency_ms(self) -> float:
        """Mean milliseconds a row spent in scoring."""
        return self.scoring_ms / self.scored if self.scored else 0.0

    @property
    def rows_per_chunk(self) -> float:
        """Mean rows per chunk, dead letters included."""
        rows = self.scored + self.dead_letters.total()
        return rows / self.chunks if self.chunks else 0.0

    def run(self, stopped: Callable[[], bool]) -> None:
        """Read until `stopped`, and then until nothing more arrives.

        Raises BrokerError or MessageError.
        """
        with self._follower as follower:
            while True:
                last = stopped()
                messages = follower.read(_LAST_PATIENCE_S if last else _PATIENCE_S)
                at = time.time()
                for message in messages:
                    self._handlers[str(message.topic())](message, at)
                if last and not messages:
                    return

    def _on_result(self, message: Message, at: float) -> None:
        result = decode_result(message.value())
        self._accounts.scored(
            Position(result.source_topic, result.source_partition, result.source_offset), at
        )
        self.board.add(result, at)

    def _on_dead_letter(self, message: Message, at: float) -> None:
        headers: Any = message.headers()
        origin = read_dead_letter_headers(headers)
        self._accounts.dead_lettered(Position(origin.topic, origin.partition, origin.offset), at)
        self.dead_letters[origin.reason] += 1

    def _on_metrics(self, message: Message, at: float) -> None:
        self.latest = decode_metrics(message.value())
        self.chunks += 1
        self.scored += self.latest.scored
        self.scoring_ms += self.latest.latency_ms * self.latest.scored

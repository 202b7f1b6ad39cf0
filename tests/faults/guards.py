"""The guards of exactly-once, each with a way to switch it off in a worker's process, so that something must fail."""

from collections.abc import Callable
from typing import Any

from confluent_kafka import TopicPartition

from consumer import clients, commit
from consumer.observer import Step
from consumer.positions import Positions
from consumer.sending import Sender
from consumer.worker import Worker


def _no_rewind() -> None:
    """After an abort the worker continues from where it was."""
    Positions.rewind = lambda self: None  # type: ignore[method-assign]


def _untracked_offsets() -> None:
    """The consumer's position is committed."""

    def offsets(self: Any, state_ends: Any = None) -> list[TopicPartition]:
        asked = [TopicPartition(self._topic, partition) for partition in self.partitions]
        return [one for one in self._consumer.position(asked) if one.offset >= 0]

    Positions.offsets = offsets  # type: ignore[method-assign]


def _no_rebuild() -> None:
    """The producer is kept after a commit that may have been sent twice."""
    Sender.disturbed = property(lambda self: False, lambda self, value: None)  # type: ignore[assignment]
    commit.SLOW_S = 1e9


def _no_flush() -> None:
    """Offsets are committed without waiting for deliveries."""
    Sender.flush = lambda self, timeout: self._observer.reached(Step.FLUSHED)  # type: ignore[method-assign]


def _read_uncommitted() -> None:
    """Messages of aborted transactions are read as well."""
    clients._CONSUMER["isolation.level"] = "read_uncommitted"


def _no_revoke() -> None:
    """Pending messages of a revoked partition are kept."""

    def revoked(self: Any, _consumer: Any, partitions: list[TopicPartition]) -> None:
        self._observer.revoked([one.partition for one in partitions], lost=False)

    Worker._on_revoke = revoked  # type: ignore[method-assign]
    Worker._on_lost = revoked  # type: ignore[method-assign]


GUARDS: dict[str, Callable[[], None]] = {
    "rewind after abort": _no_rewind,
    "tracked offsets": _untracked_offsets,
    "producer rebuild": _no_rebuild,
    "flush before commit": _no_flush,
    "read_committed": _read_uncommitted,
    "revoke handling": _no_revoke,
}


def switch_off(guard: str) -> None:
    """Run without this guard in this process."""
    GUARDS[guard]()

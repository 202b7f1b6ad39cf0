"""The topics' roles, names, and settings for `topics create`. Imports almost nothing, like options.py."""

from enum import StrEnum
from typing import Any, Final, NamedTuple

DEFAULT_MAX_MESSAGE_BYTES: Final = 1_048_588  # Kafka's default of max.message.bytes

_DAY_MS: Final = 24 * 60 * 60 * 1000


class Role(StrEnum):
    """A topic's role, by the setting that names it; the state topic's name derives from input topic and group."""

    INPUT = "input_topic"
    RESULTS = "output_topic"
    METRICS = "metrics_topic"
    DEAD_LETTERS = "dead_letter_topic"
    STATE = "state_topic"


class Kind(NamedTuple):
    """How a role's topic is named and created."""

    name: str
    """Contains settings in braces."""
    config: dict[str, str]
    before_growing: str
    """Advice before adding partitions: most keys move to another one, and order holds only within one."""

    def of(self, settings: Any) -> str:
        """The topic's name under these settings."""
        return self.name.format(**vars(settings))


def _kept(days: int, *, max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "message.timestamp.type": "CreateTime",
        "retention.ms": str(days * _DAY_MS),
        "max.message.bytes": str(max_message_bytes),
    }


TOPICS: Final[dict[Role, Kind]] = {
    Role.INPUT: Kind(
        "{input_topic}",
        _kept(7),
        "stop the senders first and wait until vitalstream status shows that 0 messages wait, or a patient's messages "
        "may be scored out of order",
    ),
    Role.RESULTS: Kind(
        "{output_topic}",
        _kept(7),
        "stop the workers first and let readers finish, or a patient's results may be read out of order",
    ),
    Role.METRICS: Kind("{metrics_topic}", _kept(7), "readers must not expect order across partitions"),
    # Kept longer, for somebody to read them, and larger: they hold the whole source message and our headers.
    Role.DEAD_LETTERS: Kind(
        "{dead_letter_topic}",
        _kept(30, max_message_bytes=2 * DEFAULT_MAX_MESSAGE_BYTES),
        "replay the dead letters first, or a patient's may be replayed out of order",
    ),
    # Small segments, because the newest one is never compacted and a restore reads all of it. What a state snapshot
    # reads stays there for a minute, even if workers have written newer records of the same patients.
    Role.STATE: Kind(
        "{input_topic}-state-{group}",
        {
            "cleanup.policy": "compact",
            "segment.bytes": str(50 * 1024 * 1024),
            "min.compaction.lag.ms": "60000",
        },
        "it must have as many as the input topic",
    ),
}

TOPIC_SETTINGS: Final = tuple(str(role) for role in TOPICS if role is not Role.STATE)
"""In the order of `Settings.topics`."""

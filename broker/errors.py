"""All errors that vitalstream raises on purpose, under one root.

Each text is one plain sentence that names the setting or topic concerned and the remedy. It never contains a
message's payload or key.
"""


class VitalstreamError(Exception):
    """Root of all errors raised on purpose; `exit_code` is the command line's exit code."""

    exit_code = 1


class SettingsError(VitalstreamError):
    """A setting is missing, malformed or contradicts another."""

    exit_code = 2


class BrokerError(VitalstreamError):
    """The Kafka cluster is unreachable, rejects us, or lacks a topic."""


class TopicError(BrokerError):
    """A topic is missing or wrongly configured."""

    def __init__(self, message: str, *, topics: tuple[str, ...]) -> None:
        super().__init__(message)
        self.topics = topics

"""Every error vitalstream raises on purpose, under one root.

A message is one plain sentence that names the setting or topic concerned and what to do about it. It
never holds a message's payload or key.
"""


class VitalstreamError(Exception):
    """Root of all errors raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class SettingsError(VitalstreamError):
    """A setting is missing, malformed or contradicts another one."""

    exit_code = 2


class BrokerError(VitalstreamError):
    """The Kafka cluster is unreachable, refuses us, or lacks a topic."""


class TopicError(BrokerError):
    """A topic is missing or is not as it must be."""

    def __init__(self, message: str, *, topics: tuple[str, ...]) -> None:
        super().__init__(message)
        self.topics = topics

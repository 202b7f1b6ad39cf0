"""An admin connection to the cluster, or one sentence on why there is none."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from broker.errors import BrokerError, SettingsError
from broker.obstacles import Obstacles
from broker.settings import Settings, is_secret

# Transient after a topic or group was created or a broker left, though the error does not say so.
_PASSES = frozenset({
    KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR,
    KafkaError._WAIT_COORD,
})  # fmt: skip
_POLL_SECONDS = 0.02
_ASK_AGAIN_SECONDS = 0.1
_SLICE_SECONDS = 0.5  # so that a refusal is noticed before the whole wait is over


Answer = TypeVar("Answer")


class Admin:
    """A reachable cluster: its admin client, which lives as long as this object, and the topics it lists.

    Raises:
        SettingsError: librdkafka does not accept the properties.
        BrokerError: no broker answers within `timeout` seconds, or they reject us.
    """

    def __init__(self, settings: Settings, *, timeout: float = 10) -> None:
        self.servers = settings.bootstrap_servers
        self.timeout = timeout
        self._obstacles = Obstacles(self.servers)
        # librdkafka would log each failed connection on stderr; one sentence is raised instead.
        config = settings.client({"log_level": 0}) | {"error_cb": self._obstacles.note}
        try:
            self.client = AdminClient(config)
        except KafkaException as error:
            raise properties_refused(error, settings) from None
        self.metadata = self._reach()

    @property
    def is_mock(self) -> bool:
        """Whether this is librdkafka's mock cluster, which has no controller and can't be administered."""
        return self.metadata.controller_id not in self.metadata.brokers

    def ask(self, what: str, question: Callable[[], Answer]) -> Answer:
        """The answer to a request about `what`, repeated while an error may be transient.

        Raises:
            BrokerError: the brokers refuse, or don't answer within `timeout` seconds.
        """
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return question()
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                if not (error.retriable() or error.code() in _PASSES) or time.monotonic() > deadline:
                    raise BrokerError(
                        f"the brokers did not report {what} ({error.name()}); check this user's rights"
                    ) from None
            time.sleep(_ASK_AGAIN_SECONDS)

    def wait_for(self, topics: Sequence[str]) -> None:
        """Wait until each topic has a leader for every partition.

        Raises:
            BrokerError: one does not within `timeout` seconds.
        """
        deadline = time.monotonic() + self.timeout
        while late := [name for name in topics if not self._is_led(name)]:
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"topic {late[0]} has no leader after {self.timeout:g} s, or is hidden from this user; check the "
                    "brokers, and that this user has DESCRIBE on it"
                )
            time.sleep(_POLL_SECONDS)
            self.metadata = self._reach()

    def _is_led(self, topic: str) -> bool:
        found = self.metadata.topics.get(topic)
        return found is not None and all(one.leader >= 0 for one in found.partitions.values())

    def _reach(self) -> Any:
        deadline = time.monotonic() + self.timeout
        while (left := deadline - time.monotonic()) > 0 and self._obstacles.refusal is None:
            try:
                return self.client.list_topics(timeout=min(left, _SLICE_SECONDS))
            except KafkaException:
                self.client.poll(0)  # to learn of the obstacles
        raise BrokerError(self._obstacles.sentence(self.timeout))


def properties_refused(error: KafkaException, settings: Settings) -> SettingsError:
    """The error for settings from which no client can be made."""
    reason = _without_secrets(error.args[0].str(), settings)
    return SettingsError(f"librdkafka refuses the -X properties: {reason}")


def _without_secrets(text: str, settings: Settings) -> str:
    for name, value in settings.kafka.items():
        if is_secret(name) and value:
            text = text.replace(value, "***")
    return text

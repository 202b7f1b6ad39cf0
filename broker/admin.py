"""An admin connection to the cluster, or one plain sentence on why there is none."""

import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from broker.errors import BrokerError, SettingsError
from broker.settings import Settings, is_secret

_NOT_LETTING_US_IN = {
    KafkaError._AUTHENTICATION: "check sasl.mechanism, sasl.username and sasl.password (-X)",
    KafkaError._SSL: "check security.protocol and the ssl.* properties (-X)",
}
_SLICE_SECONDS = 0.5  # so that a refusal is noticed early, not at the end of the whole wait


class Admin:
    """A reachable cluster: its admin client, kept alive as long as this, and the topics it lists.

    Raises:
        SettingsError: librdkafka does not accept the properties.
        BrokerError: no broker answers within `timeout` seconds, or they refuse us.
    """

    def __init__(self, settings: Settings, *, timeout: float = 10) -> None:
        self.servers = settings.bootstrap_servers
        self.timeout = timeout
        self._refusal: KafkaError | None = None
        # librdkafka's own log on stderr would repeat each failed connection; one sentence is raised instead.
        config = settings.client({"log_level": 0}) | {"error_cb": self._note}
        try:
            self.client = AdminClient(config)
        except KafkaException as error:
            reason = _without_secrets(error.args[0].str(), settings)
            raise SettingsError(f"librdkafka refuses the -X properties: {reason}") from None
        self.metadata = self._reach()

    @property
    def is_mock(self) -> bool:
        """Whether this is librdkafka's mock cluster, which has no controller to administer it."""
        return self.metadata.controller_id not in self.metadata.brokers

    def _reach(self) -> Any:
        deadline = time.monotonic() + self.timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                return self.client.list_topics(timeout=min(left, _SLICE_SECONDS))
            except KafkaException:
                self.client.poll(0)  # serves _note
            if self._refusal is not None:
                raise BrokerError(self._refused(self._refusal))
        raise BrokerError(
            f"can't reach Kafka at {self.servers} within {self.timeout:g} s; check --bootstrap-servers"
        )

    def _note(self, error: KafkaError) -> None:
        if error.code() in _NOT_LETTING_US_IN:
            self._refusal = error

    def _refused(self, error: KafkaError) -> str:
        what = "TLS" if error.code() == KafkaError._SSL else "the credentials"
        return f"Kafka at {self.servers} and we do not agree on {what}; {_NOT_LETTING_US_IN[error.code()]}"


def _without_secrets(text: str, settings: Settings) -> str:
    for name, value in settings.kafka.items():
        if is_secret(name) and value:
            text = text.replace(value, "***")
    return text

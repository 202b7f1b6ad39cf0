"""Explains why no broker answers, from the errors that librdkafka reports while connecting."""

import re
from typing import Final

from confluent_kafka import KafkaError

_CREDENTIALS = "rejects the credentials; check sasl.mechanism, sasl.username and sasl.password (-X)"
_TLS = "and this client do not agree on TLS; check security.protocol and the ssl.* properties (-X)"
_UNVERIFIED = (
    "presents a certificate that can't be verified; check ssl.ca.location (-X), whether the certificate has expired, "
    "and that it names the host of --bootstrap-servers"
)
_UNKNOWN_US = (
    "rejects this client's certificate, or requires one; "
    "check ssl.certificate.location and ssl.key.location (-X)"
)
_REFUSALS = {KafkaError._AUTHENTICATION: _CREDENTIALS, KafkaError._SSL: _TLS}
# librdkafka's text where its error code is less specific, such as "connection lost".
_SUSPICIONS = {
    "certificate verify failed": _UNVERIFIED,
    "ssl/tls alert": _UNKNOWN_US,
    "SSL handshake failed": _TLS,
    "incorrect security.protocol": _TLS,
}
_LOCAL: Final = "(vitalstream broker starts a local Kafka)"
_WANTS: Final = "security.protocol (-X) if it requires TLS or a password"
# librdkafka begins with the server's name: ssl://kafka-1:9093/bootstrap: Failed to resolve ...
_AT = re.compile(r"(?:\w+://)?(?P<server>(?P<host>\S+):\d+)/\w+: ")
_REASON = re.compile(r"(?:Connect to \S+ failed: )?(?P<reason>.+?)(?: \(after|$)")


class Obstacles:
    """Collects what prevents a connection to the brokers at `servers`. Only `refusal` is final; the rest may pass."""

    def __init__(self, servers: str) -> None:
        self.refusal: str | None = None
        self._servers = servers
        self._suspicion: str | None = None  # as when a broker restarts
        self._found: dict[str, str] = {}  # by server
        self._ended = False

    def note(self, error: KafkaError) -> None:
        """Record a client's error; an `error_cb`."""
        text = error.str()
        told = next((reason for words, reason in _SUSPICIONS.items() if words in text), None)
        self._suspicion = told or self._suspicion
        if error.code() in _REFUSALS:
            self.refusal = self.refusal or told or _REFUSALS[error.code()]
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._ended = True  # all it reports if a connection was made and closed
        elif at := _AT.match(text):
            self._found[at["server"]] = _obstacle(error, text[at.end() :], **at.groupdict())

    def sentence(self, seconds: float) -> str:
        """A sentence on why nothing arrived for that many seconds, and the remedy."""
        if reason := self.refusal or self._suspicion:
            return f"Kafka at {self._servers} {reason}"
        unreached = f"can't reach Kafka at {self._servers} within {seconds:g} s"
        if self._found:
            found = ", and ".join(self._found.values())
            return f"{unreached}: {found}; check --bootstrap-servers {_LOCAL}"
        if self._ended:
            ended = "connections to it close without an answer"
            return f"{unreached}: {ended}; check {_WANTS}, and --bootstrap-servers {_LOCAL}"
        return f"{unreached}; check --bootstrap-servers {_LOCAL}, and {_WANTS}"


def _obstacle(error: KafkaError, text: str, *, server: str, host: str) -> str:
    reason = _REASON.match(text)
    if error.code() == KafkaError._RESOLVE:
        return f"the host name {host} does not resolve"
    if error.code() == KafkaError._BAD_MSG:
        return f"{server} does not answer like Kafka (another service, or TLS: see security.protocol, -X)"
    if "imed out" in text:
        return f"{server} does not answer"
    if reason and reason["reason"] == "Connection refused":
        return f"nothing listens at {server}"
    return f"no connection to {server} ({reason['reason'].lower() if reason else error.name()})"

"""A real Apache Kafka that allows only what an ACL allows, and administration for tests."""

import uuid
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from broker.local import LocalKafka, free_port
from broker.rights import Right
from broker.settings import Settings
from tests.kafka import wait_until
from tests.security.certificates import Authority, Certificate

# Listener to security protocol. The broker's own PLAINTEXT listener remains for the administrator.
LISTENERS: Mapping[str, str] = {
    "TLS": "SSL",
    "MTLS": "SSL",
    "SCRAM": "SASL_SSL",
    "BARE": "SASL_PLAINTEXT",
    "EXPIRED": "SSL",
    "MISNAMED": "SSL",
}
THIS_HOST = "DNS:localhost,IP:127.0.0.1"


class SecuredKafka(LocalKafka):
    """TLS, mutual TLS and SCRAM-SHA-512 listeners on localhost; only what an ACL allows is allowed.

    Whoever connects to `bootstrap_servers` is ANONYMOUS there, and may do everything.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(data_dir=folder / "kafka", fast_start=True, heap="512m")
        self.folder = folder
        self.authority = Authority(folder / "authority")
        self.ports = {name: free_port() for name in LISTENERS}

    def address(self, listener: str) -> str:
        """Where clients of this listener connect."""
        return f"localhost:{self.ports[listener]}"

    @cached_property
    def admin(self) -> AdminClient:
        """The administrator."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def user(self, settings: Settings, rights: Iterable[Right] = (), *, name: str = "") -> Settings:
        """`settings` for a SCRAM user with a password and these rights on the names in `settings`."""
        name, password = name or f"user-{uuid.uuid4().hex[:8]}", f"canary-{uuid.uuid4().hex}"
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        made = UserScramCredentialUpsertion(name, credential, password.encode())
        self.admin.alter_user_scram_credentials([made])[name].result(30)
        self.grant(name, settings, rights)
        sasl = {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": name, "sasl.password": password}
        return self.at("SCRAM", settings, **{"security.protocol": "SASL_SSL"}, **sasl)

    def at(self, listener: str, settings: Settings, **properties: str) -> Settings:
        """`settings` for a client of the listener that trusts the broker's authority."""
        kafka = {
            "security.protocol": LISTENERS[listener],
            "ssl.ca.location": str(self.authority.certificate),
        }
        changes = {"bootstrap_servers": self.address(listener), "kafka": kafka | properties}
        return settings.model_copy(update=changes)

    def grant(self, user: str, settings: Settings, rights: Iterable[Right]) -> None:
        """Grant `user` these rights and no others; on return, the broker knows them."""
        bindings = [_binding(user, settings, one) for one in dict.fromkeys(rights)]
        for future in self.admin.create_acls(bindings).values() if bindings else ():
            future.result(30)
        wait_until(lambda: set(bindings) <= set(self._bindings(user)), what=f"ACLs of {user}")

    def revoke(self, user: str, settings: Settings, right: Right) -> None:
        """Revoke one right."""
        gone = _filter(_binding(user, settings, right))
        self.admin.delete_acls([gone])[gone].result(30)

    def _bindings(self, user: str) -> list[AclBinding]:
        anything: Any = None  # what a filter leaves open
        every = AclBindingFilter(
            ResourceType.ANY,
            anything,
            ResourcePatternType.ANY,
            f"User:{user}",
            anything,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        found: list[AclBinding] = self.admin.describe_acls(every).result(30)
        return found

    def _properties(self) -> dict[str, str]:
        properties = super()._properties()
        own = ",".join(f"{name}://{self.address(name)}" for name in LISTENERS)
        for setting in ("listeners", "advertised.listeners"):
            properties[setting] = f"{own},{properties[setting]}"
        properties["listener.security.protocol.map"] += "".join(
            f",{name}:{protocol}" for name, protocol in LISTENERS.items()
        )
        return properties | self._security()

    def _security(self) -> dict[str, str]:
        server = self.authority.issue("server", hosts=THIS_HOST)
        expired = self.authority.issue("expired", hosts=THIS_HOST, days=-1)
        misnamed = self.authority.issue("misnamed", hosts="DNS:kafka.example")
        return {
            "inter.broker.listener.name": "PLAINTEXT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.certificate),
            **self._identity("tls", server),
            **self._identity("mtls", server),
            **self._identity("scram", server),
            **self._identity("expired", expired),
            **self._identity("misnamed", misnamed),
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.mtls.ssl.principal.mapping.rules": "RULE:^CN=(.*)$/$1/",
            "listener.name.scram.scram-sha-512.sasl.jaas.config": _JAAS,
            "listener.name.bare.scram-sha-512.sasl.jaas.config": _JAAS,
        }

    def _identity(self, listener: str, one: Certificate) -> dict[str, str]:
        both = one.key.with_suffix(".both.pem")
        both.write_text(one.key.read_text() + one.certificate.read_text())
        prefix = f"listener.name.{listener}.ssl.keystore"
        return {f"{prefix}.type": "PEM", f"{prefix}.location": str(both)}


_KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
}


def _binding(user: str, settings: Settings, right: Right) -> AclBinding:
    return AclBinding(
        _KINDS[right.kind],
        right.name(settings),
        ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation[right.operation],
        AclPermissionType.ALLOW,
    )


def _filter(one: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        one.restype,
        one.name,
        one.resource_pattern_type,
        one.principal,
        one.host,
        one.operation,
        one.permission_type,
    )


_JAAS = "org.apache.kafka.common.security.scram.ScramLoginModule required;"

"""The rights that each command needs from Kafka's authorizer: the least that it can work with.

Kafka's READ and WRITE each include DESCRIBE. docs/security.md shows this table, and tests set exactly these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation

from broker.admin import Admin
from broker.errors import TopicError
from broker.settings import Settings

Operation = Literal["READ", "WRITE", "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS"]
Kind = Literal["topic", "group", "transactional id"]


@dataclass(frozen=True, slots=True)
class Right:
    """An operation on what the setting `setting` names, or on all whose names begin with `prefix`."""

    operation: Operation
    kind: Kind
    setting: str = ""
    prefix: str = ""
    optional: bool = False

    def name(self, settings: Settings) -> str:
        """The name, or the beginning of the names, that the right is for."""
        return self.prefix.format(group=settings.group) or str(getattr(settings, self.setting))


def _topics(operation: Operation, *settings: str, optional: bool = False) -> tuple[Right, ...]:
    return tuple(Right(operation, "topic", setting, optional=optional) for setting in settings)


_OUTPUTS: Final = ("output_topic", "metrics_topic", "dead_letter_topic")
_ALL: Final = ("input_topic", *_OUTPUTS)

RIGHTS: Final[Mapping[str, tuple[Right, ...]]] = {
    "consume": (
        *_topics("READ", "input_topic"),
        *_topics("WRITE", *_OUTPUTS),
        Right("READ", "group", "group"),
        Right("WRITE", "transactional id", prefix="{group}-"),
        # Tells their max.message.bytes; without it Kafka's default is taken.
        *_topics("DESCRIBE_CONFIGS", *_OUTPUTS, optional=True),
    ),
    "replay": _topics("WRITE", "input_topic"),
    "publish": _topics("WRITE", "input_topic"),
    "watch": _topics("READ", "output_topic"),
    "audit": (*_topics("READ", *_ALL), Right("DESCRIBE", "group", "group")),
    "topics create": (*_topics("CREATE", *_ALL), *_topics("DESCRIBE", *_ALL)),
    "topics check": (*_topics("DESCRIBE", *_ALL), *_topics("DESCRIBE_CONFIGS", *_ALL)),
}


def require_rights(settings: Settings, command: str, *, timeout: float = 10) -> None:
    """Return unless the brokers say that this user lacks a right of `command` on a topic.

    It would be found out anyway, but the one on dead letters perhaps months later.

    Raises:
        TopicError: names what is lacking, all of it.
        BrokerError: the brokers can't be reached within `timeout` seconds.
    """
    rights = [one for one in RIGHTS[command] if one.kind == "topic" and not one.optional]
    allowed = _allowed(Admin(settings, timeout=timeout), {one.name(settings) for one in rights})
    lacking = {
        one.name(settings): one.operation
        for one in rights
        if AclOperation[one.operation] not in allowed.get(one.name(settings), AclOperation)
    }
    if lacking:
        what = ", ".join(f"{operation} on topic {name}" for name, operation in lacking.items())
        raise TopicError(
            f"this user lacks rights at {settings.bootstrap_servers}: {what}; docs/security.md lists what "
            f"{command} needs",
            topics=tuple(lacking),
        )


def _allowed(admin: Admin, names: set[str]) -> dict[str, Any]:
    """What this user may do on each topic; a topic of which the brokers don't tell is left out."""
    if admin.is_mock:
        return {}
    futures = admin.client.describe_topics(
        TopicCollection(sorted(names)),
        include_authorized_operations=True,
        request_timeout=admin.timeout,
    )
    allowed = {}
    for name, future in futures.items():
        try:
            operations = future.result().authorized_operations
        except KafkaException:
            continue
        if operations:
            allowed[name] = operations
    return allowed

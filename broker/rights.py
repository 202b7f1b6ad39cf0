"""The minimum rights that each command needs from Kafka's authorizer.

Kafka's READ and WRITE each include DESCRIBE. docs/rights.md shows this table, and tests grant exactly these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation

from broker.admin import Admin
from broker.errors import TopicError
from broker.roles import TOPICS, Role
from broker.settings import Settings

Operation = Literal["READ", "WRITE", "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS"]
Kind = Literal["topic", "group", "transactional id"]


@dataclass(frozen=True, slots=True)
class Right:
    """An operation on the resource of this name, or if `prefixed`, on all whose names begin with it.

    The name contains settings in braces.
    """

    operation: Operation
    kind: Kind
    template: str
    prefixed: bool = False
    optional: bool = False

    def name(self, settings: Settings) -> str:
        """The name, or the prefix of names, under these settings."""
        return self.template.format(**vars(settings))


_INPUT, _RISK, _METRICS, _DEAD, _STATE = (TOPICS[role].name for role in Role)
_OUTPUTS: Final = (_RISK, _METRICS, _DEAD)
_ALL: Final = (_INPUT, *_OUTPUTS)


def _topics(operation: Operation, *templates: str, optional: bool = False) -> tuple[Right, ...]:
    return tuple(Right(operation, "topic", one, optional=optional) for one in templates)


RIGHTS: Final[Mapping[str, tuple[Right, ...]]] = {
    "consume": (
        *_topics("READ", _INPUT),
        *_topics("WRITE", *_OUTPUTS),
        Right("READ", "group", "{group}"),
        Right("WRITE", "transactional id", "{group}-", prefixed=True),
        # Whether the input is compacted, and the outputs' max.message.bytes; without it, Kafka's default is assumed.
        *_topics("DESCRIBE_CONFIGS", *_ALL, optional=True),
    ),
    # In addition, with a model that has a history.
    "consume with a history": (
        *_topics("READ", _STATE),
        *_topics("WRITE", _STATE),
        # Whether it is compacted.
        *_topics("DESCRIBE_CONFIGS", _STATE, optional=True),
    ),
    "replay": _topics("WRITE", _INPUT),
    "publish": _topics("WRITE", _INPUT),
    "watch": _topics("READ", _RISK),
    "status": (
        *_topics("DESCRIBE", _INPUT),
        Right("DESCRIBE", "group", "{group}"),
        # For the age of the oldest message, the models of the newest results, and dead letters by reason.
        *_topics("READ", _INPUT, _RISK, _DEAD, optional=True),
    ),
    "audit": (
        *_topics("READ", *_ALL),
        Right("DESCRIBE", "group", "{group}"),
        # Whether they are compacted; without it, whatever compaction might explain is not judged.
        *_topics("DESCRIBE_CONFIGS", *_ALL, optional=True),
    ),
    "audit with a history": _topics("READ", _STATE),
    **dict.fromkeys(
        ("state show", "state check", "state snapshot"),
        (
            *_topics("DESCRIBE", _INPUT),
            *_topics("READ", _STATE),
            Right("DESCRIBE", "group", "{group}"),
            *_topics("DESCRIBE_CONFIGS", _STATE, optional=True),
        ),
    ),
    # Beside DESCRIBE on the group of --from-group.
    "state rebuild": (
        *_topics("READ", _INPUT),
        *_topics("WRITE", _STATE),
        Right("READ", "group", "{group}"),
        Right("WRITE", "transactional id", "{group}-rebuild"),
        *_topics("DESCRIBE_CONFIGS", _STATE, optional=True),
    ),
    "mapping check": _topics("READ", _INPUT),
    "mapping suggest": _topics("READ", _INPUT),
    "dead-letters list": _topics("READ", _DEAD),
    "dead-letters replay": (
        *_topics("READ", _DEAD),
        *_topics("WRITE", _DEAD, _INPUT),
        Right("WRITE", "transactional id", "vitalstream-replay-{dead_letter_topic}"),
        # For letters that are only pointers, and for max.message.bytes.
        *_topics("READ", _INPUT, optional=True),
        *_topics("DESCRIBE_CONFIGS", _DEAD, _INPUT, optional=True),
    ),
    "topics create": (
        *_topics("CREATE", *_ALL),
        *_topics("DESCRIBE", *_ALL),
        # The cleanup policy of existing topics.
        *_topics("DESCRIBE_CONFIGS", *_ALL, optional=True),
    ),
    "topics create --state": (
        *_topics("CREATE", _STATE),
        *_topics("DESCRIBE", _STATE),
        *_topics("DESCRIBE_CONFIGS", _STATE, optional=True),
    ),
    "topics check": (*_topics("DESCRIBE", *_ALL), *_topics("DESCRIBE_CONFIGS", *_ALL)),
    "topics check --state": (*_topics("DESCRIBE", _STATE), *_topics("DESCRIBE_CONFIGS", _STATE)),
}


def require_rights(settings: Settings, command: str, *, timeout: float = 10) -> None:
    """Check that this user has the rights of `command` on every topic, as far as the brokers report them.

    Otherwise a missing right would be noticed only on first use: for dead letters perhaps months later.

    Raises:
        TopicError: names all missing rights.
        BrokerError: the brokers can't be reached within `timeout` seconds.
    """
    rights = [one for one in RIGHTS[command] if one.kind == "topic" and not one.optional]
    allowed = _allowed(Admin(settings, timeout=timeout), {one.name(settings) for one in rights})
    lacking = [
        (one.operation, one.name(settings))
        for one in rights
        if AclOperation[one.operation] not in allowed.get(one.name(settings), AclOperation)
    ]
    if lacking:
        what = ", ".join(f"{operation} on topic {name}" for operation, name in lacking)
        raise TopicError(
            f"this user lacks rights at {settings.bootstrap_servers}: {what}; docs/rights.md lists what "
            f"{command} needs",
            topics=tuple(name for _, name in lacking),
        )


def _allowed(admin: Admin, names: set[str]) -> dict[str, Any]:
    """This user's rights on each topic; topics on which the brokers don't report are left out."""
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

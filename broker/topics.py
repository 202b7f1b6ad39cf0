"""The four topics: made with the right settings, checked, required at start."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic

from broker.admin import Admin
from broker.errors import BrokerError, TopicError
from broker.options import OPTIONS
from broker.settings import TOPIC_SETTINGS, Settings, flag

DEFAULT_PARTITIONS = 4
BROKER_DEFAULT = -1  # Kafka's own way to say: the replication factor the brokers are set to
DEFAULT_MAX_MESSAGE_BYTES = 1_048_588  # Kafka's default of max.message.bytes

_DAY_MS = 24 * 60 * 60 * 1000
_LIMIT = "max.message.bytes"
_CLEANUP = "cleanup.policy"
# With more partitions most keys move to another one, and Kafka keeps order within a partition only.
_BEFORE_GROWING = {
    "input_topic": "stop the senders first and wait until vitalstream status shows that 0 messages wait, or a "
    "patient's messages may be scored out of order",
    "output_topic": "stop the workers first and let readers finish, or a patient's results may be read out of order",
    "metrics_topic": "readers must not expect order across partitions",
    "dead_letter_topic": "replay the dead letters first, or a patient's may be replayed out of order",
}


@dataclass(frozen=True)
class TopicSpec:
    """A topic as `topics create` makes it."""

    name: str
    partitions: int = DEFAULT_PARTITIONS
    replication_factor: int = BROKER_DEFAULT
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """What `topics check` has to say of a topic: an `error` stops or loses results, a `warning` may."""

    topic: str
    level: Literal["error", "warning", "note"]
    message: str


@dataclass(frozen=True, slots=True)
class Cleanup:
    """What brokers delete by themselves: `compacts` all but the last message of each key, `expires` the oldest."""

    compacts: bool
    expires: bool


def topic_specs(
    settings: Settings, *, partitions: int = DEFAULT_PARTITIONS, replication_factor: int = BROKER_DEFAULT
) -> list[TopicSpec]:
    """The four topics of `settings`, the input first.

    Dead letters are kept longer, for somebody to look at them, and may be larger: they hold the whole
    source message and our headers.
    """
    common = {_CLEANUP: "delete", "message.timestamp.type": "CreateTime"}
    usual = {**common, "retention.ms": str(7 * _DAY_MS), _LIMIT: str(DEFAULT_MAX_MESSAGE_BYTES)}
    dead_letter = {**common, "retention.ms": str(30 * _DAY_MS), _LIMIT: str(2 * DEFAULT_MAX_MESSAGE_BYTES)}
    configs = dict.fromkeys(settings.topics, usual) | {settings.dead_letter_topic: dead_letter}
    return [TopicSpec(name, partitions, replication_factor, config) for name, config in configs.items()]


def create_topics(
    settings: Settings,
    *,
    partitions: int = DEFAULT_PARTITIONS,
    replication_factor: int = BROKER_DEFAULT,
    timeout: float = 30,
) -> list[tuple[str, Literal["created", "exists"]]]:
    """Make those of the four topics that are not there; one that is there stays as it is.

    On return the brokers answer for all four: they learn of a topic some moments after it is made.

    Raises:
        TopicError: the brokers refuse a topic.
        BrokerError: they can't be reached, or can't make topics.
    """
    admin = Admin(settings, timeout=timeout)
    if admin.is_mock:
        raise BrokerError(f"the Kafka at {admin.servers} can't create topics; it makes them at first use")
    specs = topic_specs(settings, partitions=partitions, replication_factor=replication_factor)
    new = [
        NewTopic(one.name, one.partitions, one.replication_factor, config=dict(one.config)) for one in specs
    ]
    futures = admin.client.create_topics(new, operation_timeout=timeout, request_timeout=timeout)
    made = [(name, _created(name, future)) for name, future in futures.items()]
    admin.wait_for(settings.topics)
    return made


def check_topics(settings: Settings, *, timeout: float = 10) -> list[Finding]:
    """What is wrong with, or different from `topics create` in, the four topics; empty when nothing is.

    Raises:
        BrokerError: the brokers can't be reached.
    """
    admin = Admin(settings, timeout=timeout)
    there = [spec for spec in topic_specs(settings) if spec.name in admin.metadata.topics]
    configs = _topic_configs(admin, [spec.name for spec in there])
    findings = [
        Finding(name, "error", f"is missing; run: {_create_command(settings)}")
        for name in _missing(admin, settings.topics)
    ]
    for spec in there:
        findings += _shape_findings(spec.name, admin.metadata.topics, settings)
        findings += _config_findings(spec, configs.get(spec.name, {} if admin.is_mock else None), settings)
    return findings + _limit_findings(settings, configs)


def differences(
    settings: Settings,
    names: Sequence[str],
    *,
    partitions: int | None = None,
    replication_factor: int = BROKER_DEFAULT,
    timeout: float = 10,
) -> list[Finding]:
    """How these existing topics differ from those that `create_topics` would make.

    It is an `error` where something else was asked for. None asks for no number of partitions in particular.

    Raises:
        BrokerError: the brokers can't be reached.
    """
    admin = Admin(settings, timeout=timeout)
    configs = _topic_configs(admin, names)
    findings = []
    for spec in topic_specs(settings):
        if spec.name in names:
            found = admin.metadata.topics[spec.name].partitions
            findings += _partition_findings(spec.name, len(found), partitions, settings)
            findings += _replica_findings(spec.name, found, replication_factor, settings)
            findings += _config_findings(spec, configs.get(spec.name), settings)
    return findings


def require_topics(settings: Settings, names: Sequence[str], *, timeout: float = 10) -> None:
    """Return if the cluster answers and has all these topics.

    Raises:
        TopicError: names those that are missing, and how to make them.
        BrokerError: the brokers can't be reached within `timeout` seconds, or refuse us.
    """
    missing = _missing(Admin(settings, timeout=timeout), names)
    if missing:
        told = ", ".join(f"{topic} ({flag(_role(topic, settings))})" for topic in missing)
        is_, s = ("is", "") if len(missing) == 1 else ("are", "s")
        raise TopicError(
            f"topic{s} {told} {is_} missing (or hidden from this user) at {settings.bootstrap_servers}; "
            f"check the name{s}, or run: {_create_command(settings)}",
            topics=tuple(missing),
        )


def _role(topic: str, settings: Settings) -> str:
    """The setting that names this topic."""
    return next(name for name in TOPIC_SETTINGS if getattr(settings, name) == topic)


def _create_command(settings: Settings) -> str:
    """What makes the topics of these settings."""
    names = ("bootstrap_servers", *TOPIC_SETTINGS)
    changed = {
        name: getattr(settings, name) for name in names if getattr(settings, name) != OPTIONS[name].default
    }
    return " ".join(
        ["vitalstream topics create", *(f"{flag(name)} {value}" for name, value in changed.items())]
    )


def message_limits(settings: Settings, names: Iterable[str], *, timeout: float = 10) -> dict[str, int]:
    """Each topic's `max.message.bytes`; Kafka's default where the brokers do not tell.

    Raises:
        BrokerError: the brokers can't be reached.
    """
    names = list(names)
    configs = _topic_configs(Admin(settings, timeout=timeout), names)
    return {name: int(configs.get(name, {}).get(_LIMIT, DEFAULT_MAX_MESSAGE_BYTES)) for name in names}


def cleanups(settings: Settings, names: Sequence[str], *, timeout: float = 10) -> dict[str, Cleanup]:
    """How each topic is cleaned up; a topic whose configuration this user may not see is left out.

    Raises:
        BrokerError: the brokers can't be reached.
    """
    return {
        name: Cleanup(compacts="compact" in config[_CLEANUP], expires=_expires(config))
        for name, config in _topic_configs(Admin(settings, timeout=timeout), names).items()
    }


def _expires(config: Mapping[str, str]) -> bool:
    limited = int(config["retention.ms"]) >= 0 or int(config["retention.bytes"]) >= 0
    return "delete" in config[_CLEANUP] and limited


def _created(name: str, future: Any) -> Literal["created", "exists"]:
    try:
        future.result()
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError.TOPIC_ALREADY_EXISTS:
            return "exists"
        if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
            reason = "this user may not create topics; ask for the CREATE right on it"
        else:
            reason = error.args[0].str()
        raise TopicError(f"Kafka refused to create topic {name}: {reason}", topics=(name,)) from None
    return "created"


def _missing(admin: Admin, names: Iterable[str]) -> list[str]:
    return [name for name in names if name not in admin.metadata.topics]


def _topic_configs(admin: Admin, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Each topic's configuration; a topic whose configuration we may not see, or can't, is left out."""
    if admin.is_mock or not names:
        return {}
    asked = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    configs = {}
    for resource, future in admin.client.describe_configs(asked, request_timeout=admin.timeout).items():
        try:
            configs[resource.name] = {key: entry.value for key, entry in future.result().items()}
        except KafkaException:
            continue
    return configs


def _shape_findings(name: str, topics: Any, settings: Settings) -> list[Finding]:
    partitions = topics[name].partitions
    findings = []
    if any(len(partition.replicas) == 1 for partition in partitions.values()):
        findings.append(Finding(name, "warning", "has one replica: what one broker loses is lost"))
    source = topics.get(settings.input_topic)
    if name == settings.output_topic and source and len(partitions) < len(source.partitions):
        message = (
            f"has {len(partitions)} partitions, fewer than {settings.input_topic}'s {len(source.partitions)}"
        )
        findings.append(Finding(name, "note", message))
    return findings


def _partition_findings(name: str, found: int, asked: int | None, settings: Settings) -> list[Finding]:
    if asked is None or asked == found:
        return []
    role = _role(name, settings)
    if found > asked:
        remedy = "Kafka can't take partitions away: leave out --partitions"
    else:
        grow = f"kafka-topics.sh {_at(settings)} --alter --topic {name} --partitions {asked}"
        remedy = f"{grow} adds them and moves most keys to another partition: {_BEFORE_GROWING[role]}"
    message = f"has {_counted(found, 'partition')}, not {asked}; {remedy}; or use a new topic ({flag(role)})"
    return [Finding(name, "error", message)]


def _replica_findings(
    name: str, partitions: Mapping[int, Any], asked: int, settings: Settings
) -> list[Finding]:
    other = {len(one.replicas) for one in partitions.values()} - {asked}
    if asked == BROKER_DEFAULT or not other:
        return []
    message = (
        f"has a replication factor of {min(other)}, not {asked}; kafka-reassign-partitions.sh {_at(settings)} "
        f"changes it; or use a new topic ({flag(_role(name, settings))})"
    )
    return [Finding(name, "error", message)]


def _config_findings(spec: TopicSpec, config: Mapping[str, str] | None, settings: Settings) -> list[Finding]:
    if config is None:
        message = "hides its settings: this user lacks DESCRIBE_CONFIGS on it"
        return [Finding(spec.name, "warning", message)]
    findings = []
    for key, wanted in spec.config.items():
        found = config.get(key, wanted)
        if key == _CLEANUP and "compact" in found:
            message = (
                f"{key} is {found}, which drops all but the last message of each patient; run: kafka-configs.sh "
                f"{_at(settings)} --alter --topic {spec.name} --add-config {key}={wanted}"
            )
            findings.append(Finding(spec.name, "error", message))
        elif found != wanted and key != _LIMIT:
            findings.append(Finding(spec.name, "note", f"{key} is {found}; topics create sets {wanted}"))
    return findings


def _at(settings: Settings) -> str:
    return f"--bootstrap-server {settings.bootstrap_servers}"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _limit_findings(settings: Settings, configs: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    source, target = settings.input_topic, settings.dead_letter_topic
    if source not in configs or target not in configs:
        return []
    accepted, held = int(configs[source][_LIMIT]), int(configs[target][_LIMIT])
    if held > accepted:
        return []
    message = f"{_LIMIT} is {held}, not above {source}'s {accepted}: a large dead letter becomes a pointer"
    return [Finding(target, "warning", message)]

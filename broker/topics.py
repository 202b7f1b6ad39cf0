"""Creates the topics with the right settings, checks them, and requires them at start."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic

from broker.admin import Admin
from broker.errors import BrokerError, TopicError
from broker.options import OPTIONS
from broker.roles import DEFAULT_MAX_MESSAGE_BYTES, TOPIC_SETTINGS, TOPICS, Role
from broker.settings import Settings, flag

DEFAULT_PARTITIONS = 4
BROKER_DEFAULT = -1  # Kafka's value for the brokers' default replication factor

_LIMIT = "max.message.bytes"
_CLEANUP = "cleanup.policy"
_LAG = "min.compaction.lag.ms"


@dataclass(frozen=True)
class Finding:
    """A finding of `topics check`: an `error` stops scoring or loses results, a `warning` may."""

    topic: str
    level: Literal["error", "warning", "note"]
    message: str


@dataclass(frozen=True, slots=True)
class Cleanup:
    """What brokers delete: `compacts`, all but the last message of each key; `expires`, the oldest messages.

    `compaction_lag` is for how many seconds a message displaces none.
    """

    compacts: bool
    expires: bool
    compaction_lag: float = 0.0


def roles(*, state: bool) -> list[Role]:
    """The roles of a worker's topics, the input first; a model with a history has a `state` topic, too."""
    return [role for role in TOPICS if state or role is not Role.STATE]


def create_topics(
    settings: Settings,
    *,
    partitions: int = DEFAULT_PARTITIONS,
    replication_factor: int = BROKER_DEFAULT,
    state: bool = False,
    timeout: float = 30,
) -> list[tuple[str, Literal["created", "exists"]]]:
    """Create the missing topics; existing ones are not changed.

    A state topic gets as many partitions as the input has. Returns once all brokers know the topics, which takes some
    moments after creation.

    Raises:
        TopicError: the brokers refuse a topic.
        BrokerError: they can't be reached, or can't make topics.
    """
    admin = Admin(settings, timeout=timeout)
    if admin.is_mock:
        raise BrokerError(
            f"the Kafka at {admin.servers} can't create topics on request; it creates them at first use"
        )
    source = admin.metadata.topics.get(settings.input_topic)
    counts = {Role.STATE: len(source.partitions)} if source else {}
    new = [
        NewTopic(
            settings.topic(role),
            counts.get(role, partitions),
            replication_factor,
            config=dict(TOPICS[role].config),
        )
        for role in roles(state=state)
    ]
    futures = admin.client.create_topics(new, operation_timeout=timeout, request_timeout=timeout)
    made = [(name, _created(name, future)) for name, future in futures.items()]
    admin.wait_for([name for name, _ in made])
    return made


def check_topics(settings: Settings, *, state: bool = False, timeout: float = 10) -> list[Finding]:
    """What is wrong with the topics, or differs from what `topics create` makes; empty if nothing does.

    Raises:
        BrokerError: the brokers can't be reached.
    """
    admin = Admin(settings, timeout=timeout)
    named = {role: settings.topic(role) for role in roles(state=state)}
    there = {role: name for role, name in named.items() if name in admin.metadata.topics}
    configs = _topic_configs(admin, [*there.values()])
    findings = [
        Finding(name, "error", f"is missing; run: {_create_command(settings, state=role is Role.STATE)}")
        for role, name in named.items()
        if role not in there
    ]
    for role, name in there.items():
        findings += _shape_findings(role, admin.metadata.topics, settings)
        findings += _config_findings(role, configs.get(name, {} if admin.is_mock else None), settings)
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

    A difference from what was asked for is an `error`. `partitions` None accepts any number.

    Raises:
        BrokerError: the brokers can't be reached.
    """
    admin = Admin(settings, timeout=timeout)
    configs = _topic_configs(admin, names)
    findings = []
    for role in TOPICS:
        name = settings.topic(role)
        if name in names:
            found = admin.metadata.topics[name].partitions
            if role is Role.STATE:
                findings += _narrow_findings(role, admin.metadata.topics, settings)
            else:
                findings += _partition_findings(role, len(found), partitions, settings)
            findings += _replica_findings(role, found, replication_factor, settings)
            findings += _config_findings(role, configs.get(name), settings)
    return findings


def require_topics(settings: Settings, names: Sequence[str], *, timeout: float = 10) -> None:
    """Check that the cluster answers and has all these topics.

    Raises:
        TopicError: names the missing ones, and how to create them.
        BrokerError: the brokers can't be reached within `timeout` seconds, or reject us.
    """
    missing = _missing(Admin(settings, timeout=timeout), names)
    if missing:
        state = settings.topic(Role.STATE)
        told = ", ".join(
            f"{name} (of --input-topic and --group)" if name == state else f"{name} ({_flag(name, settings)})"
            for name in missing
        )
        is_, s = ("is", "") if len(missing) == 1 else ("are", "s")
        raise TopicError(
            f"topic{s} {told} {is_} missing (or hidden from this user) at {settings.bootstrap_servers}; "
            f"check the name{s}, or run: {_create_command(settings, state=state in missing)}",
            topics=tuple(missing),
        )


def require_state_topic(settings: Settings, *, timeout: float = 10) -> None:
    """Check that the state topic exists, has as many partitions as the input, and is compacted.

    If this user may not see its configuration, it counts as compacted.

    Raises:
        TopicError: says what is wrong, and the remedy.
        BrokerError: the brokers can't be reached.
    """
    name = settings.topic(Role.STATE)
    require_topics(settings, [name], timeout=timeout)
    admin = Admin(settings, timeout=timeout)
    findings = _narrow_findings(Role.STATE, admin.metadata.topics, settings)
    findings += _config_findings(Role.STATE, _topic_configs(admin, [name]).get(name), settings)
    for finding in findings:
        if finding.level == "error":
            raise TopicError(f"topic {name} {finding.message}", topics=(name,))


def _flag(topic: str, settings: Settings) -> str:
    """The setting that names this topic."""
    return flag(next(name for name in TOPIC_SETTINGS if getattr(settings, name) == topic))


def _create_command(settings: Settings, *, state: bool = False) -> str:
    """The command that creates the topics of these settings."""
    names = ("bootstrap_servers", *TOPIC_SETTINGS, *(["group"] if state else []))
    changed = {
        name: getattr(settings, name) for name in names if getattr(settings, name) != OPTIONS[name].default
    }
    told = [f"{flag(name)} {value}" for name, value in changed.items()]
    return " ".join(["vitalstream topics create", *(["--state"] if state else []), *told])


def message_limits(settings: Settings, names: Iterable[str], *, timeout: float = 10) -> dict[str, int]:
    """Each topic's `max.message.bytes`; Kafka's default if the brokers don't report it.

    Raises:
        BrokerError: the brokers can't be reached.
    """
    names = list(names)
    configs = _topic_configs(Admin(settings, timeout=timeout), names)
    return {name: int(configs.get(name, {}).get(_LIMIT, DEFAULT_MAX_MESSAGE_BYTES)) for name in names}


def cleanups(settings: Settings, names: Sequence[str], *, timeout: float = 10) -> dict[str, Cleanup]:
    """Each topic's cleanup policy; topics whose configuration this user may not see are left out.

    Raises:
        BrokerError: the brokers can't be reached.
    """
    return {
        name: Cleanup(
            compacts="compact" in config[_CLEANUP],
            expires=_expires(config),
            compaction_lag=int(config.get(_LAG, 0)) / 1000,
        )
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


def _shape_findings(role: Role, topics: Any, settings: Settings) -> list[Finding]:
    name = settings.topic(role)
    findings = []
    if any(len(partition.replicas) == 1 for partition in topics[name].partitions.values()):
        findings.append(Finding(name, "warning", "has one replica: data that one broker loses is lost"))
    return findings + _narrow_findings(role, topics, settings)


def _narrow_findings(role: Role, topics: Any, settings: Settings) -> list[Finding]:
    """The results should have at least as many partitions as the input; the state must have the same number."""
    name, source = settings.topic(role), topics.get(settings.input_topic)
    if source is None:
        return []
    found, wanted = len(topics[name].partitions), len(source.partitions)
    if role is Role.RESULTS and found < wanted:
        message = f"has {found} partitions, fewer than {settings.input_topic}'s {wanted}"
        return [Finding(name, "note", message)]
    if role is Role.STATE and found != wanted:
        message = (
            f"has {_counted(found, 'partition')}, and {settings.input_topic} has {wanted}: a patient's state "
            "belongs on the partition of its messages; choose another --group, and create its state topic with "
            "topics create --state"
        )
        return [Finding(name, "error", message)]
    return []


def _partition_findings(role: Role, found: int, asked: int | None, settings: Settings) -> list[Finding]:
    if asked is None or asked == found:
        return []
    name = settings.topic(role)
    if found > asked:
        remedy = "Kafka can't remove partitions: leave out --partitions"
    else:
        grow = f"kafka-topics.sh {_at(settings)} --alter --topic {name} --partitions {asked}"
        remedy = f"{grow} adds them and moves most keys to another partition: {TOPICS[role].before_growing}"
    message = f"has {_counted(found, 'partition')}, not {asked}; {remedy}; or use a new topic ({flag(role)})"
    return [Finding(name, "error", message)]


def _replica_findings(
    role: Role, partitions: Mapping[int, Any], asked: int, settings: Settings
) -> list[Finding]:
    other = {len(one.replicas) for one in partitions.values()} - {asked}
    if asked == BROKER_DEFAULT or not other:
        return []
    another = "--group" if role is Role.STATE else flag(role)
    message = (
        f"has a replication factor of {min(other)}, not {asked}; kafka-reassign-partitions.sh {_at(settings)} "
        f"changes it; or use a new topic ({another})"
    )
    return [Finding(settings.topic(role), "error", message)]


def _config_findings(role: Role, config: Mapping[str, str] | None, settings: Settings) -> list[Finding]:
    name = settings.topic(role)
    if config is None:
        return [Finding(name, "warning", "hides its settings: this user lacks DESCRIBE_CONFIGS on it")]
    findings = []
    for key, wanted in TOPICS[role].config.items():
        found = config.get(key, wanted)
        if key == _CLEANUP and (loss := _loss_by(found, wanted)):
            message = (
                f"{key} is {found}, which drops {loss}; run: kafka-configs.sh "
                f"{_at(settings)} --alter --topic {name} --add-config {key}={wanted}"
            )
            findings.append(Finding(name, "error", message))
        elif found != wanted and key != _LIMIT:
            findings.append(Finding(name, "note", f"{key} is {found}; topics create sets {wanted}"))
    return findings


def _loss_by(policy: str, wanted: str) -> str:
    """What a cleanup policy loses; '' if nothing."""
    if wanted == "delete" and "compact" in policy:
        return "all but the last message of each patient"
    return "patients' state" if wanted == "compact" and policy != wanted else ""


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

"""All settings, in one immutable object created once at the edge.

A value comes from the command line, else from `VITALSTREAM_<NAME>`, else from the TOML file given by
`--config`, else from the default here. librdkafka's own properties keep their names, in `kafka`.
"""

import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import (
    SettingsError as SourceError,
)
from typing_extensions import override

from broker.errors import SettingsError
from broker.options import OPTIONS
from broker.roles import TOPIC_SETTINGS, TOPICS, Role

ENV_PREFIX = "VITALSTREAM_"

# Properties that decide delivery or identity; they are derived from our own settings.
OWNED_PROPERTIES = {
    "bootstrap.servers": "--bootstrap-servers",
    "metadata.broker.list": "--bootstrap-servers",
    "group.id": "--group",
    "group.instance.id": "--instance",
    "transactional.id": "--instance",
    "enable.auto.commit": "--delivery",
    "enable.auto.offset.store": "--delivery",
    "enable.idempotence": "--delivery",
    "isolation.level": "--delivery",
    "auto.offset.reset": "--delivery",
}

_CLIENT: Final = {
    # A client connects at least twice: to a bootstrap server, and to a broker that it learns of there. librdkafka waits
    # half of this between any two connections. The default of 100 ms is a fifth of a worker's start; what goes on
    # failing is still tried less and less often, up to reconnect.backoff.max.ms.
    "reconnect.backoff.ms": 20,
}

_HOST = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
_ADDRESS = re.compile(_HOST + r":[0-9]{1,5}")
_BROKER = re.compile(r"([A-Za-z0-9_]+://)?" + _HOST + r"(:(?P<port>[0-9]{1,5}))?")
_URL = re.compile(r"https?://[^/@\s?#]+(/[^@\s?#]*)?")
_REGISTRY: Final = "schema.registry."
_LAST_PORT: Final = 65_535

_SECRET_WORDS = (
    "password",
    "passphrase",
    "secret",
    "user.info",
    ".pem",
    "jaas",
    "oauthbearer.config",
    "token",
)
_PLACES = (".location", ".file")
_WITH_SCHEMAS: Final = ("avro", "json-schema")


def _option(name: str, **rules: Any) -> Any:
    return Field(OPTIONS[name].default, description=OPTIONS[name].help, **rules)


TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]

_BOUNDS: Final = {"ge": "from", "gt": "above", "le": "up to"}
_PROPERTIES: Final = (
    "must be librdkafka properties by name: in a file the table [kafka], in the environment a JSON object such as "
    '{"security.protocol": "SSL"}'
)
_NAME: Final = "must be 1 to {} letters (A to Z), digits, dots, hyphens or underscores"
# What a value must be, for settings that are neither numbers nor a choice of words.
_WORDS: Final = {
    "bootstrap_servers": "must be HOST:PORT with a port from 1 up to 65535, or several separated by commas",
    **dict.fromkeys(TOPIC_SETTINGS, _NAME.format(249)),
    "group": _NAME.format(200),
    "instance": _NAME.format(100),
    "trusted_types": "must be full names of types separated by commas, such as sklearn.tree._tree.Tree",
    "positive_class": "must be one of the model's two classes",
    "features": "must be names separated by commas, such as heart_rate,spo2",
    "ranges": "must be a TOML file, or off",
    "skip_foreign": "must be true or false",
    "chunk_size": "must be a whole number from 1 up to 100,000, or auto",
    "kafka": _PROPERTIES,
    "schema_registry": "must be http:// or https:// with host and path, or several separated by commas; a login goes "
    "into schema.registry.basic.auth.user.info",
    "schema_subject": "must be the name of a subject",
    "from_timestamp": "must be a time with a zone, such as 2026-01-05T08:30:00Z",
    "http": "must be HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464",
}


class Settings(BaseModel):
    """All settings of a run. Immutable, and safe to print: secrets in `kafka` never show."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    bootstrap_servers: str = _option("bootstrap_servers")
    kafka: dict[str, str] = Field({}, description="librdkafka properties", repr=False)
    secrets_dir: Path | None = _option("secrets_dir")

    input_topic: TopicName = _option("input_topic")
    output_topic: TopicName = _option("output_topic")
    metrics_topic: TopicName = _option("metrics_topic")
    dead_letter_topic: TopicName = _option("dead_letter_topic")

    group: str = _option("group", pattern=r"^[A-Za-z0-9._-]{1,200}$")
    model: Path | None = _option("model")
    trusted_types: str = _option("trusted_types", pattern=r"^[\w.]*(,[\w.]+)*$")
    threshold: float | None = _option("threshold", ge=0, le=1)
    positive_class: str | None = _option("positive_class", min_length=1)
    code: Path | None = _option("code")
    features: str | None = _option("features", pattern=r"^[^,]+(,[^,]+)*$")
    ranges: str | None = _option("ranges", min_length=1)
    min_features: int = _option("min_features", ge=1)
    value_format: Literal["json", "json-schema", "avro", "fhir", "hl7v2"] = _option("value_format")
    schema_registry: str | None = _option("schema_registry")
    schema_subject: str | None = _option("schema_subject", min_length=1)
    schema_file: Path | None = _option("schema_file")
    result_format: Literal["json", "avro"] = _option("result_format")
    mapping: Path | None = _option("mapping")
    skip_foreign: bool = _option("skip_foreign")
    max_patients: int = _option("max_patients", ge=1)
    max_state_mb: int = _option("max_state_mb", ge=1)
    chunk_size: Annotated[int, Field(ge=1, le=100_000)] | Literal["auto"] = _option("chunk_size")
    max_wait_ms: float = _option("max_wait_ms", ge=0, le=60_000)
    latency_goal_ms: float = _option("latency_goal_ms", gt=0, le=60_000)
    commit_interval_ms: float = _option("commit_interval_ms", ge=0, le=10_000)
    delivery: Literal["exactly-once", "at-least-once"] = _option("delivery")
    max_dead_letter_ratio: float = _option("max_dead_letter_ratio", ge=0, le=1)
    instance: str | None = _option("instance", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    workers: int = _option("workers", ge=1, le=256)
    http: str | None = _option("http")
    stall_after: float = _option("stall_after", gt=0, le=86_400)
    log_format: Literal["text", "json"] = _option("log_format")
    from_timestamp: AwareDatetime | None = _option("from_timestamp")
    until_idle: float | None = _option("until_idle", gt=0)

    @field_validator("chunk_size", mode="before")
    @classmethod
    def _refuse_other_words(cls, size: object) -> object:
        if isinstance(size, str) and size != "auto" and not size.isdecimal():
            raise ValueError(_WORDS["chunk_size"])
        return size

    @field_validator("from_timestamp", mode="before")
    @classmethod
    def _refuse_numbers(cls, time: object) -> object:
        if isinstance(time, int | float) or (isinstance(time, str) and re.fullmatch(r"[\d.+-]+", time)):
            raise ValueError(_WORDS["from_timestamp"])
        return time

    @field_validator("http")
    @classmethod
    def _refuse_no_address(cls, address: str | None) -> str | None:
        if address is not None and not _ADDRESS.fullmatch(address):
            raise ValueError(_WORDS["http"])
        return address

    @field_validator("schema_registry")
    @classmethod
    def _refuse_no_url(cls, urls: str | None) -> str | None:
        if urls is not None and not all(_URL.fullmatch(one.strip()) for one in urls.split(",")):
            raise ValueError(_WORDS["schema_registry"])
        return urls

    @field_validator("bootstrap_servers")
    @classmethod
    def _refuse_no_brokers(cls, servers: str) -> str:
        found = [_BROKER.fullmatch(one.strip()) for one in servers.split(",")]
        # librdkafka takes ports modulo 65536.
        if not all(one and 0 < int(one["port"] or 1) <= _LAST_PORT for one in found):
            raise ValueError(_WORDS["bootstrap_servers"])
        return servers

    @field_validator("kafka", mode="before")
    @classmethod
    def _as_text(cls, properties: Any) -> Any:
        """Numbers and booleans from TOML and JSON, in the form that librdkafka takes."""
        if not isinstance(properties, dict):
            return properties
        return {
            name: str(value).lower() if isinstance(value, bool | int | float) else value
            for name, value in properties.items()
        }

    @field_validator("kafka")
    @classmethod
    def _refuse_owned(cls, properties: dict[str, str]) -> dict[str, str]:
        for name in properties:
            if name in OWNED_PROPERTIES:
                raise ValueError(f"{name} is set by vitalstream itself; use {OWNED_PROPERTIES[name]} instead")
        return properties

    @model_validator(mode="after")
    def _refuse_a_topic_in_two_roles(self) -> Self:
        topic, times = Counter(self.topics).most_common(1)[0]
        if times > 1:
            one, other, *_ = (flag(name) for name in TOPIC_SETTINGS if getattr(self, name) == topic)
            raise ValueError(f"{one} and {other} are both {topic}; give each a topic of its own")
        return self

    def of_worker(self, number: int) -> Self:
        """The settings of one of several workers on this host: each serves HTTP on a port of its own."""
        host, _, port = (self.http or "").rpartition(":")
        if not host or int(port) == 0:
            return self
        return self.model_copy(update={"http": f"{host}:{int(port) + number}"})

    @property
    def trusted(self) -> tuple[str, ...]:
        """The types that a skops file may contain besides skops' own."""
        return tuple(filter(None, self.trusted_types.split(",")))

    @property
    def from_ms(self) -> int | None:
        """`from_timestamp` in milliseconds since 1970, as for Kafka."""
        return None if self.from_timestamp is None else math.ceil(1000 * self.from_timestamp.timestamp())

    @property
    def of_model(self) -> dict[str, Any]:
        """The settings that describe the model, for `real_time.usable.load_usable`."""
        return {
            "trusted": self.trusted,
            "threshold": self.threshold,
            "positive_class": self.positive_class,
            "code": self.code,
            "features": None if self.features is None else tuple(map(str.strip, self.features.split(","))),
        }

    def topic(self, role: Role) -> str:
        """The name of the role's topic."""
        return TOPICS[role].of(self)

    @property
    def by_role(self) -> dict[Role, str]:
        """The name of each role's topic."""
        return {role: self.topic(role) for role in Role}

    @property
    def output_topics(self) -> tuple[str, ...]:
        """The topics that every worker writes."""
        return self.topics[1:]

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that have a setting, the input first."""
        return tuple(self.topic(Role(name)) for name in TOPIC_SETTINGS)

    def client(self, defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A librdkafka configuration: ours for all clients, overridden by `defaults`, then by the user's properties."""
        own = {name: value for name, value in self.kafka.items() if not name.startswith(_REGISTRY)}
        return {"bootstrap.servers": self.bootstrap_servers, **_CLIENT, **(defaults or {}), **own}

    @property
    def registry_properties(self) -> dict[str, str]:
        """The registry client's properties, which are given like librdkafka's, as `schema.registry.…`."""
        return {
            name.removeprefix(_REGISTRY): value
            for name, value in self.kafka.items()
            if name.startswith(_REGISTRY)
        }

    def shown(self) -> dict[str, Any]:
        """The settings as plain values for a log, with `***` for secrets."""
        shown = self.model_dump(mode="json", exclude_none=True)
        shown["kafka"] = {k: "***" if is_secret(k) else v for k, v in self.kafka.items()}
        return shown


def flag(name: str) -> str:
    """A setting's name on the command line."""
    return f"--{name.replace('_', '-')}"


def closest(name: str) -> str | None:
    """The setting that a misspelt name probably means."""
    close = get_close_matches(name.lower().replace("-", "_"), Settings.model_fields, 1)
    return close[0] if close else None


def is_secret(property_name: str) -> bool:
    """Whether this librdkafka property's value must never be shown."""
    name = property_name.lower()
    return not name.endswith(_PLACES) and any(word in name for word in _SECRET_WORDS)


class _Sources(BaseSettings, Settings):
    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    _file: ClassVar[dict[str, Any]] = {}

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, InitSettingsSource(settings_cls, cls._file)


def load_settings(*, config: Path | None = None, properties: Sequence[str] = (), **flags: Any) -> Settings:
    """Settings from flags (those not None), the environment and the TOML file `config`.

    Args:
        config: TOML file with the settings' names as keys and a `[kafka]` table of librdkafka properties.
        properties: `key=value` pairs given by `-X`; they override those from `secrets_dir`, which override those from
            the environment or the file.
        flags: values from the command line; None means not given.

    Raises:
        SettingsError: one sentence naming each bad setting.
    """
    sources = type("_Sources", (_Sources,), {"_file": {} if config is None else _read(config)})
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        # exclude_unset, so that model_fields_set tells which settings were given.
        found = sources(**given).model_dump(exclude_unset=True)
        given_kafka = dict(map(_property, properties))
        found["kafka"] = {**found.get("kafka", {}), **_secrets(found.get("secrets_dir")), **given_kafka}
        settings = Settings(**found)
    except ValidationError as error:
        raise SettingsError("; ".join(_sentences(error).values())) from None
    except SourceError:
        raise SettingsError(f"{_given('kafka')}: {_WORDS['kafka']}") from None
    _refuse_what_has_no_effect(settings)
    return settings


def _read(config: Path) -> dict[str, Any]:
    """The file's settings, checked separately, so that an error names the file."""
    try:
        found = tomllib.loads(config.read_text(encoding="utf-8-sig"))
        Settings(**found)
    except OSError as error:
        raise SettingsError(f"--config {config}: {(error.strerror or '').lower()}; check the path") from None
    except ValidationError as error:
        # Whether settings fit together is checked once all are known.
        if sentences := [one for name, one in _sentences(error, given_as=str).items() if name]:
            raise SettingsError(f"--config {config}: {'; '.join(sentences)}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "not UTF-8 text"
        raise SettingsError(f"--config {config}: {reason[:1].lower()}{reason[1:]}") from None
    return found


def _refuse_what_has_no_effect(settings: Settings) -> None:
    auto, given = settings.chunk_size == "auto", settings.model_fields_set
    if settings.result_format == "avro" and settings.schema_registry is None:
        raise SettingsError(
            "--result-format avro needs a registry for the results' schema; add --schema-registry"
        )
    if (
        settings.schema_registry is not None
        and settings.result_format == "json"
        and settings.value_format not in _WITH_SCHEMAS
    ):
        raise SettingsError(
            f"--schema-registry: --value-format {settings.value_format} has no schemas; give "
            f"{' or '.join(_WITH_SCHEMAS)}, or --result-format avro"
        )
    if settings.schema_registry is not None and settings.schema_file is not None:
        raise SettingsError(
            "--schema-file and --schema-registry: messages have one or the other; leave one out"
        )
    if settings.schema_subject is not None and settings.schema_registry is None:
        raise SettingsError("--schema-subject needs a registry; add --schema-registry")
    if settings.schema_file is not None and settings.value_format != "avro":
        raise SettingsError("--schema-file is only for Avro; add --value-format avro, or leave it out")
    if settings.workers > 1 and settings.instance is not None:
        raise SettingsError(
            f"--instance {settings.instance}: an instance is one worker; leave it out with --workers, or start "
            "each worker separately with its own name"
        )
    if auto and "max_wait_ms" in given:
        raise SettingsError(
            "--max-wait-ms: --chunk-size auto chooses the wait itself; give --latency-goal-ms instead"
        )
    if not auto and "latency_goal_ms" in given:
        raise SettingsError("--latency-goal-ms needs --chunk-size auto; add it, or leave out the goal")


def _secrets(folder: Path | None) -> dict[str, str]:
    """Properties from files of the same names, the way Kubernetes and Docker mount secrets."""
    if folder is None:
        return {}
    try:
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
        return {path.name: path.read_text(encoding="utf-8-sig").rstrip("\r\n") for path in files}
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "a file there is not UTF-8"
        raise SettingsError(f"--secrets-dir: cannot read {folder}: {reason}") from None


def _property(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise SettingsError(
            f"-X takes key=value, such as security.protocol=SSL; got {name!r} without a value"
        )
    return name.strip(), value.strip()


def _sentences(error: ValidationError, given_as: Callable[[str], str] | None = None) -> dict[str, str]:
    """What is wrong with each setting, without its value, which may be a secret."""
    # Only the first error of each setting: pydantic reports one for each type of a union.
    errors = {str(one["loc"][0]) if one["loc"] else "": one for one in reversed(error.errors())}
    return {name: _sentence(name, one, given_as or _given) for name, one in reversed(errors.items())}


def _sentence(name: str, error: Any, given_as: Callable[[str], str]) -> str:
    told = error["msg"].removeprefix("Value error, ") if error["type"] == "value_error" else None
    if not name:
        return str(told)
    if error["type"] == "extra_forbidden":
        meant = closest(name)
        return f"there is no setting {name}" + (f"; did you mean {given_as(meant)}?" if meant else "")
    return f"{given_as(name)}: {told or _rule(*error['loc'])}"


def _given(name: str) -> str:
    return f"{'-X' if name == 'kafka' else flag(name)} ({ENV_PREFIX}{name.upper()})"


def _rule(name: str, *within: object) -> str:
    """What this setting's value must be, in words."""
    if name == "kafka" and within:
        return f"{within[0]} must be text, a number or a boolean; put names with dots in quotes"
    if name in _WORDS:
        return _WORDS[name]
    kind, bounds = Settings.model_fields[name].annotation, Settings.model_fields[name].metadata
    if choices := [str(choice) for choice in get_args(kind) if isinstance(choice, str)]:
        return f"must be {' or '.join(choices)}"
    if not bounds:
        return "must be a path"
    limits = " ".join(
        f"{word} {getattr(bound, key):,}"
        for bound in bounds
        for key, word in _BOUNDS.items()
        if hasattr(bound, key)
    )
    return f"must be a {'whole number' if kind is int else 'number'} {limits}"

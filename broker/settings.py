"""All settings, in one immutable object made once at the edge.

A value comes from the command line, else from `VITALSTREAM_<NAME>`, else from the TOML file given by
`--config`, else from the default written here. librdkafka's own properties keep their names and travel in
`kafka`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import (
    SettingsError as SourceError,
)

from broker.errors import SettingsError
from broker.options import OPTIONS

ENV_PREFIX = "VITALSTREAM_"

# Properties that decide what is delivered or who we are; they follow from settings of ours.
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

_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")

_SECRET_WORDS = ("password", "passphrase", "secret", ".pem", "jaas", "oauthbearer.config", "token")
_PLACES = (".location", ".file")


def _option(name: str, **rules: Any) -> Any:
    return Field(OPTIONS[name].default, description=OPTIONS[name].help, **rules)


TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class Settings(BaseModel):
    """What a run of vitalstream is told. Frozen; safe to print: secrets in `kafka` never show."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    bootstrap_servers: str = _option("bootstrap_servers", min_length=1)
    kafka: dict[str, str] = Field({}, description="librdkafka properties", repr=False)
    secrets_dir: Path | None = _option("secrets_dir")

    input_topic: TopicName = _option("input_topic")
    output_topic: TopicName = _option("output_topic")
    metrics_topic: TopicName = _option("metrics_topic")
    dead_letter_topic: TopicName = _option("dead_letter_topic")

    group: str = _option("group", pattern=r"^[A-Za-z0-9._-]{1,200}$")
    model: Path | None = _option("model")
    trusted_types: str = _option("trusted_types", pattern=r"^[\w.]*(,[\w.]+)*$")
    threshold: float = _option("threshold", ge=0, le=1)
    ranges: str | None = _option("ranges", min_length=1)
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
    until_idle: float | None = _option("until_idle", gt=0)

    @field_validator("chunk_size", mode="before")
    @classmethod
    def _refuse_other_words(cls, size: object) -> object:
        if isinstance(size, str) and size != "auto" and not size.isdecimal():
            raise ValueError("a chunk size is a number of rows, or auto")
        return size

    @field_validator("http")
    @classmethod
    def _refuse_no_address(cls, address: str | None) -> str | None:
        if address is not None and not _ADDRESS.fullmatch(address):
            raise ValueError("an address is HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464")
        return address

    @field_validator("kafka")
    @classmethod
    def _refuse_owned(cls, properties: dict[str, str]) -> dict[str, str]:
        for name in properties:
            if name in OWNED_PROPERTIES:
                raise ValueError(f"{name} is set by vitalstream itself; use {OWNED_PROPERTIES[name]} instead")
        return properties

    def of_worker(self, number: int) -> Self:
        """The settings of one of several workers on this host: each serves HTTP on a port of its own."""
        host, _, port = (self.http or "").rpartition(":")
        if not host or int(port) == 0:
            return self
        return self.model_copy(update={"http": f"{host}:{int(port) + number}"})

    @property
    def trusted(self) -> tuple[str, ...]:
        """The types that a skops file may hold beside skops' own, one by one."""
        return tuple(filter(None, self.trusted_types.split(",")))

    @property
    def output_topics(self) -> tuple[str, str, str]:
        """The three topics a worker writes."""
        return self.output_topic, self.metrics_topic, self.dead_letter_topic

    @property
    def topics(self) -> tuple[str, ...]:
        """All four topics, the input first."""
        return self.input_topic, *self.output_topics

    def client(self, defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A librdkafka configuration: `defaults`, then the user's own properties over them."""
        return {"bootstrap.servers": self.bootstrap_servers, **(defaults or {}), **self.kafka}

    def shown(self) -> dict[str, Any]:
        """The settings as plain values fit for a log: values of secret properties are replaced by `***`."""
        shown = self.model_dump(mode="json", exclude_none=True)
        shown["kafka"] = {k: "***" if is_secret(k) else v for k, v in self.kafka.items()}
        return shown


def is_secret(property_name: str) -> bool:
    """Whether the value of this librdkafka property must never be shown."""
    name = property_name.lower()
    return not name.endswith(_PLACES) and any(word in name for word in _SECRET_WORDS)


class _Sources(BaseSettings, Settings):
    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(*, config: Path | None = None, properties: Sequence[str] = (), **flags: Any) -> Settings:
    """Settings from flags (those not None), the environment and the TOML file `config`.

    Args:
        config: TOML file with the settings' names as keys and a `[kafka]` table of librdkafka properties.
        properties: `key=value` pairs given by `-X`, laid over those from `secrets_dir`, and these over those from the
            environment or the file.
        flags: values from the command line; None means not given.

    Raises:
        SettingsError: one sentence naming each bad setting.
    """
    if config is not None and not config.is_file():
        raise SettingsError(f"--config: there is no file {config}")
    sources = type("_Sources", (_Sources,), {"model_config": SettingsConfigDict(toml_file=config)})
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        # exclude_unset, so that model_fields_set tells what was given.
        found = sources(**given).model_dump(exclude_unset=True)
        given_kafka = dict(map(_property, properties))
        found["kafka"] = {**found.get("kafka", {}), **_secrets(found.get("secrets_dir")), **given_kafka}
        settings = Settings(**found)
    except ValidationError as error:
        # The first error of each setting: of one that takes a number or a word, each kind has its own.
        told = {error["loc"][:1]: _sentence(error) for error in reversed(error.errors())}
        raise SettingsError("; ".join(reversed(told.values()))) from None
    except SourceError as error:
        raise SettingsError(f"{error}; VITALSTREAM_KAFKA is a JSON object of librdkafka properties") from None
    except ValueError as error:  # tomllib.TOMLDecodeError, or a property without '='
        raise SettingsError(str(error) if config is None else f"--config {config}: {error}") from None
    _refuse_what_has_no_effect(settings)
    return settings


def _refuse_what_has_no_effect(settings: Settings) -> None:
    auto, given = settings.chunk_size == "auto", settings.model_fields_set
    if auto and "max_wait_ms" in given:
        raise SettingsError(
            "--max-wait-ms: --chunk-size auto chooses the wait by itself; give --latency-goal-ms in its place"
        )
    if not auto and "latency_goal_ms" in given:
        raise SettingsError(
            "--latency-goal-ms: a latency goal needs --chunk-size auto; add it, or leave out the goal"
        )


def _secrets(folder: Path | None) -> dict[str, str]:
    """Properties as files of their names, the way Kubernetes and Docker mount secrets."""
    if folder is None:
        return {}
    try:
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
        return {path.name: path.read_text(encoding="utf-8").rstrip("\r\n") for path in files}
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "a file there is not UTF-8"
        raise SettingsError(f"--secrets-dir: cannot read {folder}: {reason}") from None


def _property(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"-X takes key=value, such as security.protocol=SSL; got {name!r} without a value")
    return name.strip(), value.strip()


def _sentence(error: Any) -> str:
    """One validation error in words, without the value: it may be a secret."""
    name = str(error["loc"][0]) if error["loc"] else ""
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"there is no setting {name!r} (known: {', '.join(Settings.model_fields)})"
    if name == "kafka":
        return f"-X: {message}"
    return f"--{name.replace('_', '-')} ({ENV_PREFIX}{name.upper()}): {message[:1].lower()}{message[1:]}"

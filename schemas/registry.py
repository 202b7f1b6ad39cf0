"""The schema registry: the schema behind an ID, if it belongs to the input topic.

If the registry says that there is no such schema, or refuses a single schema although it returns the topic's own, the
message is at fault. Any other answer, or none, says nothing about the message, so the worker waits.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import orjson

from broker.bounded import Bounded
from broker.errors import SettingsError, VitalstreamError
from broker.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

T = TypeVar("T")

log = logging.getLogger("vitalstream.schemas")

CONNECT_S: Final = 3.0  # for each step of an answer, by the client
CALL_S: Final = 5.0  # for all of them: a registry that sends only a byte now and then does not answer
# 404 here is one without a registry's error code. The others mean that the registry answers nobody, at least not now.
_OF_ONE_SCHEMA: Final = frozenset(range(400, 500)) - {401, 407, 408, 425, 429}
_LARGEST_ID: Final = 2**31 - 1
_NOT_FOUND: Final = range(40400, 40500)  # a registry's error codes for 404; a proxy's 404 has none
_PROPERTIES: Final = ("basic.auth.", "bearer.auth.", "ssl.", "proxy")
_NEEDS: Final = (
    "--schema-registry needs the client of registries: run pip install 'confluent-kafka[schemaregistry]>=2.16', or "
    "install vitalstream with the extra avro"
)
_LOGIN: Final = "check schema.registry.basic.auth.user.info, and what this user may read"


class RegistryError(VitalstreamError):
    """The schema registry gives no usable answer, so nothing is known about any schema.

    `status` is the answer's HTTP status, if there was an answer.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class WrittenWith:
    """A writer's schema: its type (AVRO, JSON or PROTOBUF), its text, and the schemas it refers to, in order."""

    kind: str
    text: str
    references: tuple[str, ...] = ()


class Registry:
    """Asks a registry for schemas of the subjects of one topic.

    `subject` is the one that schemas must belong to; by default the topic's own, named as serializers do: by the topic,
    or by the topic and the record.
    """

    def __init__(self, client: "SchemaRegistryClient", *, url: str, topic: str, subject: str | None) -> None:
        self._client = client
        self._url = url
        self._topic = topic
        self._subject = subject
        self._bounded = Bounded()

    @property
    def subject(self) -> str:
        """The subject's name, unless it follows from a record's."""
        return self._subject or f"{self._topic}-value"

    def require(self) -> bool:
        """Whether the subject exists.

        Raises RegistryError if the registry can't be asked.
        """
        return bool(self._ask(partial(self._client.get_versions, self.subject)))

    def knows(self, schema: str, kind: str = "AVRO") -> int | None:
        """The ID of this schema under the subject, if it is registered there.

        Raises RegistryError if the registry can't be asked.
        """
        from confluent_kafka.schema_registry import Schema

        known = self._ask(partial(self._client.lookup_schema, self.subject, Schema(schema, kind)))
        return None if known is None else known.schema_id

    def newest(self) -> "tuple[int, WrittenWith] | None":
        """The ID of the newest schema of the subject, and the schema; None if there is none.

        Raises RegistryError if the registry can't be asked.
        """
        found = self._ask(partial(self._client.get_version, self.subject))
        if found is None or not found.schema_id:
            return None
        references: dict[tuple[str, int], str] = {}
        self._collect(found.schema, references)
        return found.schema_id, _written_with(found.schema, references)

    def register(self, schema: str, kind: str = "AVRO") -> int:
        """The ID of this schema under the subject; registers it unless it is there.

        Raises RegistryError if the registry can't be asked, or refuses it.
        """
        from confluent_kafka.schema_registry import Schema

        register = partial(self._client.register_schema, self.subject, Schema(schema, kind))
        try:
            number = self.knows(schema, kind) or self._ask(register)
        except RegistryError as error:
            if error.status not in (409, 422):
                raise
            raise RegistryError(
                f"{self._told} refuses ({error.status}) vitalstream's schema for subject {self.subject}, which holds "
                "schemas that it is not compatible with; use a topic of its own"
            ) from None
        if number is None:
            raise RegistryError(f"{self._told} does not register schemas for subject {self.subject} (404)")
        return number

    def find(self, ref: bytes) -> WrittenWith | None:
        """The schema of an id (a byte 0 and four more) or of a GUID (a byte 1 and sixteen more).

        None if there is none, if it belongs to none of the topic's subjects, or if the registry refuses this one but
        returns the topic's own. Raises RegistryError if the registry can't be asked.
        """
        try:
            return self._found(ref)
        except RegistryError as error:
            if ref[0] == 0 and error.status in _OF_ONE_SCHEMA and self._gives_own():
                log.warning(
                    "%s answers %d to %s, and gives the newest schema of subject %s: messages with that ID become dead "
                    "letters (unknown_schema)",
                    self._told,
                    error.status,
                    _named(ref),
                    self.subject,
                )
                return None
            raise RegistryError(f"{error} ({_named(ref)})", status=error.status) from None

    def _gives_own(self) -> bool:
        """Whether it returns the newest schema of the topic's own subject to the same kind of request."""
        client: Any = self._client
        try:
            newest = self._ask(partial(client.get_version, self.subject))
            client.clear_caches()  # which would answer instead
            return newest is not None and self._found(_ref(newest.schema_id or 0)) is not None
        except RegistryError:
            return False

    def _found(self, ref: bytes) -> WrittenWith | None:
        schema = self._by_guid(ref[1:]) if ref[0] else self._by_id(int.from_bytes(ref[1:], "big"))
        if schema is None or not any(self._holds(subject, schema) for subject in self._subjects(schema)):
            return None
        references: dict[tuple[str, int], str] = {}
        self._collect(schema, references)
        return _written_with(schema, references)

    def _by_id(self, number: int) -> "Schema | None":
        return None if number > _LARGEST_ID else self._ask(partial(self._client.get_schema, number))

    def _by_guid(self, guid: bytes) -> "Schema | None":
        return self._ask(
            partial(self._client.get_schema_by_guid, str(UUID(bytes=guid))),
            # A registry without GUIDs answers as if the schema did not exist.
            otherwise=self.require,
        )

    def _holds(self, subject: str, schema: "Schema") -> bool:
        """Whether it is or was registered under this subject."""
        return self._ask(partial(self._client.lookup_schema, subject, schema, deleted=True)) is not None

    def _subjects(self, schema: "Schema") -> Iterator[str]:
        yield self.subject
        if self._subject is None and (name := _record_name(schema)):
            yield f"{self._topic}-{name}"

    def _collect(self, schema: "Schema", found: dict[tuple[str, int], str]) -> None:
        for reference in schema.references or ():
            place = str(reference.subject), int(reference.version or 0)
            if place not in found:
                registered = self._ask(partial(self._client.get_version, *place, deleted=True))
                if registered is None:
                    raise RegistryError(
                        f"{self._told} lacks {place[0]} version {place[1]}, to which a schema refers",
                        status=404,
                    )
                self._collect(registered.schema, found)
                found[place] = registered.schema.schema_str or ""

    @property
    def _told(self) -> str:
        return f"the schema registry {self._url}"

    def _ask(self, call: Callable[[], T], *, otherwise: Callable[[], object] | None = None) -> T | None:
        """The registry's answer; None if it has no such schema or subject."""
        from confluent_kafka.schema_registry import SchemaRegistryError

        try:
            return self._bounded(call, seconds=CALL_S)
        except SchemaRegistryError as error:
            if error.http_status_code != 404:  # noqa: PLR2004
                raise RegistryError(
                    f"{self._told} {_status(error.http_status_code)}", status=error.http_status_code
                ) from None
            if error.error_code not in _NOT_FOUND:
                if otherwise is None:
                    raise RegistryError(
                        f"{self._told} answers 404 without a registry's error code; check the path of "
                        "--schema-registry",
                        status=404,
                    ) from None
                otherwise()
            return None
        except TimeoutError:
            raise RegistryError(f"{self._told} does not answer within {CALL_S:g} s") from None
        except Exception as error:  # the HTTP client's own errors, or those of an invalid answer
            raise RegistryError(f"{self._told} {_failure(error)}") from None


def _written_with(schema: "Schema", references: dict[tuple[str, int], str]) -> WrittenWith:
    return WrittenWith(schema.schema_type or "AVRO", schema.schema_str or "", tuple(references.values()))


def _ref(number: int) -> bytes:
    return b"\x00" + number.to_bytes(4, "big")


def _named(ref: bytes) -> str:
    return f"schema {UUID(bytes=ref[1:])}" if ref[0] else f"schema ID {int.from_bytes(ref[1:], 'big')}"


def _status(status: int) -> str:
    if status in (401, 403):
        return f"refuses the login ({status}): {_LOGIN}"
    return f"answers {status}"


def _failure(error: Exception) -> str:
    """The outcome of a request, in words that reveal nothing of it."""
    kind = type(error).__name__
    if "Timeout" in kind:
        return f"does not answer within {CONNECT_S:g} s"
    text = str(error)
    if "CERTIFICATE" in text or "SSL" in text:
        return "can't be trusted, or does not trust us: check schema.registry.ssl.ca.location and the certificates"
    if "Connect" in kind:
        return "can't be reached: check --schema-registry"
    return f"does not answer as one ({kind}): check --schema-registry"


def _record_name(schema: "Schema") -> str:
    """The full name of an Avro record, or the title of a JSON Schema; '' if it has none."""
    try:
        found: Any = orjson.loads(schema.schema_str or "")
    except ValueError:
        return ""
    if not isinstance(found, dict):
        return ""
    if schema.schema_type == "JSON":
        return str(found.get("title") or "")
    name, space = str(found.get("name") or ""), str(found.get("namespace") or "")
    return f"{space}.{name}" if space and name and "." not in name else name


def make_registry(settings: Settings, *, topic: str | None = None) -> Registry:
    """The settings' registry, for the schemas of the input topic or of another one.

    Raises SettingsError if its client is not installed, or its properties make no sense.
    """
    if settings.schema_registry is None:
        raise SettingsError("--schema-registry is missing: the URL of the registry")
    if find_spec("httpx2") is None or find_spec("authlib") is None:
        raise SettingsError(_NEEDS)
    from confluent_kafka.schema_registry import SchemaRegistryClient

    for name in settings.registry_properties:
        if not name.startswith(_PROPERTIES):
            raise SettingsError(
                f"-X: there is no schema.registry.{name}; there are basic.auth.*, bearer.auth.*, ssl.* and proxy"
            )
    properties: dict[str, Any] = {"url": settings.schema_registry, "timeout": CONNECT_S, "max.retries": 0}
    try:
        client = SchemaRegistryClient(properties | settings.registry_properties)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"-X schema.registry.*: {str(error)[:1].lower()}{str(error)[1:]}") from None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise SettingsError(f"-X schema.registry.ssl.*: a file there can't be used: {reason}") from None
    subject = settings.schema_subject if topic is None else None
    return Registry(
        client, url=settings.schema_registry, topic=topic or settings.input_topic, subject=subject
    )

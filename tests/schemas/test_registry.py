"""Schemas by ID and by GUID from a real registry; and registries that are down, slow, or refuse access."""

import json
import re
import ssl
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient

import schemas.registry
from broker.cautions import cautions
from broker.errors import SettingsError
from broker.settings import Settings, load_settings
from schemas.contract import Reason
from schemas.decoding import make_decoder, require_registry
from schemas.formats.avro import AvroDocuments, FiniteReader, written_with
from schemas.formats.framing import HEADER, UNKNOWN_S, ByReference
from schemas.formats.mapped import object_reader
from schemas.messages import Plain
from schemas.registry import Registry, RegistryError, make_registry
from schemas.vitals import Decoder, Reject
from tests.registry import Answers, answering
from tests.schemas.avro import record, written
from tests.schemas.messages import Wanted
from tests.security.certificates import Authority

FEATURES = ("heart_rate", "spo2")
IDENTITY = (("patient_id", "string"), ("event_time", "string"))
VITALS = record(*IDENTITY, ("heart_rate", "double"), ("spo2", "double"))
SWAPPED = record(*IDENTITY, ("spo2", "double"), ("heart_rate", "double"))
VALUE = {"patient_id": "p1", "event_time": "2026-01-05T08:30:00Z", "heart_rate": 84.0, "spo2": 97.0}
OBJECT = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Vitals", "type": "object"}
GUID = uuid.UUID("0d1d4ad5-3f3c-4c55-93b8-09eb3f4b3bfa")


class Topic:
    """A new topic and its subjects."""

    def __init__(self, url: str, value_format: str = "avro", **given: Any) -> None:
        self.name = f"vitals-{uuid.uuid4().hex[:8]}"
        self.client = SchemaRegistryClient({"url": url, "timeout": 10})
        self.settings = load_settings(
            input_topic=self.name, value_format=value_format, schema_registry=url, **given
        )

    def register(
        self, schema: Any, subject: str | None = None, kind: str = "AVRO", references: Any = ()
    ) -> bytes:
        """Register a schema; returns the prefix of values written with it."""
        registered = Schema(json.dumps(schema), kind, [*references])
        number = self.client.register_schema(subject or f"{self.name}-value", registered)
        return b"\x00" + number.to_bytes(4, "big")

    def decode(self, *values: bytes) -> Any:
        return make_decoder(self.settings, Wanted(FEATURES))([*map(Plain, values)])


def test_each_value_is_read_by_its_own_schema(schema_registry: str) -> None:
    topic = Topic(schema_registry)
    first, second = topic.register(VITALS), topic.register(SWAPPED)
    found = topic.decode(first + written(VITALS, VALUE), second + written(SWAPPED, VALUE))
    assert not found.rejects
    assert found.frame.to_numpy().tolist() == [[84, 97]] * 2


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        (b"\x00\x7f\xff\xff\xff", Reason.UNKNOWN_SCHEMA),
        (b"\x00\xff\xff\xff\xff", Reason.UNKNOWN_SCHEMA),
        (b"\x00\x00\x00\x00\x00", Reason.UNKNOWN_SCHEMA),
        (b"\x00\x00", Reason.NOT_DECODABLE),
        (b"\x02\x00\x00\x00\x01", Reason.NOT_DECODABLE),
        (b"", Reason.NOT_DECODABLE),  # no prefix
        (b"\x01" + GUID.bytes, Reason.UNKNOWN_SCHEMA),  # this registry knows no GUIDs
    ],
)
def test_only_values_without_a_known_schema_are_rejected(
    schema_registry: str, mark: bytes, reason: Reason
) -> None:
    topic = Topic(schema_registry)
    good = topic.register(VITALS) + written(VITALS, VALUE)
    found = topic.decode(good, mark + (written(VITALS, VALUE) if len(mark) != 2 else b""), good)
    assert found.rejects == [Reject(1, reason, "")]
    assert found.frame.to_numpy().tolist() == [[84, 97]] * 2


def test_a_schema_of_another_topic_is_not_used(schema_registry: str) -> None:
    """A version mistaken for an ID is most often another schema's ID, which would swap heart rate and SpO2."""
    topic = Topic(schema_registry)
    topic.register(VITALS)
    wrong = topic.register(SWAPPED, f"other-{topic.name}-value")
    assert topic.decode(wrong + written(VITALS, VALUE)).rejects == [Reject(0, Reason.UNKNOWN_SCHEMA, "")]


def test_a_subjects_name_follows_topic_and_record_or_is_given(schema_registry: str) -> None:
    topic = Topic(schema_registry)
    named = {**VITALS, "namespace": "org.example"}
    mark = topic.register(named, f"{topic.name}-org.example.Vitals")
    assert not topic.decode(mark + written(VITALS, VALUE)).rejects
    other = Topic(schema_registry, schema_subject=f"{topic.name}-org.example.Vitals")
    assert not other.decode(mark + written(VITALS, VALUE)).rejects
    unknown = [Reject(0, Reason.UNKNOWN_SCHEMA, "")]
    other = Topic(schema_registry)
    assert other.decode(mark + written(VITALS, VALUE)).rejects == unknown
    topic.settings = topic.settings.model_copy(update={"schema_subject": f"{topic.name}-value"})
    assert topic.decode(mark + written(VITALS, VALUE)).rejects == unknown


def test_messages_outlive_their_schemas_deletion(schema_registry: str) -> None:
    topic = Topic(schema_registry)
    mark = topic.register(VITALS)
    topic.client.delete_subject(f"{topic.name}-value")
    assert not topic.decode(mark + written(VITALS, VALUE)).rejects


def test_a_schema_may_refer_to_others(schema_registry: str) -> None:
    topic = Topic(schema_registry)
    number = {"type": "record", "name": "Number", "fields": [{"name": "value", "type": "double"}]}
    pair = record(("heart_rate", "Number"), ("spo2", "Number"), name="Pair")
    topic.register(number, f"{topic.name}-number")
    to_number = SchemaReference("Number", f"{topic.name}-number", 1)
    topic.register(pair, f"{topic.name}-pair", references=[to_number])
    to_pair = SchemaReference("Pair", f"{topic.name}-pair", 1)
    mark = topic.register(record(*IDENTITY, ("of", "Pair")), references=[to_pair, to_number])
    whole = json.loads(json.dumps(record(*IDENTITY, ("of", pair))).replace('"Number"', json.dumps(number), 1))
    value = written(whole, VALUE | {"of": {"heart_rate": {"value": 84.0}, "spo2": {"value": 97.0}}})
    documents = AvroDocuments(ByReference(make_registry(topic.settings), written_with))
    _, (found,), _ = documents([Plain(mark + value)])
    assert found["of"] == {"heart_rate": {"value": 84.0}, "spo2": {"value": 97.0}}


def test_unusable_schemas_in_the_registry_are_refused(schema_registry: str) -> None:
    topic = Topic(schema_registry)
    marks = [
        topic.register(OBJECT, kind="JSON"),
        topic.register(record(("next", ["null", "Vitals"]))),
    ]
    rejects = topic.decode(*(mark + b"\x00" for mark in marks)).rejects
    assert [reject.reason for reject in rejects] == [Reason.NOT_DECODABLE] * 2


@pytest.mark.parametrize("checked", [True, False])
def test_json_after_a_schema_id_is_read(schema_registry: str, checked: bool) -> None:
    topic = Topic(schema_registry, "json-schema")
    mark = topic.register(OBJECT, kind="JSON")
    if not checked:
        topic.settings = load_settings(value_format="json-schema")
    value = json.dumps(VALUE).encode()
    twice = value.replace(b"{", b'{"heart_rate": 1, ', 1)
    unknown = b"\x00\x7f\xff\xff\xff" + value
    found = topic.decode(mark + value, value, mark + value[1:], unknown, mark, mark + twice, mark + value)
    assert [(one.position, one.reason, one.field) for one in found.rejects] == [
        (1, Reason.NOT_DECODABLE, ""),
        (2, Reason.NOT_JSON, ""),
        *([(3, Reason.UNKNOWN_SCHEMA, "")] if checked else []),
        (4, Reason.EMPTY, ""),
        (5, Reason.NOT_JSON, "heart_rate"),
    ]
    assert found.frame.to_numpy().tolist() == [[84, 97]] * (2 if checked else 3)


def test_schemas_by_guid_in_a_header() -> None:
    """With the client's own stand-in for a registry, because the real one knows no GUIDs."""
    client = SchemaRegistryClient.new_client({"url": "mock://guids"})
    registered = client.register_schema_full_response("vitals-value", Schema(json.dumps(VITALS), "AVRO"))
    foreign = client.register_schema_full_response("other-value", Schema(json.dumps(SWAPPED), "AVRO"))
    registry = Registry(client, url="mock://guids", topic="vitals", subject=None)
    documents = AvroDocuments(ByReference(registry, written_with))
    decode = Decoder(FEATURES, read=FiniteReader(object_reader(FEATURES, None, documents)))
    value = written(VITALS, VALUE)
    found = decode(
        [
            Plain(value, [("trace", b"1"), (HEADER, b"\x01" + uuid.UUID(str(one)).bytes)])
            for one in (registered.guid, foreign.guid, GUID)
        ]
        + [Plain(value, [(HEADER, content)]) for content in (b"", b"\x01", b"\x01" + b"\x00" * 17, None)]
        + [Plain(value, [(HEADER, b"\x00" + int(registered.schema_id or 0).to_bytes(4, "big"))])]
    )
    assert found.frame.index.tolist() == [0, 7]
    assert [one.reason for one in found.rejects] == [Reason.UNKNOWN_SCHEMA] * 2 + [Reason.NOT_DECODABLE] * 4


def test_a_schema_is_fetched_by_guid_over_http() -> None:
    """The bytes that Confluent's serializers send, and a server that responds as Confluent's docs say."""

    def answer(path: str) -> tuple[int, bytes]:
        if path.startswith("/schemas/guids/0d1d4ad5-3f3c-4c55-93b8-09eb3f4b3bfa"):
            return 200, json.dumps({"guid": str(GUID), "schema": json.dumps(VITALS)}).encode()
        return OWN if path.startswith("/subjects/vitals-value") else NO_SUCH

    known = bytes.fromhex("01 0d1d4ad5 3f3c 4c55 93b8 09eb3f4b3bfa")
    with answering(Answers(answer)) as url:
        decode = make_decoder(asking(url), Wanted(FEATURES))
        values = [Plain(written(VITALS, VALUE), [(HEADER, ref)]) for ref in (known, b"\x01" + b"\x0d" * 16)]
        found = decode(values)
    assert found.frame.to_numpy().tolist() == [[84, 97]]
    assert found.rejects == [Reject(1, Reason.UNKNOWN_SCHEMA, "")]


# --- a registry in trouble

NO_SUCH = 404, json.dumps({"error_code": 40403, "message": "no"}).encode()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas.registry, "CONNECT_S", 0.2)
    monkeypatch.setattr(schemas.registry, "CALL_S", 0.5)


def asking(url: str, **given: Any) -> Settings:
    return load_settings(value_format="avro", schema_registry=url, **given)


def decode_one(told: Settings) -> Any:
    return make_decoder(told)([Plain(b"\x00\x00\x00\x00\x07" + written(VITALS, VALUE))])


TROUBLE: dict[str, tuple[Any, str]] = {
    "401": ((401, b"{}"), r"refuses the login \(401\): check schema.registry.basic.auth.user.info"),
    "403": ((403, b"{}"), r"refuses the login \(403\)"),
    "429": ((429, b"{}"), "answers 429"),
    "500": ((500, b"<html>"), "answers 500"),
    "503": ((503, b""), "answers 503"),
    "a page that is not there": (
        (404, b"<html>not found"),
        "answers 404 without a registry's error code; check the path",
    ),
    "a page": ((200, b"<html>welcome"), "does not answer as one"),
    "another service": ((200, b"[1, 2]"), "does not answer as one"),
    "silence": (None, "does not answer within 0.2 s"),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("trouble", TROUBLE)
def test_registry_trouble_rejects_no_message(trouble: str) -> None:
    said, words = TROUBLE[trouble]
    with answering(Answers(lambda _: said)) as url, pytest.raises(RegistryError, match=words) as told:
        decode_one(asking(url))
    assert str(told.value).startswith(f"the schema registry {url} ")


Said = Callable[[str, int], tuple[int, bytes] | None]


def about(said: Said, *, own: int | None = 7) -> Callable[[str], Any]:
    """A registry with a schema of the topic under ID 7, which answers `said` when asked about other IDs."""
    asked_for = 0

    def answer(path: str) -> Any:
        nonlocal asked_for
        number = re.search("/schemas/ids/([0-9]+)", path)
        asked_for = int(number[1]) if number else asked_for
        if own is None and "/versions/latest" in path:
            return NO_SUCH
        if asked_for != own and "/versions/latest" not in path and (refused := said(path, asked_for)):
            return refused
        schema = json.dumps(VITALS if asked_for == own else SWAPPED)
        return 200, json.dumps(
            {"id": own, "version": 1, "subject": "vitals-value", "schema": schema}
        ).encode()

    return answer


def at(part: str, answer: tuple[int, bytes]) -> Said:
    return lambda path, _: answer if part in path else None


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("status", [400, 403, 404, 422])
@pytest.mark.parametrize("part", ["/schemas/ids/", "/subjects/vitals-value"])
def test_a_schema_is_unknown_if_it_alone_is_refused(
    status: int, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    with answering(Answers(about(at(part, (status, b"{}"))))) as url:
        decode = make_decoder(asking(url))
        values = [b"\x00" + number.to_bytes(4, "big") + written(VITALS, VALUE) for number in (7, 8, 7)]
        found = decode([*map(Plain, values)])
    assert found.rejects == [Reject(1, Reason.UNKNOWN_SCHEMA, "")]
    assert len(found.frame) == 2
    assert f"{url} answers {status} to schema ID 8, and gives the newest schema of subject vitals-value" in (
        caplog.text
    )


REFUSED = 403, b"{}"
OWN = (
    200,
    json.dumps({"id": 7, "version": 1, "subject": "vitals-value", "schema": json.dumps(VITALS)}).encode(),
)
WAITS: dict[str, Callable[[str], Any]] = {
    "the registry is in trouble": about(at("/schemas/ids/", (500, b"{}"))),
    "it is asked too often": about(at("/schemas/ids/", (429, b"{}"))),
    "the login is refused": about(at("/schemas/ids/", (401, b"{}"))),
    "all schemas are refused": lambda path: REFUSED if "/schemas/ids/" in path else OWN,
    "all lookups are refused": lambda path: OWN if "/schemas/ids/" in path or "/latest" in path else REFUSED,
    "the topic has no schema to compare with": about(at("/schemas/ids/", REFUSED), own=None),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("why", WAITS)
def test_a_schema_that_may_become_available_is_waited_for(why: str) -> None:
    with answering(Answers(WAITS[why])) as url, pytest.raises(RegistryError, match=r"\(schema ID 8\)$"):
        make_decoder(asking(url))([Plain(b"\x00\x00\x00\x00\x08" + written(VITALS, VALUE))])


@pytest.mark.usefixtures("quick")
def test_the_first_working_registry_is_used() -> None:
    with answering(Answers(lambda _: (500, b"{}"))) as broken, answering(Answers(lambda _: NO_SUCH)) as well:
        with answering(Answers(lambda _: NO_SUCH)) as gone:
            pass
        rejects = decode_one(asking(f"{gone}, {broken},{well}")).rejects
    assert rejects == [Reject(0, Reason.UNKNOWN_SCHEMA, "")]


@pytest.mark.usefixtures("quick")
def test_an_unreachable_registry_is_an_error() -> None:
    with answering(Answers(lambda _: NO_SUCH)) as url:
        pass
    for act in (decode_one, require_registry):
        with pytest.raises(RegistryError, match="can't be reached: check --schema-registry"):
            act(asking(url))


def test_a_registry_that_never_finishes_its_response_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas.registry, "CALL_S", 0.3)
    with answering(Answers(lambda _: None)) as url, pytest.raises(RegistryError, match=r"within 0.3 s"):
        decode_one(asking(url))


def test_a_flood_of_unknown_ids_causes_few_requests() -> None:
    now = 0.0
    answers = Answers(lambda _: NO_SUCH)
    with answering(answers) as url:
        framing = ByReference(make_registry(asking(url)), written_with, clock=lambda: now)

        def found(count: int) -> set[Any]:
            values = [b"\x00\x00\x00\x00\x07" + bytes([number % 256]) for number in range(count)]
            return {*framing([*map(Plain, values)], values)}

        for _ in range(3):
            assert found(100) == {Reason.UNKNOWN_SCHEMA}
        assert len(answers.asked) == 1
        now = UNKNOWN_S + 1  # it may have been registered by now
        assert found(100) == {Reason.UNKNOWN_SCHEMA}
        assert len(answers.asked) == 2


def test_the_time_a_chunk_may_spend_asking_is_limited() -> None:
    """Each unknown ID takes a request; what was answered is not asked again."""
    now = 0.0

    def slow(_: str) -> tuple[int, bytes]:
        nonlocal now
        now += 4
        return NO_SUCH

    answers = Answers(slow)
    values = [b"\x00\x00\x00\x01" + bytes([number]) for number in range(5)]
    messages = [*map(Plain, values)]
    with answering(answers) as url:
        framing = ByReference(make_registry(asking(url)), written_with, clock=lambda: now)
        with pytest.raises(RegistryError, match="is slow: one chunk has asked it for 10 s"):
            framing(messages, values)
        assert [*framing(messages, values)] == [Reason.UNKNOWN_SCHEMA] * 5
    assert len(answers.asked) == 5


def test_at_the_start_a_registry_must_respond_but_the_subject_may_be_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = Answers(lambda _: (404, json.dumps({"error_code": 40401}).encode()))
    with answering(answers) as url:
        require_registry(asking(url))
        assert "has no subject vitals-value" in caplog.text
        answers.answer = lambda _: (200, b"[1]")
        caplog.clear()
        require_registry(asking(url))
        assert not caplog.text
        answers.answer = lambda _: (401, b"{}")
        with pytest.raises(RegistryError, match="refuses the login"):
            require_registry(asking(url))
    require_registry(load_settings())


def test_the_login_comes_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "schema.registry.basic.auth.user.info").write_text("ward:s3cret\n")
    answers = Answers(lambda _: (200, b"[1]"))
    with answering(answers) as url:
        told = asking(url, secrets_dir=tmp_path)
        require_registry(told)
    assert answers.logins == {"Basic d2FyZDpzM2NyZXQ="}
    assert "s3cret" not in f"{told!r} {told.shown()}"
    assert told.client() == load_settings().client()
    given = ["schema.registry.basic.auth.user.info=ward:s3cret"]
    assert any("on this machine can read" in one for one in cautions(load_settings(), given))
    far = asking("http://registry.example:8081", secrets_dir=tmp_path)
    assert any("is sent unencrypted to registry.example" in one for one in cautions(far))
    assert not cautions(asking("https://registry.example", secrets_dir=tmp_path))


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    authority = Authority(tmp_path / "authority")
    issued = authority.issue("registry", hosts="IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    with answering(Answers(lambda _: (200, b"[1]")), context) as url:
        yield url, authority.certificate


def test_tls_trusts_only_the_given_ca(tls: tuple[str, Path]) -> None:
    url, trusted = tls
    with pytest.raises(RegistryError, match=r"can't be trusted.*schema.registry.ssl.ca.location"):
        require_registry(asking(url))
    require_registry(
        load_settings(
            value_format="avro",
            schema_registry=url,
            properties=[f"schema.registry.ssl.ca.location={trusted}"],
        )
    )


def with_property(text: str) -> object:
    return make_registry(asking("http://r", properties=[f"schema.registry.{text}"]))


UNUSABLE: dict[str, Callable[[], object]] = {
    "--value-format json has no schemas; give avro or json-schema": lambda: load_settings(
        schema_registry="http://r"
    ),
    "--schema-subject needs a registry": lambda: load_settings(schema_subject="s"),
    "leave one out": lambda: asking("http://r", schema_file=Path("f")),
    "must be http:// or https://": lambda: asking("registry:8081"),
    "or several separated by commas": lambda: asking("http://r,ftp://s"),
    "a login goes into schema.registry.basic.auth.user.info": lambda: asking("http://user:pw@registry"),
    "there is no schema.registry.no.such; there are": lambda: with_property("no.such=1"),
    "there is no schema.registry.timeout": lambda: with_property("timeout=9"),
    "username": lambda: with_property("basic.auth.user.info=pw"),
    "no such file": lambda: with_property("ssl.ca.location=/none"),
}


@pytest.mark.parametrize("words", UNUSABLE)
def test_bad_settings_are_refused_with_one_sentence(words: str) -> None:
    with pytest.raises(SettingsError, match=words) as told:
        UNUSABLE[words]()
    assert "pw" not in str(told.value)


def test_a_registry_used_only_for_results_is_not_asked_for_input_schemas() -> None:
    answers = Answers(lambda _: (500, b"{}"))
    with answering(answers) as url:
        require_registry(load_settings(schema_registry=url, result_format="avro"))
    assert not answers.asked

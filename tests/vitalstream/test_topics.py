"""`vitalstream topics create`: what it says about existing topics, and its exit code."""

from collections.abc import Sequence

import orjson
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from broker.roles import TOPIC_SETTINGS, Role
from broker.settings import Settings, flag
from tests.conftest import fresh_settings
from tests.kafka import partitions
from tests.vitalstream.command import vitalstream

pytestmark = pytest.mark.kafka


def create(settings: Settings, *more: str) -> tuple[int, str]:
    """Exit code and stdout."""
    done = vitalstream("topics", "create", *named(settings), *more)
    assert done.stderr == ""
    return done.returncode, done.stdout


def named(settings: Settings) -> Sequence[str]:
    names = ("bootstrap_servers", *TOPIC_SETTINGS)
    return [word for name in names for word in (flag(name), getattr(settings, name))]


def test_existing_topics_with_other_partitions_than_requested_are_an_error(settings: Settings) -> None:
    code, out = create(settings, "--partitions", "8")

    assert code == 1
    for topic in settings.topics:
        assert f"{topic}: already exists" in out
        assert f"error: {topic} has 4 partitions, not 8; kafka-topics.sh " in out
    assert partitions(settings.bootstrap_servers, settings.input_topic) == [0, 1, 2, 3]


def test_existing_topics_are_fine_if_nothing_else_is_requested(settings: Settings) -> None:
    for more in ((), ("--partitions", "4"), ("--partitions", "4", "--replication-factor", "1")):
        code, out = create(settings, *more)
        assert code == 0
        assert out.splitlines() == [f"{topic}: already exists" for topic in settings.topics]


def test_the_state_topic_is_created_on_request(settings: Settings) -> None:
    code, out = create(settings, "--state", "--group", settings.group)
    assert code == 0
    assert out.splitlines()[-1] == f"{settings.topic(Role.STATE)}: created"


def test_a_compacted_topic_is_an_error(kafka: str) -> None:
    settings = fresh_settings(kafka)
    client = AdminClient({"bootstrap.servers": kafka})
    compacted = NewTopic(settings.input_topic, 4, 1, config={"cleanup.policy": "compact"})
    client.create_topics([compacted])[settings.input_topic].result()

    code, out = create(settings, "--json")

    assert code == 1
    found = orjson.loads(out)
    assert found["topics"] == dict.fromkeys(settings.topics, "created") | {settings.input_topic: "exists"}
    errors = [one for one in found["findings"] if one["level"] == "error"]
    assert [one["topic"] for one in errors] == [settings.input_topic]
    assert errors[0]["message"].startswith("cleanup.policy is compact, ")


def test_schemas_are_registered_on_request(settings: Settings, schema_registry: str) -> None:
    of_schemas = "--value-format", "avro", "--result-format", "avro", "--schema-registry", schema_registry
    for outcome in ("registered", "was registered already"):
        code, out = create(settings, *of_schemas)
        assert code == 0
        assert out.splitlines()[4:] == [
            f"subject {topic}-value: {outcome}" for topic in (settings.input_topic, settings.output_topic)
        ]

"""Fixtures for every test: a real Kafka for the session, and settings with topics of the test's own."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import hypothesis
import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from broker.errors import BrokerError
from broker.settings import Settings
from broker.topics import create_topics
from tests.kafka import running_kafka
from tests.registry import running_registry

# No test asserts a time: on a busy machine, an example takes as long as it takes.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")


class MakeSettings(Protocol):
    """Makes settings with four new topics on the broker and a new group."""

    def __call__(self, *, partitions: int = 4, **changes: Any) -> Settings: ...


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[str]:
    """The bootstrap servers of a real Apache Kafka."""
    with ExitStack() as stack:
        try:
            broker = stack.enter_context(running_kafka())
        except BrokerError as error:
            pytest.fail(str(error), pytrace=False)
        _tell(request.config, f"Kafka: {broker.source} at {broker.bootstrap_servers}")
        yield broker.bootstrap_servers


@pytest.fixture(scope="session")
def schema_registry() -> Iterator[str]:
    """The URL of a real schema registry."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(running_registry())
        except BrokerError as error:
            pytest.fail(str(error), pytrace=False)
        # On a busy machine, the first call of each kind may take longer than our client waits.
        client = SchemaRegistryClient({"url": url, "timeout": 60})
        schema = Schema('{"type": "string"}', "AVRO")
        client.register_schema("warm-value", schema)
        client.clear_caches()  # type: ignore[no-untyped-call]
        client.lookup_schema("warm-value", schema)
        yield url


@pytest.fixture
def make_settings(kafka: str) -> MakeSettings:
    """A factory of settings; each call creates another set of topics."""

    def make(*, partitions: int = 4, **changes: Any) -> Settings:
        settings = fresh_settings(kafka, **changes)
        create_topics(settings, partitions=partitions, replication_factor=1)
        return settings

    return make


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """Settings with four new topics of four partitions each."""
    return make_settings()


def fresh_settings(kafka: str, **changes: Any) -> Settings:
    """Settings whose topics and group nobody else uses; the topics are not created yet."""
    suffix = uuid.uuid4().hex[:12]
    names = {
        "input_topic": f"vitals-{suffix}",
        "output_topic": f"risk-{suffix}",
        "metrics_topic": f"risk-metrics-{suffix}",
        "dead_letter_topic": f"vitals-dead-letter-{suffix}",
        "group": f"group-{suffix}",
    }
    return Settings(bootstrap_servers=kafka, **(names | changes))


def _tell(config: pytest.Config, line: str) -> None:
    """Write to the terminal itself, bypassing pytest's capturing."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if reporter is not None and capture is not None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(line)

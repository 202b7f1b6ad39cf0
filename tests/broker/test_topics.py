import re

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from broker.errors import BrokerError, SettingsError, TopicError
from broker.roles import DEFAULT_MAX_MESSAGE_BYTES, TOPICS, Role
from broker.settings import Settings
from broker.topics import (
    check_topics,
    create_topics,
    differences,
    message_limits,
    require_state_topic,
    require_topics,
)
from tests.conftest import MakeSettings, fresh_settings
from tests.kafka import committed_offsets, partitions, produce, read_all, wait_until

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def unmade(kafka: str) -> Settings:
    """Settings whose topics do not exist."""
    return fresh_settings(kafka)


def configure(settings: Settings, topic: str, **config: str) -> None:
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()


@pytest.mark.kafka
def test_create_creates_the_four_topics_once(unmade: Settings) -> None:
    assert create_topics(unmade, partitions=3) == [(name, "created") for name in unmade.topics]
    require_topics(unmade, unmade.topics)
    assert partitions(unmade.bootstrap_servers, unmade.input_topic) == [0, 1, 2]

    assert create_topics(unmade, partitions=5) == [(name, "exists") for name in unmade.topics]
    assert partitions(unmade.bootstrap_servers, unmade.input_topic) == [0, 1, 2]


@pytest.mark.kafka
def test_a_state_topic_is_compacted_and_has_as_many_partitions_as_the_input(unmade: Settings) -> None:
    create_topics(unmade, partitions=3)
    state = unmade.topic(Role.STATE)
    assert state == f"{unmade.input_topic}-state-{unmade.group}"
    with pytest.raises(
        TopicError, match=rf"{state} \(of --input-topic and --group\) is missing .*create --state"
    ):
        require_state_topic(unmade)
    assert (state, "created") in create_topics(unmade, partitions=5, state=True)
    assert partitions(unmade.bootstrap_servers, state) == [0, 1, 2]
    assert {one.message for one in check_topics(unmade, state=True)} == {
        "has one replica: data that one broker loses is lost"
    }
    assert differences(unmade, [state], partitions=3) == []
    require_state_topic(unmade)

    configure(unmade, state, cleanup_policy="compact,delete")
    lossy = "cleanup.policy is compact,delete, which drops patients' state; run: kafka-configs.sh"

    def refused() -> bool:
        try:
            require_state_topic(unmade)
        except TopicError as error:
            return lossy in str(error)
        return False

    wait_until(refused, what="a topic that is not only compacted")


@pytest.mark.kafka
def test_a_state_topic_with_a_different_number_of_partitions_is_refused(unmade: Settings) -> None:
    state = unmade.topic(Role.STATE)
    client = AdminClient({"bootstrap.servers": unmade.bootstrap_servers})
    config = TOPICS[Role.STATE].config
    client.create_topics([NewTopic(state, 2, 1, config=config)])[state].result()
    create_topics(unmade, partitions=3)
    other = f"{state} has 2 partitions, and {unmade.input_topic} has 3: .* choose another --group"
    with pytest.raises(TopicError, match=other):
        require_state_topic(unmade)
    assert [one.level for one in differences(unmade, [state])] == ["error"]


@pytest.mark.kafka
def test_requests_for_existing_topics_are_compared_with_what_they_have(unmade: Settings) -> None:
    create_topics(unmade, partitions=3, replication_factor=1)
    vitals, risk, metrics, letters = unmade.topics
    at = f"--bootstrap-server {unmade.bootstrap_servers}"

    assert differences(unmade, unmade.topics) == []
    assert differences(unmade, unmade.topics, partitions=3, replication_factor=1) == []
    more = {one.topic: one.message for one in differences(unmade, unmade.topics, partitions=8)}
    assert more[vitals] == (
        f"has 3 partitions, not 8; kafka-topics.sh {at} --alter --topic {vitals} --partitions 8 adds them and moves "
        "most keys to another partition: stop the senders first and wait until vitalstream status shows that 0 "
        "messages wait, or a patient's messages may be scored out of order; or use a new topic (--input-topic)"
    )
    assert "let readers finish, or a patient's results may be read out of order" in more[risk]
    assert "must not expect order across partitions" in more[metrics]
    assert "replay the dead letters first" in more[letters]
    (fewer,) = differences(unmade, [risk], partitions=1)
    assert (fewer.level, fewer.message) == (
        "error",
        "has 3 partitions, not 1; Kafka can't remove partitions: leave out --partitions; or use a new topic "
        "(--output-topic)",
    )
    (copies,) = differences(unmade, [vitals], replication_factor=3)
    assert (copies.level, copies.message) == (
        "error",
        f"has a replication factor of 1, not 3; kafka-reassign-partitions.sh {at} changes it; or use a new topic "
        "(--input-topic)",
    )


@pytest.mark.kafka
def test_create_says_why_the_brokers_refuse(unmade: Settings) -> None:
    with pytest.raises(TopicError, match=r"refused to create topic vitals-.*replication factor"):
        create_topics(unmade, replication_factor=99)


@pytest.mark.kafka
def test_check_accepts_topics_as_create_creates_them(settings: Settings) -> None:
    found = check_topics(settings)

    assert {(one.topic, one.level) for one in found} == {(name, "warning") for name in settings.topics}
    assert all("one replica" in one.message for one in found)


@pytest.mark.kafka
def test_check_names_missing_topics(unmade: Settings) -> None:
    found = check_topics(unmade)

    assert [(one.topic, one.level) for one in found] == [(name, "error") for name in unmade.topics]
    assert "vitalstream topics create" in found[0].message


@pytest.mark.kafka
def test_check_finds_settings_that_lose_results(make_settings: MakeSettings) -> None:
    settings = make_settings(partitions=2)
    configure(settings, settings.output_topic, cleanup_policy="compact,delete", retention_ms="1000")
    configure(settings, settings.dead_letter_topic, max_message_bytes="1000000")

    def three() -> dict[tuple[str, str], str]:
        found = [one for one in check_topics(settings) if "one replica" not in one.message]
        return {(one.topic, one.level): one.message for one in found} if len(found) == 3 else {}

    found = wait_until(three, what="three findings")
    compacted = found[settings.output_topic, "error"]
    assert "cleanup.policy is compact,delete, which drops all but the last message" in compacted
    assert f"--topic {settings.output_topic} --add-config cleanup.policy=delete" in compacted
    assert "retention.ms is 1000" in found[settings.output_topic, "note"]
    assert "max.message.bytes is 1000000" in found[settings.dead_letter_topic, "warning"]


@pytest.mark.kafka
def test_check_notes_outputs_with_fewer_partitions_than_the_input(unmade: Settings) -> None:
    admin = AdminClient({"bootstrap.servers": unmade.bootstrap_servers})
    for future in admin.create_topics([NewTopic(unmade.input_topic, 6, 1)]).values():
        future.result()
    create_topics(unmade, partitions=2)

    notes = [one for one in check_topics(unmade) if one.topic == unmade.output_topic and one.level == "note"]
    assert [one.message for one in notes] == [f"has 2 partitions, fewer than {unmade.input_topic}'s 6"]


@pytest.mark.kafka
def test_require_names_the_missing_topic_and_the_fix(settings: Settings) -> None:
    changed = settings.model_copy(update={"output_topic": f"{settings.output_topic}-not"})

    with pytest.raises(
        TopicError,
        match=r"topic risk-\w+-not \(--output-topic\) is missing .*run: vitalstream topics create .*-not",
    ) as error:
        require_topics(changed, changed.topics)
    assert error.value.topics == (changed.output_topic,)
    assert error.value.exit_code == 1


@pytest.mark.kafka
def test_dead_letters_may_be_larger_than_messages(settings: Settings) -> None:
    limits = message_limits(settings, settings.topics)

    assert limits[settings.input_topic] == DEFAULT_MAX_MESSAGE_BYTES
    assert limits[settings.dead_letter_topic] > limits[settings.input_topic]


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ({"security.protocol": "SSL"}, "do not agree on TLS; check security.protocol"),
        (
            {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": "nurse",
                "sasl.password": "hunter2",
            },
            "rejects the credentials; check sasl.mechanism",
        ),
    ],
)
def test_a_refusal_is_one_sentence(
    kafka: str, properties: dict[str, str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(bootstrap_servers=kafka, kafka=properties)

    with pytest.raises(BrokerError, match=re.escape(told)) as error:
        require_topics(settings, settings.topics, timeout=3)
    assert "hunter2" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_property_librdkafka_refuses_is_a_settings_error() -> None:
    settings = Settings(kafka={"no.such.property": "x"})

    with pytest.raises(
        SettingsError, match=r'-X properties: No such configuration property: "no\.such\.property"'
    ):
        require_topics(settings, settings.topics)


def test_a_refused_property_does_not_show_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: dict[str, object]) -> None:
        text = f"Invalid value {config['sasl.password']!r} for sasl.password"
        raise KafkaException(KafkaError(KafkaError._INVALID_ARG, text))

    monkeypatch.setattr("broker.admin.AdminClient", refuse)
    settings = Settings(kafka={"sasl.password": "hunter2"})

    with pytest.raises(SettingsError, match=r"Invalid value '\*\*\*' for sasl\.password"):
        require_topics(settings, settings.topics)


@pytest.mark.kafka
def test_what_is_produced_can_be_read_back(settings: Settings) -> None:
    kafka, topic = settings.bootstrap_servers, settings.input_topic
    rows = [(f"p{n % 7}", f"{n}", n % 4) for n in range(5_000)]
    produce(kafka, topic, rows)

    seen = read_all(kafka, topic)
    assert {(one.partition(), one.value()) for one in seen} == {(p, v.encode()) for _, v, p in rows}
    assert len(seen) == len(rows)
    assert committed_offsets(kafka, settings.group, topic) == {}


@pytest.mark.kafka
def test_an_aborted_transaction_is_visible_only_to_read_uncommitted(settings: Settings) -> None:
    kafka, topic = settings.bootstrap_servers, settings.output_topic
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": settings.group, "log_level": 0})
    producer.init_transactions(30)
    for value, end in ((b"kept", producer.commit_transaction), (b"dropped", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value)
        assert not producer.flush(10)
        end(10)

    assert [one.value() for one in read_all(kafka, topic)] == [b"kept"]
    both = read_all(kafka, topic, isolation="read_uncommitted")
    assert {one.value() for one in both} == {b"dropped", b"kept"}

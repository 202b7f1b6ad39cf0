"""Each command works with exactly the rights in its table, and names a right that it lacks."""

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.errors import BrokerError
from broker.rights import RIGHTS, Right
from broker.roles import Role
from broker.settings import Settings
from broker.topics import create_topics
from producer.publish import publish
from producer.sender import DeliveryError, Sender
from tests.conftest import fresh_settings
from tests.consumer.processes import Process
from tests.kafka import produce, read_all
from tests.security.conftest import Run
from tests.security.endings import ends_in_one_sentence
from tests.security.secured import SecuredKafka

pytestmark = pytest.mark.kafka

NEEDED = {command: [one for one in rights if not one.optional] for command, rights in RIGHTS.items()}
ROW = {"patient_id": "p", "event_time": "2026-01-01T00:00:00Z", "signal": 64, "spo2": 98}
ROWS = [orjson.dumps(ROW), orjson.dumps(ROW), b"{"]

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "watch": ("watch", "--from-beginning", "--limit", "2", "--json"),
    "audit": ("audit",),
    "dead-letters list": ("dead-letters", "list"),
    "dead-letters replay": ("dead-letters", "replay", "--force"),
    "topics create": ("topics", "create", "--partitions", "1", "--replication-factor", "1"),
    "topics check": ("topics", "check"),
}
"""Run on topics that a worker has processed; replay, publish and status are tested separately."""


def named(right: Right) -> str:
    return f"{right.operation} {right.template}"


def without(rights: Iterable[Right], gone: Right) -> list[Right]:
    return [one for one in rights if one != gone]


def but_looking(rights: Iterable[Right], gone: Right) -> list[Right]:
    """These rights with DESCRIBE in place of `gone`, or without it if `gone` is DESCRIBE."""
    if gone.operation == "DESCRIBE":
        return without(rights, gone)
    return [*without(rights, gone), Right("DESCRIBE", gone.kind, gone.template, prefixed=gone.prefixed)]


def fresh(settings: Settings, **changes: Any) -> Settings:
    """Settings with topics and a group that nobody else uses."""
    made = fresh_settings(settings.bootstrap_servers, **changes)
    create_topics(made, partitions=1, replication_factor=1)
    return made


Case = tuple[str, Right]
CASES: list[Case] = [
    (command, right)
    for command in (
        "replay",
        "watch",
        "status",
        "audit",
        "dead-letters list",
        "dead-letters replay",
        "topics create",
    )
    for right in NEEDED[command]
    if (command, right.operation) != ("topics create", "DESCRIBE")  # takes half a minute; tested below
]


# --- the worker


@pytest.fixture(scope="module")
def scored(secured: SecuredKafka, module_settings: Settings, model: Path, run: Run) -> Settings:
    """The administrator's settings of topics that a worker with the minimum rights has processed."""
    produce(module_settings.bootstrap_servers, module_settings.input_topic, [("p", row) for row in ROWS])
    settings = module_settings.model_copy(update={"model": model, "until_idle": 2.0})
    worker = run(secured.user(settings, NEEDED["consume"]), "consume")
    assert worker.wait(timeout=60) == 0, worker.log
    return settings


def test_the_worker_works_with_the_minimum_rights(scored: Settings) -> None:
    counts = {topic: len(read_all(scored.bootstrap_servers, topic)) for topic in scored.output_topics}
    assert counts[scored.output_topic] == 2
    assert counts[scored.dead_letter_topic] == 1
    assert counts[scored.metrics_topic] >= 1


def test_the_worker_works_with_a_certificate(
    secured: SecuredKafka, module_settings: Settings, model: Path, run: Run
) -> None:
    settings = fresh(module_settings, model=model, until_idle=1.0)
    certificate = secured.authority.issue("certified-worker", password="canary-of-a-key")
    secured.grant("certified-worker", settings, NEEDED["consume"])
    worker = run(secured.at("MTLS", settings, **certificate.properties("canary-of-a-key")), "consume")
    assert worker.wait(timeout=60) == 0, worker.log


def test_at_least_once_needs_no_right_on_transactional_ids(
    secured: SecuredKafka, module_settings: Settings, model: Path, run: Run
) -> None:
    settings = fresh(module_settings, model=model, until_idle=1.0, delivery="at-least-once")
    rights = [one for one in NEEDED["consume"] if one.kind != "transactional id"]
    worker = run(secured.user(settings, rights), "consume")
    assert worker.wait(timeout=60) == 0, worker.log


def test_a_history_needs_the_rights_in_its_table(
    secured: SecuredKafka, module_settings: Settings, history_model: Path, run: Run, tmp_path: Path
) -> None:
    settings = fresh(module_settings, model=history_model, until_idle=1.0)
    create_topics(settings, replication_factor=1, state=True)
    produce(settings.bootstrap_servers, settings.input_topic, [("p", row) for row in ROWS])

    def done(settings: Settings, *command: str, rights: Iterable[Right]) -> None:
        process = run(secured.user(settings, rights), *command)
        assert process.wait(timeout=120) == 0, process.log + process.out

    both = [*NEEDED["consume"], *NEEDED["consume with a history"]]
    done(settings, "consume", rights=both)
    done(settings, "audit", rights=[*NEEDED["audit"], *NEEDED["audit with a history"]])
    done(settings, "state", "show", "p", rights=NEEDED["state show"])
    done(settings, "state", "check", rights=NEEDED["state check"])
    done(settings, "state", "snapshot", str(tmp_path / "state.jsonl"), rights=NEEDED["state snapshot"])

    new = settings.model_copy(update={"group": f"{settings.group}-new"})
    create_topics(new, replication_factor=1, state=True)
    of_source = Right("DESCRIBE", "group", settings.group)
    rebuild = ("state", "rebuild", "--from-group", settings.group)
    done(new, *rebuild, rights=[*NEEDED["state rebuild"], of_source])

    user = secured.user(settings, without(both, NEEDED["consume with a history"][1]))
    lacks = f"lacks rights at .*: WRITE on topic {settings.topic(Role.STATE)}"
    ends_in_one_sentence(run(user, "consume"), user, sentence=lacks)


@pytest.fixture(scope="module")
def lacking(
    secured: SecuredKafka, module_settings: Settings, model: Path, run: Run
) -> dict[tuple[str, Right], tuple[Process, Settings]]:
    """Workers that each lack one right or have only DESCRIBE instead, all started at once."""
    settings = module_settings.model_copy(update={"model": model})
    users = {
        (change.__name__, right): secured.user(settings, change(NEEDED["consume"], right))
        for right in NEEDED["consume"]
        for change in (without, but_looking)
    }
    return {case: (run(user, "consume"), user) for case, user in users.items()}


OF_A_RIGHT = {
    "topic": r"this user lacks rights at \S+: {operation} on topic {name}; docs/rights\.md lists",
    "group": r"GROUP_AUTHORIZATION_FAILED: this user needs READ on the consumer group \(--group\)",
    "transactional id": r"this user needs WRITE on the transactional ids that begin with the group's name",
}


@pytest.mark.parametrize("change", [without, but_looking])
@pytest.mark.parametrize("right", NEEDED["consume"], ids=named)
def test_a_worker_names_the_right_it_lacks(
    right: Right,
    change: Callable[..., object],
    lacking: dict[tuple[str, Right], tuple[Process, Settings]],
) -> None:
    process, settings = lacking[change.__name__, right]
    sentence = OF_A_RIGHT[right.kind].format(operation=right.operation, name=right.name(settings))
    if right.kind == "topic" and change is without:  # then only its name is hidden
        sentence = f"topic {right.name(settings)} \\(--[a-z-]+\\) is missing \\(or hidden from this user\\)"
    ends_in_one_sentence(process, settings, sentence=sentence)


@pytest.mark.parametrize(
    ("delivery", "right"),
    [
        pytest.param(delivery, right, id=f"{delivery}-{named(right)}")
        for delivery in ("exactly-once", "at-least-once")
        for right in NEEDED["consume"]
        if delivery == "exactly-once" or right.kind != "transactional id"
    ],
)
def test_a_worker_that_loses_a_right_stops_and_names_it(
    *, right: Right, delivery: str, secured: SecuredKafka, module_settings: Settings, model: Path, run: Run
) -> None:
    settings = fresh(module_settings, model=model, delivery=delivery)
    user = secured.user(settings, NEEDED["consume"])
    worker = run(user, "consume").joined()
    secured.revoke(user.kafka["sasl.username"], settings, right)
    produce(settings.bootstrap_servers, settings.input_topic, [("p", row) for row in ROWS])
    sentence = OF_A_RIGHT[right.kind]
    if right.kind == "topic":
        sentence = (
            "TOPIC_AUTHORIZATION_FAILED: this user needs READ on the input topic and WRITE on the other"
        )
    ends_in_one_sentence(worker, user, sentence=sentence)


# --- the other commands


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to replay."""
    path = tmp_path_factory.mktemp("rows") / "rows.ndjson"
    path.write_bytes(b"\n".join(ROWS[:2]))
    return path


@pytest.fixture(scope="module")
def line(rows: Path) -> Callable[[str], tuple[str, ...]]:
    """The command line of a command."""
    return lambda command: {**COMMANDS, "replay": ("replay", str(rows)), "status": ("status",)}[command]


@pytest.mark.parametrize("command", [*COMMANDS, "replay"])
def test_a_command_works_with_the_minimum_rights(
    command: str, secured: SecuredKafka, scored: Settings, run: Run, line: Callable[[str], tuple[str, ...]]
) -> None:
    settings = fresh_settings(scored.bootstrap_servers) if command == "topics create" else scored
    process = run(secured.user(settings, NEEDED[command]), *line(command))
    assert process.wait(timeout=30) == 0, process.log + process.out


def test_an_audit_without_the_right_to_see_policies_allows_for_compaction(
    secured: SecuredKafka, scored: Settings, run: Run
) -> None:
    other = scored.model_copy(update={"output_topic": fresh(scored).output_topic})  # which has no results
    blind = run(secured.user(other, NEEDED["audit"]), "audit")
    seeing = run(secured.user(other, RIGHTS["audit"]), "audit")
    assert blind.wait(timeout=30) == 3, blind.log + blind.out
    hidden = f"{other.output_topic} may be compacted, which this user may not see (DESCRIBE_CONFIGS)"
    assert (
        f"2 messages could not be judged: they have neither a result nor a dead letter, and {hidden}"
        in blind.out
    )
    assert seeing.wait(timeout=30) == 1, seeing.log + seeing.out


def test_publish_works_with_the_minimum_rights(secured: SecuredKafka, scored: Settings) -> None:
    row = orjson.dumps(ROW | {"heart_rate": 70})
    assert publish(secured.user(scored, NEEDED["publish"]), io.BytesIO(row)).sent == 1
    looking = but_looking(NEEDED["publish"], NEEDED["publish"][0])
    with pytest.raises(BrokerError, match=f"this user lacks rights .* WRITE on topic {scored.input_topic}"):
        publish(secured.user(scored, looking), io.BytesIO(row))


def test_mapping_check_works_with_the_minimum_rights(
    secured: SecuredKafka, scored: Settings, run: Run, tmp_path: Path
) -> None:
    paths = 'patient_id = { path = "patient_id" }\nevent_time = { path = "event_time" }\n'
    (mapping := tmp_path / "ward.toml").write_text(f'{paths}[features]\nspo2 = {{ path = "spo2" }}\n')
    command = "mapping", "check", str(mapping), "--topic", scored.input_topic
    needed = NEEDED["mapping check"]
    reading = run(secured.user(scored, needed), *command)
    looking = secured.user(scored, but_looking(needed, needed[0]))
    refused = run(looking, *command)
    assert reading.wait(timeout=30) == 1, reading.log  # because of the message that is not JSON
    assert "not_json" in reading.out
    ends_in_one_sentence(refused, looking, sentence=r"no READ right")


def test_a_producer_without_its_right_says_so(secured: SecuredKafka, scored: Settings) -> None:
    looking = but_looking(NEEDED["replay"], NEEDED["replay"][0])
    sender = Sender(secured.user(scored, looking), topic=scored.input_topic)
    sender.send(b"p", ROWS[0])
    with pytest.raises(DeliveryError, match="AUTHORIZATION_FAILED"):
        sender.flush(20)


@pytest.fixture(scope="module")
def forbidden(
    secured: SecuredKafka, scored: Settings, run: Run, line: Callable[[str], tuple[str, ...]]
) -> dict[Case, tuple[Process, Settings]]:
    """The other commands, each lacking one right, all started at once."""
    started = {}
    for command, right in CASES:
        settings = fresh_settings(scored.bootstrap_servers) if command == "topics create" else scored
        user = secured.user(settings, but_looking(NEEDED[command], right))
        started[command, right] = run(user, *line(command)), user
    return started


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}: {named(case[1])}")
def test_a_command_says_that_it_lacks_a_right(
    case: Case, forbidden: dict[Case, tuple[Process, Settings]]
) -> None:
    ends_in_one_sentence(*forbidden[case], sentence=r"\bright|AUTHORIZATION_FAILED|hidden from this user")


def test_topics_check_says_what_it_cannot_see(secured: SecuredKafka, scored: Settings, run: Run) -> None:
    rights = [one for one in NEEDED["topics check"] if one.operation == "DESCRIBE"]
    process = run(secured.user(scored, rights), "topics", "check")
    assert process.wait(timeout=30) == 0, process.log
    hides = "hides its settings: this user lacks DESCRIBE_CONFIGS on it"
    assert all(f"warning: {topic} {hides}" in process.out for topic in scored.topics), process.out


def test_status_shows_what_the_user_may_see(secured: SecuredKafka, scored: Settings, run: Run) -> None:
    least, most = (
        run(secured.user(scored, rights), "status", "--json")
        for rights in (NEEDED["status"], RIGHTS["status"])
    )
    for process in (least, most):
        assert process.wait(timeout=30) == 3, process.log
        assert process.report["problems"] == [f"group {scored.group} has no worker: nothing is scored"]
    hidden = [note for note in least.report["notes"] if "hidden from this user" in note]
    for topic, note in zip((scored.dead_letter_topic, scored.output_topic), hidden, strict=True):
        assert topic in note
    assert most.report["notes"] == []
    assert most.report["dead_letters"]["reasons"] == {"not_json": 1}
    assert len(most.report["results"]["models"]) == 1


def test_status_without_read_does_not_know_how_old_a_message_is(
    secured: SecuredKafka, module_settings: Settings, run: Run
) -> None:
    settings = fresh(module_settings)
    produce(settings.bootstrap_servers, settings.input_topic, [("p", row) for row in ROWS])
    process = run(secured.user(settings, NEEDED["status"]), "status", "--json")
    assert process.wait(timeout=30) == 3, process.log
    assert process.report["input"]["waiting"] == len(ROWS)
    assert (process.report["input"]["counted"], process.report["input"]["oldest_s"]) == (False, None)
    assert (
        f"topic {settings.input_topic} can't be read: this user has no READ right on it"
        in process.report["notes"]
    )


def test_topics_create_names_the_missing_describe(secured: SecuredKafka, scored: Settings) -> None:
    settings = fresh_settings(scored.bootstrap_servers)
    rights = [one for one in NEEDED["topics create"] if one.operation == "CREATE"]
    with pytest.raises(BrokerError, match="DESCRIBE"):
        create_topics(secured.user(settings, rights), replication_factor=1, timeout=2)

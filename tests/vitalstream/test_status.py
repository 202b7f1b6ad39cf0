"""`vitalstream status`: what it says about a group matches the brokers."""

import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from typer.testing import CliRunner

from broker.settings import Settings
from real_time.model_file import pin_model
from schemas.contract import Reason
from schemas.dead_letters import Origin, dead_letter_headers
from schemas.results import encode_results
from tests.conftest import MakeSettings
from tests.consumer.models import Fragile
from tests.kafka import committed_offsets, produce, read_all, wait_until
from tests.vitalstream.command import OnTerminal, Running, vitalstream
from vitalstream.cli import app
from vitalstream.status.command import _span

pytestmark = pytest.mark.kafka

NEEDS_SOMEBODY = 3


def flags(settings: Settings, *names: str) -> list[str]:
    given = ("bootstrap_servers", "group", "input_topic", "output_topic", "dead_letter_topic", *names)
    return [part for name in given for part in (f"--{name.replace('_', '-')}", str(getattr(settings, name)))]


def text(settings: Settings, *, code: int) -> str:
    done = CliRunner().invoke(app, ["status", *flags(settings)])
    assert done.exit_code == code, done.stdout or done.exception
    return done.stdout


def status(settings: Settings, *more: str, code: int) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["status", "--json", *flags(settings), *more])
    assert done.exit_code == code, done.stdout or done.exception
    document: dict[str, Any] = orjson.loads(done.stdout)
    return document


def message(**fields: Any) -> bytes:
    return orjson.dumps({"patient_id": "SECRET", "event_time": "2026-01-05T08:30:00Z", "signal": 1} | fields)


def client(settings: Settings, **properties: Any) -> dict[str, Any]:
    return {"bootstrap.servers": settings.bootstrap_servers, "log_level": 0, **properties}


@contextmanager
def member(settings: Settings, client_id: str) -> Iterator[Consumer]:
    """A member that owns all partitions of the input and reads nothing."""
    own = {"group.id": settings.group, "client.id": client_id, "enable.auto.commit": False}
    with closing(Consumer(client(settings, **own))) as consumer:
        consumer.subscribe([settings.input_topic])
        wait_until(lambda: consumer.poll(0.05) or consumer.assignment(), what="an assignment")
        yield consumer


def test_status_shows_a_worker_its_lag_and_its_results(settings: Settings, tmp_path: Path) -> None:
    model = tmp_path / "fragile.joblib"
    joblib.dump(Fragile(), model)
    sha256 = pin_model(model)
    rows = [(str(number), message()) for number in range(40)]
    produce(settings.bootstrap_servers, settings.input_topic, [*rows, ("p", b"{"), ("p", None), ("p", b"{")])
    metrics = ["--metrics-topic", settings.metrics_topic]
    with Running("consume", "--model", str(model), "--instance", "bed-side", *metrics, *flags(settings)):
        wait_until(lambda: len(read_all(settings.bootstrap_servers, settings.output_topic)) == 40)
        wait_until(
            lambda: sum(committed_offsets(*group_of(settings)).values()) == 43, what="all to be committed"
        )
        found, told = status(settings, code=0), text(settings, code=0)

    assert (found["state"], found["problems"], found["notes"]) == ("stable", [], [])
    (worker,) = found["members"]
    assert worker["client_id"] == f"{settings.group}-bed-side"
    assert worker["partitions"] == [0, 1, 2, 3]
    assert re.fullmatch(r"[0-9.:a-f]+", worker["host"])
    assert (found["input"]["waiting"], found["input"]["counted"], found["input"]["oldest_s"]) == (
        0,
        True,
        None,
    )
    committed = committed_offsets(*group_of(settings))
    assert {
        one["partition"]: one["committed"] for one in found["input"]["partitions"] if one["end"]
    } == committed
    assert found["dead_letters"]["reasons"] == {"not_json": 2, "empty": 1}
    (scoring,) = found["results"]["models"]
    assert scoring["model"] == sha256
    assert set(scoring["partitions"]) <= {0, 1, 2, 3}
    assert datetime.fromisoformat(scoring["scored_at"]).timestamp() == pytest.approx(time.time(), abs=300)

    assert f"group {settings.group} is stable: 1 worker; 0 messages wait" in told
    assert re.search(rf"{worker['client_id']} +{worker['host']} +0, 1, 2, 3", told)
    assert f"dead letters of the last hour on {settings.dead_letter_topic}: not_json 2, empty 1" in told
    assert f"model {sha256[:12]} made the newest results of partitions " in told
    assert "SECRET" not in told + str(found)


def group_of(settings: Settings) -> tuple[str, str, str]:
    return settings.bootstrap_servers, settings.group, settings.input_topic


def test_only_readable_messages_count_as_waiting(make_settings: MakeSettings) -> None:
    settings = make_settings(partitions=1)
    producer = Producer(client(settings, **{"transactional.id": settings.group}))
    producer.init_transactions(30)

    def write(count: int) -> None:
        producer.begin_transaction()
        for _ in range(count):
            producer.produce(settings.input_topic, message())
        producer.flush(30)

    write(150)
    producer.commit_transaction(30)
    write(150)
    producer.abort_transaction(30)
    with member(settings, "somebody") as consumer:

        def waiting(committed: int) -> tuple[int, bool]:
            commit(consumer, settings, {0: committed})
            found = status(settings, code=0)["input"]
            assert found["partitions"][0]["end"] == 302
            return found["waiting"], found["counted"]

        assert waiting(0) == (302 - 100 + 100, False), (
            "an upper bound, because only the first 100 are counted"
        )
        assert re.search(r"0 +0 +302 +at most 302 +\d+ s +somebody", text(settings, code=0))
        assert waiting(70) == (80, True)
        assert waiting(149) == (1, True)
        assert waiting(150) == (0, True)
        assert status(settings, code=0)["input"]["oldest_s"] is None
        write(1)
        assert status(settings, code=0)["input"]["waiting"] == 0, "an open transaction can't be read yet"
        producer.commit_transaction(30)
        assert status(settings, code=0)["input"]["waiting"] == 1


def commit(consumer: Consumer, settings: Settings, offsets: dict[int, int], metadata: str = "") -> None:
    made = [TopicPartition(settings.input_topic, *one, metadata) for one in offsets.items()]
    consumer.commit(offsets=made, asynchronous=False)


def test_a_group_without_a_worker_needs_attention(settings: Settings) -> None:
    produce(settings.bootstrap_servers, settings.input_topic, [("p", message(), 1)])
    found, told = status(settings, code=NEEDS_SOMEBODY), text(settings, code=NEEDS_SOMEBODY)
    assert (found["state"], found["members"]) == ("dead", [])
    assert found["problems"] == [f"group {settings.group} has no worker: nothing is scored"]
    assert [one["waiting"] for one in found["input"]["partitions"]] == [0, 1, 0, 0]
    assert found["results"]["models"] == []
    assert (
        f"group {settings.group} is unknown to the brokers: 0 workers; 1 message waits, the oldest for"
        in told
    )
    assert f"problem: {found['problems'][0]}" in told
    assert f"no results on {settings.output_topic}" in told


def test_a_message_that_waits_too_long_needs_attention(settings: Settings) -> None:
    producer = Producer(client(settings))
    for seconds, partition in ((200, 1), (400, 2)):
        sent = round((time.time() - seconds) * 1000)
        producer.produce(settings.input_topic, message(), partition=partition, timestamp=sent)
    assert not producer.flush(30)
    with member(settings, "somebody"):
        found, told = status(settings, code=NEEDS_SOMEBODY), text(settings, code=NEEDS_SOMEBODY)
    assert found["input"]["oldest_s"] == pytest.approx(400, abs=30)
    (problem,) = found["problems"]
    assert re.fullmatch(r"the oldest message has waited for 4\d\d s, more than 60 s", problem)
    assert "2 messages wait, the oldest for 6 min " in told


def test_messages_before_a_new_groups_start_do_not_count_as_waiting(settings: Settings) -> None:
    """They will never be scored; once the group has committed, its offsets count."""
    producer = Producer(client(settings))
    now = time.time()
    for seconds, partition in ((400, 0), (400, 1), (200, 1), (400, 2)):
        sent = round((now - seconds) * 1000)
        producer.produce(settings.input_topic, message(), partition=partition, timestamp=sent)
    assert not producer.flush(30)
    with closing(Consumer(client(settings, **{"group.id": settings.group}))) as consumer:
        commit(consumer, settings, {2: 0})
    since = datetime.fromtimestamp(now - 300, UTC).isoformat()
    for more, waiting in (((), [1, 2, 1, 0]), (("--from-timestamp", since), [0, 1, 1, 0])):
        found = status(settings, *more, code=NEEDS_SOMEBODY)
        assert [one["waiting"] for one in found["input"]["partitions"]] == waiting


def test_messages_deleted_unscored_need_attention(settings: Settings) -> None:
    admin, topic = AdminClient(client(settings)), settings.input_topic
    rows = [("p", message(), partition) for partition in (0, 1) for _ in range(5)]
    produce(settings.bootstrap_servers, topic, rows)
    with member(settings, "somebody") as consumer:
        commit(consumer, settings, {0: 2, 1: 5}, metadata="")
        commit(consumer, settings, {2: 0}, metadata="AAAAAAAAAAAAAAAAAAAAAA")
        (answer,) = admin.delete_records([TopicPartition(topic, 0, 4)]).values()
        answer.result(30)
        found = status(settings, code=NEEDS_SOMEBODY)
    gone, recreated = found["problems"]
    assert gone == (
        "partition 0: the messages from offset 2 to 3 were deleted before they were scored, so workers stop until the "
        "group's offsets are reset"
    )
    assert recreated.startswith(f"partition 2: topic {topic} was deleted and recreated; ")
    assert found["input"]["waiting"] == 1


def test_a_partition_without_a_worker_needs_attention(settings: Settings) -> None:
    with member(settings, "somebody"):
        admin = AdminClient(client(settings))
        (answer,) = admin.create_partitions([NewPartitions(settings.input_topic, 5)]).values()
        answer.result(30)
        wait_until(lambda: len(admin.list_topics(timeout=10).topics[settings.input_topic].partitions) == 5)
        (problem,) = status(settings, code=NEEDS_SOMEBODY)["problems"]
    assert problem == f"no worker of group {settings.group} has partition 4"


def test_old_dead_letters_and_results_are_distinguished_from_new_ones(settings: Settings) -> None:
    producer = Producer(client(settings))
    for age_s, reason in ((30, Reason.BAD_TIME), (4000, Reason.EMPTY)):
        origin = Origin(reason, "", settings.input_topic, 0, 0, 0)
        headers: Any = dead_letter_headers(origin)
        made_at = round((time.time() - age_s) * 1000)
        producer.produce(settings.dead_letter_topic, b"", headers=headers, timestamp=made_at, partition=0)
    for number, (model, partition) in enumerate([("0" * 64, 0), ("f" * 64, 0), ("0" * 64, 1)]):
        producer.produce(settings.output_topic, risk(model, number), partition=partition)
    for _ in range(300):
        producer.produce(settings.output_topic, b"no result", partition=1)
    assert not producer.flush(30)
    found = status(settings, code=NEEDS_SOMEBODY)
    assert found["dead_letters"]["reasons"] == {"bad_time": 1}
    assert found["results"]["models"] == [
        {"model": "0" * 64, "scored_at": "2026-01-05T08:30:02.000Z", "partitions": [1]},
        {"model": "f" * 64, "scored_at": "2026-01-05T08:30:01.000Z", "partitions": [0]},
    ]


def risk(model: str, second: int) -> bytes:
    (value,) = encode_results(
        patient_ids=["SECRET"], event_times=["2026-01-05T08:30:00Z"], probabilities=[float("nan")], labels=[None],
        implausible=[[]], threshold=0.5, model=model, scored_at=f"2026-01-05T08:30:0{second}.000Z", topic="vitals",
        partitions=[0], offsets=[0], features_present=[8], no_input=[False],
        mapping=None,
    )  # fmt: skip
    return value


def test_missing_topics_are_noted_and_the_rest_is_shown(settings: Settings) -> None:
    part = settings.model_copy(update={"output_topic": "nobody-made-this"})
    found, told = status(part, code=NEEDS_SOMEBODY), text(part, code=NEEDS_SOMEBODY)
    (note,) = found["notes"]
    assert note.startswith("topic nobody-made-this (--output-topic) is missing")
    assert f"note: {note}" in told
    assert found["results"]["models"] is None
    assert found["dead_letters"]["reasons"] == {}


def test_without_an_input_topic_status_is_an_error(settings: Settings) -> None:
    done = vitalstream("status", *flags(settings.model_copy(update={"input_topic": "nobody-made-this"})))
    assert (done.returncode, done.stdout) == (1, "")
    assert "topic nobody-made-this (--input-topic) is missing" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("columns", [60, 80])
def test_nothing_is_cut_off_on_a_narrow_terminal(settings: Settings, columns: int) -> None:
    produce(settings.bootstrap_servers, settings.input_topic, [("p", message(), 3) for _ in range(12)])
    with member(settings, "vitalstream-a-host-with-a-long-name-0"):
        shown = OnTerminal("status", *flags(settings), columns=columns)
        assert shown.end() == 0
    assert "…" not in shown.text
    assert re.search(r"^ +3 +- +12 +12 +\d+ s", shown.text, re.MULTILINE)
    assert "0, 1, 2, 3" in shown.text


def test_a_duration_shows_its_two_largest_units() -> None:
    assert [_span(seconds) for seconds in (-1, 0.4, 59.6, 61, 200, 3600, 18_180, 187_200, 86_400 * 400)] == [
        "0 s", "0 s", "1 min", "1 min 1 s", "3 min 20 s", "1 h", "5 h 3 min", "2 d 4 h", "400 d",
    ]  # fmt: skip

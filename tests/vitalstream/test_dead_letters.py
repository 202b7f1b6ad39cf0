"""`vitalstream dead-letters`: what operators see of dead letters, and that a replay sends each of them once."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import orjson
import pytest
from confluent_kafka import Message, Producer
from typer.testing import CliRunner

from broker.errors import BrokerError, VitalstreamError
from broker.settings import Settings
from consumer.stop import Stop
from producer.letters import Selection
from producer.redrive import Judge, redrive
from real_time.model_file import pin_model
from schemas.contract import MAX_MESSAGE_BYTES, Reason
from schemas.dead_letters import Headers, dead_letter, read_dead_letter_headers, read_replay_mark
from schemas.decoding import make_decoder
from tests.conftest import MakeSettings
from tests.consumer.models import NOT_A_NUMBER, RAISES, Fragile
from tests.kafka import read_all, wait_until
from tests.vitalstream.command import ROOT, OnTerminal, environment, vitalstream
from vitalstream.cli import app

pytestmark = pytest.mark.kafka

CANARY = "canary-51c9"
KEY = CANARY.encode()
TIME = "2026-01-05T08:30:00Z"
SENT = 1_767_598_200_000  # 2026-01-05T07:30:00Z
NOW = int(time.time() * 1000)  # recent, because retention may delete old messages from the input topic


def good(**fields: Any) -> bytes:
    return orjson.dumps({"patient_id": CANARY, "event_time": TIME, "heart_rate": 80} | fields)


class Said(NamedTuple):
    """The output of a command."""

    stdout: str
    stderr: str


class Topics:
    """Four topics, with dead letters planted on them as by a worker."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.producer = Producer(
            {"bootstrap.servers": settings.bootstrap_servers, "message.max.bytes": 2_000_000}
        )
        self.planted = 0

    def plant(
        self,
        value: bytes | None,
        reason: Reason = Reason.BAD_TIME,
        field: str = "event_time",
        *,
        key: bytes | None = KEY,
        headers: Headers = (("trace", KEY),),
        timestamp: int = SENT,
        offset: int | None = None,
        topic: str | None = None,
        max_bytes: int = 1_000_000,
        made_at: int = 0,  # 0 means now
    ) -> None:
        letter = dead_letter(
            key=key,
            value=value,
            headers=headers,
            reason=reason,
            field=field,
            topic=topic or self.settings.input_topic,
            partition=0,
            offset=self.planted if offset is None else offset,
            timestamp=timestamp,
            max_bytes=max_bytes,
        )
        self.planted += 1
        sent: Any = letter.headers
        self.producer.produce(
            self.settings.dead_letter_topic, letter.value, letter.key, headers=sent, timestamp=made_at
        )
        assert not self.producer.flush(30)

    def send(self, value: bytes, *, timestamp: int = NOW) -> int:
        """Send a message to partition 0 of the input topic; returns its offset."""
        landed: list[Message] = []
        self.producer.produce(
            self.settings.input_topic,
            value,
            CANARY,
            partition=0,
            timestamp=timestamp,
            on_delivery=lambda _, message: landed.append(message),
        )
        assert not self.producer.flush(30)
        offset = landed[0].offset()
        assert offset is not None
        return offset

    def run(self, *arguments: str, code: int = 0) -> Said:
        """Run the command in this process; loading scikit-learn for each run would take minutes."""
        line = ["dead-letters", *arguments, *self.flags(arguments[0])]
        done = CliRunner().invoke(app, line)
        error = done.exception if isinstance(done.exception, VitalstreamError) else None
        assert (error.exit_code if error else done.exit_code) == code, done.exception
        return Said(done.stdout, done.stderr + str(error or ""))

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        document: dict[str, Any] = orjson.loads(self.run(*arguments, "--json", code=code).stdout)
        return document

    def flags(self, command: str) -> list[str]:
        names = ["bootstrap_servers", "dead_letter_topic", *(["input_topic"] if command == "replay" else [])]
        return [p for name in names for p in (f"--{name.replace('_', '-')}", getattr(self.settings, name))]

    def input(self) -> list[Message]:
        return read_all(self.settings.bootstrap_servers, self.settings.input_topic)

    def marks(self) -> list[int]:
        found = read_all(self.settings.bootstrap_servers, self.settings.dead_letter_topic)
        offsets = (read_replay_mark(headers_of(one)) for one in found)
        return [offset for offset in offsets if offset is not None]


def headers_of(message: Message) -> Any:
    return message.headers() or []


@pytest.fixture
def topics(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Topics:
    monkeypatch.setattr(Stop, "listen", lambda *_, **__: None)  # keep pytest's own signal handlers
    return Topics(settings)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "fragile.joblib"
    joblib.dump(Fragile(), path)
    pin_model(path)
    return str(path)


# --- list and show


def test_list_counts_by_reason_and_field_and_shows_no_patient(topics: Topics) -> None:
    topics.plant(good(heart_rate=CANARY), Reason.WRONG_TYPE, "heart_rate")
    topics.plant(good(heart_rate=CANARY), Reason.WRONG_TYPE, "heart_rate", timestamp=SENT + 60_000)
    topics.plant(good(spo2=CANARY), Reason.WRONG_TYPE, "spo2", timestamp=SENT + 3_600_000)
    topics.plant(None, Reason.EMPTY, "", timestamp=SENT + 7_200_000)
    topics.producer.produce(topics.settings.dead_letter_topic, CANARY, CANARY)
    assert not topics.producer.flush(30)

    found = topics.json("list")
    hearts = {"reason": "wrong_type", "field": "heart_rate", "letters": 2, "replayed": 0,
              "first": "2026-01-05T07:30:00.000Z", "last": "2026-01-05T07:31:00.000Z"}  # fmt: skip
    assert [(one["reason"], one["field"], one["letters"]) for one in found["dead_letters"]] == [
        ("empty", "", 1),
        ("wrong_type", "heart_rate", 2),
        ("wrong_type", "spo2", 1),
    ]
    assert found["dead_letters"][1] == hearts
    assert found["unreadable"] == 1
    assert topics.json("list", "--reason", "wrong_type", "--field", "heart_rate")["dead_letters"] == [hearts]
    late = topics.json("list", "--since", "2026-01-05T08:30:00Z")["dead_letters"]
    assert [one["field"] for one in late] == ["", "spo2"]
    assert topics.json("list", "--since", "1h")["dead_letters"] == []

    text = topics.run("list").stdout
    assert re.search(r"wrong_type +heart_rate +2 +0 +2026-01-05T07:30Z +2026-01-05T07:31Z", text)
    assert f"4 dead letters on {topics.settings.dead_letter_topic}, 0 of them replayed" in text
    assert "1 records on it are not dead letters" in text
    assert CANARY not in text + str(found)
    done = vitalstream("dead-letters", "list", *topics.flags("list"))
    assert (done.returncode, done.stdout, done.stderr) == (0, text, "")


def test_the_newest_are_listed_as_arguments_for_show(topics: Topics) -> None:
    for offset in range(10, 16):
        topics.plant(
            good(), key=str(offset).encode(), offset=offset, made_at=NOW + offset
        )  # on several partitions
    topics.plant(None, Reason.EMPTY, "", offset=16, made_at=NOW + 16)
    assert topics.json("replay", code=1)["replayed"] == 6
    topics.plant(good(), Reason.WRONG_TYPE, "heart_rate", offset=17, made_at=NOW + 17)

    newest = topics.json("list", "--limit", "4")["dead_letters"]
    assert [(one["dlq.offset"], one["dlq.reason"], one["replayed"]) for one in newest] == [
        ("17", "wrong_type", False),
        ("16", "empty", False),
        ("15", "bad_time", True),
        ("14", "bad_time", True),
    ]
    for one in newest:
        assert topics.json("show", one["dlq.partition"], one["dlq.offset"])["dead_letters"] == [one]
    of_a_reason = topics.json("list", "--limit", "2", "--reason", "bad_time")["dead_letters"]
    assert [one["dlq.offset"] for one in of_a_reason] == ["15", "14"]
    assert topics.json("list", "--limit", "2", "--field", "spo2")["dead_letters"] == []
    assert len(topics.json("list", "--limit", "100")["dead_letters"]) == 8

    text = topics.run("list", "--limit", "3").stdout
    at = r"20\d\d-\d\d-\d\dT\d\d:\d\dZ"
    rows = [
        rf"0 +17 +wrong_type +heart_rate +{at} +no",
        rf"0 +16 +empty +{at} +no",
        rf"0 +15 +bad_time +event_time +{at} +yes",
    ]
    assert re.search(" *\n *".join(rows), text)
    assert f"3 dead letters on {topics.settings.dead_letter_topic}, newest first" in text
    assert CANARY not in text + str(newest)


def test_the_newest_are_read_from_the_end_and_others_only_if_needed(make_settings: MakeSettings) -> None:
    topics = Topics(make_settings(partitions=1))
    topics.plant(None, Reason.EMPTY, "", offset=1)
    for _ in range(6_000):
        topics.producer.produce(topics.settings.dead_letter_topic, b"no letter")
        topics.producer.poll(0)
    assert not topics.producer.flush(30)
    for offset in range(2, 5):
        topics.plant(good(), offset=offset)

    found = topics.json("list", "--limit", "2")
    assert [one["dlq.offset"] for one in found["dead_letters"]] == ["4", "3"]
    assert found["unreadable"] <= 1_000
    everything = topics.json("list", "--limit", "4")
    assert [one["dlq.offset"] for one in everything["dead_letters"]] == ["4", "3", "2", "1"]
    assert everything["unreadable"] == 6_000, "each record is read once"


@pytest.mark.parametrize("arguments", [("list",), ("list", "--limit", "5")], ids=" ".join)
def test_nothing_is_cut_at_80_columns(topics: Topics, arguments: tuple[str, ...]) -> None:
    topics.plant(good(), Reason.MODEL_REJECTED, "mean_arterial_pressure", offset=123_456_789)
    on_terminal = OnTerminal("dead-letters", *arguments, *topics.flags("list"), columns=80)
    assert on_terminal.end() == 0
    assert "…" not in on_terminal.text
    header, _, row, *_ = [line.strip() for line in on_terminal.text.splitlines() if line.strip()]
    for cell in ("model_rejected", *(["123456789", "no"] if "--limit" in arguments else ["1", "0"])):
        assert cell in row.split()
    assert len(re.findall(r" 20\d\d-\d\d-\d\dT\d\d:\d\dZ", row)) == (1 if "--limit" in arguments else 2)
    assert len(header.split()) == 6


def test_a_wrong_time_is_bad_usage(topics: Topics) -> None:
    assert "--since takes a time" in topics.run("list", "--since", "yesterday", code=2).stderr


def test_show_hides_the_content_unless_asked_to_show_it(topics: Topics) -> None:
    value = good(note="\x1b[31m", heart_rate="80")
    topics.plant(value, Reason.WRONG_TYPE, "heart_rate", offset=17)
    done = topics.run("show", "0", "17")
    assert CANARY not in done.stdout + done.stderr
    for text in ("wrong_type", "heart_rate", topics.settings.input_topic, str(len(value))):
        assert text in done.stdout

    told = topics.run("show", "0", "17", "--payload").stdout
    assert value.decode() in told, "JSON escapes what a terminal would interpret"
    assert f"header trace    {CANARY}" in told
    assert topics.json("show", "0", "17", "--payload")["dead_letters"][0]["value"] == value.decode()


def test_show_prints_no_control_characters(topics: Topics) -> None:
    topics.plant(b"\x1b[2J\n{", Reason.NOT_JSON, "", offset=1)
    topics.plant(b"\xff\x00", Reason.NOT_JSON, "", offset=1)
    told = topics.run("show", "0", "1", "--payload").stdout
    assert "\x1b" not in told
    assert r"\x1b[2J\n{" in told
    assert "hex of 2 bytes: ff00" in told


def test_show_says_when_there_is_no_such_dead_letter(topics: Topics) -> None:
    assert "no dead letter for partition 3 offset 4 " in topics.run("show", "3", "4", code=1).stderr


# --- replay


def test_a_dead_letter_is_replayed_unchanged_and_once(topics: Topics) -> None:
    topics.plant(good(), headers=[("trace", b"\x00"), ("none", None), ("replayed.from", b"earlier")])
    topics.plant(good(heart_rate=None), key=None)
    first = topics.json("replay")
    assert (first["selected"], first["replayed"], first["replayed_before"]) == (2, 2, 0)

    letters = read_all(topics.settings.bootstrap_servers, topics.settings.dead_letter_topic)
    places = {
        read_dead_letter_headers(headers_of(one)).offset: f"{one.topic()}-{one.partition()}@{one.offset()}"
        for one in letters
        if read_replay_mark(headers_of(one)) is None
    }
    sent = {one.value(): one for one in topics.input()}
    whole, keyless = sent[good()], sent[good(heart_rate=None)]
    assert whole.key() == KEY
    assert whole.headers() == [
        ("trace", b"\x00"),
        ("none", None),
        ("replayed.from", places[0].encode()),
    ]
    assert abs(whole.timestamp()[1] / 1000 - time.time()) < 600, (
        "under its old timestamp, retention might delete it unread"
    )
    assert keyless.key() is None
    assert keyless.headers() == [("trace", KEY), ("replayed.from", places[1].encode())]

    again = topics.json("replay")
    assert (again["selected"], again["replayed"], again["replayed_before"]) == (0, 0, 2)
    assert len(topics.input()) == 2
    (group,) = topics.json("list")["dead_letters"]
    assert (group["letters"], group["replayed"]) == (2, 2)


def test_dead_letters_not_selected_can_be_replayed_later(topics: Topics) -> None:
    for number in range(6):
        topics.plant(good(n=number), *[(Reason.BAD_TIME, "event_time"), (Reason.NOT_JSON, "")][number % 2])
    topics.plant(good(n=6), topic="another-input")
    assert topics.json("replay", "--reason", "not_json")["replayed"] == 3
    assert {orjson.loads(one.value() or b"")["n"] for one in topics.input()} == {1, 3, 5}
    assert topics.json("replay", "--field", "event_time")["replayed"] == 3
    assert topics.json("replay")["selected"] == 0
    assert sorted(orjson.loads(one.value() or b"")["n"] for one in topics.input()) == [*range(6)]


def test_dead_letters_that_would_fail_again_stay_unless_forced(topics: Topics) -> None:
    topics.plant(good())
    topics.plant(good(heart_rate=CANARY), Reason.WRONG_TYPE, "heart_rate")
    topics.plant(None, Reason.EMPTY, "")
    topics.plant(good(), Reason.MODEL_REJECTED, "risk_probability")
    topics.plant(good(lactate=CANARY), Reason.WRONG_TYPE, "lactate")
    topics.plant(good(), Reason.TOO_LARGE, "")
    found = topics.json("replay", code=1)
    assert (found["selected"], found["replayed"]) == (6, 1)
    assert {(one["why"], one["reason"], one["field"], one["letters"]) for one in found["left"]} == {
        ("still_rejected", "wrong_type", "heart_rate", 1),
        ("still_rejected", "empty", "", 1),
        ("needs_model", "model_rejected", "risk_probability", 1),
        ("needs_model", "wrong_type", "lactate", 1),
        ("result_too_large", "too_large", "", 1),
    }
    told = topics.run("replay", code=1)
    assert "replayed 0 of 5 dead letters" in told.stdout
    assert "1 wrong_type heart_rate: would be rejected again" in told.stdout
    assert "5 dead letters stay where they are; " in told.stderr
    assert CANARY not in told.stdout + told.stderr

    assert topics.json("replay", "--force")["replayed"] == 5
    assert len(topics.input()) == 6
    assert [one.value() for one in topics.input()].count(None) == 1, "a tombstone stays a tombstone"


def test_with_the_model_replay_knows_what_the_model_rejects(topics: Topics, model: str) -> None:
    for signal_ in (1.0, RAISES, NOT_A_NUMBER):
        topics.plant(good(signal=signal_), Reason.MODEL_REJECTED, "risk_probability")
    for _ in range(12):  # a worker would blame the model for so many in a row
        topics.plant(good(signal=RAISES), Reason.MODEL_REJECTED, "risk_probability")
    topics.plant(good(signal="1"), Reason.WRONG_TYPE, "signal")
    # this model does not read heart_rate
    topics.plant(good(heart_rate="80"), Reason.WRONG_TYPE, "heart_rate")
    found = topics.json("replay", "--model", model, code=1)
    assert found["replayed"] == 3
    assert {(one["why"], one["reason"], one["letters"]) for one in found["left"]} == {
        ("still_rejected", "model_rejected", 13),
        ("still_rejected", "wrong_type", 1),
    }


MAPPING = """
when = { "op" = ["c"] }
patient_id = { path = "pid", integer = true }
event_time = { header = "at" }
[features]
signal = { path = "lab.signal" }
spo2 = { path = "lab.spo2", unit_path = "lab.unit" }
"""


def mapped(**changes: Any) -> bytes:
    return orjson.dumps({"op": "c", "pid": 17, "lab": {"signal": 1.0, "spo2": 97, "unit": "%"}} | changes)


def test_with_a_mapping_replay_knows_what_a_worker_would_reject(
    topics: Topics, model: str, tmp_path: Path
) -> None:
    (file := tmp_path / "mapping.toml").write_text(MAPPING)
    at = [("at", TIME.encode())]
    # from a mapping that has been corrected since
    topics.plant(mapped(), Reason.NOT_FOR_US, "kind", headers=at)
    topics.plant(mapped(), Reason.NOT_JSON, "unit", headers=at)
    topics.plant(mapped(), Reason.MISSING_FIELD, "event_time", headers=[])
    topics.plant(mapped(op="d"), Reason.NOT_FOR_US, "op", headers=at)
    topics.plant(mapped(lab={"spo2": 97, "unit": "kPa"}), Reason.UNKNOWN_UNIT, "spo2", headers=at)
    topics.plant(mapped(lab={"signal": RAISES}), Reason.MODEL_REJECTED, "risk_probability", headers=at)
    still = {
        ("still_rejected", "missing_field", "event_time"),
        ("still_rejected", "not_for_us", "op"),
        ("still_rejected", "unknown_unit", "spo2"),
    }

    def left(*arguments: str) -> set[tuple[str, str, str]]:
        found = topics.json("replay", "--mapping", str(file), *arguments, code=1)
        assert found["selected"] == 6
        assert found["replayed"] == 2
        return {(one["why"], one["reason"], one["field"]) for one in found["left"]}

    assert left("--dry-run") == still | {("needs_model", "model_rejected", "risk_probability")}
    assert left("--model", model) == still | {("still_rejected", "model_rejected", "risk_probability")}
    assert [one.value() for one in topics.input()] == [mapped()] * 2
    assert all(("at", TIME.encode()) in headers_of(one) for one in topics.input())


def test_a_message_with_too_few_features_is_not_rejected_by_the_model(topics: Topics, model: str) -> None:
    topics.plant(good(signal=RAISES), Reason.MODEL_REJECTED, "risk_probability")  # has one of two features
    assert topics.json("replay", "--model", model, code=1)["replayed"] == 0
    assert topics.json("replay", "--model", model, "--min-features", "2")["replayed"] == 1
    told = topics.run("replay", "--model", model, "--min-features", "3", code=2).stderr
    assert "--min-features 3: the model has only 2 (signal, spo2)" in told


def test_a_pointers_message_is_fetched_unless_it_was_deleted(topics: Topics) -> None:
    there = topics.send(good(note="x" * 5000))
    other = topics.send(good(note="y" * 5000), timestamp=NOW + 1)
    for offset in (there, other, 999):
        topics.plant(good(note="x" * 5000), offset=offset, timestamp=NOW, max_bytes=2000)
    shown = topics.json("show", "0", str(there), "--payload")["dead_letters"][0]
    assert shown["value"] == good(note="x" * 5000).decode()

    found = topics.json("replay", code=1)
    assert (found["selected"], found["replayed"]) == (3, 1)
    assert [(one["why"], one["letters"]) for one in found["left"]] == [("gone", 2)]
    assert [one.value() for one in topics.input()].count(good(note="x" * 5000)) == 2


def test_a_message_too_large_for_the_input_topic_is_reported(topics: Topics) -> None:
    topics.plant(b"x" * 1_048_000, Reason.TOO_LARGE, "", max_bytes=2_000_000)
    topics.plant(b"x" * (MAX_MESSAGE_BYTES + 1), Reason.TOO_LARGE, "", max_bytes=2_000_000)
    topics.plant(good())
    found = topics.json("replay", "--force", code=1)
    assert (found["replayed"], found["left"][0]["why"]) == (2, "too_large_for_topic")


def test_a_dry_run_reports_and_does_nothing(topics: Topics) -> None:
    topics.plant(good())
    topics.plant(None, Reason.EMPTY, "")
    found = topics.json("replay", "--dry-run", code=1)
    assert (found["selected"], found["replayed"], len(found["left"])) == (2, 1, 1)
    assert "would replay 1 of 2" in topics.run("replay", "--dry-run", code=1).stdout
    assert not topics.input()
    assert not topics.marks()


# --- once each, whatever happens


@contextmanager
def interrupted(topics: Topics, ending: str, step: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A replay that gets a signal at its first `begin` or `commit`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.vitalstream.dying_replay", ending, step, "dead-letters", "replay",
         *topics.flags("replay")],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_killed_replay_leaves_nothing_half_done_and_can_be_repeated(topics: Topics) -> None:
    for number in range(20):
        topics.plant(good(n=number))
    with interrupted(topics, "SIGKILL", "commit") as process:
        assert process.wait(60) == -signal.SIGKILL
    kafka, name = topics.settings.bootstrap_servers, topics.settings.input_topic
    assert len(read_all(kafka, name, isolation="read_uncommitted")) == 20, "the replay was killed too early"
    assert not topics.input()
    assert not topics.marks()

    assert topics.json("replay")["replayed"] == 20
    assert sorted(orjson.loads(one.value() or b"")["n"] for one in topics.input()) == [*range(20)]
    assert topics.json("replay")["replayed_before"] == 20


@pytest.mark.parametrize("step", ["begin", "commit"])
def test_of_two_concurrent_replays_the_later_wins_and_nothing_is_doubled(topics: Topics, step: str) -> None:
    for number in range(20):
        topics.plant(good(n=number))
    with interrupted(topics, "SIGSTOP", step) as held_up:
        stopped = f"/proc/{held_up.pid}/stat"
        wait_until(lambda: " T " in Path(stopped).read_text(), timeout=60, what="the first is held up")
        assert topics.json("replay")["replayed"] == 20
        os.kill(held_up.pid, signal.SIGCONT)
        _, err = held_up.communicate(timeout=60)
    assert held_up.returncode == 1
    assert "another replay of topic" in err.decode()
    assert sorted(orjson.loads(one.value() or b"")["n"] for one in topics.input()) == [*range(20)]


def test_a_replay_does_not_repeat_what_the_one_it_fences_has_done(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.plant(good())

    class Late(Producer):
        def init_transactions(self, *args: Any) -> None:
            monkeypatch.setattr("producer.redrive.Producer", Producer)
            assert topics.json("replay")["replayed"] == 1
            super().init_transactions(*args)

    monkeypatch.setattr("producer.redrive.Producer", Late)
    found = topics.json("replay")
    assert (found["replayed"], found["replayed_before"]) == (0, 1)
    assert len(topics.input()) == 1


def test_a_replay_waits_for_marks_after_an_open_transaction(make_settings: MakeSettings) -> None:
    settings = make_settings(partitions=1)
    judge = Judge(make_decoder(settings))
    topics = Topics(settings)
    topics.plant(good())
    hanging = Producer({"bootstrap.servers": settings.bootstrap_servers, "transactional.id": settings.group})
    hanging.init_transactions(30)
    hanging.begin_transaction()
    hanging.produce(settings.dead_letter_topic, b"", headers=[("worker", b"")])
    hanging.flush(30)
    with pytest.raises(BrokerError, match="a transaction on it was open"):
        redrive(settings, selection=Selection(), judge=judge, patience=1)
    assert not topics.input()
    hanging.abort_transaction(30)
    assert redrive(settings, selection=Selection(), judge=judge).replayed == 1


def test_a_worker_scores_replayed_messages_and_the_audit_is_clean(
    make_settings: MakeSettings, model: str
) -> None:
    settings = make_settings(partitions=2)
    topics = Topics(settings)
    for number in range(10):
        topics.send(good(signal=number if number % 2 else CANARY))
    names = (
        "input_topic",
        "output_topic",
        "metrics_topic",
        "dead_letter_topic",
        "group",
        "bootstrap_servers",
    )
    flags = [part for name in names for part in (f"--{name.replace('_', '-')}", getattr(settings, name))]

    def work() -> None:
        done = vitalstream("consume", "--model", model, "--until-idle", "2", *flags)
        assert done.returncode == 0, done.stderr
        judged = vitalstream("audit", *flags)
        assert judged.returncode == 0, judged.stdout + judged.stderr

    work()
    assert topics.json("replay", "--force")["replayed"] == 5
    work()
    (group,) = topics.json("list")["dead_letters"]
    assert (group["letters"], group["replayed"]) == (10, 5), "the forced one has failed again"
    assert topics.json("replay", "--model", model, code=1)["left"][0]["letters"] == 5

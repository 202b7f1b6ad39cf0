"""A model with a history, on a real broker: scores and state are those that the messages give offline.

The worker's output is made by hand, by one `predict_proba` over all messages of a partition.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from confluent_kafka import Producer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from audit.cluster import Cluster, Offsets
from audit.errors import NotAuditableError
from audit.findings import Invariant
from audit.outcome import Audit
from audit.reading import read
from audit.run import audit
from audit.unjudged import Cause
from broker.errors import SettingsError, TopicError
from broker.notes import Note, write_note
from broker.roles import Role
from broker.settings import Settings
from broker.topics import create_topics
from real_time import load_model, pinned_sha256
from real_time.history import PatientHistory, Window
from real_time.history.records import StateRecords
from schemas.clock import rfc3339
from schemas.contract import EVENT_TIME, PATIENT_ID, Reason
from tests.audit.conftest import FEATURES, save, work
from tests.audit.test_incomplete import cut
from tests.audit.test_live import producing, working
from tests.audit.topics import Record, Written, commit, publish, written
from tests.conftest import fresh_settings
from tests.kafka import alter_topic, committed_offsets, produce, read_all, wait_until
from tests.producer.files import START
from vitalstream.cli import app
from vitalstream.state import NoStateError, StateFailedError

pytestmark = pytest.mark.kafka

ROWS = 160
PATIENTS = 12
AHEAD, OTHER_KEY, CORRUPT = 77, 85, 91
"""Messages by number: one of which the time is far ahead, one with another patient's key, and one that is no JSON."""
HOUR = pd.Timedelta("1h")
HISTORY = PatientHistory(windows=[Window("6h", of=("min", "mean"))])


def messages() -> Iterator[tuple[str, bytes]]:
    """Each message has some of the features; some come late."""
    random = np.random.default_rng(5)
    for number in range(ROWS):
        minutes = number * 10 - (120 if number % 9 == 4 else 0) + (2_000_000 if number == AHEAD else 0)
        values = random.normal([85, 96, 37], [20, 1, 1]).round(1).tolist()
        told = {name: value for name, value in zip(FEATURES, values, strict=True) if random.random() < 0.5}
        head = {
            "patient_id": f"p{(number + (number == OTHER_KEY)) % PATIENTS}",
            "event_time": rfc3339(START.timestamp() + 60 * minutes),
        }
        value = b"{" if number == CORRUPT else orjson.dumps(head | (told or {"spo2": 97}))
        yield f"p{number % PATIENTS}", value


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(1)
    count = 400
    frame = pd.DataFrame(random.normal([85, 96, 37], [20, 1, 1], (count, 3)), columns=FEATURES)
    frame = frame.mask(random.random((count, 3)) < 0.5).assign(
        patient_id=[f"q{n % 20}" for n in range(count)],
        event_time=START + pd.to_timedelta(np.arange(count) * 5, unit="min"),
    )
    fitted = make_pipeline(HISTORY, HistGradientBoostingClassifier(max_iter=20)).fit(
        frame, random.random(count) < 0.4
    )
    return save(fitted, tmp_path_factory.mktemp("model") / "history.joblib")


@dataclass
class Stated:
    """What a worker with a history would write; `ends` says where the state of each partition ends."""

    written: Written
    states: list[Record]
    ends: dict[int, int | None]

    def copied(self) -> Settings:
        """Settings with new topics that hold this, and a new group; the input topic is the same."""
        settings = self.written.copied()
        create_topics(settings, state=True, partitions=4, replication_factor=1)
        producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "max.in.flight": 1})
        publish(producer, settings.topic(Role.STATE), self.states)
        for partition, end in self.ends.items():
            note = write_note(Note("", end))
            commit(settings, {partition: self.written.committed[partition]}, metadata=note)
        return settings


def make(kafka: str, tree: Path, path: Path) -> Stated:
    """A worker without a history writes results and chunks; then the scores are replaced by the model's."""
    settings = fresh_settings(kafka, model=tree)
    create_topics(settings, partitions=4, replication_factor=1)
    produce(kafka, settings.input_topic, messages())
    work(settings)
    made = written(settings.model_copy(update={"model": path}))
    model: Any = load_model(path)
    records = StateRecords(model[0].start().layout, model[0].recipe_sha256)
    scores: dict[tuple[int, int], float] = {}
    told: dict[tuple[int, int], dict[str, Any]] = {}
    states: list[Record] = []
    ends: dict[int, int | None] = {}
    for partition in made.committed:
        frame = _frame(kafka, settings.input_topic, partition)
        scores |= zip(frame.index, model.predict_proba(frame)[:, 1], strict=True)
        told |= zip(frame.index, _told(frame), strict=True)
        patients, written_here = model[0].start(), 0
        for part in (frame.iloc[: len(frame) // 2], frame.iloc[len(frame) // 2 :]):  # two transactions
            patients.advance(part)
            known, rows = patients.of(0)
            values = zip(known, records.encode(rows), strict=True)
            states += [Record(partition, one.encode(), value) for one, value in values]
            written_here += len(known)
        ends[partition] = written_here
    for one in [one for one in made.results if one.place not in scores]:
        made.results.remove(one)
        _dead_letter(made, one)
    made.results = [_scored(one, scores[one.place], path, told[one.place]) for one in made.results]
    return Stated(made, states, ends)


def _frame(kafka: str, topic: str, partition: int) -> pd.DataFrame:
    """The messages of a partition that count in a history, by position."""
    rows = {
        (partition, message.offset()): orjson.loads(message.value() or b"") | {"key": message.key()}
        for message in read_all(kafka, topic)
        if message.partition() == partition and message.value() != b"{"
    }
    frame = pd.DataFrame([*rows.values()], index=pd.Index([*rows], tupleize_cols=False))
    return frame[(frame["event_time"] < "2027") & (frame["key"].map(bytes.decode) == frame["patient_id"])]


def _told(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What results say about the past, following docs/history.md: values are carried for 8 hours."""
    first: dict[str, Any] = {}
    clock: dict[str, Any] = {}
    seen: Counter[str] = Counter()
    last: dict[tuple[str, str], Any] = {}
    for patient, time, *values in frame[["patient_id", "event_time", *FEATURES]].itertuples(index=False):
        at = pd.Timestamp(time)
        first[patient], clock[patient] = min(first.get(patient, at), at), max(clock.get(patient, at), at)
        seen[patient] += 1
        for name, value in zip(FEATURES, values, strict=True):
            if not pd.isna(value):
                last[patient, name] = max(last.get((patient, name), at), at)
        ages = {
            name: (clock[patient] - last[patient, name]) / HOUR
            for name in FEATURES
            if (patient, name) in last
        }
        yield {
            "rows_seen": seen[patient],
            "hours_since_first_seen": round((clock[patient] - first[patient]) / HOUR, 4),
            "carried_forward": {name: round(age, 4) for name, age in ages.items() if 0 < age <= 8},
        }


def _scored(result: Record, score: float, path: Path, told: dict[str, Any]) -> Record:
    return result.saying(
        risk_probability=float(score), risk_label=int(score >= 0.5), model=pinned_sha256(path), history=told
    )


def _dead_letter(made: Written, result: Record) -> None:
    """What a message becomes that does not count in a history."""
    ahead = result.json["event_time"] > "2027"
    problem = (Reason.BAD_TIME, EVENT_TIME) if ahead else (Reason.CONFLICTING, PATIENT_ID)
    made.dead_letters.append(made.letter(result.place, *problem))
    made.dead_letters.sort(key=lambda one: one.letter_place)
    partition, offset = result.place
    for number, one in enumerate(made.metrics):
        for of, (first, last) in one.json["offsets"].items():
            if of.endswith(f"-{partition}") and first <= offset <= last:
                counts = {"scored": one.json["scored"] - 1, "dead_lettered": one.json["dead_lettered"] + 1}
                made.metrics[number] = one.saying(**counts)


@pytest.fixture(scope="module")
def made(kafka: str, tree: Path, model: Path) -> Stated:
    return make(kafka, tree, model)


@pytest.fixture
def stated(made: Stated) -> Stated:
    """A copy to spoil."""
    return deepcopy(made)


def judged(settings: Settings) -> Audit:
    return audit(settings, patience=5.0)


def offenders(found: Audit, invariant: Invariant) -> set[tuple[int, int, str]]:
    assert {one.invariant for one in found.offenders} == {invariant}
    return {(one.partition, one.offset, one.problem) for one in found.offenders}


def checked(found: Audit) -> dict[Invariant, str]:
    return {one.invariant: one.checked for one in found.verdicts}


def test_state_written_after_the_committed_offsets_is_ignored(stated: Stated) -> None:
    later = stated.states[-1]
    stated.states += [replace(later, value=b"of a later transaction"), replace(later, key=b"new")]
    found = judged(stated.copied())
    assert found.clean, (found.offenders, found.unjudged)
    assert checked(found)[Invariant.CORRECT] == f"{ROWS - 3} probabilities, at most 0 ulp apart"
    assert checked(found)[Invariant.STATE] == f"{PATIENTS} patients"


def test_what_a_worker_writes_is_clean(kafka: str, model: Path) -> None:
    settings = fresh_settings(kafka, model=model)
    create_topics(settings, state=True, partitions=4, replication_factor=1)
    produce(kafka, settings.input_topic, messages())
    work(settings)
    found = judged(settings)
    assert found.clean, (found.offenders, found.unjudged)
    assert checked(found)[Invariant.STATE] == f"{PATIENTS} patients"


def test_a_score_wrong_in_the_last_bit_is_found(stated: Stated) -> None:
    results = stated.written.results
    number = len(results) // 2
    score = np.nextafter(results[number].json["risk_probability"], 1)
    results[number] = results[number].saying(risk_probability=float(score))
    found = judged(stated.copied())
    assert offenders(found, Invariant.CORRECT) == {
        (*results[number].place, "its probability is 1 units in the last place away from offline scoring")
    }


def test_what_a_result_says_about_the_past_is_compared(stated: Stated) -> None:
    results = stated.written.results
    number = next(n for n, one in enumerate(results) if one.json["history"]["carried_forward"])
    told = results[number].json["history"]
    fresh = dict.fromkeys(told["carried_forward"], 0.0)
    results[number] = results[number].saying(history=told | {"carried_forward": fresh})
    results[number + 1] = results[number + 1].saying(history=None)
    found = judged(stated.copied())
    problem = "what it says about the patient's past does not follow from the messages"
    assert offenders(found, Invariant.CORRECT) == {(*results[n].place, problem) for n in (number, number + 1)}


def test_state_that_differs_from_what_the_messages_give_is_found(stated: Stated) -> None:
    places: dict[int, list[int]] = {}  # the positions of the records, by partition
    for position, one in enumerate(stated.states):
        places.setdefault(one.partition, []).append(position)
    partition, own = next((p, own) for p, own in places.items() if len(own) >= 8)
    first = len(own) // 2  # of the second transaction
    value = stated.states[own[first]].value or b""
    spoilt = {
        first: value[:-1] + bytes([value[-1] ^ 1]),
        first + 1: value[:8] + bytes(32) + value[40:],
        first + 2: value[:50],
        first + 3: None,
    }
    for offset, content in spoilt.items():
        stated.states[own[offset]] = replace(stated.states[own[offset]], value=content)
    end = stated.ends[partition] or 0
    stated.states.append(Record(partition, b"nobody", value))
    stated.ends[partition] = end + 1
    lacking = "lacks the state of a patient whose messages were consumed"
    found = judged(stated.copied())
    recipe = load_model(stated.written.settings.model or "")[0].recipe_sha256[:12]
    another = f"it holds state of recipe {'0' * 12}, and the model's history has recipe {recipe}"
    assert offenders(found, Invariant.STATE) == {
        (partition, first, "is not the state that the patient's messages produce"),
        (partition, first + 1, f"can't be read: {another}"),
        (partition, first + 2, f"can't be read: a state in it has 50 bytes, not {len(value)}"),
        (partition, end + 1, lacking),
        (partition, end, "is the state of a patient who has no messages"),
    }  # fmt: skip
    assert (
        next(one for one in found.verdicts if one.invariant is Invariant.STATE).failed == 7
    )  # the state of three patients is missing


def test_a_committed_offset_must_name_state_that_exists(stated: Stated) -> None:
    unnamed, beyond, *_ = stated.ends
    there = stated.ends[beyond] or 0
    stated.ends |= {unnamed: None, beyond: there + 5}
    found = judged(stated.copied())
    assert offenders(found, Invariant.STATE) == {
        (
            unnamed,
            0,
            "the committed offset of this partition has no state with it: "
            "a worker without a history committed it",
        ),
        (beyond, there, f"the topic ends here, but the committed state ends at {there + 5}"),
    }  # fmt: skip


def test_state_cannot_be_audited_without_its_topic(stated: Stated) -> None:
    with pytest.raises(TopicError, match=r"state.*topics create --state"):
        judged(stated.written.copied())


def test_what_depends_on_deleted_messages_is_not_judged(kafka: str, tree: Path, model: Path) -> None:
    stated = make(kafka, tree, model)
    settings = stated.copied()
    partition = max(stated.written.committed, key=lambda p: stated.written.committed[p])
    cut(kafka, settings.input_topic, {partition: 8})
    found = judged(settings)
    assert found.verdict == "incomplete"
    of = {one.invariant: one for one in found.unjudged}
    assert {*of} >= {Invariant.CORRECT, Invariant.STATE}
    assert of[Invariant.STATE].cause is Cause.EXPIRED
    assert "they depend on messages, and the oldest records of" in of[Invariant.STATE].sentence


# --- the commands


def state(settings: Settings, *arguments: str) -> str:
    """What `vitalstream state` prints; exceptions are re-raised."""
    common = ["--bootstrap-servers", settings.bootstrap_servers, "--input-topic", settings.input_topic]
    told = ["--group", settings.group, "--model", str(settings.model)]
    result = CliRunner().invoke(app, ["state", *arguments, *common, *told], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_patients_state_is_shown(stated: Stated, kafka: str) -> None:
    settings = stated.copied()
    (found,) = json.loads(state(settings, "show", "p3", "--json"))
    frame = _frame(kafka, settings.input_topic, found["partition"])
    own = frame[frame["patient_id"] == "p3"]
    rates = own.sort_values("event_time", kind="stable")["heart_rate"].dropna()
    assert (found["rows_seen"], found["clock"]) == (len(own), own["event_time"].max())
    assert (found["last"]["heart_rate"]["value"], found["first_seen"]) == (
        rates.iloc[-1],
        own["event_time"].min(),
    )
    shown = state(settings, "show", "p3")
    assert f"messages  {len(own)}, from {own['event_time'].min()} to {own['event_time'].max()}" in shown
    assert f"heart_rate: {rates.iloc[-1]:g} at " in shown
    with pytest.raises(NoStateError, match="has no state for that patient"):
        state(settings, "show", "p99")


def test_state_check_judges_the_state_topic_alone(stated: Stated) -> None:
    stated.states.append(replace(stated.states[-1], value=b"of a later transaction"))
    settings = stated.copied()
    found = json.loads(state(settings, "check", "--json"))
    assert (found["ok"], found["patients"], found["beyond"], found["failed"]) == (True, PATIENTS, 1, 0)
    assert f"{settings.topic(Role.STATE)}: {PATIENTS} patients in 4 partitions" in state(settings, "check")
    stated.states[0] = replace(stated.states[0], value=b"no state")
    stated.ends |= {stated.states[-1].partition: None}
    with pytest.raises(StateFailedError, match=r"can't start from the state in .*: 2 problems"):
        state(stated.copied(), "check")


def test_state_is_rebuilt_for_a_new_group(made: Stated, kafka: str) -> None:
    old = made.copied()
    new = fresh_settings(kafka, input_topic=old.input_topic, model=old.model)
    create_topics(new, state=True, partitions=4, replication_factor=1)
    assert f"{PATIENTS} patients from {ROWS} messages" in state(new, "rebuild", "--from-group", old.group)
    newest = {(one.partition, one.key): one.value for one in made.states}
    found = read_all(kafka, new.topic(Role.STATE))
    assert {(one.partition(), one.key()): one.value() for one in found} == newest
    assert committed_offsets(kafka, new.group, new.input_topic) == made.written.committed
    assert json.loads(state(new, "check", "--json"))["ok"]
    with pytest.raises(SettingsError, match="already has committed offsets"):
        state(new, "rebuild", "--from-group", old.group)
    with pytest.raises(SettingsError, match="are the same"):
        state(new, "rebuild", "--from-group", new.group)
    with pytest.raises(SettingsError, match="has no committed offsets"):
        state(new, "rebuild", "--from-group", "nobody")


# --- a state snapshot

BEFORE = 2
"""Messages that remain before the snapshot."""


@dataclass
class Saved:
    """What a worker wrote, and the state after half the messages of `partition`, most of which are gone."""

    stated: Stated
    file: Path
    partition: int


@pytest.fixture(scope="module")
def saved(kafka: str, tree: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    stated = make(kafka, tree, model)
    topic = stated.written.settings.input_topic
    partition = max(stated.written.committed, key=lambda one: stated.written.committed[one])
    frame = _frame(kafka, topic, partition)
    half = len(frame) // 2  # where the first transaction ends
    place = frame.index[half][1]
    before = deepcopy(stated)
    before.written.committed[partition] = place
    before.ends[partition] = frame.iloc[:half]["patient_id"].nunique()
    before.states = [one for one in before.states if one.partition != partition]
    own = [one for one in stated.states if one.partition == partition]
    before.states += own[: before.ends[partition]]
    file = tmp_path_factory.mktemp("snapshot") / "state.jsonl"
    assert f"{PATIENTS} patients in 4 partitions" in state(before.copied(), "snapshot", str(file))
    cut(kafka, topic, {partition: place - BEFORE})
    return Saved(stated, file, partition)


def test_a_snapshot_stands_for_the_messages_before_it(saved: Saved) -> None:
    settings = saved.stated.copied()
    without, found = judged(settings), audit(settings, saved_state=saved.file, patience=5.0)
    assert {one.invariant for one in without.unjudged} >= {Invariant.CORRECT, Invariant.STATE}
    counts = {one.invariant: one.count for one in found.unjudged}
    assert not found.offenders
    assert counts.get(Invariant.CORRECT, 0) <= BEFORE
    assert Invariant.STATE not in counts
    assert checked(found)[Invariant.STATE] == f"{PATIENTS} patients"


def test_a_snapshot_is_for_its_owner_alone(saved: Saved) -> None:
    assert saved.file.stat().st_mode & 0o777 == 0o600
    assert [*saved.file.parent.iterdir()] == [saved.file]


@contextmanager
def busy(kafka: str, model: Path) -> Iterator[Settings]:
    """A group with messages of each patient, whose worker writes more while a snapshot is taken."""
    settings = fresh_settings(kafka, model=model, chunk_size=16, max_dead_letter_ratio=1.0)
    create_topics(settings, state=True, partitions=4, replication_factor=1)

    def consumed() -> Offsets:
        return committed_offsets(kafka, settings.group, settings.input_topic)

    def patients() -> int:
        return int(orjson.loads(state(settings, "check", "--json"))["patients"])

    def after_more(cluster: Cluster, topic: str) -> Offsets:
        """The snapshot has the committed offsets; more is committed before it looks at the state."""
        head = {"patient_id": "newcomer", "event_time": rfc3339(START.timestamp())}
        produce(kafka, settings.input_topic, [("newcomer", orjson.dumps(head | {"spo2": 97}))])
        there = cluster.ends(settings.input_topic)
        wait_until(
            lambda: all(consumed().get(partition, 0) >= end for partition, end in there.items()),
            what="more messages, and a new patient",
        )
        return stable(cluster, topic)

    stable = Cluster.stable
    with producing(settings), working(settings):
        wait_until(lambda: consumed() and patients() == PATIENTS, what="a message of each patient")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Cluster, "stable", after_more)
            yield settings


def test_a_snapshot_can_be_taken_while_a_worker_is_busy(kafka: str, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "state.jsonl"
    with busy(kafka, model) as settings:
        told = orjson.loads(state(settings, "snapshot", str(file), "--json"))
    offsets = {int(partition): offset for partition, offset in told["offsets"].items()}
    cut(kafka, settings.input_topic, offsets)
    found = audit(settings, saved_state=file, patience=5.0)
    assert told["patients"] == PATIENTS
    assert not found.offenders
    assert not {Invariant.CORRECT, Invariant.STATE} & {one.invariant for one in found.unjudged}
    assert checked(found)[Invariant.STATE] == f"{PATIENTS + 1} patients"


def test_a_snapshot_is_refused_where_compaction_may_have_removed_what_it_reads(
    kafka: str, model: Path, tmp_path: Path
) -> None:
    with busy(kafka, model) as settings:
        alter_topic(kafka, settings.topic(Role.STATE), {"min.compaction.lag.ms": "0"})
        with pytest.raises(NotAuditableError, match=r"only 0 s \(min.compaction.lag.ms\).*while no worker"):
            state(settings, "snapshot", str(tmp_path / "state.jsonl"))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("grows", [False, True])
def test_records_that_came_while_a_snapshot_read_may_have_displaced_others(
    made: Stated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grows: bool
) -> None:
    settings = made.copied()
    topic, file = settings.topic(Role.STATE), tmp_path / "state.jsonl"
    alter_topic(settings.bootstrap_servers, topic, {"min.compaction.lag.ms": "0"})

    def after_one_more(*args: Any, **options: Any) -> Iterator[Any]:
        if grows:
            newest = next(one for one in made.states if one.partition == 0)
            publish(Producer({"bootstrap.servers": settings.bootstrap_servers}), topic, [newest])
        return read(*args, **options)

    monkeypatch.setattr("audit.stored.read", after_one_more)
    if grows:
        with pytest.raises(NotAuditableError, match="while it was read"):
            state(settings, "snapshot", str(file))
    else:
        state(settings, "snapshot", str(file))
    assert file.exists() is not grows


def test_with_a_snapshot_what_is_wrong_after_it_is_found(saved: Saved) -> None:
    stated = deepcopy(saved.stated)
    results = stated.written.results
    number = max(n for n, one in enumerate(results) if one.place[0] == saved.partition)
    score = np.nextafter(results[number].json["risk_probability"], 1)
    results[number] = results[number].saying(risk_probability=float(score))
    position = max(n for n, one in enumerate(stated.states) if one.partition == saved.partition)
    value = stated.states[position].value or b""
    stated.states[position] = replace(stated.states[position], value=value[:-1] + bytes([value[-1] ^ 1]))
    settings = stated.copied()
    assert not judged(settings).offenders
    found = audit(settings, saved_state=saved.file, patience=5.0)
    offset = (stated.ends[saved.partition] or 0) - 1
    assert [(one.invariant, one.partition, one.offset) for one in found.offenders] == [
        (Invariant.CORRECT, *results[number].place),
        (Invariant.STATE, saved.partition, offset),
    ]


def test_a_snapshot_that_does_not_fit_is_refused(saved: Saved, made: Stated, tmp_path: Path) -> None:
    head, *lines = saved.file.read_bytes().splitlines(keepends=True)
    settings = saved.stated.copied()

    def refused(
        problem: str, *, of: Settings = settings, change: dict[str, Any], patients: list[bytes]
    ) -> None:
        file = tmp_path / "state.jsonl"
        file.write_bytes(orjson.dumps(orjson.loads(head) | change) + b"\n" + b"".join(patients))
        with pytest.raises(SettingsError, match=problem):
            audit(of, saved_state=file, patience=5.0)

    refused("is not a complete state snapshot", change={}, patients=lines[1:])
    refused("is not a complete state snapshot", change={"recipe": "0" * 64}, patients=lines)
    refused("is later than the committed offsets", change={"offsets": {"0": 10**6}}, patients=lines)
    refused("belongs to another topic", of=made.copied(), change={}, patients=lines)
    with pytest.raises(SettingsError, match="can't be read: No such file"):
        audit(settings, saved_state=tmp_path / "none", patience=5.0)

"""A model with a history on a topic: patients' state is kept, restored and undone with the transactions."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pandas as pd
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline

from broker.errors import SettingsError, TopicError
from broker.notes import Note, write_note
from broker.roles import Role
from broker.settings import Settings
from broker.topics import create_topics
from consumer import commit
from consumer import model as models
from consumer.errors import Action, KafkaCallError
from consumer.observer import Observer, Observers
from consumer.restoring import StateLostError, StateReader, make_state_reader
from consumer.run import run_worker
from consumer.sending import Sender
from consumer.state import State, StateLimitError, make_state
from real_time.history import PatientHistory, Patients, Window
from real_time.history.records import StateRecords
from real_time.model_file import pin_model
from tests.conftest import MakeSettings
from tests.consumer.state_accounts import read_state, require_state_is_fold, state_ends
from tests.kafka import alter_topic, produce, read_all, wait_until

pytestmark = pytest.mark.kafka

PARTITIONS = 2
VITALS = ["heart_rate", "temperature"]
START = pd.Timestamp("2026-01-05T08:00:00Z")


def stays(count: int, *, seed: int = 1, patients: int = 7) -> pd.DataFrame:
    """Rows of a few patients in log order, some of them late and half of them with gaps."""
    random = np.random.default_rng(seed)
    minutes = np.arange(count) * 2.0 - np.where(random.random(count) < 0.1, 90, 0)
    values = random.normal([80, 37], [10, 1], (count, 2))
    values[random.random((count, 2)) < 0.5] = np.nan
    return pd.DataFrame(values, columns=VITALS).assign(
        patient_id=[f"p-{number}" for number in random.integers(patients, size=count)],
        event_time=[(START + pd.Timedelta(m, "min")).isoformat() for m in minutes],
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = stays(400, seed=9)
    return saved(PatientHistory(windows=[Window("2h", "30min")]), rows, tmp_path_factory.mktemp("model"))


def saved(history: PatientHistory, rows: pd.DataFrame, folder: Path) -> Path:
    path = folder / "history.joblib"
    label = rows["heart_rate"].fillna(80) > 80
    joblib.dump(make_pipeline(history, HistGradientBoostingClassifier(max_iter=10)).fit(rows, label), path)
    pin_model(path)
    return path


Begin = Callable[..., Settings]


@pytest.fixture
def begin(make_settings: MakeSettings, model: Path) -> Begin:
    """New topics, including a state topic."""

    def settings(**changes: Any) -> Settings:
        usual = {"model": model, "chunk_size": 5, "until_idle": 1.5, "commit_interval_ms": 40}
        made = make_settings(partitions=PARTITIONS, **(usual | changes))
        create_topics(made, partitions=PARTITIONS, state=True)
        return made

    return settings


def send(settings: Settings, rows: pd.DataFrame) -> None:
    documents = rows.astype(object).where(rows.notna(), None).to_dict("records")
    produce(
        settings.bootstrap_servers,
        settings.input_topic,
        [(one["patient_id"], orjson.dumps(one)) for one in documents],
    )


class Counter(Observer):
    """How many rows were committed, as far as the worker knows."""

    def __init__(self) -> None:
        self.rows = 0

    def committed(self, *, chunks: int, rows: int, seconds: float) -> None:
        self.rows += rows


def run(settings: Settings, observer: Observer | None = None, *, rows: int = 1_000_000) -> None:
    """Run a worker until it has committed that many rows or nothing more arrives."""
    counter = Counter()
    told = Observers(counter, observer or Observer())
    run_worker(settings, observer=told, should_stop=lambda: counter.rows >= rows)


class Restored(Observer):
    """How many patients were restored in each partition."""

    def __init__(self) -> None:
        self.patients: dict[int, int] = {}

    def restored(self, partition: int, *, patients: int, size: int, seconds: float) -> None:
        self.patients[partition] = patients


# --- kept and restored


def test_a_worker_scores_with_the_history_that_another_left(begin: Begin) -> None:
    settings, rows = begin(), stays(90)
    send(settings, rows[:60])
    run(settings, rows=60)
    require_state_is_fold(settings, rows=60)
    before = state_ends(settings)

    # For one patient only, so the other partition's state stays where it was.
    more = rows[60:].assign(patient_id="p-0")
    send(settings, more)
    told = Restored()
    run(settings, told, rows=30)
    require_state_is_fold(settings, rows=90)
    assert told.patients == {partition: len(known) for partition, known in read_state(settings).items()}
    assert sum(after != before[partition] for partition, after in state_ends(settings).items()) == 1


# --- undone


class Flaw:
    """Makes some calls of a method go wrong."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, of: type, name: str, at: set[int]) -> None:
        self._real = getattr(of, name)
        self._at = at
        self.calls = 0
        flaw = self

        def method(itself: Any, *args: Any, **kwargs: Any) -> Any:
            flaw.calls += 1
            if flaw.calls not in flaw._at:
                return flaw._real(itself, *args, **kwargs)
            return flaw.happen(itself, *args, **kwargs)

        monkeypatch.setattr(of, name, method)

    def happen(self, itself: Any, *args: Any, **kwargs: Any) -> Any:
        raise KafkaCallError("made to fail", None, Action.ABORT)


class Happened(Flaw):
    """The call succeeds, but the response is lost."""

    def happen(self, itself: Any, *args: Any, **kwargs: Any) -> Any:
        self._real(itself, *args, **kwargs)
        raise KafkaCallError("made to fail", None, Action.REBUILD)


class Unknown(Flaw):
    """The call does nothing, and the response is lost."""

    def happen(self, itself: Any, *args: Any, **kwargs: Any) -> Any:
        raise KafkaCallError("made to fail", None, Action.REBUILD)


@pytest.mark.parametrize(
    ("flaw", "of", "name"),
    [
        pytest.param(Flaw, Sender, "flush", id="aborted"),
        pytest.param(Unknown, commit.Transactions, "_end", id="unknown and not committed"),
        pytest.param(Happened, commit.Transactions, "_end", id="unknown and committed"),
    ],
)
def test_rows_of_a_failed_transaction_count_once(
    flaw: type[Flaw], of: type, name: str, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = begin(commit_interval_ms=0)
    send(settings, stays(120))
    made = flaw(monkeypatch, of, name, at={2, 4, 5})
    run(settings, rows=120)
    assert made.calls > 5
    require_state_is_fold(settings, rows=120)


# --- each guard, switched off on purpose


def _always_undone(itself: Any, starts: Any) -> None:
    itself._patients.rollback()
    itself._close()


def _always_kept(itself: Any, starts: Any) -> None:
    itself._patients.commit()
    itself._close()


def _only_what_changed(itself: Any) -> Any:
    return itself._written


@pytest.mark.parametrize(
    ("of", "name", "instead", "flaw"),
    [
        pytest.param(Patients, "rollback", lambda _: None, (Flaw, Sender, "flush"), id="undo log"),
        pytest.param(
            State,
            "settled",
            _always_undone,
            (Happened, commit.Transactions, "_end"),
            id="asking, committed",
        ),
        pytest.param(
            State,
            "settled",
            _always_kept,
            (Unknown, commit.Transactions, "_end"),
            id="asking, not committed",
        ),
        pytest.param(State, "ends", _only_what_changed, None, id="ends of idle partitions"),
    ],
)
def test_without_a_guard_state_does_not_match_the_messages(  # noqa: PLR0917
    of: type,
    name: str,
    instead: Any,
    flaw: tuple[type[Flaw], type, str] | None,
    begin: Begin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, rows = begin(commit_interval_ms=0), stays(80)
    monkeypatch.setattr(of, name, instead)
    if flaw is not None:
        flaw[0](monkeypatch, *flaw[1:], at={2, 4})
    send(settings, rows[:60])
    with pytest.raises((AssertionError, StateLostError)):
        _run_twice(settings, rows)


def _run_twice(settings: Settings, rows: pd.DataFrame) -> None:
    run(settings, rows=60)
    send(settings, rows[60:].assign(patient_id="p-0"))
    run(settings, rows=20)
    require_state_is_fold(settings, rows=80)


# --- what the topic must hold


@pytest.fixture
def reader(begin: Begin) -> Iterator[tuple[StateReader, Settings]]:
    settings = begin()
    made = make_state_reader(settings)
    try:
        yield made, settings
    finally:
        made.close()


def written(settings: Settings, name: str, *values: bytes) -> Producer:
    """A producer whose open transaction has written to partition 0 of the state topic."""
    config = {"bootstrap.servers": settings.bootstrap_servers, "transaction.timeout.ms": 60_000}
    producer = Producer(config | {"transactional.id": f"{settings.group}-{name}", "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in values:
        producer.produce(settings.topic(Role.STATE), value, b"p-0", partition=0)
    assert not producer.flush(30)
    return producer


def read_to_end(reader: StateReader) -> list[bytes | None]:
    """Read a partition up to its requested end."""
    found: list[bytes | None] = []

    def whole() -> bool:
        pieces = [*reader.read(0.1)]
        found.extend(value for piece in pieces for value in piece.values)
        return any(piece.whole for piece in pieces)

    wait_until(whole, what="the end of the state")
    return found


def _up_to_what_can_be_read(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """End a restore at the last stable offset, as a simple read_committed reader would."""
    begin, topic = StateReader.begin, TopicPartition(settings.topic(Role.STATE), 0)

    def ended(itself: StateReader, partition: int, end: int) -> None:
        _, stable = itself._consumer.get_watermark_offsets(topic, timeout=10)
        begin(itself, partition, min(end, stable))

    monkeypatch.setattr(StateReader, "begin", ended)


def test_without_waiting_for_an_open_transaction_old_state_would_count(
    reader: tuple[StateReader, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, settings = reader
    _up_to_what_can_be_read(monkeypatch, settings)
    written(settings, "earlier", b"first").commit_transaction(30)
    zombie = written(settings, "zombie", b"of a zombie")
    written(settings, "successor", b"second").commit_transaction(30)
    read.begin(0, 4)
    assert read_to_end(read) == [b"first"]
    zombie.abort_transaction(30)


def test_a_restore_waits_for_state_behind_an_open_transaction(reader: tuple[StateReader, Settings]) -> None:
    read, settings = reader
    written(settings, "earlier", b"first").commit_transaction(30)  # the commit marker is offset 1
    zombie = written(settings, "zombie", b"of a zombie")  # at offset 2
    written(settings, "successor", b"second").commit_transaction(30)  # at offset 3
    read.begin(0, 4)
    seen: list[bytes | None] = []

    def stuck() -> bool:
        pieces = [*read.read(0.1)]
        assert not any(piece.whole for piece in pieces), "started with old state"
        seen.extend(value for piece in pieces for value in piece.values)
        return read._wanted[0].short_since is not None

    wait_until(stuck, what="the last stable offset")
    assert seen == [b"first"]
    zombie.abort_transaction(30)
    assert read_to_end(read) == [b"second"]
    assert read.partitions == []


@pytest.mark.parametrize(("end", "values"), [(1, [b"first"]), (4, [b"first"]), (5, [b"first", b"later"])])
def test_a_restore_ends_where_the_group_says(
    reader: tuple[StateReader, Settings], end: int, values: list[bytes]
) -> None:
    read, settings = reader
    written(settings, "w", b"first").commit_transaction(30)  # the commit marker is offset 1
    written(settings, "w", b"aborted").abort_transaction(30)  # offsets 2 and 3, of which nothing is read
    written(settings, "w", b"later").commit_transaction(30)
    read.begin(0, end)
    assert read_to_end(read) == values


def test_a_transaction_that_never_ends_is_reported(reader: tuple[StateReader, Settings]) -> None:
    read, settings = reader
    zombie = written(settings, "zombie", b"of a zombie")
    written(settings, "successor", b"second").commit_transaction(30)
    read._patience = 0.2
    read.begin(0, 2)
    with pytest.raises(
        StateLostError, match=r"kept partition 0 of topic \S+ from being read up to offset 2 for 0.2 s"
    ):
        read_to_end(read)
    zombie.abort_transaction(30)


def test_state_that_ends_too_early_was_truncated(reader: tuple[StateReader, Settings]) -> None:
    read, settings = reader
    written(settings, "w", b"first").commit_transaction(30)
    read.begin(0, 90)
    with pytest.raises(StateLostError, match=r"ends at offset 2, .* ends at 90: .* deleted or truncated"):
        read_to_end(read)


def test_state_that_begins_too_late_was_truncated(reader: tuple[StateReader, Settings]) -> None:
    read, settings = reader
    written(settings, "w", b"first", b"second").commit_transaction(30)
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    cut = TopicPartition(settings.topic(Role.STATE), 0, 1)
    alter_topic(settings.bootstrap_servers, cut.topic, {"cleanup.policy": "delete"})
    wait_until(lambda: _deleted(admin, cut), what="deleted records")
    read.begin(0, 2)
    with pytest.raises(StateLostError, match="no longer begins at its first offset"):
        read_to_end(read)


def _deleted(admin: AdminClient, before: TopicPartition) -> bool:
    (future,) = admin.delete_records([before]).values()
    try:
        future.result(10)
    except KafkaException:
        return False
    return True


def test_state_without_a_commit_is_not_used(reader: tuple[StateReader, Settings]) -> None:
    read, settings = reader
    written(settings, "w", b"first").commit_transaction(30)
    read.begin(0, 0)
    with pytest.raises(StateLostError, match="has state in partition 0, but the group has committed none"):
        read_to_end(read)


def test_a_partition_revoked_while_it_is_read_can_be_read_again(
    reader: tuple[StateReader, Settings],
) -> None:
    read, settings = reader
    written(settings, "w", b"first", b"second").commit_transaction(30)
    read.begin(0, 2)
    read.leave(0)
    assert [*read.read(0.1)] == []
    read.begin(0, 2)
    assert read_to_end(read) == [b"first", b"second"]


# --- partitions that are revoked and come back


@pytest.fixture
def state(begin: Begin) -> Iterator[tuple[State, Settings]]:
    """The state of a worker, without the rest of it."""
    settings = begin()
    history = models.load(settings, with_history=True).history
    assert history is not None
    made = make_state(settings, history, {settings.topic(Role.STATE): 1_000_000}, Observer())
    try:
        yield made, settings
    finally:
        made.close()


def known(settings: Settings, rows: pd.DataFrame) -> dict[str, bytes]:
    """The state rows of some patients."""
    history: Any = models.load(settings, with_history=True).history
    patients = history.start()
    patients.advance(rows)
    ids, of = patients.of(0)
    values = StateRecords(patients.layout, history.recipe_sha256).encode(of)
    return dict(zip(ids, values, strict=True))


def commit_state(settings: Settings, partition: int, values: dict[str, bytes | None]) -> int:
    """Write state as another worker would; returns where it ends."""
    config = {"bootstrap.servers": settings.bootstrap_servers, "transactional.id": f"{settings.group}-other"}
    producer, ends = Producer(config), []
    producer.init_transactions(30)
    producer.begin_transaction()
    for patient, value in values.items():
        told: Any = lambda _, message: ends.append(message.offset())  # noqa: E731
        producer.produce(settings.topic(Role.STATE), value, patient, partition, told)
    producer.commit_transaction(30)
    return int(max(ends)) + 1


def held(state: State, partition: int) -> dict[str, bytes]:
    ids, rows = state._patients.of(partition)
    return dict(zip(ids, state._records.encode(rows), strict=True))


def restore_all(state: State) -> None:
    def whole() -> bool:
        state.restore()
        return not state.outstanding

    wait_until(whole, what="the state of all partitions")


def test_a_partition_that_comes_back_has_the_state_others_left(state: tuple[State, Settings]) -> None:
    mine, settings = state
    before, after = known(settings, stays(60)), known(settings, stays(60, seed=2, patients=5))
    mine.assigned({0: commit_state(settings, 0, {**before}), 1: 0})
    restore_all(mine)
    assert held(mine, 0) == before
    mine.revoked([0])
    assert held(mine, 0) == {}
    end = commit_state(settings, 0, {**after, "p-6": None})
    mine.assigned({0: end})
    restore_all(mine)
    expected = before | after
    del expected["p-6"]
    assert held(mine, 0) == expected


def test_state_is_restored_from_a_compacted_log(state: tuple[State, Settings]) -> None:
    mine, settings = state
    topic = settings.topic(Role.STATE)
    soon = {"segment.ms": "1", "min.cleanable.dirty.ratio": "0.01"}
    soon |= {"min.compaction.lag.ms": "0", "max.compaction.lag.ms": "1"}
    alter_topic(settings.bootstrap_servers, topic, soon)
    before, after = known(settings, stays(60)), known(settings, stays(60, seed=2, patients=5))
    commit_state(settings, 0, {**before})
    commit_state(settings, 0, {**after, "p-6": None})
    end = commit_state(
        settings, 0, {"p-0": before["p-0"]}
    )  # into another segment: the last one is not compacted
    newest = (before.keys() | after.keys()) - {"p-6"}
    wait_until(
        lambda: (
            sum(one.key() != b"p-6" for one in read_all(settings.bootstrap_servers, topic)) <= len(newest) + 1
        ),
        timeout=90,
        what="compaction",
    )
    mine.assigned({0: end})
    restore_all(mine)
    expected = before | after | {"p-0": before["p-0"]}
    del expected["p-6"]
    assert held(mine, 0) == expected


def test_a_partition_revoked_during_its_restore_leaves_nothing_behind(
    state: tuple[State, Settings],
) -> None:
    mine, settings = state
    rows = known(settings, stays(60))
    ends = {partition: commit_state(settings, partition, {**rows}) for partition in range(PARTITIONS)}
    mine.assigned(ends)
    mine.restore()  # in part
    mine.revoked([0])
    restore_all(mine)
    assert (held(mine, 0), held(mine, 1)) == ({}, rows)
    mine.assigned({0: ends[0]})
    restore_all(mine)
    assert held(mine, 0) == rows


def test_a_partition_added_to_the_input_is_refused(state: tuple[State, Settings]) -> None:
    mine, _ = state
    with pytest.raises(
        StateLostError, match=rf"the input topic got partition {PARTITIONS}, .* another --group"
    ):
        mine.assigned({PARTITIONS: None})


# --- what the group must have committed


def committed_by(settings: Settings, metadata: str, offset: int = 1) -> None:
    """Commit an offset of partition 0."""
    consumer = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.group})
    offsets = [TopicPartition(settings.input_topic, 0, offset, metadata)]
    consumer.commit(offsets=offsets, asynchronous=False)
    consumer.close()


def test_a_committed_offset_without_a_state_end_is_refused(begin: Begin) -> None:
    settings = begin()
    send(settings, stays(20))
    committed_by(settings, "")
    with pytest.raises(
        StateLostError, match=r"offset of partition 0 has no state with it: .* another --group"
    ):
        run(settings)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda value: value[:8] + bytes(32) + value[40:], "of recipe 000000000000, .*; use the model that"),
        (lambda value: b"patient\x02" + value[8:], "version 2, .*; upgrade this worker"),
        (
            lambda value: b"{}",
            "something other than the state of a patient; something else writes to the topic",
        ),
    ],
)
def test_state_of_a_different_model_is_refused(
    begin: Begin, model: Path, change: Callable[[bytes], bytes], problem: str
) -> None:
    settings = begin()
    send(settings, stays(20))
    value = change(_a_state(model, settings))
    written(settings, "w", value).commit_transaction(30)
    committed_by(settings, write_note(Note("", 1)))
    with pytest.raises(StateLostError, match=rf"partition 0 of topic \S+: .*{problem}"):
        run(settings)


def _a_state(path: Path, settings: Settings) -> bytes:
    history = models.load(settings, with_history=True).history
    assert history is not None
    patients = history.start()
    patients.advance(stays(1))
    (value,) = StateRecords(patients.layout, history.recipe_sha256).encode(patients.of(0)[1])
    return value


def test_without_a_state_topic_a_worker_says_how_to_create_it(
    make_settings: MakeSettings, model: Path
) -> None:
    settings = make_settings(partitions=PARTITIONS, model=model)
    with pytest.raises(TopicError, match=r"topic \S+-state-\S+ .* missing .* topics create --state"):
        run(settings)


# --- limits and modes


@pytest.mark.parametrize(
    ("limit", "problem"),
    [({"max_patients": 3}, "more than 3 patients"), ({"max_state_mb": 1}, "takes more than 1 MB")],
)
def test_a_worker_stops_at_its_state_limit(begin: Begin, limit: dict[str, int], problem: str) -> None:
    settings = begin(**limit)
    send(settings, stays(60, patients=4_000 if "max_state_mb" in limit else 7))
    with pytest.raises(StateLimitError, match=problem):
        run(settings)
    assert sum(map(len, read_state(settings).values())) <= 3, "committed the rows that exceeded the limit"


def test_a_history_needs_exactly_once(begin: Begin) -> None:
    with pytest.raises(SettingsError, match="--delivery at-least-once: the model has a history"):
        run(begin(delivery="at-least-once"))

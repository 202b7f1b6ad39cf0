"""The audit of topics that have lost records: it judges the rest and says what it can't judge, but accuses nobody."""

from collections.abc import Callable, Collection, Iterable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from audit.findings import Invariant
from audit.heads import Heads
from audit.outcome import Audit, Waiting
from audit.partitioner import murmur2, partition_of
from audit.reading import Batch, Progress, read
from audit.unjudged import Cause
from broker.settings import Settings
from broker.topics import Cleanup, create_topics
from tests.audit.conftest import ROWS, messages, work
from tests.audit.test_audit import busiest, failed, judged, places
from tests.audit.topics import Record, Written, publish, written
from tests.conftest import MakeSettings, fresh_settings
from tests.kafka import alter_topic, produce, read_all, wait_until

pytestmark = pytest.mark.kafka

I = Invariant  # noqa: E741

Place = tuple[int, int]


# --- what gets lost


def cut(kafka: str, topic: str, before: dict[int, int]) -> None:
    """Delete everything before these offsets, as `kafka-delete-records.sh` does."""
    admin = AdminClient({"bootstrap.servers": kafka})
    wanted = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
    for future in admin.delete_records(wanted).values():
        future.result()


def cut_in_half(settings: Settings, topics: Iterable[str]) -> None:
    kafka = settings.bootstrap_servers
    for topic in topics:
        records = read_all(kafka, topic)
        counts = {p: sum(one.partition() == p for one in records) for p in range(4)}
        cut(kafka, topic, {partition: count // 2 for partition, count in counts.items()})


def emptied(settings: Settings, topic: str) -> None:
    cut(settings.bootstrap_servers, topic, dict.fromkeys(range(4), -1))


def compact(kafka: str, topics: Collection[str]) -> None:
    """Compact these topics, and wait until only the last record of each key is left.

    Writes one record with a new key to each partition, because that ends the partition's segment.
    """
    config = {
        "cleanup.policy": "compact",
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "100",
    }
    keys = {topic: {one.key() for one in read_all(kafka, topic)} for topic in topics}
    for topic in topics:
        alter_topic(kafka, topic, config)
        produce(kafka, topic, [(f"last-{partition}", b"{", partition) for partition in range(4)])
    wait_until(
        lambda: all(len(read_all(kafka, topic)) == len(keys[topic]) + 4 for topic in topics),
        timeout=120,
        what=f"the compaction of {topics}",
    )


@pytest.fixture(scope="module")
def run(kafka: str, tree: Path) -> Callable[[], Written]:
    """A worker's output for a new input topic."""

    def make() -> Written:
        settings = fresh_settings(kafka, model=tree)
        create_topics(settings, partitions=4, replication_factor=1)
        produce(kafka, settings.input_topic, messages(ROWS))
        work(settings)
        return written(settings)

    return make


def remaining(made: Written) -> list[Place]:
    found = read_all(made.settings.bootstrap_servers, made.settings.input_topic)
    places = [(one.partition() or 0, one.offset() or 0) for one in found]
    return sorted(place for place in places if place[1] < made.committed[place[0]])


def position(made: Written, places: Collection[Place], number: int = 0) -> int:
    """The position of one of these messages' results."""
    return [at for at, one in enumerate(made.results) if one.place in places][number]


def late(made: Written) -> set[Place]:
    """The messages of the last chunk with several results, which cutting the topics in half leaves in place."""
    several = [one for one in made.metrics if one.json["scored"] > 1]
    spans = max(several, key=lambda one: (one.time, *max(one.json["offsets"].values()))).json["offsets"]
    bounds = {int(name.rpartition("-")[2]): span for name, span in spans.items()}
    return {(p, offset) for p, (first, last) in bounds.items() for offset in range(first, last + 1)}


def spoil(made: Written, places: Collection[Place], fault: str) -> tuple[Place, set[Invariant]]:
    """Plant a fault at one of these messages; returns the message and the invariants that must fail."""
    at = position(made, places)
    record = made.results[at]
    if fault == "missing":
        del made.results[at]
        return record.place, {I.COMPLETE}
    if fault == "doubled":
        made.results.append(record)
        return record.place, {I.ONCE}
    wrong = record.json["risk_probability"] * 0.9
    made.results[at] = record.saying(risk_probability=wrong, risk_label=int(wrong >= 0.5))
    return record.place, {I.CORRECT}


FAULTS = ["missing", "doubled", "wrong"]


def incomplete(found: Audit, causes: dict[str, Cause]) -> None:
    """Fail unless the audit accuses nothing and names these causes, by topic."""
    assert found.verdict == "incomplete", found.offenders
    assert not found.clean
    assert {one.topic: one.cause for one in found.unjudged} == causes


# --- the input


@pytest.fixture(scope="module")
def truncated_run(run: Callable[[], Written]) -> Written:
    """A run whose input has lost its older half."""
    made = run()
    cut_in_half(made.settings, [made.settings.input_topic])
    return made


@pytest.fixture
def truncated(truncated_run: Written) -> Written:
    """A copy to spoil."""
    return deepcopy(truncated_run)


def test_a_truncated_input_makes_the_audit_incomplete(truncated: Written) -> None:
    left = remaining(truncated)
    found = judged(truncated.settings)
    topic = truncated.settings.input_topic
    incomplete(found, {topic: Cause.EXPIRED})
    (gone,) = found.unjudged
    assert (gone.invariant, gone.count) == (I.GENUINE, ROWS - len(left))
    assert gone.sentence == (
        f"{ROWS - len(left)} results and dead letters could not be judged: their messages were deleted by "
        f"retention or by hand from {topic}"
    )
    assert found.messages == found.accounted == len(left)
    assert {one.invariant: one.unjudged for one in found.verdicts if one.unjudged} == {
        I.GENUINE: ROWS - len(left)
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_rest_of_a_truncated_input_is_found(truncated: Written, fault: str) -> None:
    place, disproved = spoil(truncated, remaining(truncated), fault)
    found = judged(truncated.copied())
    for invariant in disproved:
        assert (truncated.settings.input_topic, *place) in places(found, invariant)
    assert failed(found) - {I.ATOMIC, I.ORDERED} == disproved
    assert found.unjudged


def test_a_fault_in_results_whose_messages_are_deleted_is_found(truncated: Written) -> None:
    """A doubled result, and a label that contradicts its probability, show without the message."""
    gone = {one.place for one in truncated.results} - {*remaining(truncated)}
    doubled = truncated.results[position(truncated, gone, 3)]
    wrong = position(truncated, gone, 6)
    truncated.results[wrong] = truncated.results[wrong].saying(risk_probability=1.5, risk_label=1)
    truncated.results.append(doubled)
    found = judged(truncated.copied())
    topic = truncated.settings.input_topic
    assert places(found, I.ORDERED) == [(topic, *doubled.place)]
    assert places(found, I.CORRECT) == [(topic, *truncated.results[wrong].place)]
    assert failed(found) == {I.ORDERED, I.CORRECT}


def test_messages_that_no_policy_deletes_were_deleted_by_hand(run: Callable[[], Written]) -> None:
    made = run()
    topic = made.settings.input_topic
    alter_topic(made.settings.bootstrap_servers, topic, {"retention.ms": "-1"})
    cut_in_half(made.settings, [topic])
    found = judged(made.settings)
    incomplete(found, {topic: Cause.BY_HAND})
    assert f"were deleted by hand from {topic}" in found.unjudged[0].sentence

    # Now all messages are deleted, and then the outputs as well.
    emptied(made.settings, topic)
    found = judged(made.settings)
    incomplete(found, {topic: Cause.BY_HAND})
    assert (found.messages, found.unjudged[0].count) == (0, ROWS)
    for output in made.settings.output_topics:
        emptied(made.settings, output)
    found = judged(made.settings)
    incomplete(found, {topic: Cause.BY_HAND})
    assert found.unjudged[0].sentence == (
        f"nothing could be judged: all messages that the group consumed were deleted by hand from {topic}"
    )


# --- the outputs


def output_topics(settings: Settings, names: Iterable[str]) -> list[str]:
    return [getattr(settings, f"{name}_topic") for name in names]


@pytest.mark.parametrize(
    "names",
    [["output"], ["dead_letter"], ["metrics"], ["output", "dead_letter", "metrics"]],
    ids="+".join,
)
def test_truncated_outputs_make_the_audit_incomplete(clean: Written, names: list[str]) -> None:
    settings = clean.copied()
    topics = output_topics(settings, names)
    cut_in_half(settings, topics)
    found = judged(settings)
    incomplete(found, dict.fromkeys(topics, Cause.EXPIRED))
    assert len(found.notes) == len(topics)
    if names == ["output"]:
        lost = len(clean.results) - len(read_all(settings.bootstrap_servers, settings.output_topic))
        assert found.unjudged[0].sentence == (
            f"{lost} messages could not be judged: they have neither a result nor a dead letter, and the oldest "
            f"records of {settings.output_topic} were deleted by retention or by hand"
        )
        assert found.messages == found.accounted == ROWS - lost


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("names", [["output"], ["output", "dead_letter", "metrics"]], ids=len)
def test_a_fault_in_the_rest_of_truncated_outputs_is_found(
    clean: Written, names: list[str], fault: str
) -> None:
    place, disproved = spoil(clean, late(clean), fault)
    settings = clean.copied()
    cut_in_half(settings, output_topics(settings, names))
    found = judged(settings)
    assert found.verdict == "failed"
    for invariant in disproved:
        if names == ["output"]:
            assert (settings.input_topic, *place) in places(found, invariant)
    assert failed(found) & (disproved | {I.ATOMIC})
    assert found.unjudged


def test_a_missing_result_is_found_even_with_all_dead_letters_deleted(clean: Written) -> None:
    """The message may have had a dead letter, but its chunk reports a result."""
    place = clean.results.pop(100).place
    settings = clean.copied()
    emptied(settings, settings.dead_letter_topic)
    found = judged(settings)
    assert failed(found) == {I.ATOMIC}
    (left,) = found.unjudged
    assert left.count == len(clean.dead_letters) + 1
    assert place not in [one[1:] for one in places(found, I.COMPLETE)]


def test_dead_letters_deleted_long_ago_do_not_excuse_recent_messages(clean: Written) -> None:
    """What was deleted is older than the first dead letter left, so it belonged to none of these messages."""
    partition = clean.results[0].partition
    old = replace(clean.dead_letters[0], time=1, partition=partition)
    place = clean.results.pop(0).place
    clean.dead_letters[:0] = [
        replace(old, partition=number, time=time) for number in range(4) for time in (1, 2)
    ]
    clean.dead_letters = [one.headed(topic="another") if one.time < 3 else one for one in clean.dead_letters]
    settings = clean.copied()
    cut(settings.bootstrap_servers, settings.dead_letter_topic, dict.fromkeys(range(4), 1))
    found = judged(settings)
    assert (settings.input_topic, *place) in places(found, I.COMPLETE)


def test_with_half_of_everything_deleted_faults_are_still_found(run: Callable[[], Written]) -> None:
    made = run()
    copies = [made.settings]
    for fault in FAULTS:
        spoilt = deepcopy(made)
        spoil(spoilt, late(made), fault)
        copies.append(spoilt.copied())
    for settings in copies:
        cut_in_half(settings, settings.output_topics)
    cut_in_half(made.settings, [made.settings.input_topic])
    clean, *faulty = map(judged, copies)
    assert clean.verdict == "incomplete", clean.offenders
    assert 0 < clean.messages <= ROWS / 2 + 2  # each of four partitions may keep up to half a message more
    for fault, found in zip(FAULTS, faulty, strict=True):
        assert found.verdict == "failed", fault


# --- compaction


@pytest.fixture(scope="module")
def compacted(run: Callable[[], Written]) -> tuple[Written, Written, Settings]:
    """A run with a compacted input, a second run, and a copy of it with compacted outputs."""
    first, second = run(), run()
    copy = second.copied()
    topics = [first.settings.input_topic, copy.output_topic, copy.dead_letter_topic]
    compact(first.settings.bootstrap_servers, topics)
    return first, second, copy


def test_a_compacted_input_makes_the_audit_incomplete(compacted: tuple[Written, Written, Settings]) -> None:
    made, _, _ = compacted
    topic, left = made.settings.input_topic, remaining(made)
    found = judged(made.settings)
    incomplete(found, {topic: Cause.COMPACTED})
    assert found.messages == found.accounted == len(left) == 12
    assert found.unjudged[0].sentence == (
        f"{ROWS - 12} results and dead letters could not be judged: their messages were removed from {topic}, "
        "which is compacted"
    )
    assert found.waiting.messages == 4


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_rest_of_a_compacted_input_is_found(
    compacted: tuple[Written, Written, Settings], fault: str
) -> None:
    made = deepcopy(compacted[0])
    place, disproved = spoil(made, remaining(made), fault)
    found = judged(made.copied())
    for invariant in disproved:
        assert places(found, invariant) == [(made.settings.input_topic, *place)]
    assert failed(found) - {I.ATOMIC, I.ORDERED} == disproved


def test_two_results_of_a_compacted_message_are_found(
    compacted: tuple[Written, Written, Settings],
) -> None:
    made = deepcopy(compacted[0])
    record = next(one for one in made.results if one.place not in remaining(made))
    made.results.append(record)
    found = judged(made.copied())
    assert places(found, I.ONCE) == [(made.settings.input_topic, *record.place)]


def test_a_compacted_input_with_deleted_results_is_incomplete(
    compacted: tuple[Written, Written, Settings],
) -> None:
    """Its chunks report deleted results of deleted messages."""
    made = deepcopy(compacted[0])
    settings = made.copied()
    emptied(settings, settings.output_topic)
    found = judged(settings)
    incomplete(found, {settings.input_topic: Cause.COMPACTED, settings.output_topic: Cause.EXPIRED})


def test_compacted_outputs_make_the_audit_incomplete(compacted: tuple[Written, Written, Settings]) -> None:
    _, made, settings = compacted
    found = judged(settings)
    # The records that ended the segments are not results.
    assert failed(found) == {I.GENUINE}
    assert {one.problem for one in found.offenders} == {"is not a result", "is not a dead letter"}
    assert {one.topic: one.cause for one in found.unjudged} == dict.fromkeys(
        [settings.output_topic, settings.dead_letter_topic], Cause.COMPACTED
    )
    assert found.messages == found.accounted < ROWS / 2
    assert len(made.results) > ROWS / 2


# --- records deleted while they are read


def test_reading_continues_after_deleted_records(make_settings: MakeSettings) -> None:
    settings = make_settings(partitions=2)
    kafka, topic = settings.bootstrap_servers, settings.output_topic
    produce(kafka, topic, [("p", str(number), number % 2) for number in range(40)])
    cut(kafka, topic, {0: 15})
    deleted: list[int] = []
    batches = read(
        settings,
        topic,
        starts={0: 3, 1: 3},
        ends={0: 20, 1: 20},
        stage="",
        on_progress=lambda _: None,
        on_deleted=deleted.append,
    )
    seen = sorted((one.partition(), one.offset()) for batch in batches for one in batch.messages)
    assert seen == [*((0, offset) for offset in range(15, 20)), *((1, offset) for offset in range(3, 20))]
    assert deleted == [0]


def test_a_completely_deleted_partition_is_read_to_its_end(make_settings: MakeSettings) -> None:
    settings = make_settings(partitions=1)
    kafka, topic = settings.bootstrap_servers, settings.output_topic
    produce(kafka, topic, [("p", b"")] * 20)
    emptied_at = {0: 20}
    cut(kafka, topic, emptied_at)
    batches = read(settings, topic, starts={0: 0}, ends=emptied_at, stage="", on_progress=lambda _: None)
    assert [*batches] == []


def test_outputs_deleted_during_the_audit_make_it_incomplete(clean: Written) -> None:
    settings = clean.copied()

    def on_progress(now: Progress) -> None:
        if now.stage == settings.output_topic and not deleted:
            deleted.append(True)
            cut_in_half(settings, [settings.dead_letter_topic, settings.metrics_topic])

    deleted: list[bool] = []
    found = judged(settings, on_progress=on_progress)
    topics = [settings.dead_letter_topic, settings.metrics_topic]
    incomplete(found, dict.fromkeys(topics, Cause.EXPIRED))


def batch_of(kafka: str, topic: str, rows: Iterable[Place]) -> Batch:
    found = {(one.partition(), one.offset()): one for one in read_all(kafka, topic)}
    partitions, offsets = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    return Batch([found[place] for place in rows], partitions, offsets)


def test_after_deleted_outputs_only_later_ones_prove_anything(clean: Written) -> None:
    """Whether the results of messages of one key and partition may have been deleted."""
    settings = clean.settings
    kafka, topic = settings.bootstrap_servers, settings.input_topic
    partition = busiest(clean)
    mine = [one for one in read_all(kafka, topic) if one.partition() == partition]
    offsets = [one.offset() or 0 for one in mine if one.key() == mine[0].key()][:6]
    places = [(partition, offset) for offset in offsets]
    batch, home = batch_of(kafka, topic, places), partition_of(mine[0].key(), 4)  # type: ignore[arg-type]

    heads = Heads(dict.fromkeys(range(4), 0), inputs=4, cleanup=Cleanup(compacts=False, expires=True))
    outputs, rows = np.full(1, home), np.arange(6)
    heads.note(outputs, np.full(1, partition), np.array([offsets[0]]))
    assert heads.whole
    assert not heads.may_lack(batch, rows).any()

    heads.restart(home)
    assert not heads.whole
    assert heads.may_lack(batch, rows).all()
    heads.note(outputs, np.full(1, partition), np.array([offsets[3]]))
    assert heads.may_lack(batch, rows).tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    "cleanup", [None, Cleanup(compacts=True, expires=False), Cleanup(compacts=True, expires=True)]
)
def test_outputs_that_may_be_compacted_prove_nothing(clean: Written, cleanup: Cleanup | None) -> None:
    kafka, topic = clean.settings.bootstrap_servers, clean.settings.input_topic
    batch = batch_of(kafka, topic, [(0, 0), (0, 1)])
    heads = Heads(dict.fromkeys(range(4), 0), inputs=4, cleanup=cleanup)
    assert not heads.whole
    assert heads.may_lack(batch, np.arange(2)).all()


def test_a_message_without_a_key_may_have_had_its_output_anywhere(make_settings: MakeSettings) -> None:
    settings = make_settings(partitions=1)
    kafka, topic = settings.bootstrap_servers, settings.input_topic
    produce(kafka, topic, [(None, b"{}")] * 4)
    batch = batch_of(kafka, topic, [(0, offset) for offset in range(4)])
    heads = Heads({0: 0, 1: 7, 2: 7}, inputs=1, cleanup=Cleanup(compacts=False, expires=True))
    heads.note(np.array([0, 1, 2]), np.zeros(3, dtype=np.int64), np.array([0, 2, 1]))
    assert heads.may_lack(batch, np.arange(4)).tolist() == [True, True, False, False]


def test_partitions_match_kafkas_own_hashes() -> None:
    """Values from Kafka's UtilsTest.testMurmur2."""
    hashes = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    assert {key: murmur2(key) for key in hashes} == {key: code & 0xFFFFFFFF for key, code in hashes.items()}


# --- waiting messages


def test_waiting_messages_are_counted_without_markers(
    run: Callable[[], Written], transactional: Producer
) -> None:
    made = run()
    topic, records = made.settings.input_topic, [Record(2, b"p", b"{}")] * 5
    for end in (transactional.commit_transaction, transactional.abort_transaction):
        transactional.begin_transaction()
        publish(transactional, topic, records)
        end(30)
    found = judged(made.settings)
    assert found.clean, found.offenders
    assert found.waiting == Waiting(5, exact=True)

    # Nobody can read past the last stable offset, so nothing waits there.
    transactional.begin_transaction()
    publish(transactional, topic, records)
    assert judged(made.settings).waiting == Waiting(5, exact=True)
    transactional.commit_transaction(30)
    assert judged(made.settings).waiting == Waiting(10, exact=True)


def test_a_long_backlog_is_not_read(run: Callable[[], Written], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.passes.COUNTED", 5)
    made = run()
    produce(made.settings.bootstrap_servers, made.settings.input_topic, messages(6))
    assert judged(made.settings).waiting == Waiting(6, exact=False)


def test_everything_in_partitions_never_committed_counts_as_waiting(clean: Written) -> None:
    partition = busiest(clean)
    waiting = clean.committed.pop(partition)
    assert judged(clean.copied()).waiting == Waiting(waiting, exact=True)

"""The audit of topics with open, aborted and current transactions, and of topics cut by retention."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from audit.findings import Invariant
from audit.reading import Progress
from audit.run import audit
from broker.settings import Settings
from consumer.observer import Observer
from consumer.run import run_worker
from schemas.dead_letters import replay_mark
from tests.audit.conftest import ROWS, messages, work
from tests.audit.test_audit import busiest, failed, judged, offenders, places
from tests.audit.topics import Record, Written, publish, written
from tests.conftest import MakeSettings
from tests.kafka import committed_offsets, partitions, produce, wait_until

pytestmark = pytest.mark.kafka

I = Invariant  # noqa: E741


def test_a_hanging_transaction_is_found(clean: Written, transactional: Producer) -> None:
    settings = clean.copied()
    transactional.begin_transaction()
    (offset,) = publish(transactional, settings.output_topic, [clean.results[0]])
    found = judged(settings, patience=1.0)
    partition = clean.results[0].partition
    assert places(found, I.SETTLED) == [(settings.output_topic, partition, offset)]
    assert failed(found) == {I.SETTLED}
    transactional.abort_transaction(30)
    assert judged(settings).clean


def test_a_hanging_transaction_hides_what_comes_after_it(clean: Written, transactional: Producer) -> None:
    hidden = clean.results.pop()
    settings = clean.copied()
    transactional.begin_transaction()
    (offset,) = publish(transactional, settings.output_topic, [hidden])
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    publish(producer, settings.output_topic, [hidden])
    found = judged(settings, patience=1.0)
    assert places(found, I.SETTLED) == [(settings.output_topic, hidden.partition, offset)]
    assert places(found, I.COMPLETE) == [(settings.input_topic, *hidden.place)]
    transactional.commit_transaction(30)


def test_offsets_held_by_an_open_transaction_are_found(clean: Written, transactional: Producer) -> None:
    settings = clean.copied()
    member = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.group})
    partition = busiest(clean)
    transactional.begin_transaction()
    transactional.send_offsets_to_transaction(
        [TopicPartition(settings.input_topic, partition, 1)], member.consumer_group_metadata(), 30
    )
    found = judged(settings, patience=1.0)
    assert "holds the offsets" in offenders(found, I.SETTLED)[0].problem
    transactional.abort_transaction(30)
    member.close()
    assert judged(settings).clean


def test_aborted_records_are_counted_and_do_no_harm(clean: Written, transactional: Producer) -> None:
    settings = clean.copied()
    transactional.begin_transaction()
    publish(transactional, settings.output_topic, clean.results[:5])
    publish(transactional, settings.dead_letter_topic, clean.dead_letters[:2])
    transactional.abort_transaction(30)
    found = judged(settings)
    assert found.clean
    assert found.aborted == {
        settings.output_topic: 5,
        settings.dead_letter_topic: 2,
        settings.metrics_topic: 0,
    }


def test_marks_of_replayed_dead_letters_are_no_dead_letters(clean: Written) -> None:
    clean.dead_letters.append(Record(0, None, None, [*replay_mark(0)]))
    settings = clean.copied()
    found = judged(settings)
    assert found.clean, found.offenders
    assert found.records[settings.dead_letter_topic] == len(clean.dead_letters) - 1


def test_gaps_in_the_input_do_not_count_as_messages(
    make_settings: MakeSettings, tree: Path, transactional: Producer
) -> None:
    settings = make_settings(partitions=1, model=tree)
    rows = [Record(0, key.encode(), value) for key, value in messages(30)]
    for part, end in (
        (rows[:10], transactional.commit_transaction),
        (rows[10:20], transactional.abort_transaction),
        (rows[20:], transactional.commit_transaction),
    ):
        transactional.begin_transaction()
        publish(transactional, settings.input_topic, part)
        end(30)
    work(settings)
    found = judged(settings)
    assert found.clean, found.offenders
    assert found.messages == 20

    run = written(settings)
    run.results[3] = run.results[3].saying(source_offset=13)  # an aborted message
    invented = judged(run.copied())
    assert places(invented, I.GENUINE) == [(settings.input_topic, 0, 13)]


def test_a_running_worker_raises_no_alarm(make_settings: MakeSettings, tree: Path) -> None:
    settings = make_settings(model=tree, chunk_size=16)
    seen: list[int] = []
    with producing(settings), working(settings):
        wait_until(lambda: committed(settings), what="the worker's first commit")
        while len(seen) < 4 or seen[-1] < 2000:
            found = audit(settings)
            assert found.clean, found.offenders
            seen.append(found.messages)
    assert seen == sorted({*seen})
    found = judged(settings)
    assert found.clean, found.offenders
    assert found.messages == sum(committed(settings).values())


def test_the_audit_waits_for_a_killed_workers_transaction_to_time_out(clean: Written, kafka: str) -> None:
    settings = clean.copied()
    dead = Producer(
        {
            "bootstrap.servers": kafka,
            "transactional.id": f"audit-{uuid.uuid4()}",
            "transaction.timeout.ms": 1500,
            "message.timeout.ms": 1000,
        }
    )
    dead.init_transactions(30)
    dead.begin_transaction()
    publish(dead, settings.output_topic, clean.results[:1])
    found = judged(settings, patience=30.0)
    assert found.clean
    assert found.aborted[settings.output_topic] == 1


def test_after_retention_the_rest_is_judged(make_settings: MakeSettings, tree: Path) -> None:
    """What was deleted is not judged, but what is left is."""
    settings = make_settings(model=tree)
    began = int(time.time() * 1000) - 3_600_000
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    rows = [
        Record(number % 4, key.encode(), value, time=began + 1000 * number)
        for number, (key, value) in enumerate(messages(ROWS))
    ]
    publish(producer, settings.input_topic, rows)
    work(settings)
    run = written(settings)
    # As if the worker had always been half a second behind.
    run.results = _in_time([replace(one, time=_time(began, *one.place)) for one in run.results])
    run.metrics = _in_time(
        [replace(one, time=max(_time(began, *last) for last in _ends(one))) for one in run.metrics]
    )
    run.dead_letters = _in_time(
        [replace(one, time=_time(began, *one.letter_place)) for one in run.dead_letters]
    )
    lost = run.results[-1].place
    runs = {"whole": run, "lossy": replace(run, results=run.results[:-1])}
    copies = {name: one.copied() for name, one in runs.items()}
    for copy in copies.values():
        for topic in copy.output_topics:
            set_retention(copy, topic, since=began + 1000 * ROWS // 2)

    whole = judged(copies["whole"])
    assert whole.verdict == "incomplete", whole.offenders
    assert ROWS * 0.45 < whole.messages < ROWS * 0.55
    assert len(whole.notes) == 3
    lossy = judged(copies["lossy"])
    assert places(lossy, I.COMPLETE) == [(settings.input_topic, *lost)]

    set_retention(settings, settings.input_topic, since=began + 1000 * ROWS // 5)
    found = judged(settings)
    assert found.verdict == "incomplete", found.offenders
    assert found.messages == ROWS * 0.8
    assert found.notes == [
        f"{settings.input_topic}: the oldest records of partitions 0, 1, 2, 3 were deleted by retention or by hand"
    ]
    assert judged(copies["whole"]).verdict == "incomplete"


def _in_time(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda one: one.time)


def _ends(chunk: Record) -> list[tuple[int, int]]:
    spans = chunk.json["offsets"].items()
    return [(int(name.rpartition("-")[2]), last) for name, (_, last) in spans]


def _time(began: int, partition: int, offset: int) -> int:
    return began + 1000 * (4 * offset + partition) + 500


def test_retention_during_the_audit_makes_it_incomplete(clean: Written, make_settings: MakeSettings) -> None:
    settings = make_settings(model=clean.settings.model)
    produce(settings.bootstrap_servers, settings.input_topic, messages(ROWS))
    work(settings)
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    deleted: dict[int, int] = {}

    def on_progress(now: Progress) -> None:
        if now.stage == settings.dead_letter_topic and not deleted:
            deleted.update({partition: offset // 3 for partition, offset in committed(settings).items()})
            cuts = [TopicPartition(settings.input_topic, p, offset) for p, offset in deleted.items()]
            for future in admin.delete_records(cuts).values():
                future.result()

    found = judged(settings, on_progress=on_progress)
    assert found.verdict == "incomplete", found.offenders
    assert found.messages == ROWS - sum(deleted.values()) < ROWS


def committed(settings: Settings) -> dict[int, int]:
    return committed_offsets(settings.bootstrap_servers, settings.group, settings.input_topic)


def set_retention(settings: Settings, topic: str, *, since: int) -> None:
    """Let retention keep what was written since `since`, and delete at once what it would delete eventually."""
    client = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": "unused"})
    asked = [TopicPartition(topic, p, since) for p in partitions(settings.bootstrap_servers, topic)]
    cuts = client.offsets_for_times(asked, timeout=10)
    client.close()
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    age = ConfigEntry(
        "retention.ms", str(int(time.time() * 1000) - since), incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[age])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()
    for deleted in admin.delete_records(cuts).values():
        deleted.result()


@contextmanager
def working(settings: Settings) -> Iterator[None]:
    """Run a worker in a thread."""
    stop = threading.Event()
    with _thread(lambda: run_worker(settings, observer=Observer(), should_stop=stop.is_set), stop):
        yield


@contextmanager
def producing(settings: Settings) -> Iterator[None]:
    """Produce in a thread, a hundred messages at a time."""
    stop = threading.Event()

    def run() -> None:
        for number in count(0, 100):
            produce(settings.bootstrap_servers, settings.input_topic, messages(100, first=number))
            if stop.is_set():
                return

    with _thread(run, stop):
        yield


@contextmanager
def _thread(run: Callable[[], Any], stop: threading.Event) -> Iterator[None]:
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not failures

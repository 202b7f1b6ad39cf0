"""A registry that fails a real worker: the worker waits, stays in its group, says so, and loses nothing."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer

from audit.run import audit
from broker.local import free_port
from consumer.clients import consumer_config
from tests.consumer.accounts import read_accounts
from tests.consumer.stage import Stage
from tests.consumer.test_operations import Endpoints
from tests.kafka import wait_until
from tests.registry import Answers, answering
from tests.schemas.avro import record, written

pytestmark = pytest.mark.kafka

SCHEMA = record(("patient_id", "string"), ("event_time", "string"), ("signal", "double"), ("spo2", "double"))
ROWS = 100


def registered(path: str) -> tuple[int, bytes]:
    """A registry that returns our schema for any id."""
    if path.endswith("/versions") or "/versions?" in path:
        return 200, b"[1]"
    found = {"id": 7, "version": 1, "subject": "any", "schemaType": "AVRO", "schema": json.dumps(SCHEMA)}
    return 200, json.dumps(found).encode()


def rows(schema_id: int, count: int = ROWS) -> list[tuple[str, bytes]]:
    value = {"patient_id": "p1", "event_time": "2026-01-05T08:30:00Z", "signal": 84.0, "spo2": 97.0}
    return [("p1", b"\x00" + schema_id.to_bytes(4, "big") + written(SCHEMA, value))] * count


def test_a_worker_waits_for_the_registry_and_continues_by_itself(stage: Stage) -> None:
    answers = Answers(registered)
    with answering(answers) as url:
        settings = stage.settings(
            model="fragile",
            partitions=1,
            value_format="avro",
            schema_registry=url,
            chunk_size=50,
            http=f"127.0.0.1:{free_port()}",
            until_idle=3,
            # Shorter than the outage: a worker that stopped polling would be excluded from its group.
            properties={"session.timeout.ms": "6000", "max.poll.interval.ms": "6000"},
        )
        stage.send(settings, rows(7))
        worker = stage.worker(settings)
        stage.wait_committed(settings, ROWS)
        http = Endpoints(settings)
        for said, words in (((500, b"{}"), "answers 500"), (None, "does not answer within 3 s")):
            answers.answer = always(said)
            if words == "answers 500":
                stage.send(settings, [*rows(7), *rows(8), *rows(7)])
            wait_until(lambda: words in http.ask("/readyz")[1], timeout=60, what=words)  # noqa: B023
        asked = len(answers.asked)
        wait_until(lambda: len(answers.asked) > asked, timeout=60, what="one more request")
        assert http.ask("/livez")[0] == 200
        # Chunks with known schemas before the unknown one are not held up.
        stage.wait_committed(settings, 2 * ROWS)
        answers.over.set()
        answers.answer = registered
        stage.wait_committed(settings, 4 * ROWS)
        assert http.metrics()["vitalstream_registry_waits_total",] >= 3
        http.until("/readyz", 200)
        assert worker.wait(timeout=60) == 0

    assert worker.log.count("assigned partitions") == 1
    assert "lost partitions" not in worker.log
    assert f"the schema registry {url} answers 500 (schema ID 8); messages wait" in worker.log
    assert "HTTP Request" not in worker.log
    assert "continues: the schema registry answers again" in worker.log
    found = read_accounts(settings)
    assert not found.letters
    assert len(found.by_position) == 4 * ROWS
    with answering(Answers(registered)) as again:
        judged = audit(settings.model_copy(update={"schema_registry": again}))
    assert judged.clean, judged.offenders


def test_an_outage_loses_no_pending_messages_when_partitions_are_revoked(stage: Stage) -> None:
    answers = Answers(registered)
    with answering(answers) as url:
        settings = stage.settings(
            model="fragile",
            partitions=2,
            value_format="avro",
            schema_registry=url,
            chunk_size=50,
            max_wait_ms=60_000,
            http=f"127.0.0.1:{free_port()}",
        )
        stage.worker(settings)
        http = Endpoints(settings)
        http.until("/readyz", 200)
        answers.answer = always((500, b"{}"))
        for partition in (0, 1):
            stage.send(settings, ((*row, partition) for row in rows(8, 10)))
        other = Consumer({**consumer_config(settings), "client.id": "other"})
        other.subscribe([settings.input_topic])
        try:
            wait_until(
                lambda: (other.poll(0.1), other.assignment())[1],
                timeout=60,
                what="a partition for the other worker",
            )
            wait_until(lambda: "answers 500" in http.ask("/readyz")[1], timeout=60, what="failed requests")
        finally:
            other.close()
        answers.answer = registered
        stage.send(settings, rows(8, 80))
        stage.wait_committed(settings, ROWS)
        judged = audit(settings)
    assert judged.clean, judged.offenders
    assert judged.accounted == ROWS


def always(said: Any) -> Callable[[str], Any]:
    return lambda _: said

"""Patients' data appear in no log, metric, endpoint or header of ours, whatever goes wrong."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Message, Producer

from broker.local import free_port
from broker.rights import RIGHTS
from broker.settings import Settings
from broker.topics import create_topics
from schemas.contract import Reason
from tests.conftest import fresh_settings
from tests.consumer import models
from tests.consumer.models import ABOVE_ONE, INFINITE, NOT_A_NUMBER, ONE_ROW_LESS, RAISES
from tests.consumer.processes import Process
from tests.kafka import read_all, wait_until
from tests.schemas.messages import OF_OTHER_FORMATS
from tests.security.conftest import Run
from tests.security.secured import SecuredKafka

pytestmark = pytest.mark.kafka

TOKEN = "wren-5e1d"  # in everything a sender sends
MODELS = models.CANARY  # in the text of the model's exceptions, along with the row
NUMBER = 97.4142135  # a vital sign, to be searched for in any notation
TIME = "2026-01-01T00:00:00Z"
TOLD = (TOKEN, MODELS, "97.4142135")


def row(signal: Any, **changes: Any) -> bytes:
    known = {"patient_id": f"{TOKEN}-patient", "event_time": TIME, "signal": signal, "spo2": NUMBER}
    return orjson.dumps(known | {"note": f"{TOKEN}-note", f"{TOKEN}-field": 1} | changes)


def values() -> Iterator[bytes | None]:
    yield row(64)
    yield None
    yield f'{{"patient_id": "{TOKEN}", '.encode()
    yield f"{TOKEN}\xff".encode("latin-1")
    yield orjson.dumps([TOKEN, NUMBER])
    yield orjson.dumps({"event_time": TIME, "signal": 1, "note": TOKEN})
    yield row(64, patient_id=["x", TOKEN])
    yield row(64, event_time=f"{TOKEN} o'clock")
    yield row(f"{TOKEN}-signal")
    yield row(64, spo2={TOKEN: NUMBER})
    yield row(64, note=TOKEN * 90_000)
    for signal in (RAISES, ABOVE_ONE, INFINITE, NOT_A_NUMBER):
        yield row(signal)


def send(settings: Settings, sent: list[bytes | None]) -> None:
    headers: Any = [(f"{TOKEN}-header", f"{TOKEN}-header-value".encode()), ("traceparent", TOKEN.encode())]
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers, "message.max.bytes": 10_000_000})
    for value in sent:
        producer.produce(settings.input_topic, value, key=f"{TOKEN}-key", headers=headers)
    assert producer.flush(30) == 0
    assert len(read_all(settings.bootstrap_servers, settings.input_topic)) == len(sent)


@pytest.fixture
def settings(kafka: str, model: Path) -> Settings:
    """The administrator's settings, on topics that accept large messages."""
    made = fresh_settings(kafka, model=model, http=f"127.0.0.1:{free_port()}")
    create_topics(made, partitions=1, replication_factor=1)
    return made


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_patients_data_show_up_nowhere(
    log_format: str, secured: SecuredKafka, settings: Settings, run: Run
) -> None:
    settings = settings.model_copy(update={"log_format": log_format})
    send(settings, [*values()])
    user = secured.user(settings, RIGHTS["consume"])
    worker = run(user, "consume", "--json")
    wait_until(lambda: accounted(settings, worker), timeout=60, what="a result or dead letter for each")
    letters = read_all(settings.bootstrap_servers, settings.dead_letter_topic)
    served = {path: ask(settings, path) for path in ("/metrics", "/livez", "/readyz")}
    worker.stop()
    told = {"stderr": worker.log, "stdout": worker.out, **served}
    told["metrics topic"] = "".join(
        f"{one.key()!r} {one.value()!r} {one.headers()!r}"
        for one in read_all(settings.bootstrap_servers, settings.metrics_topic)
    )
    told["dead letters' headers"] = repr([ours(letter) for letter in letters])
    for where, text in told.items():
        assert text, f"nothing to search in {where}"
        found = [secret for secret in (*TOLD, user.kafka["sasl.password"]) if secret in text]
        assert not found, f"{found} in {where}:\n{text}"
    # What was planted did arrive where it belongs.
    assert TOKEN in repr([(letter.key(), letter.value(), letter.headers()) for letter in letters])
    result = read_all(settings.bootstrap_servers, settings.output_topic)[0]
    assert TOKEN in repr(result.value())
    reasons = {value for letter in letters for name, value in ours(letter) if name == "dlq.reason"}
    assert reasons == {reason.value.encode() for reason in {*Reason} - OF_OTHER_FORMATS}


@pytest.mark.parametrize(
    ("signals", "told"),
    [
        ([ONE_ROW_LESS], "predict_proba must return shape"),
        ([RAISES] * 20, "the model raised ValueError on all"),
    ],
)
def test_a_patients_data_are_not_in_a_workers_last_words(
    signals: list[float], told: str, secured: SecuredKafka, settings: Settings, run: Run
) -> None:
    send(settings, [row(signal) for signal in signals])
    worker = run(secured.user(settings, RIGHTS["consume"]), "consume", "--json")
    assert worker.wait(timeout=60) == 1
    assert told in worker.log
    assert not any(secret in worker.log + worker.out for secret in TOLD)


def test_the_models_exceptions_contain_the_canary() -> None:
    """Otherwise the test above would search for something that was never there."""
    import pandas as pd

    frame = pd.DataFrame({"signal": [RAISES], "spo2": [NUMBER]})
    with pytest.raises(ValueError, match=f"{MODELS}.*97.4142135"):
        models.Fragile().predict_proba(frame)


def accounted(settings: Settings, worker: Process) -> bool:
    assert worker.code is None, worker.log
    outputs = (settings.output_topic, settings.dead_letter_topic)
    return sum(len(read_all(settings.bootstrap_servers, topic)) for topic in outputs) == len([*values()])


def ours(letter: Message) -> list[Any]:
    headers: Any = letter.headers()
    return [(name, value) for name, value in headers if name.startswith("dlq.")]


def ask(settings: Settings, path: str) -> str:
    with urllib.request.urlopen(f"http://{settings.http}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
    return text

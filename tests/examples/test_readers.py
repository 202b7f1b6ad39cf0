"""The readers in examples/, as separate processes on a real Kafka."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from schemas import load_schema
from tests.conftest import MakeSettings

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def python() -> list[str]:
    return [sys.executable, str(EXAMPLES / "python" / "reader.py")]


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The reader, with its locked packages installed next to a copy of it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("the JavaScript example can't be run: install Node.js 18 or newer and npm")
    folder = tmp_path_factory.mktemp("javascript")
    for name in ("package.json", "package-lock.json", ".npmrc", "reader.mjs"):
        shutil.copy(EXAMPLES / "javascript" / name, folder)
    install = [npm, "ci", "--no-audit", "--no-fund", "--prefer-offline"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip("the JavaScript example can't be run: npm can't install its packages")
    return [node, str(folder / "reader.mjs")]


@pytest.fixture(params=["python", "javascript"])
def reader(request: pytest.FixtureRequest) -> list[str]:
    found: list[str] = request.getfixturevalue(request.param)
    return found


def result(patient: str, event_time: str, risk: float | None) -> bytes:
    """A valid result, as a worker writes it."""
    scored: dict[str, Any] = load_schema("risk")["examples"][0]
    label = None if risk is None else int(risk >= scored["threshold"])
    changes = {"patient_id": patient, "event_time": event_time, "risk_probability": risk, "risk_label": label}
    return json.dumps(scored | changes).encode()


def publish(kafka: str, topic: str, *values: bytes, commit: bool = True) -> None:
    """Write results in one transaction, each to its patient's partition."""
    producer = Producer(
        {"bootstrap.servers": kafka, "transactional.id": topic, "linger.ms": 0, "log_level": 0}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, key=json.loads(value)["patient_id"], value=value)
    producer.flush(30)
    (producer.commit_transaction if commit else producer.abort_transaction)(30)


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def lines(process: subprocess.Popen[bytes], count: int) -> set[bytes]:
    """The next lines; fewer at the end of the output."""
    assert process.stdout is not None
    return {process.stdout.readline().rstrip() for _ in range(count)}


def test_a_reader_knows_each_patients_latest_result_even_after_a_restart(
    reader: list[str], kafka: str, make_settings: MakeSettings
) -> None:
    topic = make_settings(partitions=3).output_topic
    command = [*reader, "--bootstrap-servers", kafka, "--topic", topic]
    newest = {
        "p-1": result("p-1", "2026-01-05T08:30:00+01:00", 0.7),
        "p-2": result("p-2", "2026-01-05T07:31:00Z", None),
        "p-3": result("p-3", "2026-01-05T07:32:00.25Z", 0.2),
    }
    publish(kafka, topic, result("p-1", "2026-01-05T07:29:00Z", 0.1), *newest.values())
    publish(kafka, topic, result("p-1", "2026-01-05T09:00:00Z", 0.99), commit=False)
    # from a dead letter that was replayed late
    publish(kafka, topic, result("p-3", "2026-01-04T07:00:00Z", 0.9))

    with running(command) as process:
        assert lines(process, 3) == {*newest.values()}
        publish(kafka, topic, result("p-1", "2026-01-05T06:00:00Z", 0.3))
        newest["p-2"] = result("p-2", "2026-01-05T07:40:00Z", 0.4)
        publish(kafka, topic, newest["p-2"])
        assert lines(process, 1) == {newest["p-2"]}

    with running([*command, "--once"]) as process:
        assert lines(process, 4) == {*newest.values(), b""}
        assert process.wait(30) == 0


def test_an_empty_topic_has_no_latest_results(
    reader: list[str], kafka: str, make_settings: MakeSettings
) -> None:
    command = [*reader, "--bootstrap-servers", kafka, "--topic", make_settings().output_topic, "--once"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr

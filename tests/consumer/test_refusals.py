"""What is refused at the start: one plain sentence that says what to do, the right exit code, no traceback."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest

from broker.settings import Settings
from real_time.model_file import pin_model
from tests.consumer.conftest import save
from tests.consumer.models import Featureless, Fragile, Regressor, ThreeClasses, Words
from tests.consumer.processes import Process
from tests.consumer.stage import Stage

pytestmark = pytest.mark.kafka


def refusal(process: Process, code: int) -> str:
    """The one sentence on stderr of a process that exits with `code`."""
    assert process.wait(timeout=60) == code, process.log
    assert process.out == ""
    (line,) = process.log.splitlines()
    assert line.startswith("vitalstream: ")
    return line.removeprefix("vitalstream: ")


@pytest.fixture
def silent_server() -> Iterator[str]:
    """An address where something listens and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def changed(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update=changes)


def test_missing_topics_are_refused(stage: Stage) -> None:
    settings = changed(stage.settings(), output_topic="risk-not-made", dead_letter_topic="letters-not-made")
    assert refusal(stage.worker(settings), 1) == (
        "topics risk-not-made (--output-topic), letters-not-made (--dead-letter-topic) are missing (or hidden from "
        f"this user) at {settings.bootstrap_servers}; check the names, or run: vitalstream topics create "
        f"--bootstrap-servers {settings.bootstrap_servers} --input-topic {settings.input_topic} "
        f"--output-topic risk-not-made --metrics-topic {settings.metrics_topic} --dead-letter-topic letters-not-made"
    )


def test_an_unreachable_broker_is_refused(stage: Stage, silent_server: str) -> None:
    settings = changed(stage.settings(), bootstrap_servers=silent_server)
    line = refusal(stage.worker(settings), 1)
    # The client also gives up a silent connection after 10 s. If it does so first, the sentence mentions that
    # too.
    assert line.startswith(f"can't reach Kafka at {silent_server} within 10 s")
    assert "security.protocol (-X) if it requires TLS or a password" in line
    assert "--bootstrap-servers" in line


def test_a_missing_model_setting_is_refused(stage: Stage) -> None:
    line = refusal(stage.worker(changed(stage.settings(), model=None)), 2)
    assert line.startswith("--model is missing: name the file of a fitted classifier")


def unpinned(path: Path) -> None:
    joblib.dump(Fragile(), path)


def absent(path: Path) -> None:
    pass


def exchanged(path: Path) -> None:
    save(Fragile(), path)
    joblib.dump(Fragile(("other",)), path)


def featureless(path: Path) -> None:
    save(Featureless(), path)


def no_classifier(path: Path) -> None:
    save(Regressor(), path)


def three_classes(path: Path) -> None:
    save(ThreeClasses(), path)


def two_words(path: Path) -> None:
    save(Words(), path)


def no_pickle(path: Path) -> None:
    path.write_bytes(b"canary")
    pin_model(path)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (absent, r"cannot read model file \S+m\.joblib: No such file or directory; check the path"),
        (unpinned, r"is not pinned: if you trust it, run `?vitalstream model pin \S+m\.joblib`?"),
        (
            exchanged,
            r"has the SHA-256 [0-9a-f]{64}, not the pinned [0-9a-f]{64}: it is not the file that was",
        ),
        (featureless, r"does not name its features: give their names in order with --features"),
        (no_classifier, r"Regressor has no predict_proba: use a classifier"),
        (three_classes, r"ThreeClasses has 3 classes, but risk is yes or no"),
        (two_words, r"classes are survived and died, .* --positive-class survived or --positive-class died"),
        (no_pickle, r"cannot be loaded \(\w+\): save it with joblib\.dump"),
    ],
)
def test_an_unusable_model_is_refused(stage: Stage, make: Any, told: str) -> None:
    path = stage.folder / "m.joblib"
    make(path)
    line = refusal(stage.worker(changed(stage.settings(), model=path)), 2)
    assert re.search(told, line), line
    assert line.startswith("--model")
    assert "canary" not in line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--chunk-size", "0"], "--chunk-size (VITALSTREAM_CHUNK_SIZE): must be a whole number from 1"),
        (["--min-features", "0"], "--min-features (VITALSTREAM_MIN_FEATURES): must be a whole number from 1"),
        (["--threshold", "1.5"], "--threshold (VITALSTREAM_THRESHOLD): must be a number from 0 up to 1"),
        (["--threshold", "x"], "--threshold (VITALSTREAM_THRESHOLD): must be a number from 0 up to 1"),
        (["--delivery", "maybe"], "--delivery (VITALSTREAM_DELIVERY): must be exactly-once or at-least-once"),
        (
            ["--bootstrap-servers", "localhost:abc"],
            "--bootstrap-servers (VITALSTREAM_BOOTSTRAP_SERVERS): must be",
        ),
        (["--workers", "2", "--instance", "a"], "--instance a: an instance is one worker"),
        (["--output-topic", "x", "--metrics-topic", "x"], "--output-topic and --metrics-topic are both x"),
        (["--no-such"], "no such option: --no-such"),
        (
            ["-X", "isolation.level=read_uncommitted"],
            "-X (VITALSTREAM_KAFKA): isolation.level is set by vitalstream",
        ),
        (
            ["-X", "no.such.property=1"],
            "librdkafka refuses the -X properties: No such configuration property",
        ),
        (["--config", "no-such.toml"], "--config no-such.toml: no such file or directory; check the path"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(stage: Stage, arguments: list[str], told: str) -> None:
    line = refusal(stage.worker(stage.settings(), *arguments), 2)
    assert line.startswith(told), line


def test_a_range_for_a_feature_the_model_lacks_is_refused(stage: Stage) -> None:
    path = stage.folder / "ranges.toml"
    path.write_text("hart_rate = [0, 350]")
    settings = changed(stage.settings(model="fragile"), ranges=str(path))
    assert refusal(stage.worker(settings), 2) == (
        f"--ranges {path}: the model has no feature hart_rate; it has signal, spo2"
    )


def test_more_min_features_than_the_model_has_are_refused(stage: Stage) -> None:
    settings = changed(stage.settings(model="fragile"), min_features=3)
    assert refusal(stage.worker(settings), 2) == (
        "--min-features 3: the model has only 2 (signal, spo2), so no message would be scored; give a number from "
        "1 up to 2"
    )


def test_several_workers_print_a_refusal_once(stage: Stage) -> None:
    settings = changed(stage.settings(workers=2), model=stage.folder / "none.joblib")
    assert refusal(stage.worker(settings), 2).startswith("--model")

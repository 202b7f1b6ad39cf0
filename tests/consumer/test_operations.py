"""What an operator sees of a real worker: probes, metrics and log, in good times and bad."""

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.local import LocalKafka, free_port
from broker.settings import Settings
from broker.topics import create_topics
from tests.conftest import MakeSettings, fresh_settings
from tests.consumer.accounts import require_exactly_once
from tests.consumer.conftest import save
from tests.consumer.models import CANARY, RAISES, Fragile
from tests.consumer.sleepy import HOLDS, SLEEPS, Sleepy
from tests.consumer.stage import Stage
from tests.kafka import KAFKA_VERSION, Row, wait_until
from tests.schemas.messages import TIME

pytestmark = pytest.mark.kafka

ROWS = 3_000


class Endpoints:
    """A worker's HTTP endpoints."""

    def __init__(self, settings: Settings) -> None:
        self._address = f"http://{settings.http}"

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 if nobody answers."""
        try:
            with urllib.request.urlopen(self._address + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def until(self, path: str, status: int, *, timeout: float = 60) -> str:
        """Wait for a status; returns the body."""
        wait_until(lambda: self.ask(path)[0] == status, timeout=timeout, what=f"{status} from {path}")
        return self.ask(path)[1]

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Values by name and label values."""
        families = text_string_to_metric_families(self.ask("/metrics")[1])
        samples = (sample for family in families for sample in family.samples)
        return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


@pytest.fixture
def sleepy(tmp_path: Path) -> Path:
    return save(Sleepy(), tmp_path / "sleepy.joblib")


def served(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update={"http": f"127.0.0.1:{free_port()}", **changes})


def signals(*values: float) -> Iterator[Row]:
    for number, value in enumerate(values):
        row = {
            "patient_id": f"p{number % 7}",
            "event_time": TIME,
            "signal": value,
            "spo2": 97,
            "note": CANARY,
        }
        yield f"p{number % 7}", orjson.dumps(row)


def log_lines(log: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in log.splitlines()]


def lags(metrics: Mapping[tuple[str, ...], float]) -> set[float]:
    """The lag of every partition."""
    return {value for name, value in metrics.items() if name[0] == "vitalstream_consumer_lag_messages"}


def test_metrics_add_up_to_what_is_committed_and_contain_no_patient_data(
    stage: Stage, make_settings: MakeSettings, tmp_path: Path
) -> None:
    model = save(Fragile(), tmp_path / "fragile.joblib")
    settings = served(make_settings(model=model), log_format="json")
    worker, http = stage.worker(settings), Endpoints(settings)
    assert "verified" in http.until("/readyz", 503) or "group" in http.ask("/readyz")[1]
    assert http.ask("/livez")[0] == 200
    http.until("/readyz", 200)

    stage.send(settings, signals(*([1, 2, RAISES, 4] * (ROWS // 4))))
    stage.send(settings, [(CANARY, f'{{"patient_id": "{CANARY}"'.encode())] * 5)
    rows_seen: list[float] = []

    def all_counted() -> bool:
        metrics = http.metrics()
        rows = [metrics["vitalstream_rows_total", one] for one in ("scored", "dead_lettered")]
        rows_seen.append(sum(rows))
        return rows_seen[-1] == ROWS + 5

    wait_until(all_counted, what="all rows in the metrics")
    assert rows_seen == sorted(rows_seen)
    metrics = http.metrics()
    assert metrics["vitalstream_rows_total", "scored"] == ROWS * 3 / 4
    assert metrics["vitalstream_dead_letters_total", "model_rejected"] == ROWS / 4
    assert metrics["vitalstream_dead_letters_total", "not_json"] == 5
    assert metrics["vitalstream_end_to_end_seconds_count",] == ROWS * 3 / 4
    assert metrics["vitalstream_assigned_partitions",] == 4
    assert metrics["vitalstream_transactions_total", "committed"] >= 1
    wait_until(lambda: http.metrics()["vitalstream_oldest_unprocessed_seconds",] == 0, what="nothing behind")
    # Statistics come once per second, so an idle worker may not have reported its lag yet.
    wait_until(lambda: lags(http.metrics()) == {0}, what="no lag")
    page = http.ask("/metrics")[1]
    worker.stop()
    require_exactly_once(settings, rows=ROWS + 5)

    lines = log_lines(worker.log)
    assert all(line.keys() >= {"time", "level", "logger", "message", "worker"} for line in lines)
    assert any(line["worker"].startswith(settings.group) for line in lines)
    assert "dead letter at partition" in worker.log
    assert CANARY not in worker.log
    assert CANARY not in page


def test_probes_distinguish_a_hanging_broker_from_a_hanging_model(stage: Stage, sleepy: Path) -> None:
    with LocalKafka(fast_start=True, version=KAFKA_VERSION) as kafka:
        settings = served(fresh_settings(kafka.bootstrap_servers, model=sleepy), stall_after=2.0)
        create_topics(settings, partitions=2, replication_factor=1)
        worker, http = stage.worker(settings), Endpoints(settings)
        http.until("/readyz", 200)
        stage.send(settings, signals(*[1.0] * 20_000))
        assert kafka.pid is not None
        os.kill(kafka.pid, signal.SIGSTOP)
        try:
            alive = set(_asked(http, "/livez", seconds=14))  # longer than any call waits
        finally:
            os.kill(kafka.pid, signal.SIGCONT)
        assert alive == {200}
        assert "stalled" not in worker.log
        stage.wait_committed(settings, 20_000)

        stage.send(settings, signals(SLEEPS))
        assert "the model has not returned" in http.until("/livez", 503)
        worker.logged("stalled: the model")
        assert "hang_on_purpose" in worker.log
        assert "thread MainThread" in worker.log
        assert CANARY not in worker.log
        age = http.metrics()["vitalstream_oldest_unprocessed_seconds",]
        assert 2 < age < 600


def _asked(http: Endpoints, path: str, *, seconds: float) -> Iterable[int]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield http.ask(path)[0]
        time.sleep(0.2)


def test_a_model_that_holds_the_gil_leaves_its_stack_too(
    stage: Stage, make_settings: MakeSettings, sleepy: Path
) -> None:
    settings = served(make_settings(model=sleepy), stall_after=1.0)
    worker = stage.worker(settings).joined()
    stage.send(settings, signals(HOLDS))
    worker.logged(r"(?s)Timeout.*sleepy\.py.*in predict_proba")
    assert CANARY not in worker.log


def test_each_worker_of_a_pool_has_its_own_endpoints_and_log_lines(
    stage: Stage, make_settings: MakeSettings, sleepy: Path
) -> None:
    settings = served(make_settings(model=sleepy, partitions=1), workers=2, log_format="json")
    pool = stage.worker(settings)
    both = [Endpoints(settings.of_worker(number)) for number in (0, 1)]
    for http in both:
        http.until("/readyz", 200)  # even the one without a partition
    stage.send(settings, signals(*[1.0] * 500))
    wait_until(
        lambda: sum(http.metrics()["vitalstream_rows_total", "scored"] for http in both) == 500,
        what="all rows in the metrics of both",
    )
    partitions = [http.metrics()["vitalstream_assigned_partitions",] for http in both]
    assert sorted(partitions) == [0, 1]
    pool.stop()
    names = {line["worker"] for line in log_lines(pool.log)}
    assert len([name for name in names if name.startswith(settings.group)]) == 2


def test_a_port_in_use_ends_the_worker_with_one_line(
    stage: Stage, make_settings: MakeSettings, sleepy: Path
) -> None:
    settings = served(make_settings(model=sleepy), log_format="json")
    stage.worker(settings).logged("assigned partitions")
    second = stage.worker(settings)
    assert second.wait(timeout=60) == 2
    (line,) = log_lines(second.log)
    assert line["message"].startswith(f"--http {settings.http}: address already in use")

"""The single health address of `--workers N`: all alive and ready, or which worker is not and why."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path

import orjson
import pytest

from broker.settings import Settings
from consumer.health import Health
from consumer.pool_health import SILENT_S, PoolHealth, telling
from tests.conftest import MakeSettings
from tests.consumer.conftest import save
from tests.consumer.fakes import Clock
from tests.consumer.sleepy import HOLDS, SLEEPS, Sleepy
from tests.consumer.stage import Stage
from tests.consumer.test_operations import Endpoints, log_lines, signals

STALL_S = 120.0


# --- without processes


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool(clock: Clock) -> PoolHealth:
    return PoolHealth(["worker-0", "worker-1"], stall_after=STALL_S, clock=clock)


def test_a_pool_is_ready_once_every_worker_has_reported_ready(pool: PoolHealth) -> None:
    assert pool.unready() == "worker-0: it is starting; worker-1: it is starting"
    pool.told("worker-0", (None, None))
    assert pool.unready() == "worker-1: it is starting"
    pool.told("worker-1", (None, None))
    assert pool.unready() is None
    assert pool.stalled() is None


def test_each_worker_that_is_not_ready_is_named_with_its_reason(pool: PoolHealth) -> None:
    pool.told("worker-0", (None, None))
    pool.told("worker-1", ("the model has not returned", "messages wait"))
    assert pool.stalled() == "worker-1: the model has not returned"
    assert pool.unready() == "worker-1: messages wait"


def test_a_worker_that_goes_silent_is_first_not_ready_and_then_not_alive(
    pool: PoolHealth, clock: Clock
) -> None:
    pool.told("worker-0", (None, None))
    clock.now += SILENT_S + 1
    pool.told("worker-1", (None, None))
    assert pool.unready() == "worker-0: it has reported nothing for more than 10 s"
    assert pool.stalled() is None
    clock.now += STALL_S
    pool.told("worker-1", (None, None))
    assert pool.stalled() == "worker-0: it has reported nothing for more than 120 s"
    pool.told("worker-0", (None, None))
    assert pool.stalled() is None
    assert pool.unready() is None


def test_a_worker_that_has_ended_is_named_while_the_others_stop(pool: PoolHealth, clock: Clock) -> None:
    for name in ("worker-0", "worker-1"):
        pool.told(name, (None, None))
    pool.ended("worker-1")
    assert pool.unready() == "worker-1: its process has ended"
    pool.stopping()
    clock.now += STALL_S + 1
    assert pool.unready() == "worker-0: it is being stopped; worker-1: its process has ended"
    assert pool.stalled() is None


def test_a_worker_reports_until_it_ends_even_when_nobody_listens_any_more() -> None:
    receiver, sender = Pipe(duplex=False)
    with telling(Health(stall_after=STALL_S), sender):
        assert receiver.recv() == (None, "the model is not verified yet")
        receiver.close()


# --- with real ones


@pytest.fixture
def ports() -> Iterator[int]:
    """The first of three consecutive free ports."""
    while True:
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            try:
                one.bind(("127.0.0.1", 0))
                first = one.getsockname()[1]
                two.bind(("127.0.0.1", first + 1))
                three.bind(("127.0.0.1", first + 2))
            except (OSError, OverflowError):
                continue
        yield first
        return


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path, ports: int) -> Settings:
    """Settings for a pool of two whose model hangs on purpose."""
    model = save(Sleepy(), tmp_path / "sleepy.joblib")
    return make_settings(model=model, partitions=2).model_copy(
        update={"http": f"127.0.0.1:{ports}", "workers": 2, "stall_after": 2.0, "log_format": "json"}
    )


def of_all(settings: Settings) -> Endpoints:
    return Endpoints(settings.of_worker(2))


def reason(body: str) -> str:
    told = orjson.loads(body)
    assert told["status"] == "failing"
    return str(told["reason"])


@pytest.mark.kafka
def test_it_answers_for_all_workers_even_before_they_run(
    stage: Stage, settings: Settings, ports: int
) -> None:
    pool, http = stage.worker(settings), of_all(settings)
    assert reason(http.until("/readyz", 503)).startswith("worker-0: ")
    assert http.ask("/livez")[0] == 200
    http.until("/readyz", 200)
    assert [Endpoints(settings.of_worker(number)).ask("/readyz")[0] for number in (0, 1)] == [200, 200]
    assert http.ask("/metrics")[0] == 404
    told = [line["message"] for line in log_lines(pool.log) if "of all workers" in line["message"]]
    assert told == [f"/livez and /readyz of all workers are on port {ports + 2}"]
    pool.stop()
    assert pool.code == 0


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("row", "why"),
    [
        (SLEEPS, "the model has not returned for more than 2 s"),
        (HOLDS, "it has reported nothing for more than 10 s"),
    ],
    ids=["releases the GIL", "holds the GIL"],
)
def test_a_worker_whose_model_hangs_is_named(stage: Stage, settings: Settings, row: float, why: str) -> None:
    pool, http = stage.worker(settings), of_all(settings)
    http.until("/readyz", 200)
    stage.send(settings, signals(row))  # to one partition, and so to one worker
    assert reason(http.until("/livez", 503)) in (f"worker-0: {why}", f"worker-1: {why}")
    pool.kill()


@pytest.mark.kafka
def test_a_killed_worker_is_named_until_its_process_ends(stage: Stage, settings: Settings) -> None:
    pool, http = stage.worker(settings), of_all(settings)
    http.until("/readyz", 200)
    killed, held = pool.children()
    os.kill(held, signal.SIGSTOP)  # so that it does not exit at once when the pool stops it
    try:
        os.kill(killed, signal.SIGKILL)
        assert re.search(r"worker-[01]: its process has ended", reason(http.until("/readyz", 503)))
        assert http.ask("/livez")[0] == 200
    finally:
        os.kill(held, signal.SIGCONT)
    assert pool.wait(timeout=60) == 1


@pytest.mark.kafka
@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_port_in_use_is_refused_before_any_worker_starts(
    stage: Stage, settings: Settings, ports: int, taken: int
) -> None:
    with socket.create_server(("127.0.0.1", ports + taken)):
        pool = stage.worker(settings)
        assert pool.wait(timeout=60) == 2
    (line,) = log_lines(pool.log)
    assert line["message"] == (
        f"--http 127.0.0.1:{ports + taken}: address already in use; choose another address or port; --workers 2 needs "
        "a port for each worker and one for the health of all"
    )


@pytest.mark.kafka
@pytest.mark.parametrize("first", [65535, 65534])
def test_a_port_above_the_highest_is_refused_before_any_worker_starts(
    stage: Stage, settings: Settings, first: int
) -> None:
    pool = stage.worker(settings.model_copy(update={"http": f"127.0.0.1:{first}"}))
    assert pool.wait(timeout=60) == 2
    (line,) = log_lines(pool.log)
    assert line["message"].startswith("--http 127.0.0.1:65536: the highest port is 65535; --workers 2 needs ")

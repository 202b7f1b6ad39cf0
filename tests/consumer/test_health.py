"""Probes: what counts as alive and as ready, what a stall logs, and the HTTP endpoints."""

import http.client
import logging
import socket
import threading
from collections.abc import Iterator

import orjson
import pytest
from prometheus_client import CollectorRegistry, Counter

from broker.errors import SettingsError
from broker.settings import Settings, load_settings
from consumer.endpoints import serving
from consumer.errors import Action
from consumer.health import KAFKA_S, LAGS_S, RECENT_S, Health
from consumer.observer import Step
from consumer.stalls import stacks, watching
from tests.consumer.fakes import Clock
from tests.kafka import wait_until

STALL_S = 120.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    """The health of a worker that has joined its group."""
    health = Health(stall_after=STALL_S, clock=clock)
    health.started(worker="w", model="f00d", features=["spo2"], path="compiled trees", decision="")
    health.assigned([0])
    return health


def turn(health: Health, clock: Clock, seconds: float, *, lag: int | None = 0) -> None:
    """The loop runs for `seconds`; statistics report `lag`, or don't arrive if it is None."""
    ask = health.beating(lambda: False)
    for _ in range(int(seconds)):
        clock.now += 1
        ask()
        if lag is not None:
            health.behind({0: lag})


def test_a_worker_that_restores_state_is_alive_but_not_ready(health: Health, clock: Clock) -> None:
    health.behind({0: 90})
    for _ in range(int(STALL_S) * 2):
        clock.now += 1
        health.restoring([0, 2], patients=7)
        health.behind({0: 90})
        assert health.stalled() is None
    assert health.unready() == "restoring the state of partitions 0, 2"
    health.restored(0, patients=5, size=9, seconds=1.0)
    assert health.unready() == "restoring the state of partitions 2"
    health.revoked([2], lost=False)
    assert "restoring" not in str(health.unready())


def collect(health: Health) -> None:
    health.collected(oldest=None, waited=0.0)
    health.reached(Step.COLLECTED)


def commit(health: Health) -> None:
    for step in (Step.SCORED, Step.PRODUCED, Step.FLUSHED, Step.OFFSETS_SENT, Step.COMMITTED):
        health.reached(step)
    health.committed(chunks=1, rows=1, seconds=0.01)


# --- alive


def test_an_idle_worker_is_alive(health: Health, clock: Clock) -> None:
    turn(health, clock, 10 * STALL_S)
    assert health.stalled() is None


def test_a_model_that_does_not_return_is_a_stall_until_it_does(health: Health, clock: Clock) -> None:
    collect(health)
    clock.now += STALL_S
    assert health.stalled() is None
    clock.now += 1
    assert "model" in str(health.stalled())
    health.reached(Step.SCORED)
    assert health.stalled() is None


def test_a_short_stall_limit_applies_only_to_the_model(clock: Clock) -> None:
    health = Health(stall_after=1, clock=clock)
    health.started(worker="w", model="f00d", features=["spo2"], path="compiled trees", decision="")
    collect(health)
    health.reached(Step.SCORED)
    clock.now += KAFKA_S
    assert health.stalled() is None, "a commit may take long in an outage"
    clock.now += 1
    assert "loop" in str(health.stalled())


def test_a_loop_that_does_not_run_is_a_stall(health: Health, clock: Clock) -> None:
    clock.now += STALL_S + 1
    assert "loop" in str(health.stalled())
    health.beating(lambda: False)()
    assert health.stalled() is None


def test_waiting_messages_without_a_commit_are_a_stall_until_one_is_committed(
    health: Health, clock: Clock
) -> None:
    turn(health, clock, STALL_S, lag=2)
    assert health.stalled() is None
    turn(health, clock, 2, lag=2)
    assert "messages wait" in str(health.stalled())
    collect(health)
    commit(health)
    assert health.stalled() is None


def test_a_shrinking_backlog_is_no_stall(health: Health, clock: Clock) -> None:
    for _ in range(int(STALL_S)):
        turn(health, clock, 3, lag=1000)
        collect(health)
        commit(health)
        assert health.stalled() is None
        assert health.unready() is None


def test_a_lag_of_one_is_no_stall(health: Health, clock: Clock) -> None:
    turn(health, clock, 2 * STALL_S, lag=1)
    assert health.stalled() is None
    assert health.unready() is None


def test_a_worker_waiting_for_the_registry_is_alive_and_says_why_it_is_not_ready(
    health: Health, clock: Clock
) -> None:
    for _ in range(int(STALL_S)):
        turn(health, clock, 10, lag=1000)
        collect(health)
        turn(health, clock, 5, lag=None)
        health.waiting("the schema registry answers 500")
        assert health.stalled() is None
        assert health.unready() == "the schema registry answers 500"
    collect(health)
    commit(health)
    assert health.unready() is None
    health.waiting("the schema registry answers 500")
    health.revoked([0], lost=False)
    assert health.unready() is None, "the partition belongs to another worker now"


@pytest.mark.parametrize("noticed", ["by the clients", "by failing calls", "by silence"])
def test_an_outage_is_no_stall_however_long_it_lasts(health: Health, clock: Clock, noticed: str) -> None:
    turn(health, clock, 5, lag=1000)
    collect(health)
    health.reached(Step.SCORED)
    for _ in range(int(STALL_S)):
        turn(health, clock, 9, lag=None)
        if noticed == "by the clients":
            health.kafka_error("_ALL_BROKERS_DOWN")
        elif noticed == "by failing calls":
            health.failed("starting transactions", "_TIMED_OUT", Action.RETRY)
        assert health.stalled() is None
    assert "messages wait" in str(health.unready())
    turn(health, clock, LAGS_S, lag=1000)
    assert health.stalled() is None, "the brokers are back, and there was no time to commit yet"
    collect(health)
    commit(health)
    assert health.unready() is None


def test_a_slow_start_is_no_stall(clock: Clock) -> None:
    health = Health(stall_after=STALL_S, clock=clock)
    clock.now += 10 * STALL_S
    assert health.stalled() is None
    health.started(worker="w", model="f00d", features=["spo2"], path="compiled trees", decision="")
    assert health.stalled() is None


# --- ready


def test_a_worker_is_ready_from_joining_its_group_until_it_is_excluded_or_stops(clock: Clock) -> None:
    health = Health(stall_after=STALL_S, clock=clock)
    assert "model" in str(health.unready())
    health.started(worker="w", model="f00d", features=["spo2"], path="compiled trees", decision="")
    assert "group" in str(health.unready())
    health.assigned([])
    assert health.unready() is None, "more workers than partitions"
    health.revoked([], lost=False)
    assert health.unready() is None, "a rebalance"
    health.revoked([0], lost=True)
    assert "group" in str(health.unready())
    health.assigned([0])
    assert health.unready() is None
    health.stopped()
    assert "stopped" in str(health.unready())
    assert health.stalled() is None


def test_a_worker_with_an_uncommitted_chunk_is_not_ready(health: Health, clock: Clock) -> None:
    collect(health)
    clock.now += RECENT_S + 1
    assert "messages wait" in str(health.unready())
    health.failed("committing", "_TIMED_OUT", Action.REBUILD)
    assert "messages wait" in str(health.unready())
    health.behind({0: 0})  # the commit succeeded after all
    assert health.unready() is None


# --- the detector


def test_a_stall_is_logged_once_with_stacks(
    caplog: pytest.LogCaptureFixture, clock: Clock, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "canary-7f3a"  # noqa: F841
    looks: list[str | None] = []

    def look() -> str | None:
        looks.append(Health.stalled(health))
        return looks[-1]

    monkeypatch.setattr(health, "stalled", look)

    def stall() -> None:
        collect(health)
        clock.now += STALL_S + 1
        looks.clear()
        wait_until(lambda: sum(map(bool, looks)) > 5, what="the detector seeing the stall")

    with watching(health, stall_after=STALL_S, check=0.01):
        stall()
        health.reached(Step.SCORED)
        wait_until(lambda: "running again" in caplog.text, what="its end in the log")
        stall()
    (told, *_) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "thread MainThread:" in told
    assert "test_a_stall_is_logged_once_with_stacks" in told
    assert caplog.text.count("stalled: the model") == 2
    assert "canary" not in caplog.text
    assert not [one for one in threading.enumerate() if one.name == "stalls"]


def test_stacks_contain_only_places_in_the_code() -> None:
    lines = stacks().splitlines()
    assert any(line.startswith("thread ") for line in lines)
    assert not any("stacks()" in line for line in lines), "source text"


# --- HTTP


@pytest.fixture
def port(health: Health) -> Iterator[int]:
    registry = CollectorRegistry()
    Counter("seen", "Something", registry=registry).inc(3)
    with serving("127.0.0.1:0", health=health, registry=registry) as port:
        yield port


def ask(
    port: int, path: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.headers


def test_probes_answer_with_the_reason(port: int, health: Health, clock: Clock) -> None:
    for path in ("/livez", "/readyz", "/livez?verbose"):
        assert ask(port, path)[:2] == (200, b'{"status":"ok"}\n')
    collect(health)
    clock.now += STALL_S + 1
    for path in ("/livez", "/readyz"):
        status, body, headers = ask(port, path)
        assert status == 503
        assert body.count(b"\n") == 1
        assert orjson.loads(body).keys() == {"status", "reason"}
        assert headers["Content-Type"] == "application/json"
        assert "Python" not in headers["Server"]


def test_metrics_are_served_in_both_formats(port: int) -> None:
    status, body, headers = ask(port, "/metrics")
    assert (status, b"seen_total 3.0" in body) == (200, True)
    assert headers["Content-Type"].startswith("text/plain")
    _, body, headers = ask(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert headers["Content-Type"].startswith("application/openmetrics-text")


def test_other_paths_are_not_found(port: int) -> None:
    assert ask(port, "/")[0] == 404
    assert ask(port, "/livez", "POST")[0] == 501
    status, body, _ = ask(port, "/livez", "HEAD")
    assert (status, body) == (200, b"")


def test_a_silent_client_keeps_nobody_waiting(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)):
        assert ask(port, "/livez")[0] == 200


def test_a_port_in_use_is_a_settings_error(port: int, health: Health) -> None:
    with pytest.raises(SettingsError, match=f"--http 127.0.0.1:{port}: address already in use"):
        serving(f"127.0.0.1:{port}", health=health, registry=CollectorRegistry()).__enter__()
    with pytest.raises(SettingsError, match="the highest port is 65535"):
        serving("127.0.0.1:70000", health=health, registry=CollectorRegistry()).__enter__()


@pytest.mark.parametrize(
    "address", ["9464", "localhost", ":9464", "http://localhost:9464", "::1:9464", "a b:1"]
)
def test_an_address_is_host_and_port(address: str) -> None:
    with pytest.raises(SettingsError, match=r"--http.*HOST:PORT"):
        load_settings(http=address)


def test_each_of_several_workers_has_its_own_port() -> None:
    assert Settings(http="127.0.0.1:9464").of_worker(3).http == "127.0.0.1:9467"
    assert Settings(http="[::1]:9464").of_worker(0).http == "[::1]:9464"
    assert Settings(http="127.0.0.1:0").of_worker(3).http == "127.0.0.1:0"
    assert Settings().of_worker(3).http is None

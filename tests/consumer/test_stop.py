"""Stopping: signals set a flag, and a worker that can't check it is ended anyway."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from consumer.stop import Stop
from tests.consumer.processes import Process
from tests.kafka import wait_until

WAITING = """
import sys, time
from consumer.stop import Stop
stop = Stop()
stop.listen()
print("ready", flush=True)
while not stop.requested:
    time.sleep(0.01)
print("asked", flush=True)
{then}
"""

# Like a model stuck in C code: sleep(3) through PyDLL keeps the GIL, so no Python runs. usleep through CDLL
# releases it, yet the main thread still never sees the signal.
STUCK = """
import ctypes
from consumer import stop
stop.GRACE_S = 0.3
flag = stop.Stop()
flag.listen()
print("ready", flush=True)
libc = ctypes.CDLL(None)
while True:
    libc.usleep(30_000_000) if not flag.requested else libc.pause()
"""


# Other threads take the signals and this one sleeps on, as if the signal came just before the call.
DEAF = """
import signal, time
from consumer.stop import Stop
Stop().listen()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("ready", flush=True)
time.sleep(60)
"""


@contextmanager
def running(script: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert line(process) == "ready"
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_stop_can_be_requested_without_a_signal() -> None:
    stop = Stop()
    assert not stop.requested
    stop.request()
    assert stop.requested


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_flag_and_raises_nothing(number: signal.Signals) -> None:
    with running(WAITING.format(then="")) as process:
        process.send_signal(number)
        assert line(process) == "asked"
        assert process.wait(60) == 0


def test_a_second_interrupt_ends_it_at_once() -> None:
    with running(WAITING.format(then="time.sleep(60)")) as process:
        process.send_signal(signal.SIGINT)
        assert line(process) == "asked"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1


def test_a_second_interrupt_ends_it_even_if_the_main_thread_sees_neither() -> None:
    with running(DEAF) as process:
        process.send_signal(signal.SIGINT)
        wait_until(lambda: not is_pending(process.pid, signal.SIGINT), what="the first one taken")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal is pending for the process."""
    status = Path(f"/proc/{pid}/status").read_text()
    (pending,) = re.findall(r"^ShdPnd:\s+([0-9a-f]+)$", status, re.MULTILINE)
    return bool(int(pending, 16) >> (number - 1) & 1)


def test_a_second_sigterm_changes_nothing() -> None:
    with running(WAITING.format(then="sys.stdin.readline()\nprint('done', flush=True)")) as process:
        process.send_signal(signal.SIGTERM)
        assert line(process) == "asked"
        process.send_signal(signal.SIGTERM)
        assert line(process) == "done"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_stuck_in_c_is_ended_after_the_grace_period(number: signal.Signals) -> None:
    with running(STUCK) as process:
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert "still running 0 s after the signal to stop" in process.stderr.read()


def test_other_signals_do_not_start_the_grace_period() -> None:
    script = STUCK.replace("print(", "import signal; signal.signal(signal.SIGUSR1, lambda *_: None); print(")
    with running(script) as process:
        process.send_signal(signal.SIGUSR1)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_has_not_started_work_ends_at_once(
    number: signal.Signals, workers: str, models: dict[str, Path], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        consume = ["-m", "vitalstream", "consume", "--model", str(models["fragile"]), "--workers", workers]
        process = Process.command(
            [*consume, "--bootstrap-servers", address], files=tmp_path / "worker", environment={}
        )
        try:
            server.accept()  # it looks for its topics and would for 10 s
            process.signal(number)
            assert process.wait(timeout=60) == 0
            # after those 10 s it would say that it can't reach the broker
            assert "vitalstream: " not in process.log
        finally:
            process.end()

"""Signals that arrive early."""

import signal
import subprocess
import sys

STARTING = "import time, vitalstream.cli as cli; cli.app = lambda **_: (print(flush=True), time.sleep(30)); cli.main()"


def test_a_signal_before_the_start_ends_the_process_even_as_pid_1() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTING], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        # Ended by our own handler, which a container's pid 1 needs; -15 would mean by the kernel.
        assert process.wait(timeout=30) == 128 + signal.SIGTERM

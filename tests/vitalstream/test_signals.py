"""Signals that come early."""

import signal
import subprocess
import sys

STARTING = "import time, vitalstream.cli as cli; cli.app = lambda **_: (print(flush=True), time.sleep(30)); cli.main()"


def test_a_signal_that_comes_before_anything_is_begun_ends_it_also_as_process_1_of_a_container() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTING], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        # By a handler of ours, which process 1 needs; not -15, by the kernel's.
        assert process.wait(timeout=30) == 128 + signal.SIGTERM

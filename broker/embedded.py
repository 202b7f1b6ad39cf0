"""The embedded broker: librdkafka's mock cluster in a process of its own, for the demo.

It needs nothing but Python. `python -m broker.embedded` prints its address and serves until stdin closes.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from broker.errors import BrokerError
from broker.settings import Settings

PARTITIONS = 4  # per topic; the mock cluster can't create another number

_START_SECONDS = 30
_STOP_SECONDS = 5


class EmbeddedBroker:
    """A mock Kafka broker on 127.0.0.1, as a child process that ends when this process does.

    Topics are created at first use: see `touch_topics`.
    """

    limitations = (
        "The embedded broker is for demonstrations: it does not isolate transactions, keeps the newest 5 MB"
        " (or 100,000 message sets) of each partition, and forgets everything on exit."
    )

    def __init__(self) -> None:
        self.bootstrap_servers = ""
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """The broker's process, None while it is not running."""
        return self._process.pid if self._process else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the broker; on return `bootstrap_servers` is known and answers.

        Raises:
            BrokerError: its process ended.
        """
        # -P: don't import a folder named broker from the current directory. A session of its own: Ctrl-C in the
        # terminal reaches only us, and we stop it.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "broker.embedded"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        self.bootstrap_servers = self._process.stdout.readline().strip()
        if not self.bootstrap_servers:
            self.stop()
            raise BrokerError("the embedded broker ended while starting; its output is above")

    def stop(self) -> None:
        """Stop the broker; its topics are lost."""
        if self._process is None:
            return
        with contextlib.suppress(BrokenPipeError), self._process:  # leaving the block closes its stdin
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=_STOP_SECONDS)
            self._process.kill()
        self._process = None


def touch_topics(settings: Settings, names: Iterable[str], *, timeout: float = 10) -> None:
    """Create topics on the embedded broker, which creates a topic when asked about it.

    Raises:
        BrokerError: the broker does not answer within `timeout` seconds.
    """
    client = Producer(settings.client({"log_level": 0}))
    deadline = time.monotonic() + timeout
    for name in names:
        try:
            client.list_topics(name, timeout=max(0.1, deadline - time.monotonic()))
        except KafkaException:
            raise BrokerError(
                f"the embedded broker at {settings.bootstrap_servers} does not answer within {timeout:g} s"
            ) from None


def _serve() -> None:
    cluster = AdminClient({"test.mock.num.brokers": 1, "log_level": 0})
    brokers = cluster.list_topics(timeout=_START_SECONDS).brokers.values()
    sys.stdout.write(",".join(f"{one.host}:{one.port}" for one in brokers) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    _serve()

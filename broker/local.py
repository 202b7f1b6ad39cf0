"""A real single-node Apache Kafka on this machine, for trying things out and for tests.

Not for production: one node, replication factor 1, plain text, 127.0.0.1 only.
"""

import atexit
import base64
import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from broker.errors import BrokerError
from broker.jars import find_java, kafka_jars

# What makes one node enough, and quick to start and to notice a dead client. tests/kafka.py gives the
# same to the container.
SINGLE_NODE_PROPERTIES: Mapping[str, str] = {
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "5",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "5",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "5",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "broker.session.timeout.ms": "3000",  # how long a kill -9 delays the next start
    "broker.heartbeat.interval.ms": "500",
    "auto.create.topics.enable": "false",
    "num.partitions": "4",
}

_HOST = "127.0.0.1"
_FAST_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
# Below the ports the kernel hands out (32768 and up on Linux): while the broker is down for a restart, a
# client that keeps connecting can be given the very port it connects to, and then holds it.
_PORTS = range(20_000, 32_768)
_LOG4J = """\
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1}: %m%n
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
"""


class LocalKafka:
    """One Apache Kafka broker, as a child process that never outlives this one.

    Used as a context manager, or with `start` and `stop`.

    Args:
        port: where clients connect; None takes a free one and keeps it over restarts.
        data_dir: where topics are kept; None is a temporary folder, removed by `stop`.
        overrides: server properties over ours.
        heap: Java's maximum heap, as `-Xmx` takes it.
        fast_start: a quarter of the start-up time for a slower broker; right for tests, not for measuring.
        start_timeout: seconds until the broker must answer.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        data_dir: Path | None = None,
        overrides: Mapping[str, str] | None = None,
        heap: str = "1g",
        fast_start: bool = False,
        start_timeout: float = 60,
    ) -> None:
        self.port = port or free_port()
        self._given_dir = data_dir
        self._dir = data_dir or Path()
        self._overrides = dict(overrides or {})
        self._java_options = [f"-Xmx{heap}", *(_FAST_START if fast_start else ())]
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients."""
        return f"{_HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The broker's process, None while it is not running."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def log_file(self) -> Path:
        """What the broker printed."""
        return self._dir / "broker.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the broker and wait until it answers.

        Raises:
            BrokerError: no Java or Maven, the port is taken, or the broker did not come up; the last lines
                of its log are in the message then. Nothing is left running.
        """
        if self.pid is not None:
            return
        java, jars = find_java(), kafka_jars()
        _refuse_taken(self.port)
        try:
            self._prepare()
            self._launch(self._java_command(java, jars))
            self._wait_until_ready()
        except BaseException:
            self.stop(timeout=0)
            raise

    def stop(self, *, timeout: float = 15) -> None:
        """End the broker in an orderly way, by force after `timeout` seconds; remove a temporary data_dir."""
        if self.pid is not None and timeout > 0:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(timeout=timeout)
        self.kill()
        atexit.unregister(self.stop)
        if self._given_dir is None and self._dir != Path():
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = Path()

    def kill(self) -> None:
        """End the broker at once (kill -9); its data stay for `restart`."""
        self._signal(signal.SIGKILL)
        for process in (self._process, self._guard):
            if process is not None:
                process.kill()
                process.wait()
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
        self._process = self._guard = None

    def restart(self) -> None:
        """Kill -9 the broker, then start it again with the same port and data."""
        self.kill()
        self.start()

    def wait(self, *, timeout: float | None = None) -> int:
        """Wait until the broker ends by itself; its exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        return self._process.wait(timeout) if self._process else 0

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # does nothing once it has ended

    def _prepare(self) -> None:
        if self._given_dir is None and self._dir == Path():
            self._dir = Path(tempfile.mkdtemp(prefix="vitalstream-kafka-"))
        self._dir.mkdir(parents=True, exist_ok=True)
        (self._dir / "log4j2.properties").write_text(_LOG4J)
        lines = (f"{name}={value}\n" for name, value in self._properties().items())
        (self._dir / "server.properties").write_text("".join(lines))

    def _properties(self) -> dict[str, str]:
        controller = f"{_HOST}:{free_port()}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self._dir.absolute() / "data"),
            **SINGLE_NODE_PROPERTIES,
            **self._overrides,
        }

    def _java_command(self, java: str, jars: Path) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={self._dir / 'log4j2.properties'}"
        return [java, *self._java_options, log4j, "-cp", f"{jars}/*"]

    def _launch(self, java: list[str]) -> None:
        properties = str(self._dir / "server.properties")
        atexit.register(self.stop)
        with self.log_file.open("wb") as log:
            if not (self._dir / "data" / "meta.properties").exists():
                self._format(java, properties, log.fileno())
            # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop the broker.
            self._process = subprocess.Popen(
                [*java, "kafka.Kafka", properties],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = _kill_when_we_end(self._process.pid)

    def _format(self, java: list[str], properties: str, log: int) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", properties]
        if subprocess.run(command, stdout=log, stderr=log, check=False).returncode:
            raise BrokerError(f"the local Kafka could not prepare {self._dir}:{self._tail()}")

    def _wait_until_ready(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            if self.pid is None:
                raise BrokerError(f"the local Kafka ended while starting:{self._tail()}")
            with contextlib.suppress(KafkaException):
                admin.list_topics(timeout=0.2)
                return
        raise BrokerError(f"the local Kafka did not answer within {self._start_timeout:g} s:{self._tail()}")

    def _tail(self, lines: int = 15) -> str:
        text = self.log_file.read_text(errors="replace").splitlines()[-lines:]
        return "".join(f"\n  {line}" for line in text) or " it printed nothing"


def _kill_when_we_end(pid: int) -> subprocess.Popen[bytes]:
    """A shell that kills `pid` once its stdin closes, as the kernel does for us even after a kill -9.

    Linux could do this alone (PR_SET_PDEATHSIG), but that fires when the starting *thread* ends.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read _; kill -9 "$0"', str(pid)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def free_port() -> int:
    """A port of 127.0.0.1 that a broker can still have after a restart."""
    candidates = random.sample(_PORTS, 100)
    for port in candidates:
        if not _taken(port):
            return port
    raise BrokerError(f"a local Kafka found no free port between {_PORTS.start} and {_PORTS.stop}")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex((_HOST, port)) == 0 or not _binds(probe, port)


def _binds(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind((_HOST, port))
    except OSError:
        return False
    return True


def _refuse_taken(port: int) -> None:
    if _taken(port):
        raise BrokerError(
            f"port {port}, which the local Kafka is to use, is taken; choose another with --port"
        )

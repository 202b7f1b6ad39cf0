"""A real single-node Apache Kafka on this machine, for trying things out and for tests.

Not for production: one node, replication factor 1, unencrypted, 127.0.0.1 only.
"""

import atexit
import base64
import fcntl
import random
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from broker.child import Child
from broker.errors import BrokerError
from broker.jars import KAFKA_VERSION, find_java, kafka_jars

# Lets one node suffice, start quickly and notice a dead client soon. tests/kafka.py sets the same in the
# container.
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
    "auto.create.topics.enable": "false",
    "num.partitions": "4",
}

_HOST = "127.0.0.1"
_NEWER = "UnsupportedVersionException"  # in Kafka's log if a newer version has written to the directory
_FAST_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
# Below the kernel's ephemeral ports (32768 and up on Linux): while the broker is down for a restart, a client
# that keeps connecting could be given the very port it connects to, and then occupy it.
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
    """An Apache Kafka broker, as a child process that never outlives this one.

    Used as a context manager, or with `start` and `stop`.

    Args:
        port: where clients connect; None takes a free port and keeps it across restarts.
        data_dir: where topics are kept; None means a temporary directory, removed by `stop`.
        overrides: server properties that override ours.
        heap: Java's maximum heap, as for `-Xmx`.
        fast_start: start in a quarter of the time, but run slower; for tests, not for measuring.
        start_timeout: seconds until the broker must answer.
        version: the Apache Kafka version.
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
        version: str = KAFKA_VERSION,
    ) -> None:
        self.port = port or free_port()
        self._given_dir = data_dir
        self._dir = data_dir or Path()
        self._overrides = dict(overrides or {})
        self._java_options = [f"-Xmx{heap}", *(_FAST_START if fast_start else ())]
        self._start_timeout = start_timeout
        self._version = version
        self._child: Child | None = None
        self._claim: IO[str] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients."""
        return f"{_HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The broker's process, None while it is not running."""
        return self._child.pid if self._child else None

    @property
    def log_file(self) -> Path:
        """The broker's log."""
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
            BrokerError: no Java or Maven, the port is taken, or the broker did not start; then the message has the
                last lines of its log. Nothing is left running.
        """
        if self.pid is not None:
            return
        java, jars = find_java(), kafka_jars(self._version)
        _refuse_taken(self.port)
        try:
            self._prepare()
            self._run(self._java_command(java, jars))
        except BaseException:
            self.stop(timeout=0)
            raise

    def stop(self, *, timeout: float = 15) -> None:
        """Shut the broker down, by force after `timeout` seconds, and remove a temporary data_dir."""
        if self._child is not None:
            self._child.terminate(timeout=timeout)
            self._child = None
        if self._claim is not None:
            self._claim.close()
            self._claim = None
        atexit.unregister(self.stop)
        if self._given_dir is None and self._dir != Path():
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = Path()

    def kill(self) -> None:
        """Kill the broker at once (kill -9); its data stays for `start`."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def restart(self) -> None:
        """Kill the broker (kill -9), then start it again with the same port and data."""
        self.kill()
        self.start()

    def wait(self, *, timeout: float | None = None) -> int:
        """Wait until the broker exits by itself; returns its exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        return self._child.wait(timeout=timeout) if self._child else 0

    def _prepare(self) -> None:
        if self._given_dir is None and self._dir == Path():
            self._dir = Path(tempfile.mkdtemp(prefix="vitalstream-kafka-"))
        self._dir.mkdir(parents=True, exist_ok=True)
        self._claim_folder()
        (self._dir / "log4j2.properties").write_text(_LOG4J)
        self.log_file.write_bytes(b"")
        properties = "".join(f"{name}={value}\n" for name, value in self._properties().items())
        (self._dir / "server.properties").write_text(properties)

    def _claim_folder(self) -> None:
        """Lock the directory: Kafka has a lock of its own, but its controller writes before checking it."""
        if self._claim is not None:
            return
        claim = (self._dir / "lock").open("w")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            claim.close()
            raise BrokerError(
                f"another local Kafka uses {self._dir}; choose another directory with --data-dir"
            ) from None
        self._claim = claim

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

    def _run(self, java: list[str]) -> None:
        if not (self._dir / "data" / "meta.properties").exists():
            self._format(java)
        atexit.register(self.stop)
        server = [*java, "kafka.Kafka", str(self._dir / "server.properties")]
        self._child = Child(server, log_file=self.log_file)
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        self._wait_until(lambda: _answers(admin))

    def _format(self, java: list[str]) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        properties = str(self._dir / "server.properties")
        command = [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", properties]
        if Child(command, log_file=self.log_file).wait():
            raise BrokerError(f"the local Kafka could not prepare {self._dir}:{self._tail()}")

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not condition():
            if self.pid is None:
                raise BrokerError(self._why_it_ended())
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"the local Kafka did not answer within {self._start_timeout:g} s:{self._tail()}"
                )
            time.sleep(0.05)

    def _why_it_ended(self) -> str:
        if _NEWER in self.log_file.read_text(errors="replace"):
            return (
                f"a newer Kafka than {self._version} has written to {self._dir}; give its --kafka-version, or "
                "choose another directory with --data-dir"
            )
        return f"the local Kafka ended while starting:{self._tail()}"

    def _tail(self, lines: int = 15) -> str:
        text = self.log_file.read_text(errors="replace").splitlines()[-lines:]
        return "".join(f"\n  {line}" for line in text) or " it printed nothing"


def _answers(admin: AdminClient) -> bool:
    try:
        admin.list_topics(timeout=0.2)
    except KafkaException:
        return False
    return True


def free_port() -> int:
    """A port of 127.0.0.1 that a broker can have again after a restart."""
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
        raise BrokerError(f"port {port} is taken; choose another for the local Kafka with --port")

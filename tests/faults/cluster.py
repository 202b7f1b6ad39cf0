"""Three brokers that are also controllers, so that any one of them can be lost."""

import base64
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from broker.child import Child
from broker.jars import find_java, kafka_jars
from broker.local import SINGLE_NODE_PROPERTIES, free_port
from tests.kafka import KAFKA_VERSION, wait_until

START_S: Final = 180.0
REPLICATED: Final[Mapping[str, str]] = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
}
# How soon the others notice a dead node; the default is 9 s.
NOTICED = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}
LOG4J = """\
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1}: %m%n
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
"""
_ACTIVE = re.compile(r"Becoming the active controller at .*?epoch (\d+)")


class LocalCluster:
    """Replication factor 3, at least 2 replicas in sync. A context manager; no node outlives this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {node: (free_port(), free_port()) for node in (1, 2, 3)}
        self._nodes: dict[int, Child] = {}
        self._id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port, _ in self._ports.values())

    @property
    def nodes(self) -> list[int]:
        return [*self._ports]

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                self._prepare(node)
            for node in self.nodes:
                self.start(node)
            self.wait_whole()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._nodes.values():
            child.kill()

    def start(self, node: int) -> None:
        command = [*self._java(node), "kafka.Kafka", str(self._home(node) / "server.properties")]
        self._nodes[node] = Child(command, log_file=self._log(node))

    def kill(self, node: int) -> None:
        """Send SIGKILL."""
        self._nodes.pop(node).kill()

    def stop(self, node: int) -> None:
        """Send SIGTERM, after which the node hands over its partitions."""
        self._nodes.pop(node).terminate(timeout=START_S)

    def controller(self) -> int:
        """The node that leads the controllers, according to the logs."""
        return max(self.nodes, key=self._claim)

    def _claim(self, node: int) -> int:
        """The last epoch in which the node claims to lead."""
        text = self._log(node).read_text(errors="replace")
        return max(map(int, _ACTIVE.findall(text)), default=-1)

    def wait_whole(self) -> None:
        """Wait until all three respond and every partition has all its replicas in sync."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        wait_until(lambda: self._is_whole(admin), timeout=START_S, what="a whole cluster")

    def _is_whole(self, admin: AdminClient) -> bool:
        try:
            found = admin.list_topics(timeout=2)
        except KafkaException:
            return False
        time.sleep(0.1)
        partitions = [one for topic in found.topics.values() for one in topic.partitions.values()]
        return len(found.brokers) == len(self.nodes) and all(
            len(one.isrs) == len(one.replicas) for one in partitions
        )

    def _prepare(self, node: int) -> None:
        home = self._home(node)
        home.mkdir(parents=True)
        (home / "log4j2.properties").write_text(LOG4J)
        lines = [f"{name}={value}\n" for name, value in self._properties(node).items()]
        (home / "server.properties").write_text("".join(lines))
        tool = ["kafka.tools.StorageTool", "format", "-t", self._id, "-c", str(home / "server.properties")]
        code = Child([*self._java(node), *tool], log_file=self._log(node)).wait(timeout=START_S)
        assert code == 0, self._log(node).read_text()

    def _properties(self, node: int) -> dict[str, str]:
        port, controller = self._ports[node]
        voters = (f"{one}@127.0.0.1:{ports[1]}" for one, ports in self._ports.items())
        return {
            "process.roles": "broker,controller",
            "node.id": str(node),
            "controller.quorum.voters": ",".join(voters),
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self._home(node) / "data"),
            **SINGLE_NODE_PROPERTIES,
            **REPLICATED,
            **NOTICED,
        }

    def _java(self, node: int) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={self._home(node) / 'log4j2.properties'}"
        options = ["-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", log4j]
        return [find_java(), *options, "-cp", f"{kafka_jars(KAFKA_VERSION)}/*"]

    def _home(self, node: int) -> Path:
        return self._folder / f"node-{node}"

    def _log(self, node: int) -> Path:
        return self._home(node) / "broker.log"

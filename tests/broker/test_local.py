import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from broker.errors import BrokerError
from broker.jars import find_java, kafka_jars
from broker.local import LocalKafka
from tests.kafka import KAFKA_VERSION, is_running, produce, read_all, wait_until

Tools = Path


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """PATH set to one empty folder, with an empty cache and no JAVA_HOME."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def add(tools: Tools, name: str, script: str) -> Path:
    tool = tools / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    return tool


def test_a_missing_java_is_refused_with_one_sentence(tools: Tools) -> None:
    with pytest.raises(BrokerError, match="needs Java 17 or newer; there is no java on PATH"):
        LocalKafka().start()


def test_an_empty_java_home_is_refused_with_one_sentence(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(BrokerError, match="there is no java in JAVA_HOME"):
        find_java()


@pytest.mark.parametrize(("version", "number"), [("1.8.0_402", "8"), ("11.0.22", "11"), ("16", "16")])
def test_an_old_java_is_refused_with_one_sentence(tools: Tools, version: str, number: str) -> None:
    add(tools, "java", f"echo 'openjdk version \"{version}\"' >&2")
    with pytest.raises(BrokerError, match=f"needs Java 17 or newer; .*/java is Java {number}$"):
        find_java()


@pytest.mark.parametrize("version", ["17.0.15", "21", "25-ea"])
def test_a_new_java_is_used(tools: Tools, version: str) -> None:
    java = add(tools, "java", f"echo 'openjdk version \"{version}\"' >&2")
    assert find_java() == str(java)


def test_a_missing_maven_is_refused_with_one_sentence(tools: Tools) -> None:
    with pytest.raises(BrokerError, match=r"needs Maven once, to fetch Apache Kafka 4\.2\.1; .*no mvn"):
        kafka_jars()


def test_a_failed_download_says_why_and_leaves_no_partial_cache(tools: Tools, tmp_path: Path) -> None:
    add(tools, "mvn", "echo '[ERROR] Unknown host'; exit 1")
    with pytest.raises(BrokerError, match=r"could not fetch Apache Kafka .*Unknown host"):
        kafka_jars()
    left = [path.name for path in (tmp_path / "cache" / "vitalstream").iterdir()]
    assert left == ["kafka-4.2.1.lock"]


@pytest.mark.parametrize("version", ["4.2", "latest", "../4.2.1", ""])
def test_an_invalid_version_is_refused_with_one_sentence(tools: Tools, version: str) -> None:
    with pytest.raises(
        BrokerError, match=r"is not a version of Apache Kafka; give three numbers, as in 4\.2\.1"
    ):
        kafka_jars(version)


def test_jars_are_downloaded_once_even_by_two_processes(tools: Tools, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    outdir = "for a; do case $a in -DoutputDirectory=*) o=${a#*=};; esac; done"
    add(
        tools,
        "mvn",
        f"{outdir}\necho call >> {calls}\n/bin/sleep 0.3\n/bin/mkdir $o\necho jar > $o/kafka.jar",
    )
    code = "from broker.jars import kafka_jars; print((kafka_jars() / 'kafka.jar').read_text())"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]

    assert [process.communicate(timeout=60)[0].strip() for process in both] == [b"jar", b"jar"]
    assert calls.read_text() == "call\n"


def test_a_port_in_use_is_refused_with_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            BrokerError, match=f"port {port} is taken; choose another for the local Kafka with --port"
        ):
            LocalKafka(port=port).start()


def test_a_failed_start_shows_the_log_and_leaves_nothing_behind(tmp_path: Path) -> None:
    broker = LocalKafka(data_dir=tmp_path, fast_start=True, overrides={"num.io.threads": "none"})
    with pytest.raises(BrokerError, match=r"(?s)the local Kafka .*num\.io\.threads"):
        broker.start()
    assert broker.pid is None


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    folder = tmp_path_factory.mktemp("kafka")
    with LocalKafka(
        data_dir=folder, fast_start=True, version=KAFKA_VERSION, overrides={"num.partitions": "3"}
    ) as broker:
        yield broker


def test_data_and_address_survive_a_kill(broker: LocalKafka) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic("kept")])["kept"].result()
    produce(broker.bootstrap_servers, "kept", [("k", f"{n}") for n in range(100)])
    before, address = broker.pid, broker.bootstrap_servers

    broker.restart()

    assert broker.pid not in (None, before)
    assert broker.bootstrap_servers == address
    seen = read_all(broker.bootstrap_servers, "kept")
    assert [message.value() for message in seen] == [f"{n}".encode() for n in range(100)]
    assert len(admin.list_topics(timeout=10).topics["kept"].partitions) == 3


def test_a_transaction_committed_just_before_a_kill_is_visible(broker: LocalKafka) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic("committed")])["committed"].result()
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": "one", "log_level": 0}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("committed", b"kept")
    producer.commit_transaction(30)

    broker.restart()

    seen = wait_until(lambda: read_all(broker.bootstrap_servers, "committed"), what="the commit marker")
    assert [message.value() for message in seen] == [b"kept"]


def test_data_survives_an_orderly_restart(broker: LocalKafka) -> None:
    AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    broker.stop()
    assert broker.pid is None
    broker.start()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    assert "kept" in admin.list_topics(timeout=10).topics


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_no_transaction_loses_its_markers_across_a_restart(broker: LocalKafka, end: signal.Signals) -> None:
    """Eight producers keep ending small transactions; since 4.3, Kafka skips markers and says so in its log."""
    topic = f"ended-{end.name}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic(topic, 4)])[topic].result()
    with transacting(broker.bootstrap_servers, topic) as commits:
        wait_until(lambda: len(commits) > 200, what="transactions")
        assert broker.pid is not None
        os.kill(broker.pid, end)
        broker.wait(timeout=60)
        log = broker.log_file.read_text()
        broker.start()
        goal = len(commits) + 100
        wait_until(lambda: len(commits) > goal, what="transactions again")
        log += broker.log_file.read_text()

    assert "Couldn't find leader endpoint" not in log


@contextmanager
def transacting(servers: str, topic: str) -> Iterator[list[None]]:
    """Endless transactions to four partitions, from eight threads; one entry for each commit."""
    commits: list[None] = []
    ended = threading.Event()

    def transact(number: int) -> None:
        config: dict[str, Any] = {"bootstrap.servers": servers, "transactional.id": f"{topic}-{number}"}
        config |= {"log_level": 0, "reconnect.backoff.max.ms": 500, "transaction.timeout.ms": 10_000}
        while not ended.is_set():
            producer = Producer(config)
            with contextlib.suppress(KafkaException):
                producer.init_transactions(10)
                while not ended.is_set():
                    producer.begin_transaction()
                    for partition in range(4):
                        producer.produce(topic, b"x", partition=partition)
                    producer.commit_transaction(5)
                    commits.append(None)

    threads = [threading.Thread(target=transact, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield commits
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_a_second_broker_in_one_folder_is_refused_with_one_sentence(broker: LocalKafka) -> None:
    folder = broker.log_file.parent
    with pytest.raises(BrokerError, match=f"another local Kafka uses {folder}; choose another directory"):
        LocalKafka(data_dir=folder, fast_start=True).start()
    AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=10)


def test_a_folder_from_a_newer_kafka_is_refused_with_one_sentence(tmp_path: Path) -> None:
    with LocalKafka(data_dir=tmp_path, fast_start=True, version="4.3.0"):
        pass
    with pytest.raises(BrokerError) as error:
        LocalKafka(data_dir=tmp_path, fast_start=True, version="4.2.1").start()
    assert str(error.value) == (
        f"a newer Kafka than 4.2.1 has written to {tmp_path}; give its --kafka-version, or choose another directory "
        "with --data-dir"
    )


def test_the_broker_listens_only_on_127_0_0_1(broker: LocalKafka) -> None:
    with socket.socket() as there, socket.socket() as elsewhere:
        assert there.connect_ex(("127.0.0.1", broker.port)) == 0
        assert elsewhere.connect_ex(("127.0.0.2", broker.port)) != 0


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_the_broker_never_outlives_its_parent(end: str) -> None:
    code = (
        "import os, signal, sys\n"
        "from broker.local import LocalKafka\n"
        "broker = LocalKafka(fast_start=True)\n"
        "broker.start()\n"
        "print(broker.pid, broker.log_file.parent, flush=True)\n"
        "sys.argv[1] == 'kill' and os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, end], stdout=subprocess.PIPE, text=True, check=False, timeout=90
    )

    pid, folder = done.stdout.split()
    assert done.returncode == {"kill": -9, "exit": 0}[end]
    wait_until(lambda: not is_running(int(pid)), what="the end of the orphan")
    assert Path(folder).exists() == (end == "kill")
    shutil.rmtree(folder, ignore_errors=True)

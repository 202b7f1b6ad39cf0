import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from broker.embedded import PARTITIONS, EmbeddedBroker, touch_topics
from broker.errors import BrokerError, TopicError
from broker.roles import DEFAULT_MAX_MESSAGE_BYTES
from broker.settings import Settings
from broker.topics import create_topics, message_limits, require_topics
from tests.kafka import is_running, partitions, wait_until


def test_clients_in_other_processes_can_use_the_embedded_broker() -> None:
    with EmbeddedBroker() as broker:
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
        producer.produce("vitals", b"hello")
        assert not producer.flush(10)
        consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap_servers,
                "group.id": "g",
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        consumer.subscribe(["vitals"])
        message = wait_until(lambda: consumer.poll(0.5), what="the message")
        assert message is not None
        assert message.value() == b"hello"
        consumer.close()


def test_topics_are_created_when_touched() -> None:
    with EmbeddedBroker() as broker:
        settings = Settings(bootstrap_servers=broker.bootstrap_servers)
        with pytest.raises(
            TopicError, match=r"vitals .--input-topic., risk .*, vitals-dead-letter .* are missing"
        ):
            require_topics(settings, settings.topics)

        touch_topics(settings, settings.topics)

        require_topics(settings, settings.topics)
        assert len(partitions(broker.bootstrap_servers, "vitals")) == PARTITIONS


def test_the_embedded_broker_has_no_admin_api_and_says_so_at_once() -> None:
    with EmbeddedBroker() as broker:
        settings = Settings(bootstrap_servers=broker.bootstrap_servers)
        with pytest.raises(BrokerError, match="can't create topics"):
            create_topics(settings)
        assert message_limits(settings, ["vitals"]) == {"vitals": DEFAULT_MAX_MESSAGE_BYTES}


def test_the_embedded_broker_ends_with_its_block() -> None:
    with EmbeddedBroker() as broker:
        pid = broker.pid
        assert pid is not None
        assert is_running(pid)
    assert not is_running(pid)
    assert broker.pid is None


def test_the_embedded_broker_ends_with_a_killed_parent() -> None:
    code = (
        "import os, signal\n"
        "from broker.embedded import EmbeddedBroker\n"
        "broker = EmbeddedBroker()\n"
        "broker.start()\n"
        "print(broker.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False, timeout=60)

    assert done.returncode == -9
    wait_until(lambda: not is_running(int(done.stdout)), what="the end of the orphan")


def test_a_folder_named_broker_is_not_mistaken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "embedded.py").write_text("raise SystemExit(3)")
    (tmp_path / "broker" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)

    with EmbeddedBroker() as broker:
        assert broker.bootstrap_servers


def test_what_the_embedded_broker_can_not_do_is_refused_with_one_sentence() -> None:
    assert EmbeddedBroker.limitations.count(". ") == 0
    assert os.linesep not in EmbeddedBroker.limitations

"""Why no broker responds: one sentence that says what is in the way and what to do."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from broker.admin import Admin
from broker.errors import BrokerError
from broker.settings import Settings

LOCAL = "(vitalstream broker starts a local Kafka)"
Capture = pytest.CaptureFixture[str]


def obstacle(servers: str, *, seconds: float = 2) -> str:
    """The sentence, without the servers at the start and the remedy at the end, which are always the same."""
    with pytest.raises(BrokerError) as error:
        Admin(Settings(bootstrap_servers=servers), timeout=seconds)
    beginning = f"can't reach Kafka at {servers} within {seconds:g} s"
    text = str(error.value)
    assert text.startswith(beginning)
    assert f"--bootstrap-servers {LOCAL}" in text
    return text.removeprefix(beginning)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where nobody listens and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that does this with each connection once the client has sent something."""

    def serve() -> None:
        with suppress(OSError):  # closed at the end
            while True:
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    connection.recv(1000)
                    answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_a_host_name_that_does_not_resolve(capfd: Capture) -> None:
    assert (
        obstacle("no-such-kafka..invalid:9092")
        == f": the host name no-such-kafka..invalid does not resolve; check --bootstrap-servers {LOCAL}"
    )
    assert capfd.readouterr() == ("", "")


def test_a_port_where_nothing_listens(closed_port: int, capfd: Capture) -> None:
    assert (
        obstacle(f"127.0.0.1:{closed_port}")
        == f": nothing listens at 127.0.0.1:{closed_port}; check --bootstrap-servers {LOCAL}"
    )
    assert capfd.readouterr() == ("", "")


def test_without_a_port_the_sentence_names_the_default_port() -> None:
    told = obstacle("no-such-kafka..invalid,127.0.0.9")
    assert "nothing listens at 127.0.0.9:9092" in told
    assert "the host name no-such-kafka..invalid does not resolve" in told


def test_each_of_several_servers_is_named(closed_port: int) -> None:
    told = obstacle(f"no-such-kafka..invalid:9092,127.0.0.1:{closed_port}")
    assert f"nothing listens at 127.0.0.1:{closed_port}" in told
    assert ", and " in told
    assert "the host name no-such-kafka..invalid does not resolve" in told


def test_a_service_that_is_not_kafka() -> None:
    with listening(lambda client: client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as address:
        assert obstacle(address).startswith(
            f": {address} does not answer like Kafka (another service, or TLS"
        )


def test_a_server_that_hangs_up_like_one_that_expects_tls() -> None:
    with listening(lambda client: None) as address:
        assert obstacle(address).startswith(
            ": connections to it close without an answer; check security.protocol (-X) if it requires TLS or a password"
        )


def test_a_silent_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert obstacle(address) == (
            f"; check --bootstrap-servers {LOCAL}, and security.protocol (-X) if it requires TLS or a password"
        )


@pytest.mark.kafka
def test_one_responding_server_is_enough(kafka: str, closed_port: int, capfd: Capture) -> None:
    settings = Settings(bootstrap_servers=f"no-such-kafka..invalid:9092,127.0.0.1:{closed_port},{kafka}")
    assert Admin(settings).metadata.brokers
    assert capfd.readouterr() == ("", "")

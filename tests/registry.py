"""Schema registries: a real one (Apicurio Registry, in memory), and one that responds as a test wants."""

import fcntl
import os
import shutil
import ssl
import subprocess
import tarfile
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.error import URLError

from broker.child import Child
from broker.errors import BrokerError
from broker.jars import find_java
from broker.local import free_port
from tests.kafka import wait_until

VERSION: Final = "3.0.9"  # later versions need Java 21
_ARTIFACT: Final = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
# Later versions need the parent's POM, which no repository has.
_GOAL: Final = "org.apache.maven.plugins:maven-dependency-plugin:2.8:get"
_IN_REPOSITORY: Final = (
    f"io/apicurio/apicurio-registry-app/{VERSION}/apicurio-registry-app-{VERSION}-all.tar.gz"
)
_START_S: Final = 90
_FETCH_S: Final = 600


@contextmanager
def running_registry() -> Iterator[str]:
    """The URL in SCHEMA_REGISTRY_URL, else that of a registry started here, which needs Java 17 and, once, Maven.

    Raises: BrokerError: Java or Maven is missing, or the registry does not start.
    """
    if url := os.environ.get("SCHEMA_REGISTRY_URL"):
        yield url
        return
    try:
        java = find_java()
    except BrokerError:
        raise BrokerError(
            "the tests' schema registry needs Java 17 or newer, or SCHEMA_REGISTRY_URL"
        ) from None
    folder, port = _fetched(), free_port()
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
    options = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    options += ["-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}"]
    with tempfile.TemporaryDirectory(prefix="vitalstream-registry-") as scratch:
        log = Path(scratch, "registry.log")
        jar = folder / f"apicurio-registry-app-{VERSION}-runner.jar"
        child = Child([java, *options, "-jar", str(jar)], log_file=log)
        try:
            wait_until(lambda: child.pid is None or _answers(url), timeout=_START_S)
            if child.pid is None:
                raise BrokerError(f"the schema registry ended while starting: {log.read_text()[-2000:]}")
            yield url
        finally:
            child.terminate(timeout=10)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/subjects", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _fetched() -> Path:
    """The folder with the registry's jars, which the first call downloads."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "vitalstream")
    folder = cache / f"apicurio-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError("the tests' schema registry needs Maven once, to fetch it; there is no mvn on PATH")
    repository = Path.home() / ".m2" / "repository"
    goal = [_GOAL, f"-Dartifact={_ARTIFACT}", "-Dtransitive=false", f"-Dmaven.repo.local={repository}"]
    done = subprocess.run(
        [maven, "-q", "-B", *goal], capture_output=True, text=True, check=False, timeout=_FETCH_S
    )
    if done.returncode:
        raise BrokerError(f"Maven could not fetch {_ARTIFACT}: {done.stdout[-2000:]}")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as scratch:
        unpacked = Path(scratch, "unpacked")
        with tarfile.open(repository / _IN_REPOSITORY) as archive:
            archive.extractall(unpacked, filter="data")
        unpacked.rename(folder)


class Answers:
    """A server's responses: `answer` maps a path to a status and a body, or to None for silence."""

    def __init__(self, answer: Callable[[str], tuple[int, bytes] | None]) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.logins: set[str | None] = set()
        self.over = threading.Event()


@contextmanager
def answering(answers: Answers, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """The URL of a server that responds with `answers`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.asked.append(self.path)
            answers.logins.add(self.headers.get("Authorization"))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            said = answers.answer(self.path)
            if said is None:
                answers.over.wait(30)
                return
            status, body = said
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        answers.over.set()
        server.shutdown()
        server.server_close()

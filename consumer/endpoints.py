"""The HTTP endpoints of a worker, /livez, /readyz and /metrics, and of a pool, which has no metrics."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socket import AF_INET6
from socketserver import TCPServer, ThreadingMixIn
from typing import Final, Protocol

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from typing_extensions import override

from broker.errors import SettingsError

CLIENT_TIMEOUT_S: Final = 5.0
_POOL_PATHS: Final = "there are /livez and /readyz; each worker serves /metrics on its own port"


class Probed(Protocol):
    """What the probes ask; each answer is None or a reason."""

    def stalled(self) -> str | None:
        """Why the process should be restarted."""

    def unready(self) -> str | None:
        """Why it is not working."""


@contextmanager
def serving(address: str, *, health: Probed, registry: CollectorRegistry | None) -> Iterator[int]:
    """Serve on `address` (HOST:PORT; port 0 takes a free one) while the block runs; yields the port.

    Without a registry there is no /metrics.

    Raises:
        SettingsError: the address is not available.
    """
    with _bound(address, health, registry) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True, name="http")
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def require_free(address: str, health: Probed) -> None:
    """Check that `serving` could use the address; raises SettingsError as it would."""
    _bound(address, health, None).server_close()


def _bound(address: str, health: Probed, registry: CollectorRegistry | None) -> "_Server":
    host, _, port = address.rpartition(":")
    try:
        return _Server((host.strip("[]"), int(port)), health, registry)
    except OverflowError:
        raise SettingsError(f"--http {address}: the highest port is 65535") from None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise SettingsError(f"--http {address}: {reason}; choose another address or port") from None


class _Server(ThreadingMixIn, TCPServer):
    # Not http.server.HTTPServer, which looks up the host's name in DNS when it binds.
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    server_address: tuple[str, int]

    def __init__(self, address: tuple[str, int], health: Probed, registry: CollectorRegistry | None) -> None:
        self.health = health
        self.registry = registry
        self.paths = "there are /livez, /readyz and /metrics" if registry else _POOL_PATHS
        if ":" in address[0]:
            self.address_family = AF_INET6
        super().__init__(address, _Handler)

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Don't log a client that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_TIMEOUT_S

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/livez":
            self._verdict(self.server.health.stalled())
        elif path == "/readyz":
            self._verdict(self.server.health.unready())
        elif path == "/metrics" and self.server.registry:
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, encode(self.server.registry), content_type)
        else:
            self._answer(404, _line(status="unknown", reason=self.server.paths))

    do_HEAD = do_GET  # noqa: N815

    def _verdict(self, reason: str | None) -> None:
        if reason is None:
            self._answer(200, _line(status="ok"))
        else:
            self._answer(503, _line(status="failing", reason=reason))

    def _answer(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @override
    def version_string(self) -> str:
        """Don't reveal versions."""
        return "vitalstream"

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Don't log requests: probes come every few seconds."""


def _line(**fields: str) -> bytes:
    return orjson.dumps(fields) + b"\n"

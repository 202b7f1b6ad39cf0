"""A proxy between worker and broker that knows each request's type and loses, holds or delays what it is told to."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from broker.local import free_port

PRODUCE, ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT = 0, 25, 26, 28

_HOST = "127.0.0.1"
_HEAD = struct.Struct(">hhi")  # starts a request, after its length: api key, api version, correlation id
_LOOK_S = 0.2


class Prank:
    """Something to do once, to the next request of one type or to its response."""

    def __init__(self, api: int, *, count: int = 1) -> None:
        self.api = api
        self.left = count
        self.happened = threading.Event()
        self.kept = b""  # the request, as it was sent

    def take(self, api: int) -> bool:
        """Whether to do it now."""
        if api != self.api or self.left == 0:
            return False
        self.left -= 1
        return True


class Proxy:
    """A TCP proxy for one broker. Everything passes until a prank is ordered."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._server = socket.create_server((_HOST, self.port))
        self._server.settimeout(_LOOK_S)
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._pairs: set[_Pair] = set()
        self.keeping: Prank | None = None
        self.losing: Prank | None = None
        self.delays: dict[int, float] = {}
        threading.Thread(target=self._accept, daemon=True, name="proxy").start()

    @property
    def bootstrap_servers(self) -> str:
        return f"{_HOST}:{self.port}"

    def keep_request(self, api: int) -> Prank:
        """Hold the next request of this type and break its connection; see `release`."""
        self.keeping = Prank(api)
        return self.keeping

    def lose_answer(self, api: int, *, count: int = 1) -> Prank:
        """The broker carries out the request, but the connection breaks instead of returning the response."""
        self.losing = Prank(api, count=count)
        return self.losing

    def delay(self, api: int, seconds: float) -> None:
        """Delay requests of this type; 0 ends the delay."""
        self.delays[api] = seconds

    def release(self, prank: Prank) -> int:
        """Let a held request arrive at last; returns the error code of EndTxn's response, 0 for success."""
        with socket.create_connection((_HOST, self._target), timeout=10) as broker:
            broker.sendall(prank.kept)
            answer = _frame(broker)
        code: int = struct.unpack_from(">h", answer, 12)[0]  # length, correlation id, throttle time
        return code

    def cut(self) -> None:
        """Break every connection."""
        with self._lock:
            pairs = [*self._pairs]
        for pair in pairs:
            pair.cut()

    def reset(self) -> None:
        """Let everything pass."""
        self.keeping = self.losing = None
        self.delays.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.cut()
        self._server.close()

    def forget(self, pair: "_Pair") -> None:
        with self._lock:
            self._pairs.discard(pair)

    def _accept(self) -> None:
        while not self._done.is_set():
            try:
                client, _ = self._server.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            try:
                broker = socket.create_connection((_HOST, self._target), timeout=5)
            except OSError:  # the broker is down, so the proxy refuses too
                client.close()
                continue
            broker.settimeout(None)
            pair = _Pair(self, client, broker)
            with self._lock:
                self._pairs.add(pair)
            pair.start()


class _Pair:
    """A client's connection and its counterpart to the broker."""

    def __init__(self, proxy: Proxy, client: socket.socket, broker: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._broker = broker
        self._asked: dict[int, int] = {}  # the api key of each request in flight, by correlation id

    def start(self) -> None:
        for pump in (self._requests, self._answers):
            threading.Thread(target=self._run, args=(pump,), daemon=True, name="proxy-pair").start()

    def cut(self) -> None:
        for one in (self._client, self._broker):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _run(self, pump: Callable[[], None]) -> None:
        with suppress(OSError):
            pump()
        self.cut()
        self._proxy.forget(self)

    def _requests(self) -> None:
        while frame := _frame(self._client):
            api, _, correlation = _HEAD.unpack_from(frame, 4)
            self._asked[correlation] = api
            if delay := self._proxy.delays.get(api, 0):
                time.sleep(delay)
            prank = self._proxy.keeping
            if prank is not None and prank.take(api):
                prank.kept = frame
                prank.happened.set()
                return
            self._broker.sendall(frame)

    def _answers(self) -> None:
        while frame := _frame(self._broker):
            api = self._asked.pop(struct.unpack_from(">i", frame, 4)[0], -1)
            prank = self._proxy.losing
            if prank is not None and prank.take(api):
                prank.happened.set()
                return
            self._client.sendall(frame)


def _frame(source: socket.socket) -> bytes:
    """The next request or response with its length prefix; empty at the end."""
    head = _exactly(source, 4)
    if not head:
        return b""
    body = _exactly(source, int(struct.unpack(">i", head)[0]))
    return head + body if body else b""  # an incomplete frame is dropped


def _exactly(source: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = source.recv(min(count, 1 << 16))
        if not part:
            return b""
        parts.append(part)
        count -= len(part)
    return b"".join(parts)

"""A proxy in front of Postgres or Kafka, for the faults that a network has and a killed server has not.

postgres_proxy.stop()              connections are refused, the open ones are cut
postgres_proxy.drop_connections()  the open ones are cut, new ones work
postgres_proxy.deaf()              connections are accepted, and nothing ever answers
postgres_proxy.mute()              requests get through and are carried out; the answers are lost
postgres_proxy.start()             all is well again, on the same port
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Generator

import pytest

from kasaga.dev.servers import KafkaServer, PostgresServer, free_port

CHUNK_BYTES = 65_536
JOIN_SECONDS = 10.0
CONNECT_SECONDS = 5.0

ACCEPT_SECONDS = 0.05
"""How long `stop` may have to wait for the thread that accepts; closing its socket wakes it on Linux only."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Mode(enum.Enum):
    PASS = "pass"
    DEAF = "deaf"
    MUTE = "mute"


class _Link:
    """One client's connection and ours to the server, with a thread for each direction."""

    def __init__(self, proxy: TcpProxy, client: socket.socket, server: socket.socket | None) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self.lossy = server is None
        """Whether bytes were swallowed: what is left of this conversation makes no sense."""
        self._threads = [threading.Thread(target=self._pump, args=(client, server, True), daemon=True)]
        if server is not None:
            self._threads.append(
                threading.Thread(target=self._pump, args=(server, client, False), daemon=True)
            )
        for thread in self._threads:
            thread.start()

    @property
    def is_open(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def cut(self) -> None:
        for end in (self._client, self._server):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                    end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(JOIN_SECONDS)
        self.close()

    def close(self) -> None:
        self._client.close()
        if self._server is not None:
            self._server.close()

    def _pump(self, source: socket.socket, target: socket.socket | None, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                if target is None or self._proxy.swallows(asks=asks):
                    self.lossy = True
                else:
                    self._proxy.overhear(self, data, asks=asks)
                    target.sendall(self._proxy.change(data, asks=asks))
        if self._proxy.swallows(asks=asks):
            self.lossy = True
        elif target is not None:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)


class TcpProxy:
    """Forwards a loopback port to another until told to misbehave; orders reach open connections too."""

    def __init__(self, target_port: int, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self._target_port = target_port
        self._mode = Mode.PASS
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return sum(link.is_open for link in self._links)

    def start(self) -> None:
        """Forwards from now on, whatever was before. Connections that lost bytes are cut."""
        self._mode = Mode.PASS
        self._cut(only_lossy=True)
        self._listen()

    def stop(self) -> None:
        """Refuses connections and cuts the open ones."""
        listener, self._listener = self._listener, None
        if listener is not None:
            if self._acceptor is not None:
                self._acceptor.join(JOIN_SECONDS)
            listener.close()
        self._cut(only_lossy=False)

    def deaf(self) -> None:
        """Accepts and reads, and passes nothing on: the other side seems to have died without a word."""
        self._mode = Mode.DEAF
        self._listen()

    def mute(self) -> None:
        """Passes requests on and swallows the answers: the commit that was made and never confirmed."""
        self._mode = Mode.MUTE
        self._listen()

    def drop_connections(self) -> None:
        """Cuts every open connection; new ones are served."""
        self._cut(only_lossy=False)

    def swallows(self, *, asks: bool) -> bool:
        """Says whether bytes of this direction are lost now."""
        return self._mode is Mode.DEAF or (self._mode is Mode.MUTE and not asks)

    def overhear(self, link: object, data: bytes, *, asks: bool) -> None:
        """Called by the connections' threads with what is about to be passed on; for who wants to listen."""

    def change(self, data: bytes, *, asks: bool) -> bytes:
        """Called by the connections' threads: gives what is passed on instead. Here the same."""
        return data

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
            listener.settimeout(ACCEPT_SECONDS)
            self._acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
            self._acceptor.start()

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            server: socket.socket | None = None
            if self._mode is not Mode.DEAF:
                try:
                    server = socket.create_connection(("127.0.0.1", self._target_port), CONNECT_SECONDS)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                for link in [each for each in self._links if not each.is_open]:
                    link.close()
                    self._links.remove(link)
                self._links.append(_Link(self, client, server))

    def _cut(self, *, only_lossy: bool) -> None:
        with self._lock:
            chosen = [link for link in self._links if link.lossy or not only_lossy]
            self._links = [link for link in self._links if link not in chosen]
        for link in chosen:
            link.cut()


@pytest.fixture
def postgres_proxy(postgres: PostgresServer) -> Generator[TcpProxy]:
    """A proxy in front of the run's Postgres: `postgres.url(name, port=postgres_proxy.port)`."""
    proxy = TcpProxy(postgres.port)
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture
def kafka_proxy(kafka: KafkaServer) -> Generator[TcpProxy]:
    """A proxy in front of the run's Kafka: clients with `kafka.proxied_bootstrap` stay behind it."""
    proxy = TcpProxy(kafka.proxy_target, kafka.proxy_port)
    proxy.start()
    yield proxy
    proxy.stop()

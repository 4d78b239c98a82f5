"""A proxy in front of Postgres that can stop a client's bytes between any two messages, or within one.

What a process that is frozen in the middle of sending looks like to the server: the rest never comes, and
the connection stays open.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Generator

import pytest

from kasaga.dev.servers import PostgresServer

CHUNK_BYTES = 65_536


class Gate:
    """Forwards connections to a port; `arm` stops the client's side of all of them after some messages."""

    def __init__(self, target_port: int) -> None:
        self.held = threading.Event()
        """Set when bytes wait at the gate."""
        self.passed = 0
        """Messages that passed since `arm`."""
        self._target_port = target_port
        self._limit: int | None = None
        self._lose_after: int | None = None
        self._trial = False
        self._mute = False
        self._half = False
        self._open = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def arm(self, limit: int | None, *, half: bool = False) -> None:
        """Count from now; let `limit` messages pass, with `half` half of the next too, and hold the rest."""
        self.passed = 0
        self.held.clear()
        self._open.clear()
        self._half = half
        self._limit = limit

    def lose_answer(self, number: int) -> None:
        """From now on, swallow all answers from those to the `number`th transaction that isn't a trial."""
        self._lose_after = number

    def open(self) -> None:
        """Let what was held go on, and answers pass."""
        self._limit = self._lose_after = None
        self._mute = False
        self._open.set()

    def close(self) -> None:
        self.open()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target_port))
                self._sockets += [client, server]
                for pump, ends in ((self._requests, (client, server)), (self._answers, (server, client))):
                    thread = threading.Thread(target=pump, args=ends, daemon=True)
                    thread.start()
                    self._threads.append(thread)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(CHUNK_BYTES):
                if not self._mute:
                    client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        waiting = b""
        head = 0  # only the very first message has no type byte in front of its length
        with contextlib.suppress(OSError):
            while data := client.recv(CHUNK_BYTES):
                waiting += data
                while len(waiting) >= head + 4:
                    size = head + struct.unpack_from(">i", waiting, head)[0]
                    if len(waiting) < size:
                        break
                    self._pass(server, waiting[:size])
                    waiting = waiting[size:]
                    head = 1
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _pass(self, server: socket.socket, message: bytes) -> None:
        if self._limit is not None and self.passed >= self._limit:
            if self._half:
                server.sendall(message[: len(message) // 2])
                message = message[len(message) // 2 :]
            self.held.set()
            self._open.wait(60)
        self._trial |= b"kasaga_undo" in message
        if message.startswith(b"S"):  # a Sync
            if self._lose_after is not None and not self._trial:
                self._lose_after -= 1
                self._mute = self._mute or self._lose_after == 0
            self._trial = False
        server.sendall(message)
        self.passed += 1


@pytest.fixture
def gate(postgres: PostgresServer) -> Generator[Gate]:
    gate = Gate(postgres.port)
    yield gate
    gate.close()

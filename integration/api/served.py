"""`kasaga api` as a process of its own, and a caller of it."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx

from cli.town import PATIENCE, Town
from eventually import eventually
from kasaga.dev.process import Process, log_tail
from kasaga.dev.servers import free_port


class Served:
    """One process, which is there when it is made."""

    def __init__(self, town: Town, name: str = "api", **environment: str) -> None:
        self.town, self.name = town, name
        self.port, self.probes = free_port(), free_port()
        arguments = ["-m", "kasaga", "api", "--port", str(self.port), "--http-port", str(self.probes)]
        self.process: Process = town.process(name, arguments, {**town.environment, **environment})
        self.caller = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE)
        eventually(self.is_live, timeout=PATIENCE)

    def is_live(self) -> bool:
        assert self.process.ended() is None, log_tail(self.town.folder / f"{self.name}.log")
        try:
            return self.caller.get("/live").status_code == 200
        except httpx.TransportError:
            return False

    def is_ready(self) -> bool:
        return self.caller.get("/ready").status_code == 200

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.caller.get(f"/api/v1/{path}", params=query)

    def start(self, saga_id: str, wish: str = "", **query: Any) -> httpx.Response:
        body = {"saga_id": saga_id, "name": "purchase", "input": {"id": saga_id, "wish": wish}}
        return self.caller.post("/api/v1/sagas", json=body, params=query)

    def act(self, saga_id: str, action: str, **body: Any) -> httpx.Response:
        return self.caller.post(f"/api/v1/sagas/{saga_id}/{action}", json=body)

    def probe(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.probes}{path}", timeout=PATIENCE)

    def log(self) -> str:
        return (self.town.folder / f"{self.name}.log").read_text()

    def close(self) -> int | None:
        """In order; returns the exit status."""
        self.caller.close()
        status = self.process.ended()
        if status is None:
            self.process.stop(signal.SIGTERM, PATIENCE)
            status = self.process.ended()
        return status


@contextmanager
def serving(town: Town, name: str = "api", **environment: str) -> Generator[Served]:
    """A process that has found Postgres and Kafka, for a while."""
    made = Served(town, name, **environment)
    try:
        eventually(made.is_ready, timeout=PATIENCE)
        yield made
    finally:
        made.close()

"""The API without servers: a store in memory, an owner that is played, and httpx as the caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from cli.fake_owner import SHARDS, FakeOwner, Sage
from cli.tales import BEGIN, ORDERS, STOCKS, Order, Tale, put
from kasaga.api import ApiSettings, create_app
from kasaga.api.backend import Backend
from kasaga.client import Client
from kasaga.client.link import Outgoing
from kasaga.store.base import DefinitionRow, Store
from kasaga.store.memory import MemoryStore
from kasaga_wire.envelope import StartEnvelope
from kasaga_wire.errors import DeliveryError
from kasaga_wire.kafka import KafkaSettings, partition_for

NOW = BEGIN + timedelta(minutes=5)
BASE = "http://127.0.0.1:8080"
INPUT = {"id": "o-1", "lines": 2}
"""What every tale's saga was started with."""

Work = Callable[[httpx.AsyncClient], Awaitable[object]]


def tale(number: int) -> Tale:
    """A saga in the shard that its id has in Kafka: where whoever waits for it looks."""
    return Tale(number, shard=partition_for(f"o-{number}".encode(), SHARDS))


def settings(**more: Any) -> ApiSettings:
    return ApiSettings(database_url=SecretStr("memory"), kafka=KafkaSettings("nowhere:1"), **more)


@dataclass
class Desk:
    """What a test sees of both sides."""

    owner: FakeOwner = field(default_factory=FakeOwner)
    store: MemoryStore = field(default_factory=lambda: MemoryStore(namespace="orders", clock=lambda: NOW))
    settings: ApiSettings = field(default_factory=settings)
    backend: Backend | None = None

    def __post_init__(self) -> None:
        self.store.put_schemas({schema.hash: schema.json for schema in (ORDERS.schema, STOCKS.schema)})
        form = json.dumps(Order.model_json_schema())
        row = DefinitionRow("payment", 1, ORDERS.schema.hash, STOCKS.schema.hash, form)
        self.store.announce([row, DefinitionRow("refund", 1, STOCKS.schema.hash, STOCKS.schema.hash)])

    def keep(self, *tales: Tale) -> None:
        """Have the store and the owner know these sagas."""
        put(self.store, *tales)
        for tale in tales:
            row = tale.row
            self.owner.sagas[row.saga_id] = Sage(tale.run_id, row.name, tale.state.input, row.state.value)

    def becomes(self, tale: Tale) -> None:
        """Let the next start be decided at once: what the store then has of it is this tale."""

        def decided(outgoing: Outgoing) -> DeliveryError | bool | None:
            if outgoing.topic.endswith(".sagas"):
                put(self.store, tale)
            return None

        self.owner.confirm = decided

    @property
    def starts(self) -> list[tuple[StartEnvelope, bytes]]:
        """The start records that were sent."""
        return [
            (StartEnvelope.parse(list(out.headers)), out.value or b"")
            for out in self.owner.sent
            if out.topic.endswith(".sagas")
        ]

    @property
    def served(self) -> Backend:
        """The backend of the application that was made last."""
        assert self.backend is not None
        return self.backend

    def app(self, made: ApiSettings | None = None, *, store: Store | None = None) -> FastAPI:
        made = made or self.settings
        self.backend = Backend(
            made,
            open_store=lambda _: store or self.store,
            open_client=lambda _, namespace: Client(
                namespace, link=self.owner, topic_prefix="", name="api", database_url=""
            ),
            now=lambda: NOW,
        )
        return create_app(made, backend=self.backend)

    @asynccontextmanager
    async def serving(
        self, made: ApiSettings | None = None, *, store: Store | None = None, base: str = BASE
    ) -> AsyncGenerator[httpx.AsyncClient]:
        app = self.app(made, store=store)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url=base) as caller,
        ):
            yield caller

    def play(self, work: Work, base: str = BASE) -> None:
        """Serve while a scene is played."""

        async def act() -> None:
            async with self.serving(base=base) as caller:
                await asyncio.wait_for(connected(caller), 10)
                await asyncio.wait_for(work(caller), 20)

        asyncio.run(act())


async def connected(caller: httpx.AsyncClient) -> None:
    """Wait until the API has found Kafka."""
    for _ in range(1000):
        if (await caller.get("/ready")).status_code == 200:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the API hasn't found Kafka")


async def soon(question: Callable[[], object]) -> None:
    """Wait until something is true."""
    for _ in range(1000):
        if question():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not true in time")


def is_problem(said: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that an answer is."""
    assert said.status_code == status, said.text
    assert said.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = said.json()
    assert (told["status"], told["code"], told["type"]) == (status, code, f"urn:kasaga:error:{code}")
    assert told["detail"]
    return told

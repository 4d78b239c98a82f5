"""The API without servers: a store in memory, an owner that is played, and httpx as the caller."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from cli.fake_owner import FakeOwner, Sage
from cli.tales import BEGIN, Tale, put
from kasaga.api import ApiSettings, create_app
from kasaga.api.backend import Backend
from kasaga.client import Client
from kasaga.store.base import Store
from kasaga.store.memory import MemoryStore
from kasaga_wire.kafka import KafkaSettings

NOW = BEGIN + timedelta(minutes=5)
BASE = "http://127.0.0.1:8080"


def settings(**more: Any) -> ApiSettings:
    return ApiSettings(database_url=SecretStr("memory"), kafka=KafkaSettings("nowhere:1"), **more)


@dataclass
class Desk:
    """What a test sees of both sides."""

    owner: FakeOwner = field(default_factory=FakeOwner)
    store: MemoryStore = field(default_factory=lambda: MemoryStore(namespace="orders", clock=lambda: NOW))

    def keep(self, *tales: Tale) -> None:
        """Have the store and the owner know these sagas."""
        put(self.store, *tales)
        for tale in tales:
            row = tale.row
            self.owner.sagas[row.saga_id] = Sage(tale.run_id, row.name, tale.state.input, row.state.value)

    def app(self, made: ApiSettings | None = None, *, store: Store | None = None) -> FastAPI:
        made = made or settings()
        backend = Backend(
            made,
            open_store=lambda _: store or self.store,
            open_client=lambda _, namespace: Client(namespace, link=self.owner, topic_prefix=""),
            now=lambda: NOW,
        )
        return create_app(made, backend=backend)

    @asynccontextmanager
    async def serving(
        self, made: ApiSettings | None = None, *, store: Store | None = None
    ) -> AsyncGenerator[httpx.AsyncClient]:
        app = self.app(made, store=store)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url=BASE) as caller,
        ):
            yield caller

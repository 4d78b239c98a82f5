"""What the orchestrator tells whoever starts sagas without the author's code."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, Field

from eventually import eventually
from kasaga import App, SagaContext, saga
from kasaga.orchestrator.announce import Announcer, announce
from kasaga.store.errors import StoreUnavailable
from kasaga.store.memory import MemoryStore
from kasaga_wire.from_json import from_json
from kasaga_wire.schema import Schema


class Order(BaseModel):
    id: str = Field(alias="orderId", min_length=1)
    lines: Annotated[int, Field(gt=0)]


class Receipt(BaseModel):
    id: str


@saga("payment", version=1)
async def payment(ctx: SagaContext, order: Order) -> Receipt:
    return Receipt(id=order.id)


@saga("payment", version=2)
async def payment_2(ctx: SagaContext, order: str) -> None: ...


def test_each_saga_with_its_schemas_and_its_form() -> None:
    store = MemoryStore()
    announce(store, App("orders", sagas=[payment_2, payment]))
    first, second = store.definitions()
    assert (first.name, first.version, second.version) == ("payment", 1, 2)
    texts = store.schemas()
    assert {first.input, first.result, second.input, second.result} <= texts.keys()
    schema = Schema.of(texts[first.input])
    assert payment.input.encode(Order(orderId="a", lines=1)) == from_json({"id": "a", "lines": 1}, schema)
    form = json.loads(first.form)
    assert form["properties"]["id"]["minLength"] == 1
    assert form["properties"]["lines"]["exclusiveMinimum"] == 0
    assert json.loads(second.form) == {"type": "string"}


def test_the_owner_of_shard_0_says_it_again() -> None:
    """An old process that was started again in the middle of a roll-out doesn't keep the last word."""
    store = MemoryStore()
    app = App("orders", sagas=[payment_2, payment])
    announce(store, app)
    known = store.definitions()
    on_duty = False
    announcer = Announcer(store, app, lambda: on_duty, interval=0.005)
    try:
        store.announce(known[:1])
        assert store.definitions() == known[:1]
        on_duty = True
        eventually(lambda: store.definitions() == known)
    finally:
        announcer.close()


def test_an_announcer_outlasts_an_outage() -> None:
    away = True

    def fault(point: str) -> None:
        if away and point == "announce":
            raise StoreUnavailable("gone")

    store = MemoryStore(fault=fault)
    announcer = Announcer(store, App("orders", sagas=[payment]), lambda: True, interval=0.005)
    try:
        away = False
        eventually(lambda: len(store.definitions()) == 1)
    finally:
        announcer.close()

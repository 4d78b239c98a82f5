"""Starting sagas as the guide shows it: argument and result are inferred from the saga."""

from __future__ import annotations

from typing import Any, assert_type

from pydantic import BaseModel

from kasaga import SagaContext, saga
from kasaga.client import BlockingClient, BlockingHandle, Client, Handle, SagaStatus


class Order(BaseModel):
    id: str


class Receipt(BaseModel):
    id: str


@saga("payment")
async def payment(ctx: SagaContext, order: Order) -> Receipt:
    return Receipt(id=order.id)


@saga("tidy")
async def tidy(ctx: SagaContext, order: Order) -> None:
    return None


async def inferred(client: Client, order: Order) -> None:
    handle = await client.start(payment, order, id=order.id)
    assert_type(handle, Handle[Receipt])
    assert_type(await handle.result(timeout=30), Receipt)
    assert_type(await client.run(payment, order, id=order.id), Receipt)
    assert_type(await client.handle(payment, "1").result(), Receipt)
    assert_type(await client.handle(tidy, "1").result(), None)
    by_name = await client.start("payment", order, id=order.id, wait=True)
    assert_type(by_name, Handle[Any])
    assert_type(await client.cancel("1", reason="enough"), SagaStatus)
    assert_type(await handle.describe(), SagaStatus)
    assert_type(await client.signal("1", "approved", order, key="k"), str)
    assert_type(await client.update("1", "set", order, int), int)
    assert_type(await client.query("1", "notes", list[str]), list[str])
    assert_type(await handle.signal("go"), str)


def inferred_too(order: Order) -> None:
    with BlockingClient("orders", name="shop") as client:
        handle = client.start(payment, order, id=order.id)
        assert_type(handle, BlockingHandle[Receipt])
        assert_type(handle.result(timeout=30), Receipt)
        assert_type(client.run(tidy, order, id=order.id), None)
        assert_type(client.describe("1"), SagaStatus)

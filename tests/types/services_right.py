"""Services as participants/README.md shows them."""

from __future__ import annotations

from typing import Any, Protocol, assert_type

from psycopg import AsyncConnection, Connection
from pydantic import BaseModel

from kasaga_participant import Participant, Refused, SyncTx, Tx
from kasaga_participant.testing import Harness, Reply, make_sync_tx, make_tx
from kasaga_wire import command, compensation, participant


class Order(BaseModel):
    id: str


class Reservation(BaseModel):
    number: int


@participant("inventory")
class Inventory(Protocol):
    @command
    async def reserve(self, order: Order) -> Reservation: ...

    @compensation(reserve)
    async def release(self, order: Order, reserved: Reservation | None) -> None: ...


class InventoryService(Inventory):
    def __init__(self, tx: Tx, shelf: str = "") -> None:
        self.tx = tx
        self.shelf = shelf

    async def reserve(self, order: Order) -> Reservation:
        cursor = await self.tx.connection.execute("SELECT 1")
        row = await cursor.fetchone()
        if row is None:
            raise Refused("sold out", code="SOLD_OUT", details={"left": 0})
        assert_type(self.tx.command.id, str)
        assert_type(self.tx.command.reason, str | None)
        return Reservation(number=row[0])

    async def release(self, order: Order, reserved: Reservation | None) -> None: ...


app = Participant("inventory", database_url=None)
app.serve(Inventory, InventoryService)
app.serve(Inventory, lambda tx: InventoryService(tx, "north"))


@app.handle(Inventory.reserve)
async def reserve(order: Order, tx: Tx) -> Reservation:
    assert_type(tx.connection, AsyncConnection[tuple[Any, ...]])
    return Reservation(number=1)


@app.handle(Inventory.reserve)
def reserve_in_a_thread(order: Order, tx: SyncTx) -> Reservation:
    assert_type(tx.connection, Connection[tuple[Any, ...]])
    return Reservation(number=1)


@app.handle(Inventory.release)
async def release(order: Order, reserved: Reservation | None, tx: Tx) -> None: ...


@app.handle(Inventory.release)
def release_in_a_thread(order: Order, reserved: Reservation | None, tx: SyncTx) -> None: ...


async def test_it() -> None:
    await InventoryService(make_tx(id="r.1")).reserve(Order(id="o"))
    reserve_in_a_thread(Order(id="o"), make_sync_tx())
    async with Harness(app) as harness:
        reply = await harness.send(Inventory.reserve, Order(id="o"))
        assert_type(reply, Reply)
        assert_type(await harness.undo(Inventory.release, reply), Reply)
        assert_type(await harness.void(Inventory.reserve, id="r.2"), Reply)

"""Services as participants/README.md shows them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Protocol, assert_type

from psycopg import AsyncConnection, Connection
from pydantic import BaseModel

from kasaga_participant import Deferred, Late, Participant, Refused, SyncLate, SyncTx, Tx
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


# --- answers that come later


@app.handle(Inventory.reserve)
async def defer(order: Order, tx: Tx) -> Reservation | Deferred:
    later = Deferred(tx, heartbeat=timedelta(minutes=5))
    assert_type(later.token, str)
    return later


@app.handle(Inventory.reserve)
def defer_in_a_thread(order: Order, tx: SyncTx) -> Reservation | Deferred:
    return Deferred(tx) if order.id else Reservation(number=1)


class LaterService(InventoryService):
    async def reserve(self, order: Order) -> Reservation:
        return Deferred(self.tx).instead_of(Reservation)


async def answer(
    token: str, connection: AsyncConnection[tuple[Any, ...]], plain: Connection[tuple[Any, ...]]
) -> None:
    late = app.late(Inventory.reserve)
    assert_type(late, Late[Reservation])
    await late.complete(token, Reservation(number=1), connection=connection)
    await late.refuse(token, "no", code="NO", details={"left": 0})
    await late.heartbeat(token, progress={"percent": 10})
    in_thread = app.sync_late(Inventory.reserve)
    assert_type(in_thread, SyncLate[Reservation])
    in_thread.complete(token, Reservation(number=1), connection=plain)
    in_thread.fail(token, "not now")


async def answer_in_a_test(harness: Harness, token: str) -> None:
    await harness.late(Inventory.reserve).complete(token, Reservation(number=1))

"""Mistakes in services that both type checkers must report; test_types.py says how."""

from __future__ import annotations

from typing import Protocol

from pydantic import BaseModel

from kasaga_participant import Participant, SyncTx, Tx
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


class WithoutRelease(Inventory):
    def __init__(self, tx: Tx) -> None: ...

    async def reserve(self, order: Order) -> Reservation:
        return Reservation(number=1)


class NotAsync(Inventory):
    def reserve(self, order: Order) -> Reservation:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return Reservation(number=1)

    async def release(self, order: Order, reserved: Reservation | None) -> None: ...


class WantsSync(Inventory):
    def __init__(self, tx: SyncTx) -> None: ...

    async def reserve(self, order: Order) -> Reservation:
        return Reservation(number=1)

    async def release(self, order: Order, reserved: Reservation | None) -> None: ...


def factory(tx: Tx) -> Inventory:
    return WithoutRelease(tx)  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]


app = Participant()
app.serve(Inventory, WantsSync)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
app.serve(Inventory, Order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@app.handle(Inventory.reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
async def another_input(order: int, tx: Tx) -> Reservation:
    return Reservation(number=order)


@app.handle(Inventory.reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
async def another_result(order: Order, tx: Tx) -> int:
    return 1


@app.handle(Inventory.reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
def a_plain_function_with_an_async_tx(order: Order, tx: Tx) -> Reservation:
    return Reservation(number=1)


@app.handle(Inventory.release)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
async def never_none(order: Order, reserved: Reservation, tx: Tx) -> None: ...


@app.handle(Inventory.release)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
async def without_the_result(order: Order, tx: Tx) -> None: ...


async def forgotten_await(tx: Tx) -> None:
    tx.connection.execute("SELECT 1")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


async def another_result_later(token: str) -> None:
    late = app.late(Inventory.reserve)
    await late.complete(token, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    late.heartbeat(token)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]

"""A contract and three services for it, for the tests of this folder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from pydantic import BaseModel

from kasaga_participant import Participant, Refused, SyncTx, Tx
from kasaga_wire import command, compensation, participant


class Order(BaseModel):
    id: str
    sku: str = "book"


class Reservation(BaseModel):
    number: int


@participant("inventory")
class Inventory(Protocol):
    @command
    async def reserve(self, order: Order) -> Reservation: ...

    @compensation(reserve)
    async def release(self, order: Order, reserved: Reservation | None) -> None: ...

    @command(alone=True)
    async def count(self, order: Order) -> int: ...


class Notes:
    """What the handlers have seen."""

    def __init__(self) -> None:
        self.reserved: list[str] = []
        self.released: list[Reservation | None] = []
        self.commands: list[tuple[str, int, str | None, str | None]] = []
        self.threads: set[str] = set()
        self.behaviour: list[BaseException | Reservation] = []
        """What reserve does next; it goes well when there is nothing left."""

    def reserve(self, order: Order) -> Reservation:
        self.reserved.append(order.id)
        if order.sku == "rare":
            raise Refused("sold out", code="SOLD_OUT", details={"left": 0})
        if self.behaviour:
            what = self.behaviour.pop(0)
            if isinstance(what, BaseException):
                raise what
            return what
        return Reservation(number=len(self.reserved))


def service_of(notes: Notes) -> Callable[[Tx], Inventory]:
    class Service(Inventory):
        def __init__(self, tx: Tx) -> None:
            self.tx = tx

        async def reserve(self, order: Order) -> Reservation:
            command = self.tx.command
            notes.commands.append((command.id, command.attempt, command.reason, command.failed_step))
            return notes.reserve(order)

        async def release(self, order: Order, reserved: Reservation | None) -> None:
            command = self.tx.command
            notes.commands.append((command.id, command.attempt, command.reason, command.failed_step))
            notes.released.append(reserved)

        async def count(self, order: Order) -> int:
            return len(notes.reserved)

    return Service


def async_app(notes: Notes) -> Participant:
    app = Participant("inventory", database_url=None)
    app.serve(Inventory, service_of(notes))
    return app


def sync_app(notes: Notes) -> Participant:
    app = Participant("inventory", database_url=None)

    @app.handle(Inventory.reserve)
    def reserve(order: Order, tx: SyncTx) -> Reservation:
        notes.threads.add(threading.current_thread().name)
        command = tx.command
        notes.commands.append((command.id, command.attempt, command.reason, command.failed_step))
        return notes.reserve(order)

    @app.handle(Inventory.release)
    def release(order: Order, reserved: Reservation | None, tx: SyncTx) -> None:
        notes.commands.append((tx.command.id, tx.command.attempt, tx.command.reason, tx.command.failed_step))
        notes.released.append(reserved)

    @app.handle(Inventory.count)
    def count(order: Order, tx: SyncTx) -> int:
        return len(notes.reserved)

    return app

"""Contracts as the documentation shows them: both type checkers are content, and infer what we say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, assert_type

from pydantic import BaseModel

from kasaga_wire import command, compensation, contract_of, participant
from kasaga_wire.contracts import CommandSpec, CompensationSpec, Contract, command_of

C = TypeVar("C")


class Order(BaseModel):
    id: str


class Reservation(BaseModel):
    id: str


@participant("inventory")
class Inventory(Protocol):
    @command
    async def reserve(self, order: Order) -> Reservation: ...
    @compensation(reserve)
    async def release(self, order: Order, reserved: Reservation | None) -> None: ...
    @command(alone=True)
    async def count(self, order: Order) -> int: ...
    @compensation(count, alone=True)
    async def uncount(self, order: Order, counted: int | None) -> None: ...
    @command
    async def forget(self, order: Order) -> None: ...
    @compensation(forget)
    async def remember(self, order: Order, forgotten: None) -> None: ...


@participant("ledger", inbox=False)
class Ledger(Protocol):
    @command
    async def note(self, text: str) -> Reservation | None: ...
    @compensation(note)
    async def unnote(self, text: str, noted: Reservation | None) -> None: ...


class Service(Inventory):
    """All of it, with the parameters' names of its own choice where nobody names them."""

    def __init__(self, connection: object) -> None:
        self.connection = connection

    async def reserve(self, order: Order) -> Reservation:
        return Reservation(id=order.id)

    async def release(self, order: Order, reserved: Reservation | None) -> None:
        assert_type(reserved, Reservation | None)

    async def count(self, order: Order) -> int:
        return 1

    async def uncount(self, order: Order, counted: int | None) -> None: ...

    async def forget(self, order: Order) -> None: ...

    async def remember(self, order: Order, forgotten: None) -> None: ...


def use(contract: Callable[..., C], *, timeout: float = 60) -> C:
    """As `ctx.use` is declared: `type[C]` would not take a Protocol."""
    raise NotImplementedError


async def saga(order: Order) -> None:
    inventory = use(Inventory, timeout=5)
    assert_type(inventory, Inventory)
    assert_type(await inventory.reserve(order), Reservation)
    assert_type(await inventory.reserve(order=order), Reservation)
    assert_type(await inventory.count(order), int)
    await inventory.release(order, None)
    await inventory.release(order, Reservation(id="r"))
    await inventory.forget(order)


def look_up() -> None:
    assert_type(contract_of(Inventory), Contract)
    assert_type(contract_of(Service), Contract)
    assert_type(command_of(Inventory.reserve), CommandSpec | CompensationSpec)
    service: Inventory = Service(None)
    anything: Any = service
    del anything

"""Mistakes that both type checkers must report.

Each is silenced on its line; test_types.py says why that is a test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from pydantic import BaseModel

from kasaga_wire import command, compensation, participant

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


@participant("wrong")
class Wrong(Protocol):
    @command
    async def reserve(self, order: Order) -> Reservation: ...

    @compensation(reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def result_is_never_none(self, order: Order, reserved: Reservation) -> None: ...

    @compensation(reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def other_input(self, order: int, reserved: Reservation | None) -> None: ...

    @compensation(reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def other_result(self, order: Order, reserved: int | None) -> None: ...

    @compensation(reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def returns_something(self, order: Order, reserved: Reservation | None) -> int: ...

    @compensation(reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def one_argument(self, order: Order) -> None: ...

    @compensation(reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    def no_coroutine(self, order: Order, reserved: Reservation | None) -> None: ...

    @command  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    def no_coroutine_either(self, order: Order) -> Reservation: ...

    @command(alone="yes")  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
    async def option_of_another_type(self, order: Order) -> Reservation: ...


class Incomplete(Inventory):
    async def reserve(self, order: Order) -> Reservation:
        return Reservation(id="r")


class OtherArgument(Inventory):
    async def reserve(self, order: int) -> Reservation:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return Reservation(id="r")

    async def release(self, order: Order, reserved: Reservation | None) -> None: ...


class OtherResult(Inventory):
    async def reserve(self, order: Order) -> int:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return 1

    async def release(self, order: Order, reserved: Reservation | None) -> None: ...


class NoneForgotten(Inventory):
    async def reserve(self, order: Order) -> Reservation:
        return Reservation(id="r")

    async def release(self, order: Order, reserved: Reservation) -> None: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]


class NotAsync(Inventory):
    def reserve(self, order: Order) -> Reservation:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return Reservation(id="r")

    async def release(self, order: Order, reserved: Reservation | None) -> None: ...


def use(contract: Callable[..., C]) -> C:
    raise NotImplementedError


async def saga(order: Order) -> None:
    inventory = use(Inventory)
    await inventory.reserve("order")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await inventory.reserve()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await inventory.reserve(order, order)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await inventory.reserve(thing=order)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await inventory.reserved(order)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    inventory.reserve(order)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    number: int = await inventory.reserve(order)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del number
    Incomplete()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]

"""Contracts: what the decorators accept, what they make of it, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import pytest
from pydantic import BaseModel

import kasaga_wire
from kasaga_wire.codec import Schemas
from kasaga_wire.contracts import (
    CommandSpec,
    CompensationSpec,
    command,
    command_of,
    compensation,
    contract_of,
    participant,
)
from kasaga_wire.errors import ContractError, TopicNameError, UnsupportedType

F = TypeVar("F")


# What the type checkers would refuse has to be refused without them too.
def unchecked(undoes: Any) -> Callable[[F], F]:
    """Compensation without its type."""
    loose: Any = compensation
    decorate: Callable[[F], F] = loose(undoes)
    return decorate


@participant("inventory")
class Inventory(Protocol):
    @command
    async def reserve(self, order: Order) -> Reservation: ...
    @compensation(reserve)
    async def release(self, order: Order, reserved: Reservation | None) -> None: ...
    @command(alone=True)
    async def count(self, order: Order) -> int: ...
    @command
    async def forget(self, order: Order) -> None: ...

    def helper(self) -> int:
        return 1


class Order(BaseModel):  # after the contract: annotations are resolved when they are needed
    id: str


class Reservation(BaseModel):
    id: str
    order: Order


class Service(Inventory):
    async def reserve(self, order: Order) -> Reservation:
        return Reservation(id="r", order=order)

    async def release(self, order: Order, reserved: Reservation | None) -> None: ...

    async def count(self, order: Order) -> int:
        return 1

    async def forget(self, order: Order) -> None: ...


def test_the_public_face_is_small() -> None:
    assert set(kasaga_wire.__all__) == {
        "Contract",
        "__version__",
        "command",
        "compensation",
        "contract_of",
        "participant",
    }


def test_a_contract_knows_its_commands() -> None:
    contract = contract_of(Inventory)
    assert (contract.name, contract.inbox, contract.cls) == ("inventory", True, Inventory)
    assert list(contract.commands) == ["reserve", "count", "forget"]
    assert list(contract.compensations) == ["release"]
    reserve = contract.commands["reserve"]
    assert (reserve.name, reserve.type, reserve.participant, reserve.alone) == (
        "reserve",
        "inventory.reserve",
        "inventory",
        False,
    )
    assert reserve.compensation is contract.compensations["release"]
    assert contract.commands["count"].alone
    assert contract.commands["count"].compensation is None
    assert set(contract.by_type) == {
        "inventory.reserve",
        "inventory.count",
        "inventory.forget",
        "inventory.release",
    }


def test_a_contract_is_compiled_once_and_found_through_its_service() -> None:
    assert contract_of(Inventory) is contract_of(Inventory) is contract_of(Service)


def test_a_function_leads_to_what_it_stands_for() -> None:
    reserve, release = command_of(Inventory.reserve), command_of(Inventory.release)
    assert isinstance(reserve, CommandSpec)
    assert isinstance(release, CompensationSpec)
    assert reserve.compensation is release
    assert release.undoes == "reserve"
    with pytest.raises(ContractError, match=r"Service\.reserve is no command"):
        command_of(Service.reserve)
    with pytest.raises(ContractError, match="is no command"):
        command_of(len)


def test_inputs_results_and_undos_go_there_and_back() -> None:
    contract = contract_of(Inventory)
    reserve = contract.commands["reserve"]
    order = Order(id="o")
    reservation = Reservation(id="r", order=order)
    schemas = Schemas()
    assert reserve.input.decode(reserve.input.encode(order), schemas) == order
    assert reserve.result.decode(reserve.result.encode(reservation), schemas) == reservation
    assert contract.commands["forget"].result.encode(None)[5:] == b""


def test_a_contract_names_every_schema_that_its_records_need() -> None:
    contract = contract_of(Inventory)
    texts = [schema.json for schema in contract.schemas()]
    assert len(texts) == len(set(texts))
    for part in (
        "kasaga.Error",
        "inventory.Order",
        "inventory.Reservation",
        "inventory.release.Undo",
        '"null"',
        '"long"',
    ):
        assert any(part in text for text in texts)


def test_the_path_of_a_bad_field_names_class_method_and_field() -> None:
    class Bad(BaseModel):
        tags: set[str]

    @participant("shop")
    class Shop(Protocol):
        @command
        async def buy(self, thing: Bad) -> None: ...

    with pytest.raises(UnsupportedType) as caught:
        contract_of(Shop)
    assert (
        caught.value.path
        == "test_the_path_of_a_bad_field_names_class_method_and_field.<locals>.Shop.buy.thing.tags"
    )


def test_names_of_the_function_around_are_found() -> None:
    class Local(BaseModel):
        x: int

    @participant("shop")
    class Shop(Protocol):
        @command
        async def buy(self, thing: Local) -> Local: ...

    assert contract_of(Shop).commands["buy"].input.annotation is Local


@pytest.mark.parametrize("name", ["Inventory", "1st", "", "a" * 64, "a.b", "a b", "kasaga", "ä"])
def test_a_participants_name_is_checked(name: str) -> None:
    with pytest.raises(TopicNameError):

        @participant(name)
        class _Shop(Protocol):
            @command
            async def buy(self, thing: Order) -> None: ...


def broken(cls: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message) as caught:
        contract_of(cls)
    assert str(caught.value).startswith("KSG-101: ")


def test_what_is_no_contract_is_refused() -> None:
    broken(Order, "Order is no contract")

    @participant("shop")
    class Nothing(Protocol):
        def helper(self) -> int: ...

    broken(Nothing, "has no command")


def test_a_command_takes_one_argument() -> None:
    @participant("shop")
    class NoArgument(Protocol):
        @command
        async def buy(self) -> None: ...

    broken(NoArgument, "takes 0 arguments")

    @participant("shop")
    class TwoArguments(Protocol):
        @command
        async def buy(self, one: int, two: int) -> None: ...

    broken(TwoArguments, "takes 2 arguments")

    @participant("shop")
    class Keyword(Protocol):
        @command
        async def buy(self, *, one: int) -> None: ...

    broken(Keyword, "takes 1 arguments")


def annotated(name: str, annotation: Any) -> Any:
    """A contract whose command has this annotation, or none."""

    async def buy(self: object, thing: Order) -> None: ...

    if annotation is None:
        del buy.__annotations__[name]
    else:
        buy.__annotations__[name] = annotation
    return participant("shop")(type("Shop", (), {"buy": command(buy)}))


@pytest.mark.parametrize("name", ["thing", "return"])
def test_annotations_are_required_and_resolved(name: str) -> None:
    broken(annotated(name, None), rf"Shop\.buy\.{name} has no annotation")
    broken(annotated(name, "Missing"), "'Missing' is not defined")


def test_a_compensation_takes_what_its_command_takes_and_gives() -> None:
    @participant("shop")
    class OtherInput(Protocol):
        @command
        async def buy(self, thing: Order) -> int: ...
        @unchecked(buy)
        async def sell(self, thing: int, bought: int | None) -> None: ...

    broken(OtherInput, r"sell\.thing differs from what buy takes")

    @participant("shop")
    class NotOptional(Protocol):
        @command
        async def buy(self, thing: Order) -> int: ...
        @unchecked(buy)
        async def sell(self, thing: Order, bought: int) -> None: ...

    broken(NotOptional, r"sell\.bought must be the result of buy or None")

    @participant("shop")
    class Returns(Protocol):
        @command
        async def buy(self, thing: Order) -> int: ...
        @unchecked(buy)
        async def sell(self, thing: Order, bought: int | None) -> int: ...

    broken(Returns, "sell returns something")


def test_a_command_has_one_compensation_at_most() -> None:
    @participant("shop")
    class Twice(Protocol):
        @command
        async def buy(self, thing: Order) -> int: ...
        @compensation(buy)
        async def sell(self, thing: Order, bought: int | None) -> None: ...
        @compensation(buy)
        async def give(self, thing: Order, bought: int | None) -> None: ...

    broken(Twice, "sell and give both undo buy")


def test_a_compensation_belongs_to_its_commands_class() -> None:
    async def elsewhere(self: object, thing: Order) -> int:
        return 1

    @participant("shop")
    class Shop(Protocol):
        @command
        async def buy(self, thing: Order) -> int: ...
        @unchecked(elsewhere)
        async def sell(self, thing: Order, bought: int | None) -> None: ...

    broken(Shop, "undoes .*elsewhere, which is no command of this class")


def test_a_contract_does_not_inherit_from_another() -> None:
    with pytest.raises(ContractError, match="inherits from the contract Inventory"):

        @participant("more")
        class _More(Inventory, Protocol):
            @command
            async def buy(self, thing: Order) -> None: ...


def test_a_plain_def_is_refused_at_once() -> None:

    def plain(self: object, thing: Order) -> None: ...

    loose: Any = command
    for decorate in (loose, unchecked(Inventory.reserve)):
        with pytest.raises(ContractError, match="is no async def"):
            decorate(plain)


def test_a_participant_may_have_no_inbox() -> None:
    @participant("shop", inbox=False)
    class Shop(Protocol):
        @command
        async def buy(self, thing: Order) -> None: ...

    assert not contract_of(Shop).inbox


def test_a_name_that_begins_with_an_underscore_is_refused() -> None:
    @participant("shop")
    class Shop(Protocol):
        @command
        async def _buy(self, thing: Order) -> None: ...

    broken(Shop, "can't begin with '_'")

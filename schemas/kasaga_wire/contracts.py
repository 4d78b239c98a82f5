"""Contracts: what a participant can be asked to do, declared once as a Protocol of async methods.

Station: imported by sagas (`ctx.use`), by services (`app.serve`) and by the engine. The decorators only
leave a mark; annotations are resolved and compiled by `contract_of`, at the first use, so forward
references work.

    @participant("inventory")
    class Inventory(Protocol):
        @command
        async def reserve(self, order: Order) -> Reservation: ...
        @compensation(reserve)
        async def release(self, order: Order, reserved: Reservation | None) -> None: ...

"""

from __future__ import annotations

import inspect
import keyword
import typing
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar, cast, overload

from .codec import Codec, codec_for
from .errors import ContractError
from .records import errors_codec, null_codec
from .schema import Schema
from .topics import check_participant
from .undo import UndoCodec

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])
S = TypeVar("S")
A = TypeVar("A")
R = TypeVar("R")

_MARK = "__kasaga_command__"
_OWNER = "__kasaga_participant__"
_CONTRACT = "__kasaga_contract__"


@dataclass(slots=True)
class _Mark:
    """What a decorator leaves on a method. `owner` is set when the class is complete."""

    undoes: Callable[..., Any] | None
    alone: bool
    owner: type | None = None


@dataclass(frozen=True, slots=True)
class _Owner:
    """What `@participant` leaves on a class.

    `scope` holds the names of the function around it, if there is one.
    """

    cls: type
    name: str
    inbox: bool
    scope: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class CompensationSpec:
    """One compensation of a contract."""

    name: str
    type: str
    participant: str
    undoes: str
    input: Codec[Any]
    result: Codec[Any]
    payload: UndoCodec
    alone: bool


@dataclass(frozen=True, slots=True, eq=False)
class CommandSpec:
    """One command of a contract."""

    name: str
    type: str
    participant: str
    input: Codec[Any]
    result: Codec[Any]
    compensation: CompensationSpec | None
    alone: bool


@dataclass(frozen=True, slots=True, eq=False)
class Contract:
    """All that a participant can be asked to do."""

    name: str
    inbox: bool
    cls: type
    commands: Mapping[str, CommandSpec]
    compensations: Mapping[str, CompensationSpec]
    by_type: Mapping[str, CommandSpec | CompensationSpec] = field(init=False)

    def __post_init__(self) -> None:
        """Index by what the header says."""
        specs: list[CommandSpec | CompensationSpec] = [*self.commands.values(), *self.compensations.values()]
        object.__setattr__(self, "by_type", MappingProxyType({spec.type: spec for spec in specs}))

    def schemas(self) -> Iterator[Schema]:
        """Every schema its records need, each once."""
        found = {codec.schema.id: codec.schema for codec in (errors_codec, null_codec)}
        for each in self.commands.values():
            found.update({schema.id: schema for schema in (each.input.schema, each.result.schema)})
        found.update({each.payload.schema.id: each.payload.schema for each in self.compensations.values()})
        return iter(found.values())


# --- declaring


def participant(name: str, *, inbox: bool = True) -> Callable[[C], C]:
    """Declare a contract.

    `inbox=False` says that the service has no inbox: its handlers are idempotent by command id.
    """

    def decorate(cls: C) -> C:
        if not isinstance(cls, type):
            raise ContractError("@participant is for classes", remedy="class Inventory(Protocol): ...")
        check_participant(name)
        frame = inspect.currentframe()
        outer = frame.f_back if frame is not None else None
        inside = outer is not None and outer.f_code.co_name != "<module>"
        scope: dict[str, Any] = dict(outer.f_locals) if outer is not None and inside else {}
        for base in cls.__mro__[1:]:
            if _OWNER in base.__dict__:
                raise ContractError(
                    f"{cls.__qualname__} inherits from the contract {base.__qualname__}",
                    remedy="write the commands out: each command belongs to one participant",
                )
        for each in cls.__dict__.values():
            mark = getattr(each, _MARK, None)
            if isinstance(mark, _Mark):
                mark.owner = cls
        setattr(cls, _OWNER, _Owner(cls, name, inbox, scope))
        return cast(C, cls)

    return decorate


@overload
def command(fn: F, /) -> F: ...
@overload
def command(*, alone: bool = False) -> Callable[[F], F]: ...
def command(fn: F | None = None, /, *, alone: bool = False) -> F | Callable[[F], F]:
    """Declare a command: one argument, one result.

    `alone=True`: it shares its transaction with no other command.
    """

    def decorate(fn: F) -> F:
        _leave_mark(fn, _Mark(None, alone))
        return fn

    return decorate if fn is None else decorate(fn)


def compensation(
    undoes: Callable[[S, A], Coroutine[Any, Any, R]], /, *, alone: bool = False
) -> Callable[
    [Callable[[S, A, R | None], Coroutine[Any, Any, None]]],
    Callable[[S, A, R | None], Coroutine[Any, Any, None]],
]:
    """Declare what undoes a command.

    It takes what the command takes, and then the command's result, or None where nobody can know it.
    """

    def decorate(
        fn: Callable[[S, A, R | None], Coroutine[Any, Any, None]],
    ) -> Callable[[S, A, R | None], Coroutine[Any, Any, None]]:
        _leave_mark(fn, _Mark(undoes, alone))
        return fn

    return decorate


def _leave_mark(fn: Callable[..., Any], mark: _Mark) -> None:
    if not inspect.iscoroutinefunction(fn):
        raise ContractError(f"{_name(fn)} is no async def", remedy="declare commands with async def")
    setattr(fn, _MARK, mark)


def _name(fn: object) -> str:
    return getattr(fn, "__qualname__", repr(fn))


# --- resolving


def is_contract(cls: object) -> bool:
    """Whether a class is marked by `@participant` itself; services that implement it are not."""
    return isinstance(cls, type) and _OWNER in cls.__dict__


def contract_of(cls: Callable[..., Any]) -> Contract:
    """The contract of a class that `@participant` marks, of a service that implements it, or of one command.

    Compiled once.
    """
    mark = getattr(cls, _MARK, None)
    owner = getattr(mark.owner if isinstance(mark, _Mark) else cls, _OWNER, None)
    if not isinstance(owner, _Owner):
        raise ContractError(f"{_name(cls)} is no contract", remedy='decorate it: @participant("name")')
    made = owner.cls.__dict__.get(_CONTRACT)
    if not isinstance(made, Contract):
        made = _resolve(owner)
        setattr(owner.cls, _CONTRACT, made)
    return made


def command_of(fn: Callable[..., Any]) -> CommandSpec | CompensationSpec:
    """What `Inventory.reserve` stands for."""
    mark = getattr(fn, _MARK, None)
    if not isinstance(mark, _Mark):
        raise ContractError(
            f"{_name(fn)} is no command", remedy="decorate it with @command or @compensation(...)"
        )
    if mark.owner is None:
        raise ContractError(
            f"{_name(fn)} belongs to no participant", remedy='decorate its class: @participant("name")'
        )
    contract = contract_of(mark.owner)
    for spec in contract.by_type.values():
        if mark.owner.__dict__.get(spec.name) is fn:
            return spec
    raise ContractError(f"{_name(fn)} is no command of {contract.name}")


def _resolve(owner: _Owner) -> Contract:
    marked = {
        name: (each, mark)
        for name, each in owner.cls.__dict__.items()
        if isinstance(mark := getattr(each, _MARK, None), _Mark)
    }
    if not any(mark.undoes is None for _, mark in marked.values()):
        raise ContractError(
            f"{owner.cls.__qualname__} has no command", remedy="decorate at least one with @command"
        )
    commands = {name: _command(owner, name, fn) for name, (fn, mark) in marked.items() if mark.undoes is None}
    compensations: dict[str, CompensationSpec] = {}
    for name, (fn, mark) in marked.items():
        if mark.undoes is None:
            continue
        made = _compensation(owner, name, fn, mark, marked)
        undone = commands[made.undoes]
        if undone.compensation is not None:
            raise ContractError(
                f"{owner.cls.__qualname__}: {undone.compensation.name} and {name} both undo {made.undoes}",
                remedy="keep one; a saga can name another at the call",
            )
        compensations[name] = made
        commands[made.undoes] = replace(undone, compensation=made)
    return Contract(
        owner.name, owner.inbox, owner.cls, MappingProxyType(commands), MappingProxyType(compensations)
    )


def _hints(owner: _Owner, fn: Callable[..., Any], arguments: int) -> tuple[list[tuple[str, Any]], Any]:
    """The arguments' names and annotations, and the result's."""
    place = f"{owner.cls.__qualname__}.{fn.__name__}"
    if fn.__name__.startswith("_") or keyword.iskeyword(fn.__name__) or not fn.__name__.isascii():
        raise ContractError(f"{place}: a command's name can't begin with '_'", remedy="give it a plain name")
    try:
        hints = typing.get_type_hints(fn, localns={**owner.scope}, include_extras=True)
    except NameError as error:
        raise ContractError(
            f"{place}: {error}", remedy="define or import the name in the module that declares the contract"
        ) from None
    names = list(inspect.signature(fn).parameters.values())[1:]
    if len(names) != arguments or any(p.kind is not p.POSITIONAL_OR_KEYWORD for p in names):
        wanted = (
            "one argument, a model"
            if arguments == 1
            else "two arguments: the command's, and its result or None"
        )
        raise ContractError(f"{place} takes {len(names)} arguments", remedy=f"give it {wanted}")
    for name in [p.name for p in names] + ["return"]:
        if name not in hints:
            raise ContractError(f"{place}.{name} has no annotation", remedy="annotate it")
    return [(p.name, hints[p.name]) for p in names], hints["return"]


def _command(owner: _Owner, name: str, fn: Callable[..., Any]) -> CommandSpec:
    [(argument, input_type)], result_type = _hints(owner, fn, 1)
    place = f"{owner.cls.__qualname__}.{name}"
    return CommandSpec(
        name=name,
        type=f"{owner.name}.{name}",
        participant=owner.name,
        input=codec_for(input_type, name=owner.name, where=f"{place}.{argument}"),
        result=codec_for(result_type, name=owner.name, where=f"{place}.return"),
        compensation=None,
        alone=cast(_Mark, getattr(fn, _MARK)).alone,
    )


def _compensation(
    owner: _Owner, name: str, fn: Callable[..., Any], mark: _Mark, marked: Mapping[str, tuple[Any, _Mark]]
) -> CompensationSpec:
    place = f"{owner.cls.__qualname__}.{name}"
    undoes = next((n for n, (each, m) in marked.items() if each is mark.undoes and m.undoes is None), None)
    if undoes is None:
        raise ContractError(f"{place} undoes {_name(mark.undoes)}, which is no command of this class")
    [(_, input_type)], result_type = _hints(owner, marked[undoes][0], 1)
    [(first, first_type), (second, second_type)], returned = _hints(owner, fn, 2)
    if first_type != input_type:
        raise ContractError(f"{place}.{first} differs from what {undoes} takes", remedy="annotate both alike")
    if second_type != typing.Optional[result_type]:  # noqa: UP045 (the type is a value here)
        raise ContractError(
            f"{place}.{second} must be the result of {undoes} or None",
            remedy=f"annotate it as {getattr(result_type, '__name__', result_type)} | None",
        )
    if returned is not type(None):
        raise ContractError(f"{place} returns something", remedy="annotate it with -> None")
    payload = UndoCodec(f"{owner.name}.{name}", input_type, result_type, place)
    return CompensationSpec(
        name=name,
        type=f"{owner.name}.{name}",
        participant=owner.name,
        undoes=undoes,
        input=payload.input,
        result=payload.result,
        payload=payload,
        alone=mark.alone,
    )

"""The sagas that are simulated, their contracts, and the handlers of their services.

Each saga can go wrong in a way of its own. Handlers are driven by the seed: whether a command is refused is a
matter of its id, whether an attempt fails one of that attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import pydantic

from kasaga import (
    RetryPolicy,
    SagaContext,
    SagaFailed,
    StepError,
    StepRefused,
    StepTimeout,
    TimedOut,
    saga,
)
from kasaga.saga import Saga
from kasaga_participant import Refused, RetryableError
from kasaga_participant.handlers import Registry
from kasaga_wire.contracts import Contract, command, compensation, participant
from simulator import news
from simulator.postgres import Effect, Transaction

if TYPE_CHECKING:
    from simulator.world import World


class Order(pydantic.BaseModel):
    id: str
    note: str = ""


class Receipt(pydantic.BaseModel):
    ref: str


@participant("stock")
class Stock(Protocol):
    @command
    async def reserve(self, order: Order) -> Receipt: ...
    @compensation(reserve)
    async def release(self, order: Order, receipt: Receipt | None) -> None: ...


@participant("bank")
class Bank(Protocol):
    @command
    async def charge(self, order: Order) -> Receipt: ...
    @compensation(charge)
    async def refund(self, order: Order, receipt: Receipt | None) -> None: ...


@participant("post")
class Post(Protocol):
    @command
    async def ship(self, order: Order) -> None: ...


SLEEPS = ("0.3", "1", "5", "3600", "259200", "864000")
"""Seconds for which a sleeper sleeps, as its note has it."""
QUICK = RetryPolicy(initial_interval=0.1, maximum_interval=0.5, maximum_attempts=3)
ONCE = RetryPolicy(maximum_attempts=1)
PATIENT = RetryPolicy(initial_interval=0.1, maximum_interval=2.0, maximum_attempts=0)
UNDO = RetryPolicy(initial_interval=0.1, maximum_interval=1.0, maximum_attempts=6)


@saga("payment")
async def payment(ctx: SagaContext, order: Order) -> Receipt:
    """Three steps, tried a few times; says in search attributes how far it is."""
    await ctx.set_attributes(stage="begun", steps=0)
    await ctx.use(Stock, timeout=2, retry=QUICK, undo_retry=UNDO).reserve(order)
    await ctx.set_attributes(stage="reserved", steps=1)
    receipt = await ctx.use(Bank, timeout=2, retry=QUICK, undo_retry=UNDO).charge(order)
    await ctx.set_attributes(stage="paid", steps=None)
    await ctx.use(Post, timeout=2, retry=QUICK, undo_retry=UNDO).ship(order)
    return receipt


@saga("patient")
async def patient(ctx: SagaContext, order: Order) -> Receipt:
    """The same, tried until they answer."""
    await ctx.use(Stock, timeout=1, retry=PATIENT, undo_retry=UNDO).reserve(order)
    return await ctx.use(Bank, timeout=1, retry=PATIENT, undo_retry=UNDO).charge(order)


@saga("careful")
async def careful(ctx: SagaContext, order: Order) -> str:
    """Catches a refusal and a time-out, and goes on another way."""
    try:
        await ctx.use(Bank, timeout=0.8, retry=ONCE, undo_retry=UNDO).charge(order)
        how = "paid"
    except StepRefused:
        how = "on account"
    except StepTimeout:
        await ctx.use(Bank, timeout=2, retry=QUICK, undo_retry=UNDO).charge(order)
        how = "paid later"
    await ctx.use(Stock, timeout=1, retry=QUICK, undo_retry=UNDO).reserve(order)
    return how


@saga("sleeper")
async def sleeper(ctx: SagaContext, order: Order) -> Receipt:
    """Sleeps between two steps, sometimes for days."""
    await ctx.use(Stock, timeout=2, retry=PATIENT, undo_retry=UNDO).reserve(order)
    await ctx.sleep(float(order.note or 1))
    return await ctx.use(Bank, timeout=2, retry=QUICK, undo_retry=UNDO).charge(order)


@saga("hurried", timeout=3)
async def hurried(ctx: SagaContext, order: Order) -> Receipt:
    """Has a deadline."""
    await ctx.use(Stock, timeout=1, retry=PATIENT, undo_retry=UNDO).reserve(order)
    await ctx.sleep(1)
    return await ctx.use(Bank, timeout=1, retry=PATIENT, undo_retry=UNDO).charge(order)


@saga("failing")
async def failing(ctx: SagaContext, order: Order) -> None:
    """Is undone by its author."""
    await ctx.use(Stock, timeout=2, retry=PATIENT, undo_retry=UNDO).reserve(order)
    await ctx.use(Bank, timeout=2, retry=PATIENT, undo_retry=UNDO).charge(order)
    raise SagaFailed("the author has changed his mind")


def count() -> int:
    """What ctx.run calls."""
    return 7


def uncount(number: int | None) -> None:
    """The undo of it."""


@saga("local")
async def local(ctx: SagaContext, order: Order) -> int:
    """A function between two steps."""
    await ctx.use(Stock, timeout=2, retry=QUICK, undo_retry=UNDO).reserve(order)
    number = await ctx.run(count, undo=uncount)
    await ctx.use(Bank, timeout=2, retry=QUICK, undo_retry=UNDO).charge(order)
    return number


@saga("sold", timeout=60)
async def sold(ctx: SagaContext, order: Order) -> Receipt:
    """Has a pivot, and emits before and after it; what comes then may be refused, which nobody catches."""
    await ctx.use(Stock, timeout=2, retry=PATIENT, undo_retry=UNDO).reserve(order)
    await ctx.emit(news.TOPIC, order, event_type="reserved")
    receipt = await ctx.use(Bank, timeout=2, retry=QUICK, undo_retry=UNDO).charge(order)
    await ctx.pivot()
    await ctx.emit(news.TOPIC, order, event_type="sold")
    await ctx.emit(news.TOPIC, {"receipt": str(receipt)}, event_type="paid")
    await ctx.use(Post, timeout=1, retry=QUICK, undo_retry=UNDO).ship(order)
    await ctx.use(Post, timeout=1, retry=QUICK, undo_retry=UNDO).ship(order)
    return receipt


@saga("choosy", timeout=120)
async def choosy(ctx: SagaContext, order: Order) -> str:
    """Tries one way in a scope, with another in it and a branch beside; and if it is no way, a second."""
    stock = ctx.use(Stock, timeout=1, retry=QUICK, undo_retry=UNDO)
    bank = ctx.use(Bank, timeout=1, retry=ONCE, undo_retry=UNDO)
    await stock.reserve(order)
    how = "first"
    try:
        async with ctx.scope("first"):
            await stock.reserve(order)
            async with ctx.scope("inner"):
                ctx.spawn(stock.reserve(order))
                await bank.charge(order)
            async with ctx.timeout(1.5):
                await ctx.gather(bank.charge(order), stock.reserve(order))
    except (StepError, TimedOut):
        await ctx.use(Bank, timeout=1, retry=PATIENT, undo_retry=UNDO).charge(order)
        how = "second"
    await bank.charge(order)
    return how


BROKEN: set[str] = set()
"""Orders at which `buggy` meets its bug: an operator mends it."""


@saga("buggy")
async def buggy(ctx: SagaContext, order: Order) -> Receipt:
    """A bug between two steps, until somebody mends it."""
    await ctx.use(Stock, timeout=2, retry=QUICK, undo_retry=UNDO).reserve(order)
    if order.id in BROKEN:
        raise TypeError("a bug in the saga's code")
    return await ctx.use(Bank, timeout=2, retry=QUICK, undo_retry=UNDO).charge(order)


LETTERS = 4
"""How many signals `listener` and `subscriber` take."""


@saga("listener", signals={"letter": str})
async def listener(ctx: SagaContext, order: Order) -> str:
    """Takes signals between two steps, some of them in a race; may meet a bug before."""
    await ctx.use(Stock, timeout=2, retry=PATIENT, undo_retry=UNDO).reserve(order)
    if order.id in BROKEN:
        raise TypeError("a bug in the saga's code")
    await ctx.sleep(1)
    letters = [await ctx.signal("letter", str)]
    while len(letters) < LETTERS:
        name, letter = await ctx.select(letter=ctx.signal("letter", str), pause=ctx.sleep(0.5))
        if name == "letter":
            letters.append(str(letter))
    await ctx.use(Bank, timeout=2, retry=QUICK, undo_retry=UNDO).charge(order)
    return " ".join(letters)


@saga("subscriber", signals={"letter": str})
async def subscriber(ctx: SagaContext, order: Order) -> str:
    """Takes a signal in each run, with a step before or behind it; may meet a bug in its second run."""
    if ctx.run_number == 2 and order.id in BROKEN:
        raise TypeError("a bug in the saga's code")
    if ctx.run_number % 2:
        await ctx.use(Stock, timeout=2, retry=PATIENT, undo_retry=UNDO).reserve(order)
    await ctx.set_attributes(runs=ctx.run_number)
    letter = await ctx.signal("letter", str)
    if not ctx.run_number % 2:
        await ctx.race(ctx.use(Bank, timeout=2, retry=QUICK, undo_retry=UNDO).charge(order), ctx.sleep(0.05))
    note = f"{order.note} {letter}".strip()
    if ctx.run_number == LETTERS:
        return note
    return await ctx.continue_as_new(Order(id=order.id, note=note))


WRITTEN_TO = frozenset({"listener", "subscriber"})

SAGAS: list[Saga[Any, Any]] = [
    payment,
    patient,
    careful,
    sleeper,
    hurried,
    failing,
    local,
    sold,
    choosy,
    buggy,
    listener,
    subscriber,
]
CONTRACTS: list[type[Any]] = [Stock, Bank, Post]


def registries(world: World, contracts: Mapping[str, Contract]) -> dict[str, Registry]:
    """The handlers of one process: they write an effect, and may refuse or fail."""
    found: dict[str, Registry] = {}
    for name, contract in contracts.items():
        registry = Registry(contract)
        for type_ in contract.by_type:
            undoes = type_.partition(".")[2] in contract.compensations
            handler = _undoing(world) if undoes else _doing(world, contract, type_)
            registry.add_function(contract.by_type[type_], handler)
        found[name] = registry
    return found


Handler = Callable[..., Any]


def _doing(world: World, contract: Contract, type_: str) -> Handler:
    spec = contract.commands[type_.partition(".")[2]]
    gives = spec.result.annotation not in (None, type(None))

    async def handle(order: Order, tx: Any) -> Receipt | None:
        transaction: Transaction = tx.connection
        command, process = tx.command, world.running
        where = f"{command.id}/{command.attempt}"
        await world.pause(world.chance.whole(world.chance.next(f"handler/{where}"), 100, 4000))
        world.machine.check()
        if world.chance.odds.get("refused", 0.0) > world.chance.number(f"refused/{command.id}"):
            raise Refused("not today", code="SIM")
        transaction.effects.append(
            Effect(command.id, command.type, command.attempt, process, world.machine.now)
        )
        if world.chance.strikes("handler_slow", where):
            await world.pause(world.chance.whole(world.chance.next(f"slow/{where}"), 500_000, 6_000_000))
            world.machine.check()
        if world.chance.strikes("handler_fails", where):
            raise RetryableError("it fails this time")
        return Receipt(ref=command.id) if gives else None

    return handle


def _undoing(world: World) -> Handler:
    async def handle(order: Order, receipt: Receipt | None, tx: Any) -> None:
        transaction: Transaction = tx.connection
        command, process = tx.command, world.running
        where = f"{command.id}/{command.attempt}"
        await world.pause(world.chance.whole(world.chance.next(f"handler/{where}"), 100, 4000))
        world.machine.check()
        transaction.effects.append(
            Effect(command.id, command.type, command.attempt, process, world.machine.now)
        )
        if world.chance.strikes("undo_fails", where):
            raise RetryableError("it can't be undone this time")

    return handle

"""`ctx.spawn`, and what branches can't do: endless ones, circles, uses after their end."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable

import pytest

from engine.bodies import book, of, stuck
from engine.shop import Inventory, Mail, Order, Payments, Shipping, app_of
from kasaga import BranchEnded, SagaContext, Spawned, StepError, TimedOut, saga
from kasaga.engine.model import Return
from kasaga.engine.scheduling import MAX_DEPTH

# --- spawn


async def background(ctx: SagaContext, order: Order) -> str:
    branch: Spawned[str] = ctx.spawn(book(ctx, order))
    charge = await ctx.use(Payments).charge(order)
    assert not branch.done or charge
    return str(charge.id)


def test_the_saga_waits_for_what_it_has_spawned() -> None:
    play = of(background)
    assert [step.path for step in play.state.order] == ["2", "1.1"]
    play.done(2)
    play.done("1.1")
    assert play.state.state == "RUNNING"
    play.done("1.2")
    assert play.state.state == "COMPLETED"


def test_an_outcome_of_a_spawned_branch_surfaces_at_the_end() -> None:
    play = of(background)
    play.refused("1.1")
    assert play.state.state == "RUNNING"
    play.done(2)
    assert (play.state.state, play.state.undo_step) == ("COMPENSATING", "1.1")
    play = of(background)
    play.done(2)
    play.refused("1.1")
    play.undo(2)
    assert play.state.state == "COMPENSATED"


def test_the_saga_fails_and_waits_for_what_its_spawned_branches_have_in_flight() -> None:
    play = of(background)
    play.refused(2)
    assert play.state.state == "RUNNING"
    play.done("1.1")
    assert play.state.state == "COMPENSATING"
    play.undo("1.1")
    assert play.state.state == "COMPENSATED"


def test_a_spawned_branch_is_awaited() -> None:
    async def awaiting(ctx: SagaContext, order: Order) -> str:
        branch = ctx.spawn(ctx.use(Inventory).reserve(order))
        await ctx.use(Payments).charge(order)
        try:
            shelf = (await branch).shelf
        except StepError:
            shelf = "none"
        both = await ctx.gather(branch, ctx.sleep(1), return_exceptions=True)
        return f"{shelf} {branch.done} {len(both)}"

    for first, second in (("1.1", "2"), ("2", "1.1")):
        for refused in (False, True):
            play = of(awaiting)
            for path in (first, second):
                play.refused(path) if refused and path == "1.1" else play.done(path)
            play.fire("3.2")
            assert play.state.state == "COMPLETED", play.state.reason
            assert (b"none" if refused else b"A7") in play.ever(Return)[0].result


def test_a_branch_that_is_ended_with_its_spawner_tells_who_awaits_it() -> None:
    async def ended(ctx: SagaContext, order: Order) -> str:
        made: list[Spawned[str]] = []

        async def spawner() -> None:
            made.append(ctx.spawn(book(ctx, order)))
            await ctx.use(Mail).send(order)

        async def waiter() -> str:
            await ctx.use(Payments).charge(order)
            try:
                await made[0]
            except BranchEnded as error:
                return str(error)
            return ""

        _, said = await ctx.gather(ctx.race(spawner(), ctx.sleep(5)), waiter())
        return said

    play = of(ended)
    play.done("1.2.1")
    play.fire("1.1.1.2")
    assert b"branch 1.1.1.1.1 was ended before its end" in play.ever(Return)[0].result
    assert play.undone[0] == "1.1.1.1.2"


def test_branches_that_wait_for_each_other_are_stuck() -> None:
    async def circle(ctx: SagaContext, order: Order) -> str:
        made: list[Spawned[None]] = []

        async def other(index: int) -> None:
            await ctx.sleep(1)
            await made[index]

        made.append(ctx.spawn(other(1)))
        made.append(ctx.spawn(other(0)))
        return ""

    play = of(circle)
    play.fire("1.1")
    play.fire("2.1")
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-215")
    assert "test_spawned.py" in play.state.reason


async def limited(ctx: SagaContext, order: Order) -> str:
    try:
        async with ctx.timeout(30):
            await ctx.use(Inventory).reserve(order)
            await ctx.use(Payments).charge(order)
    except TimedOut as error:
        await ctx.use(Shipping).schedule(order)
        return str(error)
    return "in time"


# --- what can't be


async def reading(ctx: SagaContext, order: Order) -> str:
    return ""


def test_what_is_no_branch_is_refused_by_name() -> None:
    async def future(ctx: SagaContext, order: Order) -> str:
        await ctx.gather(reading(ctx, order), asyncio.Queue())  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        return ""

    async def block(ctx: SagaContext, order: Order) -> str:
        await ctx.gather(ctx.timeout(5))
        return ""

    async def awaited(ctx: SagaContext, order: Order) -> str:
        await ctx.timeout(5)
        return ""

    async def none(ctx: SagaContext, order: Order) -> str:
        return await ctx.race()

    async def select_none(ctx: SagaContext, order: Order) -> str:
        nothing: dict[str, Awaitable[str]] = {}
        return (await ctx.select(**nothing))[0]

    async def long(ctx: SagaContext, order: Order) -> str:
        async with ctx.timeout(0):
            pass
        return ""

    async def forgotten(ctx: SagaContext, order: Order) -> str:
        ctx.gather(ctx.use(Mail).send(order), reading(ctx, order))  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
        return ""

    async def twice(ctx: SagaContext, order: Order) -> str:
        step = ctx.use(Mail).send(order)
        await ctx.gather(step, step)
        return ""

    for body, said in (
        (future, "KSG-201 ctx.gather got asyncio.queues.Queue"),
        (block, "KSG-201 ctx.gather got a ctx.timeout"),
        (awaited, "KSG-201 ctx.timeout was awaited"),
        (none, "KSG-201 ctx.race of nothing"),
        (select_none, "KSG-201 ctx.select of nothing"),
        (long, "KSG-200 ctx.timeout(0)"),
        (forgotten, "KSG-213 the saga returned and never awaited what it called: ctx.gather of 2"),
        (twice, "KSG-201 mail.send was awaited a second time"),
    ):
        assert stuck(body).startswith(said), stuck(body)


def test_branches_without_an_end_are_refused() -> None:
    async def deep(ctx: SagaContext, order: Order) -> str:
        return (await ctx.gather(deep(ctx, order)))[0]

    async def nothing() -> None:
        return

    async def loop(ctx: SagaContext, order: Order) -> str:
        while True:
            await ctx.gather(nothing())

    async def spawning(ctx: SagaContext, order: Order) -> str:
        await ctx.spawn(spawning(ctx, order))
        return ""

    assert f"is {MAX_DEPTH + 1} branches deep" in stuck(deep)
    assert "the saga has begun 50000 branches" in stuck(loop)
    assert f"is {MAX_DEPTH + 1} branches deep" in stuck(spawning)


def test_each_branch_has_its_own_context_variables() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")

    async def named(ctx: SagaContext, name: str) -> str:
        before = who.get()
        who.set(name)
        await ctx.sleep(1)
        return f"{before} {who.get()}"

    async def variables(ctx: SagaContext, order: Order) -> str:
        who.set("saga")
        got = await ctx.gather(named(ctx, "a"), named(ctx, "b"))
        return f"{got[0]}, {got[1]}, {who.get()}"

    play = of(variables)
    play.fire("1.1.1")
    play.fire("1.2.1")
    assert b"saga a, saga b, saga" in play.ever(Return)[0].result


def test_an_ended_branch_can_use_nothing_of_its_context() -> None:
    seen: list[str] = []

    async def cleaning(ctx: SagaContext, order: Order) -> str:
        try:
            await ctx.use(Inventory).reserve(order)
        finally:
            try:
                await ctx.gather(ctx.use(Mail).send(order), ctx.sleep(1))
            except BaseException as error:
                seen.append(type(error).__name__)
                raise
        return ""

    async def cleaned(ctx: SagaContext, order: Order) -> str:
        waits: Awaitable[object] = cleaning(ctx, order)
        await ctx.race(waits, ctx.use(Payments).charge(order))
        return ""

    play = of(cleaned)
    play.done("1.2")
    assert seen[-1] == "Evicted"
    assert [step.path for step in play.state.order] == ["1.1.1", "1.2"]
    play.undo("1.1.1")
    assert play.state.state == "COMPLETED"


def test_code_that_no_longer_has_a_time_out_is_noticed() -> None:
    play = of(limited)

    @saga("limited")
    async def without(ctx: SagaContext, order: Order) -> str:
        await ctx.sleep(30)
        return ""

    play.load(app_of(without))
    with pytest.raises(Exception, match=r"now asks for sleep .*, where its history has timeout as step 1"):
        play.run.live(play.defs)


def test_a_branch_whose_code_has_returned_is_ended_while_it_waits_for_what_it_has_spawned() -> None:
    async def returns(ctx: SagaContext, order: Order) -> None:
        ctx.spawn(ctx.use(Inventory).reserve(order))

    async def racing(ctx: SagaContext, order: Order) -> str:
        await ctx.race(returns(ctx, order), ctx.sleep(5))
        return ""

    play = of(racing)
    play.fire("1.2")
    assert play.undone == ["1.1.1.1"]
    play.undo("1.1.1.1", "nothing")
    assert play.state.state == "COMPLETED"


def test_of_two_branches_that_are_woken_at_once_the_first_ends_the_other() -> None:
    async def racing(ctx: SagaContext, order: Order) -> str:
        branch = ctx.spawn(ctx.use(Inventory).reserve(order))

        async def waits(name: str) -> str:
            await branch
            return name

        return str(await ctx.race(waits("first"), waits("second")))

    play = of(racing)
    play.done("1.1")
    assert b"first" in play.ever(Return)[0].result

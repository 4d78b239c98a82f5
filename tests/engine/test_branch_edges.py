"""Corners of branches that a saga seldom comes to."""

from __future__ import annotations

import gc

import pytest

from engine.harness import Play
from engine.shop import Inventory, Mail, Order, Payments, app_of, payment, started
from kasaga import SagaContext, SagaFailed, Spawned, TimedOut, saga
from kasaga.engine.branches import Branch
from kasaga.engine.model import COMMAND, DONE, Leave, Replied
from kasaga.errors import Nondeterminism


def line_of(play: Play) -> str:
    return play.run.live(play.defs).line()


def test_a_gather_is_awaited_once() -> None:
    @saga("twice")
    async def twice(ctx: SagaContext, order: Order) -> str:
        both = ctx.gather(ctx.sleep(1), ctx.sleep(1))
        await both
        await both
        return ""

    play = started(twice)
    play.fire("1.1")
    play.fire("1.2")
    assert (play.state.code, play.state.reason[:38]) == ("KSG-201", "ctx.gather of 2 was awaited a second t")


def test_a_block_that_is_never_entered_and_a_gather_that_is_never_awaited() -> None:
    @saga("loose")
    async def loose(ctx: SagaContext, order: Order) -> str:
        ctx.timeout(5)
        made = ctx.gather(ctx.sleep(1), ctx.sleep(2))
        await ctx.use(Mail).send(order)
        return str(made)

    play = started(loose)
    assert line_of(play).startswith("test_branch_edges.py:")
    play.evict()
    play.done(1)
    assert play.state.code == "KSG-213"
    assert play.state.reason.endswith("called: timeout, ctx.gather of 2")


def test_a_block_whose_code_raises_something_else_when_its_time_is_over() -> None:
    @saga("other")
    async def other(ctx: SagaContext, order: Order) -> str:
        async with ctx.timeout(5):
            try:
                await ctx.use(Inventory).reserve(order)
            finally:
                raise SagaFailed("on the way out")

    play = started(other)
    play.fire(1)
    assert (play.state.state, play.state.undo_reason) == ("COMPENSATING", "on the way out")


def test_a_result_in_a_gather_that_nobody_can_read() -> None:
    @saga("reading")
    async def reading(ctx: SagaContext, order: Order) -> str:
        await ctx.gather(ctx.use(Inventory).reserve(order), ctx.use(Payments).charge(order))
        return ""

    play = started(reading)
    wrong = play.spec("payments.charge").result.encode(play.answers["payments.charge"])
    play.event(Replied("1.1", COMMAND, 1, DONE, wrong))
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-208")
    assert "the result of step 1.1 (inventory.reserve)" in play.state.reason


def test_code_that_ends_otherwise_than_it_did() -> None:
    @saga("ending")
    async def returns(ctx: SagaContext, order: Order) -> str:
        await ctx.sleep(1)
        return ""

    @saga("ending")
    async def raises(ctx: SagaContext, order: Order) -> str:
        await ctx.sleep(1)
        raise SagaFailed("no")

    @saga("ending")
    async def spawns(ctx: SagaContext, order: Order) -> str:
        await ctx.sleep(1)
        ctx.spawn(ctx.sleep(1))
        return ""

    play = started(returns)
    play.fire(1)
    play.load(app_of(raises))
    with pytest.raises(
        Nondeterminism, match=r"now asks to be undone \(no\), where its history has its return"
    ):
        play.run.live(play.defs)
    play.load(app_of(spawns))
    with pytest.raises(Nondeterminism, match=r"now asks for sleep at .*, where its history has its return"):
        play.run.live(play.defs)
    play = started(spawns)
    play.fire(1)
    play.load(app_of(returns))
    with pytest.raises(Nondeterminism, match=r"now returns, where its history has sleep as step 2.1"):
        play.run.live(play.defs)


def test_a_loser_that_made_what_it_never_awaited_and_a_stubborn_one() -> None:
    async def making(ctx: SagaContext, order: Order) -> None:
        made = ctx.gather(ctx.sleep(1), ctx.sleep(1))
        step = ctx.use(Mail).send(order)
        await ctx.use(Inventory).reserve(order)
        await made
        await step

    async def stubborn(ctx: SagaContext, order: Order) -> None:
        prepared = ctx.gather(ctx.sleep(1), ctx.sleep(1))
        try:
            await ctx.sleep(9)
        except BaseException:
            await prepared
            raise

    @saga("losing")
    async def losing(ctx: SagaContext, order: Order) -> str:
        await ctx.race(making(ctx, order), stubborn(ctx, order), ctx.use(Payments).charge(order))
        return ""

    play = started(losing)
    play.done("1.3")
    play.undo("1.1.1")
    assert play.state.state == "COMPLETED"


def test_a_race_that_is_given_up_with_its_branch_before_it_has_begun() -> None:
    async def fails() -> None:
        raise SagaFailed("at once")

    @saga("early")
    async def early(ctx: SagaContext, order: Order) -> str:
        made: Spawned[None] = ctx.spawn(ctx.sleep(5))
        try:
            await ctx.gather(
                fails(), ctx.race(ctx.sleep(1), ctx.gather(ctx.sleep(2), fails())), made, ctx.sleep(4)
            )
        except SagaFailed:
            await made
        return ""

    play = started(early)
    assert [step.path for step in play.state.order] == ["1.1"]
    play.fire("1.1")
    assert play.state.state == "COMPLETED"


def test_a_block_inside_a_loser_and_a_branch_inside_a_block() -> None:
    async def inner(ctx: SagaContext, order: Order) -> str:
        async with ctx.timeout(60):
            await ctx.gather(ctx.use(Inventory).reserve(order), ctx.sleep(50))
        return "inner"

    @saga("blocks")
    async def blocks(ctx: SagaContext, order: Order) -> str:
        try:
            return await ctx.race(inner(ctx, order), inner(ctx, order))
        except TimedOut:
            return "over"

    play = started(blocks)
    play.done("1.1.2.1")
    play.fire("1.1.1")
    assert play.state.returned is not None
    assert play.undone == ["1.2.2.1"]
    play.undo("1.2.2.1")
    assert play.state.state == "COMPLETED"


def test_a_loser_that_awaits_a_spawned_branch_and_has_taken_no_step() -> None:
    async def fails() -> None:
        raise SagaFailed("at once")

    async def waiter(ctx: SagaContext, order: Order, branch: Spawned[None]) -> None:
        try:
            await ctx.gather(ctx.use(Mail).send(order), fails())
        except SagaFailed:
            await branch

    @saga("idle")
    async def idle(ctx: SagaContext, order: Order) -> str:
        branch = ctx.spawn(ctx.sleep(60))
        await ctx.race(waiter(ctx, order, branch), ctx.sleep(5))
        await ctx.sleep(1)
        return ""

    play = started(idle)
    assert [step.path for step in play.state.order] == ["2.2", "1.1"]
    play.fire("2.2")
    assert play.ever(Leave) == []
    play.fire("3")
    assert play.state.state == "RUNNING"
    play.fire("1.1")
    assert play.state.state == "COMPLETED"


def test_a_saga_without_branches_leaves_nothing_to_the_collector() -> None:
    """Thousands end in a second: circles among their objects would cost each of them."""
    gc.disable()
    try:
        play = started(payment, run_id="circles", always_replay=False)
        for path in (1, 2, 3):
            play.done(path)
        left = [each for each in gc.get_objects() if isinstance(each, Branch)]
        assert not [each for each in left if each.host.run_id == "circles"]
    finally:
        gc.enable()

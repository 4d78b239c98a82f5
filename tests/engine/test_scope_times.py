"""Scopes and `ctx.timeout`: a time that is over around one, in one, and while one is undone."""

from __future__ import annotations

from engine.bodies import of
from engine.harness import BEGIN, SECOND, Play
from engine.shop import Inventory, Order, Payments, Shipping
from kasaga import SagaContext, SagaFailed, StepRefused, TimedOut
from kasaga.engine.model import Return

# --- times that are over


async def limited(ctx: SagaContext, order: Order) -> str:
    try:
        async with ctx.timeout(30), ctx.scope("A"):
            await ctx.use(Inventory).reserve(order)
            await ctx.use(Shipping).schedule(order)
    except TimedOut as error:
        await ctx.use(Payments).charge(order)
        return str(error)
    return "in time"


def test_a_time_that_is_over_undoes_the_scope_before_it_is_told() -> None:
    play = of(limited)
    play.done(3)
    play.fire(1)
    assert play.undone == ["4"]
    play.undo(4, "nothing")
    assert (play.undone, "5" in play.state.steps) == (["4", "3"], False)
    play.undo(3)
    play.done(5)
    assert b"(step 1)" in play.ever(Return)[0].result


def test_code_that_swallows_the_end_of_its_time_leaves_its_scope_all_the_same() -> None:
    async def swallowing(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.timeout(30), ctx.scope("A"):
                await ctx.use(Inventory).reserve(order)
                try:
                    await ctx.use(Shipping).schedule(order)
                except BaseException:  # noqa: BLE001 - on purpose
                    order.total += 1
        except TimedOut:
            return "over"
        return "in time"

    play = of(swallowing)
    play.done(3)
    play.fire(1)
    play.undo(4, "nothing")
    play.undo(3)
    assert b"over" in play.ever(Return)[0].result


async def around(ctx: SagaContext, order: Order) -> str:
    try:
        async with ctx.timeout(30):
            try:
                async with ctx.timeout(20), ctx.scope("A"):
                    await ctx.use(Inventory).reserve(order)
                    await ctx.use(Shipping).schedule(order)
            except TimedOut:
                return "inner"
            except StepRefused:
                return "refused"
    except TimedOut:
        return "outer"
    return "in time"


def ended(play: Play) -> bytes:
    """What it returned."""
    result: bytes = play.ever(Return)[0].result
    return result


def test_the_time_of_an_outer_block_is_over_while_a_scope_is_undone() -> None:
    for first, fires, said in (
        ("refuse", (1,), b"outer"),
        ("refuse", (2,), b"inner"),
        ("refuse", (2, 1), b"outer"),
        ("refuse", (1, 2), b"outer"),
        ("time", (1,), b"outer"),
        ("time", (), b"inner"),
    ):
        play = of(around)
        play.done(4)
        if first == "refuse":
            play.refused(5)
        else:
            play.fire(2)
            play.undo(5, "nothing")
        for timer in fires:
            play.now = max(play.now, BEGIN + 40 * SECOND)
            play.fire(timer)
        assert play.undone[-1] == "4"
        play.undo(4)
        assert (play.state.state, said in ended(play)) == ("COMPLETED", True), (first, fires)


def test_a_time_is_over_while_a_scope_waits_for_what_is_spawned_in_it() -> None:
    async def waiting(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.timeout(30), ctx.scope("A"):
                ctx.spawn(ctx.use(Inventory).reserve(order))
                await ctx.use(Payments).charge(order)
        except TimedOut:
            return "over"
        return "in time"

    play = of(waiting)
    play.done(4)
    play.fire(1)
    assert (play.undone, play.step("3.1").left) == ([], "drained")
    play.done("3.1")
    play.undo("3.1")
    play.undo(4)
    assert b"over" in ended(play)


def test_a_time_is_over_in_a_scope_and_the_scope_goes_on() -> None:
    async def inside(ctx: SagaContext, order: Order) -> str:
        async with ctx.scope("A"):
            try:
                async with ctx.timeout(30):
                    await ctx.use(Inventory).reserve(order)
            except TimedOut:
                await ctx.use(Payments).charge(order)
        return ""

    play = of(inside)
    play.fire(2)
    play.done(4)
    assert play.state.state == "RUNNING"
    play.undo(3, "nothing")
    assert (play.state.state, play.undone, play.step(1).outcome) == ("COMPLETED", ["3"], "left")


def test_a_failure_while_the_code_is_unwound_leaves_the_scope() -> None:
    async def other(ctx: SagaContext, order: Order) -> str:
        async with ctx.timeout(5), ctx.scope():
            try:
                await ctx.use(Inventory).reserve(order)
            finally:
                raise SagaFailed("on the way out")

    play = of(other)
    play.fire(1)
    assert (play.state.state, play.step(2).error) == ("RUNNING", "on the way out")
    play.undo(3, "nothing")
    assert (play.state.state, play.state.undo_reason) == ("COMPENSATED", "on the way out")


def test_a_scope_in_code_that_is_being_ended_does_nothing() -> None:
    async def late(ctx: SagaContext, order: Order) -> str:
        try:
            await ctx.use(Inventory).reserve(order)
        finally:
            async with ctx.scope():
                order.total += 1
        return ""

    play = of(late)
    play.ask("cancel")
    play.undo(1, "nothing")
    assert play.state.state == "COMPENSATED"
    assert not [step for step in play.state.order if step.kind == "scope"]

"""`ctx.scope`: what was done in it is undone when an outcome leaves it, and only that."""

from __future__ import annotations

from engine.bodies import of
from engine.harness import Play
from engine.shop import Inventory, Order, Payments, Shipping
from kasaga import SagaContext, StepRefused
from kasaga.engine.model import SCOPE, Enter, Leave, Resume, Send, Settle


async def choosing(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Payments).charge(order)
    try:
        async with ctx.scope("A"):
            await ctx.use(Inventory).reserve(order)
            await ctx.use(Shipping).schedule(order)
    except StepRefused as error:
        await ctx.use(Shipping).schedule(order)
        return f"B, since {error.step} said no"
    return "A"


def refused() -> Play:
    """The second step of the scope was refused."""
    play = of(choosing)
    play.done(1)
    assert play.kinds == [Settle, Resume, Enter, Send]
    assert (play.step(2).kind, play.step(2).type) == (SCOPE, "A")
    play.done(3)
    play.refused(4)
    return play


def test_what_was_done_in_it_is_undone_and_then_the_outcome_goes_on() -> None:
    play = refused()
    assert play.kinds == [Settle, Resume, Leave, Send]
    assert play.decided(Leave) == [Leave(("2", "3", "4"), "scoped", "shipping.schedule refused: no", "4")]
    assert (play.undone, play.state.state, play.step(2).outcome) == (["3"], "RUNNING", "")
    assert "5" not in play.state.steps
    play.undo(3)
    assert (play.step(2).outcome, play.step(5).type) == ("undone", "shipping.schedule")
    play.done(5)
    assert play.state.state == "COMPLETED"
    assert play.undone == ["3"]


def test_a_scope_that_ends_well_is_undone_with_the_saga() -> None:
    async def later(ctx: SagaContext, order: Order) -> str:
        async with ctx.scope():
            await ctx.use(Inventory).reserve(order)
        await ctx.use(Shipping).schedule(order)
        return ""

    play = of(later)
    play.done(2)
    assert play.kinds == [Settle, Resume, Leave, Settle, Send]
    assert play.step(1).outcome == "left"
    play.refused(3)
    assert play.undone == ["2"]
    play.undo(2)
    assert play.state.state == "COMPENSATED"

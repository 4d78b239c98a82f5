"""`ctx.race`, `ctx.select` and `ctx.timeout`: who wins, what is cut off, and what is undone."""

from __future__ import annotations

import contextlib

from engine.bodies import book, of
from engine.harness import SECOND
from engine.shop import Inventory, Mail, Order, Payments, Shipping
from kasaga import SagaContext, SagaFailed, StepRefused, TimedOut
from kasaga.engine.model import Leave, Move, Resume, Return, Send, Settle

# --- race


async def racing(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Mail).send(order)
    won = await ctx.race(book(ctx, order), ctx.use(Payments).charge(order))
    await ctx.use(Mail).send(order)
    return str(won)


def test_the_losers_steps_are_undone_in_reverse_while_the_saga_goes_on() -> None:
    play = of(racing)
    play.done(1)
    play.done("2.1.1")
    play.done("2.2")
    assert play.kinds == [Settle, Resume, Leave, Settle, Send, Send]
    assert play.decided(Leave) == [Leave(("2.1.1", "2.1.2"), "lost")]
    assert play.undone == ["2.1.2"]
    play.done(3)
    assert play.state.returned is not None
    play.done("2.1.2")  # it comes late: the undo decides
    play.undo("2.1.2", "undone")
    assert (play.state.state, play.undone) == ("RUNNING", ["2.1.2", "2.1.1"])
    play.undo("2.1.1")
    assert play.state.state == "COMPLETED"
    assert play.step("2.2").undo_form == ""


def test_the_branch_of_two_steps_wins() -> None:
    play = of(racing)
    play.done(1)
    play.done("2.1.1")
    play.done("2.1.2")
    assert play.undone == ["2.2"]
    play.undo("2.2", "nothing")
    play.done(3)
    assert play.state.state == "COMPLETED"


def test_a_loser_without_compensation_that_was_executed_is_like_any_such_step_that_is_done() -> None:
    async def asking(ctx: SagaContext, order: Order) -> str:
        await ctx.race(ctx.use(Mail).send(order), ctx.use(Mail).send(order))
        return ""

    for answer in ("executed", "voided"):
        play = of(asking)
        play.done("1.2")
        assert play.step("1.1").undo_form == "void"
        play.undo("1.1", answer)
        assert (play.state.state, play.state.with_exceptions) == ("COMPLETED", False)


def test_an_undo_of_a_loser_that_fails_makes_the_saga_stuck_and_not_completed() -> None:
    play = of(racing)
    play.done(1)
    play.done("2.2")
    play.done(3)
    play.answer("2.1.1", "failed", error_type="Refused", error="never")
    assert (play.state.state, play.state.stuck_step) == ("STUCK", "2.1.1")
    play.ask("resolve", step="2.1.1")
    assert (play.state.state, play.state.with_exceptions) == ("COMPLETED", True)


def test_the_first_to_end_ends_the_race_also_badly() -> None:
    play = of(racing)
    play.done(1)
    play.refused("2.2")
    assert play.state.state == "COMPENSATING"
    play.undo("2.1.1", "nothing")
    assert play.state.state == "COMPENSATED"


def test_a_race_that_skips_failures() -> None:
    async def any_of(ctx: SagaContext, order: Order) -> str:
        await ctx.race(book(ctx, order), ctx.use(Payments).charge(order), ctx.sleep(60), skip_failures=True)
        return ""

    play = of(any_of)
    play.refused("1.2")
    play.done("1.1.1")
    play.refused("1.1.2")
    assert (play.state.state, play.undone) == ("RUNNING", [])
    play.fire("1.3")
    assert play.undone == ["1.1.1"]  # the branch that failed has lost, too
    play.undo("1.1.1")
    assert play.state.state == "COMPLETED"


def test_all_fail_and_the_last_is_raised() -> None:
    async def both(ctx: SagaContext, order: Order) -> str:
        try:
            await ctx.race(
                ctx.use(Inventory).reserve(order), ctx.use(Payments).charge(order), skip_failures=True
            )
        except StepRefused as error:
            return error.step
        return ""

    play = of(both)
    play.refused("1.2")
    play.refused("1.1")
    assert play.state.state == "COMPLETED"


def test_select_names_the_winner() -> None:
    async def selecting(ctx: SagaContext, order: Order) -> str:
        match await ctx.select(paid=ctx.use(Payments).charge(order), late=ctx.sleep(60)):
            case "paid", _:
                return "paid"
            case name, _:
                raise SagaFailed(name)

    play = of(selecting)
    play.done("1.1")
    assert play.state.state == "COMPLETED"
    assert play.step("1.2").outcome == "left"
    play = of(selecting)
    play.fire("1.2")
    assert (play.state.state, play.state.undo_reason) == ("COMPENSATING", "late")


def test_a_loser_that_sleeps_and_one_that_never_began() -> None:
    async def at_once() -> str:
        return "first"

    async def instant(ctx: SagaContext, order: Order) -> str:
        return await ctx.race(at_once(), book(ctx, order))

    play = of(instant)
    assert (play.state.state, play.state.order) == ("COMPLETED", [])


def test_races_within_races() -> None:
    async def inner(ctx: SagaContext, order: Order) -> str:
        await ctx.race(ctx.use(Inventory).reserve(order), ctx.sleep(60))
        await ctx.use(Shipping).schedule(order)
        return "inner"

    async def outer(ctx: SagaContext, order: Order) -> str:
        return str(await ctx.race(inner(ctx, order), ctx.use(Payments).charge(order)))

    play = of(outer)
    play.done("1.1.1.1")
    play.done("1.2")
    assert play.decided(Leave) == [Leave(("1.1.1.1", "1.1.1.2", "1.1.2"), "lost")]
    play.undo("1.1.2", "nothing")
    play.undo("1.1.1.1")
    assert play.state.state == "COMPLETED"


def test_cancel_while_losers_are_undone() -> None:
    play = of(racing)
    play.done(1)
    play.done("2.1.1")
    play.done("2.2")
    play.ask("cancel")
    assert play.state.state == "CANCELLING"
    play.undo(3, "nothing")
    play.undo("2.1.2", "nothing")
    play.undo("2.2")
    play.undo("2.1.1")
    assert play.state.state == "COMPENSATED"


def test_answers_that_came_while_the_saga_was_parked_are_fed_one_after_the_other() -> None:
    play = of(racing)
    play.done(1)
    play.done("2.1.1")
    play.fault()
    play.done("2.2")
    play.done("2.1.2")
    play.ask("retry")
    assert play.state.returned is None
    assert play.decided(Leave) == [Leave(("2.1.1", "2.1.2"), "lost")]
    assert play.undone == ["2.1.2"]
    play.undo("2.1.2")
    play.undo("2.1.1")
    play.done(3)
    assert play.state.state == "COMPLETED"


# --- timeout


async def limited(ctx: SagaContext, order: Order) -> str:
    try:
        async with ctx.timeout(30):
            await ctx.use(Inventory).reserve(order)
            await ctx.use(Payments).charge(order)
    except TimedOut as error:
        await ctx.use(Shipping).schedule(order)
        return str(error)
    return "in time"


def test_a_block_in_time() -> None:
    play = of(limited)
    assert [step.type for step in play.state.order] == ["timeout", "inventory.reserve"]
    assert play.step(1).due_at == play.now + 30 * SECOND
    play.done(2)
    play.done(3)
    assert play.kinds == [Settle, Resume, Leave, Settle, Return, Move]
    assert (play.state.state, play.step(1).outcome) == ("COMPLETED", "left")


def test_a_block_whose_time_is_over() -> None:
    play = of(limited)
    play.done(2)
    play.fire(1)
    assert play.undone == ["3"]
    assert play.step(2).undo_form == ""
    play.done(4)
    play.done(3)  # too late
    play.undo(3)
    assert play.state.state == "COMPLETED"


def test_a_time_out_that_nobody_catches_undoes_the_saga() -> None:
    async def strict(ctx: SagaContext, order: Order) -> str:
        async with ctx.timeout(30):
            await ctx.gather(book(ctx, order), ctx.use(Payments).charge(order))
        return ""

    play = of(strict)
    play.done("2.1.1")
    play.fire(1)
    assert (play.state.state, play.state.undo_code) == ("COMPENSATING", "KSG-258")
    assert play.state.undo_reason == "the 30 s of a ctx.timeout are over (step 1)"
    for path in ("2.1.2", "2.2", "2.1.1"):
        play.undo(path)
    assert play.state.state == "COMPENSATED"
    assert play.undone == ["2.1.2", "2.2", "2.1.1"]


def test_a_step_without_compensation_that_was_cut_off_and_happened_makes_the_saga_stuck() -> None:
    async def mailing(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.timeout(30):
                await ctx.use(Mail).send(order)
        except TimedOut:
            return "not sent"
        return "sent"

    play = of(mailing)
    play.fire(1)
    play.undo(2, "executed")
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-221")


def test_except_exception_does_not_swallow_it_and_neither_does_a_bare_except() -> None:
    async def greedy(ctx: SagaContext, order: Order) -> str:
        async with ctx.timeout(30):
            for _ in range(3):
                with contextlib.suppress(BaseException):
                    await ctx.use(Inventory).reserve(order)
        return ""

    play = of(greedy)
    play.fire(1)
    assert (play.state.state, play.state.undo_code) == ("COMPENSATING", "KSG-258")
    assert [step.path for step in play.state.order] == ["1", "2"]


def test_code_that_never_lets_it_pass_is_stuck() -> None:
    async def stubborn(ctx: SagaContext, order: Order) -> str:
        async with ctx.timeout(30):
            for _ in range(15):
                with contextlib.suppress(BaseException):
                    await ctx.gather(ctx.use(Inventory).reserve(order), ctx.sleep(1))
        raise AssertionError

    play = of(stubborn)
    play.fire(1)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-207")
    assert "the saga's code goes on in the block, at test_races.py:" in play.state.reason


def test_nested_blocks() -> None:
    async def nested(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.timeout(30):
                try:
                    async with ctx.timeout(60):
                        await ctx.use(Inventory).reserve(order)
                except TimedOut:
                    return "inner"
        except TimedOut:
            return "outer"
        return ""

    play = of(nested)
    play.fire(1)
    assert play.step(2).outcome == "left"
    play.undo(3)
    assert play.state.state == "COMPLETED"
    assert b"outer" in play.ever(Return)[0].result
    play = of(nested)
    play.fire(2)
    play.undo(3)
    assert b"inner" in play.ever(Return)[0].result
    assert play.step(1).outcome == "left"


def test_a_block_that_takes_no_step_leaves_no_trace() -> None:
    async def quick(ctx: SagaContext, order: Order) -> str:
        async with ctx.timeout(30):
            pass
        return ""

    play = of(quick)
    assert (play.state.state, play.state.order) == ("COMPLETED", [])

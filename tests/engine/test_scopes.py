"""`ctx.scope`: what was done in it is undone when an outcome leaves it, and only that."""

from __future__ import annotations

import pytest

from engine.bodies import Body, of
from engine.harness import Play
from engine.shop import Inventory, Mail, Order, Payments, Shipping, started
from kasaga import RetryPolicy, SagaContext, SagaFailed, StepError, StepRefused, saga
from kasaga.engine.model import SCOPE, Enter, Leave, Resume, Return, RunLocal, Send, Settle
from kasaga.errors import CannotUndo, NotApplicable, UndoFails

ONCE = RetryPolicy(maximum_attempts=1)


async def choosing(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Payments).charge(order)
    try:
        async with ctx.scope("A"):
            await ctx.use(Inventory).reserve(order)
            await ctx.use(Shipping).schedule(order)
    except StepError as error:
        await ctx.use(Shipping).schedule(order)
        return f"B, since {error.step} said no"
    return "A"


def refused(body: Body = choosing) -> Play:
    """The second step of the scope was refused."""
    play = of(body)
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
    assert b"B, since 4 said no" in play.ever(Return)[0].result
    assert play.undone == ["3"]


def test_the_undo_is_told_why_and_by_which_step() -> None:
    play = refused()
    (undo,) = play.decided(Send)
    assert b"shipping.schedule refused: no" in undo.payload
    assert undo.payload.endswith(b"\x024")


def test_what_ended_well_and_what_was_outside_is_undone_with_the_saga() -> None:
    async def later(ctx: SagaContext, order: Order) -> str:
        async with ctx.scope():
            await ctx.use(Inventory).reserve(order)
        await ctx.use(Shipping).schedule(order)
        return ""

    play = of(later)
    play.done(2)
    assert play.kinds == [Settle, Resume, Leave, Settle, Send]
    assert play.decided(Leave) == [Leave(("1",), "")]
    assert play.step(1).outcome == "left"
    play.refused(3)
    play.undo(2)
    assert (play.state.state, play.undone) == ("COMPENSATED", ["2"])

    play = refused()
    play.undo(3)
    play.refused(5)
    assert play.undone == ["3", "1"]
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_an_outcome_that_nobody_catches_undoes_the_scope_and_then_the_rest() -> None:
    async def plain(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Payments).charge(order)
        async with ctx.scope("A"):
            await ctx.use(Inventory).reserve(order)
            await ctx.use(Shipping).schedule(order)
        return ""

    play = refused(plain)
    play.undo(3)
    assert (play.state.state, play.state.undo_step, play.undone) == ("COMPENSATING", "4", ["3", "1"])
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_an_outcome_that_is_caught_within_the_block_has_not_left_it() -> None:
    async def within(ctx: SagaContext, order: Order) -> str:
        async with ctx.scope():
            await ctx.use(Inventory).reserve(order)
            try:
                await ctx.use(Shipping).schedule(order)
            except StepRefused:
                return "without"
        return "with"

    play = of(within)
    play.done(2)
    play.refused(3)
    assert (play.state.state, play.undone) == ("COMPLETED", [])


def test_a_step_of_unknown_outcome_is_fenced_first() -> None:
    async def slow(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.scope():
                await ctx.use(Inventory).reserve(order)
                await ctx.use(Payments, retry=ONCE).charge(order)
        except StepError:
            await ctx.use(Shipping).schedule(order)
        return ""

    play = of(slow)
    play.done(2)
    play.fire(3)
    assert play.undone == ["3"]
    play.undo(3, "nothing")
    assert (play.undone, "4" in play.state.steps) == (["3", "2"], False)
    play.undo(2)
    play.done(4)
    assert play.state.state == "COMPLETED"


def test_nothing_to_undo_takes_no_time() -> None:
    async def nothing(ctx: SagaContext, order: Order) -> str:
        for number in range(2):
            try:
                async with ctx.scope(f"{number}"):
                    if number:
                        raise SagaFailed("no")
                    await ctx.use(Mail).send(order)
            except (StepRefused, SagaFailed):
                pass
        async with ctx.scope("empty"):
            pass
        await ctx.use(Shipping).schedule(order)
        return ""

    play = of(nothing)
    play.refused(2)
    # Those that were begun and ended at once are as if they had never been; their numbers are taken.
    assert play.kinds == [Settle, Resume, Leave, Settle, Resume, Send]
    assert list(play.state.steps) == ["1", "2", "5"]
    play.done(5)
    assert play.state.state == "COMPLETED"


def test_scopes_in_scopes_are_undone_from_the_innermost_that_is_left() -> None:
    async def nested(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.scope("outer"):
                await ctx.use(Inventory).reserve(order)
                try:
                    async with ctx.scope("inner"):
                        await ctx.use(Payments).charge(order)
                        await ctx.use(Mail).send(order)
                except StepRefused:
                    await ctx.use(Payments).charge(order)
                await ctx.use(Shipping).schedule(order)
        except StepRefused:
            return "neither"
        return "one"

    play = of(nested)
    for path in (2, 4):
        play.done(path)
    play.refused(5)
    assert play.undone == ["4"]
    play.undo(4)
    play.done(6)
    play.refused(7)
    assert play.undone == ["4", "6"]
    play.undo(6)
    play.undo(2)
    assert (play.state.state, play.undone) == ("COMPLETED", ["4", "6", "2"])
    assert (play.step(1).outcome, play.step(3).outcome) == ("undone", "undone")


def test_an_outcome_that_leaves_two_scopes_undoes_one_after_the_other() -> None:
    async def both(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.scope("outer"):
                await ctx.use(Inventory).reserve(order)
                async with ctx.scope("inner"):
                    await ctx.use(Payments).charge(order)
                    raise SagaFailed("no")
        except SagaFailed:
            return "no"

    play = of(both)
    play.done(2)
    play.done(4)
    assert play.undone == ["4"]
    play.undo(4)
    assert (play.undone, play.step(3).outcome, play.step(1).outcome) == (["4", "2"], "undone", "")
    play.undo(2)
    assert play.state.state == "COMPLETED"


# --- what stands in the way of an undo


def test_an_undo_that_fails_makes_the_saga_stuck_and_holds_the_code_back() -> None:
    play = refused()
    for _ in range(20):
        play.now = max(play.now, play.step(3).undo_at)
        play.answer(3, "failed", error_type="Broken", error="down")
        if play.state.state == "STUCK":
            break
    assert (play.state.code, play.state.stuck_step) == (UndoFails.code, "3")
    assert "5" not in play.state.steps
    play.ask("retry")
    assert "5" not in play.state.steps
    play.undo(3)
    assert play.state.state == "RUNNING"
    play.done(5)
    assert play.state.state == "COMPLETED"


@pytest.mark.parametrize("action", ["skip", "resolve"])
def test_an_operator_can_give_an_undo_up_and_the_code_goes_on(action: str) -> None:
    play = refused()
    play.answer(3, "refused", error_type="Refused", error="never")
    assert (play.state.state, play.state.stuck_step) == ("STUCK", "3")
    assert play.ask("skip", step="2").__class__ is NotApplicable
    play.ask(action, value="{}")
    assert (play.state.state, play.step(2).outcome) == ("RUNNING", "undone")
    play.done(5)
    assert (play.state.state, play.state.with_exceptions) == ("COMPLETED", True)


def test_what_happened_and_cant_be_undone_is_visible() -> None:
    async def mailing(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.scope():
                await ctx.use(Mail, retry=ONCE).send(order)
        except StepError:
            return "not sent"
        return "sent"

    play = of(mailing)
    play.fire(2)
    play.undo(2, "executed")
    assert (play.state.state, play.state.code) == ("STUCK", CannotUndo.code)
    play.ask("skip")
    assert play.state.state == "COMPLETED"


def test_a_step_that_nothing_undoes_stays_done() -> None:
    async def mailing(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.scope():
                await ctx.use(Mail).send(order)
                await ctx.run(count, undo=uncount)
                raise SagaFailed("no")
        except SagaFailed:
            return "sent"

    play = of(mailing)
    play.done(2)
    play.done(3, 7)
    assert [(each.step, each.form) for each in play.decided(RunLocal)] == [("3", "undo")]
    play.ran(3, form="undo")
    assert (play.state.state, play.step(2).undo_how) == ("COMPLETED", "")


def count() -> int:
    return 7


def uncount(number: int | None) -> None:
    """Undo of `count`."""


def test_a_cancel_while_an_undo_waits_for_its_next_attempt() -> None:
    play = refused()
    play.answer(3, "failed", error_type="Broken", error="down")
    play.ask("cancel")
    assert play.state.state == "CANCELLING"
    play.now = play.step(3).undo_at
    play.undo(3)
    play.undo(1)
    assert (play.state.state, play.undone) == ("COMPENSATED", ["3", "1"])


# --- the saga as a whole


def test_a_cancel_while_a_scope_is_undone_undoes_the_rest_behind_it() -> None:
    play = refused()
    play.ask("cancel")
    assert (play.state.state, play.step(2).outcome, play.undone) == ("CANCELLING", "unknown", ["3"])
    play.undo(3)
    assert play.undone == ["3", "1"]
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_a_cancel_within_a_scope() -> None:
    play = of(choosing)
    play.done(1)
    play.done(3)
    play.ask("cancel")
    assert play.undone == ["4"]
    for path in (4, 3, 1):
        play.undo(path, "nothing" if path == 4 else "undone")
    assert (play.state.state, play.undone) == ("COMPENSATED", ["4", "3", "1"])


def test_the_deadline_comes_while_a_scope_is_undone() -> None:
    play = started(saga("hurried", timeout=60)(choosing))
    play.done(1)
    play.done(3)
    play.refused(4)
    play.fire()
    assert (play.state.state, play.state.undo_code) == ("CANCELLING", "KSG-256")
    play.undo(3)
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_a_pause_while_a_scope_is_undone_holds_the_code_back() -> None:
    play = refused()
    play.ask("pause")
    play.undo(3)
    assert (play.state.state, play.step(3).undo_how, play.step(2).outcome) == ("PAUSED", "", "")
    play.ask("resume")
    assert (play.state.state, play.step(3).undo_how, play.step(2).outcome) == ("RUNNING", "undone", "undone")
    play.done(5)
    assert play.state.state == "COMPLETED"


def test_what_is_terminated_while_a_scope_is_undone_says_what_it_leaves() -> None:
    play = refused()
    play.ask("terminate")
    assert play.state.state == "TERMINATED"
    assert "done and not undone: 1 (payments.charge)" in play.state.reason
    assert "being undone: 3 (inventory.reserve)" in play.state.reason

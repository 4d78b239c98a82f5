"""`ctx.race`, `ctx.select`, `ctx.timeout` and `ctx.spawn`: who wins, what is undone, what ends wait for."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from engine.harness import SECOND, Play
from engine.shop import Inventory, Mail, Order, Payments, Shipping, app_of, started
from kasaga import BranchEnded, SagaContext, SagaFailed, Spawned, StepError, StepRefused, TimedOut, saga
from kasaga.engine.driver import GRAVEYARD
from kasaga.engine.model import Leave, Move, Resume, Return, Send, Settle
from kasaga.engine.scheduling import MAX_DEPTH

Body = Callable[[SagaContext, Order], Coroutine[Any, Any, str]]


def of(body: Body) -> Play:
    """A play of a saga with that body."""
    return started(saga(body.__name__)(body))


def stuck(body: Body) -> str:
    """Why a saga can't even begin."""
    state = of(body).state
    assert state.state == "STUCK"
    return f"{state.code} {state.reason}"


# --- race


async def book(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Inventory).reserve(order)
    await ctx.use(Shipping).schedule(order)
    return "booked"


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
    async def endless(ctx: SagaContext, order: Order) -> str:
        async with ctx.timeout(30):
            while True:
                try:
                    await ctx.use(Inventory).reserve(order)
                except BaseException:  # noqa: BLE001
                    continue
        raise AssertionError

    play = of(endless)
    play.fire(1)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-207")
    assert "the saga's code goes on in the block, at test_branches.py:" in play.state.reason
    assert GRAVEYARD[-1].cr_frame.f_code.co_name == "endless"  # type: ignore[attr-defined]


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
    assert "test_branches.py" in play.state.reason


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

"""`ctx.pivot`: nothing before it is undone after it, and what comes after isn't given up."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest

from engine.bodies import book, of
from engine.harness import SECOND, Play
from engine.shop import Inventory, Mail, Order, Payments, Shipping, app_of, started
from kasaga import RetryPolicy, SagaContext, SagaFailed, StepFailed, StepRefused, TimedOut, saga
from kasaga.engine.model import Deadline, Leave, Move, Pivot, Resume, Return, Send, Settle
from kasaga.errors import NotApplicable, PivotPassed, StepFails

TWICE = RetryPolicy(maximum_attempts=2, initial_interval=1.0)


async def selling(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Inventory).reserve(order)
    await ctx.use(Payments).charge(order)
    await ctx.pivot()
    await ctx.use(Shipping, retry=TWICE).schedule(order)
    await ctx.use(Mail).send(order)
    return "sold"


def past() -> Play:
    """A saga that has just passed its pivot."""
    play = of(selling)
    play.done(1)
    play.done(2)
    assert play.kinds == [Settle, Resume, Pivot, Send]
    assert play.state.pivot == (2, 2, play.now)
    return play


def test_the_pivot_is_no_step_and_the_saga_goes_on_at_once() -> None:
    play = past()
    play.done(3)
    play.done(4)
    assert (play.state.state, list(play.state.steps)) == ("COMPLETED", ["1", "2", "3", "4"])


def test_before_the_pivot_a_refusal_undoes_as_ever() -> None:
    play = of(selling)
    play.done(1)
    play.refused(2)
    play.undo(1)
    assert (play.state.state, play.state.pivot) == ("COMPENSATED", None)


# --- steps after it


def test_a_step_after_the_pivot_is_tried_again_without_end() -> None:
    play = past()
    for attempt in range(1, 9):
        play.failed(3)
        assert play.step(3).attempt == attempt + 1
        assert play.state.state == ("RUNNING" if attempt < 2 else "STUCK")
        play.now = max(play.now, play.step(3).last_at)
    assert (play.state.code, play.state.stuck_step) == (StepFails.code, "3")
    assert play.state.reason == (
        "shipping.schedule (step 3), which comes after the pivot, has failed 2 times: down"
    )
    assert len([move for move in play.ever(Move) if move.state == "STUCK"]) == 1
    play.done(3)
    assert play.state.state == "RUNNING"
    play.done(4)
    assert (play.state.state, play.undone) == ("COMPLETED", [])


def test_no_answer_in_time_is_a_failure_like_another() -> None:
    play = past()
    for _ in range(4):
        play.fire(3)
    assert (play.state.state, play.step(3).attempt, play.step(3).outcome) == ("STUCK", 5, "")
    play.done(3, attempt=1)  # the first attempt's answer comes after all
    assert play.state.state == "RUNNING"


def test_the_time_for_all_attempts_only_decides_when_somebody_should_know() -> None:
    async def hurrying(ctx: SagaContext, order: Order) -> str:
        await ctx.pivot()
        await ctx.use(Shipping, timeout=20, schedule_to_close=30).schedule(order)
        return ""

    play = of(hurrying)
    play.fire(1)
    assert play.state.state == "RUNNING"
    play.fire(1)
    assert (play.state.state, play.step(1).attempt) == ("STUCK", 3)
    assert play.step(1).due_at == play.now + 20 * SECOND
    play.done(1)
    assert play.state.state == "COMPLETED"


def test_a_failure_that_is_for_good_waits_for_an_operator() -> None:
    play = past()
    play.failed(3, retryable=False)
    assert (play.state.state, play.state.code, play.step(3).row) == ("STUCK", StepFails.code, 0)
    assert play.ask("skip").__class__ is NotApplicable
    play.ask("retry")
    assert (play.state.state, play.step(3).attempt) == ("RUNNING", 2)
    play.failed(3, retryable=False)
    play.ask("resolve", value='{"number": "P9"}')
    assert (play.state.state, play.payload_of(3).number) == ("RUNNING", "P9")
    play.done(4)
    assert (play.state.state, play.state.with_exceptions) == ("COMPLETED", True)


def count() -> int:
    return 3


def test_a_local_step_after_the_pivot_isnt_given_up_either() -> None:
    async def counting(ctx: SagaContext, order: Order) -> str:
        await ctx.pivot()
        return str(await ctx.run(count, retry=TWICE))

    play = of(counting)
    for _ in range(3):
        play.ran(1, "OSError", "no disk")
        play.now = max(play.now, play.step(1).last_at)
    assert (play.state.state, play.state.code, play.step(1).attempt) == ("STUCK", StepFails.code, 4)
    play.done(1, 3)
    assert play.state.state == "COMPLETED"


# --- the saga's own code


def test_a_refusal_that_the_code_catches_is_an_answer() -> None:
    async def offering(ctx: SagaContext, order: Order) -> str:
        await ctx.pivot()
        try:
            await ctx.use(Shipping).schedule(order)
        except StepRefused:
            await ctx.use(Mail).send(order)
        return "told"

    play = of(offering)
    play.refused(1)
    play.done(2)
    assert play.state.state == "COMPLETED"


def test_an_outcome_that_the_code_lets_out_waits_for_other_code() -> None:
    play = past()
    play.refused(3, "no carrier")
    assert (play.state.state, play.state.code, play.state.parked) == ("STUCK", PivotPassed.code, True)
    assert "StepRefused" in play.state.reason
    assert "no carrier" in play.state.reason
    assert "test_pivot.py:" in play.state.reason
    play.ask("retry")
    assert play.state.code == PivotPassed.code

    async def selling(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.use(Payments).charge(order)
        await ctx.pivot()
        try:
            await ctx.use(Shipping, retry=TWICE).schedule(order)
        except StepRefused:
            return "to be fetched"
        return "sold"

    play.new_code(app_of(saga("selling")(selling)))
    assert (play.state.state, play.undone) == ("COMPLETED", [])


def test_saga_failed_right_behind_the_pivot_is_stuck_and_its_mended_code_needs_no_pivot() -> None:
    async def failing(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.pivot()
        raise SagaFailed("no")

    play = of(failing)
    play.done(1)
    assert (play.state.code, play.state.pivot) == (PivotPassed.code, None)

    async def mended(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        raise SagaFailed("no")

    play.new_code(app_of(saga("failing")(mended)))
    play.undo(1)
    assert play.state.state == "COMPENSATED"


@pytest.mark.parametrize("state", ["RUNNING", "STUCK"])
def test_it_cant_be_cancelled(state: str) -> None:
    play = past()
    if state == "STUCK":
        play.refused(3)
    refused = play.ask("cancel")
    assert isinstance(refused, NotApplicable)
    assert "passed its pivot" in refused.message
    assert (play.state.state, play.undone) == (state, [])


def test_its_deadline_ends_with_the_pivot() -> None:
    @saga("limited", timeout=timedelta(hours=1))
    async def limited(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.pivot()
        await ctx.use(Shipping).schedule(order)
        return ""

    play = started(limited)
    due = play.state.deadline_due
    play.done(1)
    assert not [row for row in play.rows.values() if isinstance(row, Deadline)]
    play.now = due
    play.fire()
    play.done(2)
    assert play.state.state == "COMPLETED"


# --- branches


def test_the_pivot_stands_where_nothing_else_runs() -> None:
    async def in_a_branch(ctx: SagaContext, order: Order) -> str:
        async def branch() -> None:
            await ctx.pivot()

        await ctx.gather(branch(), ctx.use(Inventory).reserve(order))
        return ""

    async def beside_a_branch(ctx: SagaContext, order: Order) -> str:
        ctx.spawn(book(ctx, order))
        await ctx.use(Payments).charge(order)
        await ctx.pivot()
        return ""

    play = of(in_a_branch)
    assert play.state.code == "KSG-216"
    assert "in a branch" in play.state.reason
    play = of(beside_a_branch)
    play.done(2)
    assert play.state.code == "KSG-216"
    assert "while other branches run, at " in play.state.reason
    assert "bodies.py:" in play.state.reason


def test_the_pivot_is_no_branch() -> None:
    async def gathering(ctx: SagaContext, order: Order) -> str:
        await ctx.gather(ctx.pivot(), ctx.use(Inventory).reserve(order))
        return ""

    play = of(gathering)
    assert (play.state.code, "got a ctx.pivot" in play.state.reason) == ("KSG-201", True)


def test_a_pivot_that_isnt_awaited_is_none() -> None:
    async def forgetting(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        ctx.pivot()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
        return ""

    play = of(forgetting)
    play.done(1)
    assert (play.state.code, "ctx.pivot" in play.state.reason) == ("KSG-213", True)


def test_the_second_pivot_does_nothing() -> None:
    async def twice(ctx: SagaContext, order: Order) -> str:
        await ctx.pivot()
        await ctx.use(Inventory).reserve(order)
        await ctx.pivot()
        return ""

    play = of(twice)
    play.done(1)
    assert (play.state.state, len(play.ever(Pivot))) == ("COMPLETED", 1)


def test_what_loses_or_is_cut_off_after_the_pivot_is_undone_and_nothing_before() -> None:
    async def racing(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.pivot()
        await ctx.race(ctx.use(Shipping).schedule(order), ctx.use(Payments).charge(order))
        with contextlib.suppress(TimedOut):
            async with ctx.timeout(60):
                await ctx.use(Shipping).schedule(order)
        return ""

    play = of(racing)
    play.done(1)
    play.done("2.1")
    assert play.undone == ["2.2"]
    play.undo("2.2", "nothing")
    play.fire(3)
    assert play.kinds == [Settle, Resume, Leave, Settle, Return, Send]
    play.undo(4, "nothing")
    assert (play.state.state, play.undone) == ("COMPLETED", ["2.2", "4"])


def test_a_step_of_a_failed_gather_after_the_pivot_is_given_up_when_its_attempts_are_over() -> None:
    async def gathering(ctx: SagaContext, order: Order) -> str:
        await ctx.pivot()
        try:
            await ctx.gather(
                ctx.use(Inventory).reserve(order), ctx.use(Shipping, retry=TWICE).schedule(order)
            )
        except StepRefused:
            return "without"
        return "with"

    play = of(gathering)
    play.refused("1.1")
    play.failed("1.2")
    assert (play.step("1.2").outcome, play.undone) == ("unknown", ["1.2"])
    play.undo("1.2", "nothing")
    assert play.state.state == "COMPLETED"


# --- replay


def test_code_that_has_moved_its_pivot_is_another() -> None:
    async def early(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.pivot()
        await ctx.use(Payments).charge(order)
        await ctx.use(Shipping, retry=TWICE).schedule(order)
        return ""

    async def none(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.use(Payments).charge(order)
        await ctx.use(Shipping, retry=TWICE).schedule(order)
        return ""

    for body, said in ((early, "now passes its pivot before"), (none, "the pivot")):
        play = past()
        play.load(app_of(saga("selling")(body)))
        play.done(3)
        assert (play.state.state, play.state.code) == ("STUCK", "KSG-202")
        assert said in play.state.reason


def test_what_was_given_up_before_the_pivot_is_still_cleared_after_it() -> None:
    async def trying(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        with contextlib.suppress(StepFailed):
            await ctx.use(Payments, retry=RetryPolicy(maximum_attempts=1)).charge(order)
        await ctx.pivot()
        await ctx.use(Mail).send(order)
        return ""

    play = of(trying)
    play.done(1)
    play.failed(2)
    assert (play.undone, play.state.pivot is not None) == (["2"], True)
    play.failed(2, form="undo")
    play.now = max(play.now, play.step(2).undo_at)
    play.done(3)
    assert play.state.state == "RUNNING"
    play.undo(2, "nothing")
    assert (play.state.state, play.undone) == ("COMPLETED", ["2"])

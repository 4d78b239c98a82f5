"""Versions and patches: who waits for code that isn't here, and which branch a saga is on."""

from __future__ import annotations

import pytest

from engine.bodies import of
from engine.harness import Play
from engine.shop import ANSWERS, ORDER, Inventory, Order, Payments, app_of, play_of
from kasaga import SagaContext, saga
from kasaga.engine.lifecycle import RUNNING
from kasaga.engine.model import Move, Send, Started, Tell
from kasaga.engine.versions import Adopt, Await, Patch
from kasaga.saga import Saga


@saga("order")
async def first(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Inventory).reserve(order)
    await ctx.use(Payments).charge(order)
    return "first"


@saga("order", version=2)
async def second(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Payments).charge(order)
    return "second"


@saga("other")
async def other(ctx: SagaContext, order: Order) -> None:
    pass


def away() -> Play:
    """A saga of version 1, one step of which was answered where only version 2 is."""
    play = play_of(first)
    play.start(ORDER)
    play.load(app_of(second), "two")
    play.done(1)
    return play


def test_a_saga_whose_version_is_elsewhere_waits_with_reason_and_remedy() -> None:
    play = away()
    assert (play.state.state, play.state.code, play.state.parked) == (RUNNING, "KSG-203", True)
    assert play.state.reason == "this process has no saga order version 1"
    assert "when a process owns it whose App lists this saga" in play.state.remedy
    assert play.decided(Await) == [Await("order", 1)]
    assert play.decided(Tell) == []
    assert play.state.await_row in play.rows


def test_it_goes_on_where_it_was_when_its_version_comes() -> None:
    play = away()
    row = play.state.await_row
    play.new_code(app_of(first, second), "both")
    assert (play.state.code, play.state.parked, row in play.rows) == ("", False, False)
    assert [each.type for each in play.decided(Send)] == ["payments.charge"]
    play.done(2)
    assert play.state.state == "COMPLETED"


def test_a_saga_that_nobody_has_is_of_the_version_that_comes() -> None:
    play = Play(app_of(other), "order", ANSWERS, version=0)
    play.event(Started("s-1", "order", 0, second.input.encode(ORDER), "", "", "", "/test"))
    assert (play.state.state, play.state.code, play.state.parked) == ("STUCK", "KSG-203", True)
    play.new_code(app_of(other), "still not")
    assert (play.state.state, play.ever(Adopt)) == ("STUCK", [])
    play.new_code(app_of(first, second), "both")
    assert (play.state.state, play.state.code, play.state.version) == (RUNNING, "", 2)
    assert play.decided(Adopt) == [Adopt(2)]
    assert [each.type for each in play.decided(Send)] == ["payments.charge"]
    play.load(app_of(first), "one")  # a process without it, and then it is its own again
    play.done(1)
    assert play.decided(Await) == [Await("order", 2)]
    play.new_code(app_of(first, second), "both")
    assert (play.state.state, len(play.ever(Adopt))) == ("COMPLETED", 1)


def test_versions_side_by_side_each_run_their_own() -> None:
    for version, step in ((1, "inventory.reserve"), (2, "payments.charge")):
        play = Play(app_of(first, second), "order", ANSWERS, version=version)
        play.start(ORDER)
        assert [each.type for each in play.decided(Send)] == [step]


def test_what_comes_meanwhile_is_kept_and_it_waits_once() -> None:
    play = away()
    seen = play.state.await_row
    play.ask("pause")
    assert play.state.state == "PAUSED"
    play.ask("resume")
    assert (play.state.state, play.state.code, play.state.await_row) == (RUNNING, "KSG-203", seen)
    assert len(play.ever(Await)) == 1


def test_a_paused_one_finds_its_version() -> None:
    play = away()
    play.ask("pause")
    play.new_code(app_of(first), "one")
    assert (play.state.state, play.state.await_row) == ("PAUSED", 0)
    play.ask("resume")
    play.done(2)
    assert play.state.state == "COMPLETED"


def test_cancelling_it_needs_no_code() -> None:
    play = away()
    play.ask("cancel")
    assert (play.state.state, play.state.await_row) == ("CANCELLING", 0)
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_terminating_it_closes_its_row() -> None:
    play = away()
    play.ask("terminate", reason="enough")
    assert (play.state.state, play.rows) == ("TERMINATED", {})


def test_being_undone_needs_no_version() -> None:
    play = play_of(first)
    play.start(ORDER)
    play.done(1)
    play.refused(2)
    play.load(app_of(second), "two")
    play.undo(1)
    assert (play.state.state, play.ever(Await)) == ("COMPENSATED", [])


def test_a_fault_says_the_same() -> None:
    play = play_of(first)
    play.start(ORDER)
    play.load(app_of(second), "two")
    play.fault("KSG-203", "this process has no saga order version 1")
    assert (play.state.state, play.decided(Await)) == (RUNNING, [Await("order", 1)])


def test_stuck_by_its_code_and_then_without_it_it_waits() -> None:
    play = play_of(first)
    play.start(ORDER)
    play.fault("KSG-206", "it hangs")
    play.done(1)
    play.new_code(app_of(second), "two")
    assert (play.state.state, play.state.code) == (RUNNING, "KSG-203")
    assert [each.state for each in play.decided(Move)] == [RUNNING, RUNNING]


# --- patches


@saga("order")
async def patched(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Inventory).reserve(order)
    if ctx.patched("pay-twice"):
        await ctx.use(Payments).charge(order)
    await ctx.use(Payments).charge(order)
    return "twice" if ctx.patched("pay-twice") else "once"


@saga("order")
async def retired(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Inventory).reserve(order)
    ctx.deprecate_patch("pay-twice")
    await ctx.use(Payments).charge(order)
    await ctx.use(Payments).charge(order)
    return "twice"


@saga("order")
async def gone(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Inventory).reserve(order)
    await ctx.use(Payments).charge(order)
    await ctx.use(Payments).charge(order)
    return "twice"


def begun(code: Saga[Order, str], steps: int) -> Play:
    play = play_of(code)
    play.start(ORDER)
    for step in range(1, steps + 1):
        play.done(step)
    return play


def test_a_new_saga_is_on_the_new_branch_and_says_so_once() -> None:
    play = begun(patched, 3)
    assert (play.state.state, play.ever(Patch)) == ("COMPLETED", [Patch("pay-twice")])


def test_one_that_was_past_it_stays_on_the_old_branch_at_every_place() -> None:
    play = begun(first, 1)
    play.load(app_of(patched), "patched")
    play.done(2)
    assert (play.state.state, play.ever(Patch), len(play.state.order)) == ("COMPLETED", [], 2)


def test_one_that_had_not_got_there_takes_the_new_branch() -> None:
    play = begun(first, 0)
    play.load(app_of(patched), "patched")
    for step in (1, 2, 3):
        play.done(step)
    assert (play.state.state, play.ever(Patch)) == ("COMPLETED", [Patch("pay-twice")])


def test_it_stays_on_its_branch_in_every_replay() -> None:
    for code, steps, patches in ((first, 1, []), (patched, 1, [Patch("pay-twice")])):
        play = begun(code, steps)
        for _ in range(3):
            play.load(app_of(patched), "patched")
            play.crash()
            play.signal("anything")
        assert play.ever(Patch) == patches
        assert play.state.state == RUNNING


@pytest.mark.parametrize("after", [retired, gone])
def test_a_patch_is_retired(after: Saga[Order, str]) -> None:
    play = begun(patched, 2)
    play.load(app_of(after), "after")
    play.done(3)
    assert play.state.state == "COMPLETED"


def test_a_saga_on_the_old_branch_is_not_taken_onto_the_new_one() -> None:
    play = begun(first, 1)
    play.load(app_of(retired), "retired")
    play.done(2)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-202")
    assert "stands on the old branch of patch 'pay-twice'" in play.state.reason
    play.new_code(app_of(patched), "back")
    assert play.state.state == "COMPLETED"


def test_after_a_retired_patch_new_sagas_are_marked_all_the_same() -> None:
    play = begun(retired, 1)
    assert play.decided(Patch) == [Patch("pay-twice")]
    play.load(app_of(patched), "rolled back")
    for step in (2, 3):
        play.done(step)
    assert play.state.state == "COMPLETED"


def test_a_patch_with_a_name_that_can_not_be() -> None:
    async def nameless(ctx: SagaContext, order: Order) -> str:
        return str(ctx.patched(""))

    async def countless(ctx: SagaContext, order: Order) -> str:
        return str([ctx.patched(f"p{number}") for number in range(2_000)])

    assert "the id of a patch: ''" in of(nameless).state.reason
    assert "more than 1000 patches" in of(countless).state.reason

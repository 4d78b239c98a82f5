"""A saga is set back to a step: what came after it is undone, and its code runs anew with new numbers."""

from __future__ import annotations

from typing import Any

import pytest

from engine.harness import Play
from engine.shop import ORDER, Inventory, Mail, Order, Payments, Receipt, app_of, payment, started
from kasaga import SagaContext, saga
from kasaga.engine.model import Asked, Record, Send
from kasaga.engine.resets import Reset
from kasaga.errors import NotApplicable
from kasaga.timeline import timeline


def back(play: Play, step: str, action_id: str = "") -> Any:
    name = action_id or f"r{len(play.bodies)}"
    return play.event(Asked(name, "reset", "anna", "a wrong turn", step, "", "answers/0"))


def refusal(told: object) -> str:
    assert isinstance(told, NotApplicable), told
    return told.message


def under_way() -> Play:
    """Two steps are done, the third is out."""
    play = started(payment)
    play.done(1)
    play.done(2)
    return play


def test_what_came_after_is_undone_and_the_code_goes_on_with_new_numbers() -> None:
    play = under_way()
    assert isinstance(back(play, "1"), Record)
    assert play.decided(Reset) == [Reset("1", 3)]
    assert (play.state.state, play.state.resetting) == ("RUNNING", "1")
    assert [each.step for each in play.decided(Send)] == ["3"]
    play.undo(3, "voided")
    assert [(each.step, each.form) for each in play.decided(Send)] == [("2", "undo")]
    play.undo(2)
    assert [(each.step, each.type) for each in play.decided(Send)] == [("4", "payments.charge")]
    assert play.state.resetting == ""
    play.done(4)
    play.done(5)
    assert (play.state.state, play.undone) == ("COMPLETED", ["3", "2"])
    assert "back to step 1, and on with 4" in [each.outcome for each in timeline(play.records)]


def test_it_can_be_set_back_again_and_is_undone_as_a_whole_in_the_end() -> None:
    play = under_way()
    back(play, "1")
    play.undo(3, "nothing")
    play.undo(2)
    play.done(4)
    back(play, "4")
    play.undo(5)
    assert play.decided(Send)[0].step == "6"
    back(play, "1")
    play.undo(6)
    play.undo(4)
    assert play.decided(Send)[0].step == "7"
    play.refused(7)
    play.undo(1)
    assert play.state.state == "COMPENSATED"
    assert play.undone == ["3", "2", "5", "6", "4", "1"]


def test_a_cancel_meanwhile_undoes_the_rest_and_nothing_twice() -> None:
    play = under_way()
    back(play, "1")
    play.undo(3)
    play.ask("cancel")
    play.undo(2)
    play.undo(1)
    assert (play.state.state, play.undone) == ("COMPENSATED", ["3", "2", "1"])


def test_a_late_answer_of_what_was_given_up_changes_nothing() -> None:
    play = under_way()
    back(play, "2")
    records = len(play.bodies)
    play.done(3)
    assert len(play.bodies) == records
    play.undo(3)
    play.done(4)
    assert play.state.state == "COMPLETED"


def test_an_undo_that_fails_makes_it_stuck_and_it_goes_on_when_that_is_skipped() -> None:
    play = under_way()
    back(play, "1")
    play.undo(3)
    play.answer(2, "undecodable", error_type="Refused", error="never")
    assert (play.state.state, play.state.stuck_step) == ("STUCK", "2")
    assert "still undoing" in refusal(back(play, "1"))
    play.event(Asked("s", "resolve", "anna", "by hand", "2", "", ""))
    assert play.state.state == "RUNNING"
    assert play.decided(Send)[0].step == "4"


def test_one_whose_code_broke_goes_back_and_on_with_mended_code() -> None:
    play = under_way()

    @saga("payment")
    async def mended(ctx: SagaContext, order: Order) -> Receipt:
        await ctx.use(Inventory).reserve(order)
        await ctx.use(Mail).send(order)
        return Receipt(order_id=order.id, charge_id=1)

    play.load(app_of(mended), "mended")
    play.done(3)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-202")
    back(play, "1")
    assert play.state.state == "RUNNING"
    assert [each.step for each in play.decided(Send)] == ["3"], "the answer that came counts: it is undone"
    play.undo(3)
    play.undo(2)
    assert [(each.step, each.type) for each in play.decided(Send)] == [("4", "mail.send")]
    play.done(4)
    assert play.state.state == "COMPLETED"


def test_code_that_differs_before_the_step_is_refused_and_nothing_is_undone() -> None:
    play = under_way()

    @saga("payment")
    async def other(ctx: SagaContext, order: Order) -> Receipt:
        await ctx.use(Payments).charge(order)
        return Receipt(order_id=order.id, charge_id=1)

    play.load(app_of(other), "other")
    play.done(3)
    assert "up to step 1" in refusal(back(play, "1"))
    assert play.undone == []


def test_chance_is_another_one_behind_the_step() -> None:
    seen: list[tuple[str, float]] = []

    @saga("chance")
    async def chance(ctx: SagaContext, order: Order) -> str:
        first = ctx.random.random()
        await ctx.use(Inventory).reserve(order)
        seen.append((str(ctx.uuid()), ctx.random.random() + first))
        await ctx.use(Payments).charge(order)
        return "done"

    play = started(chance)
    play.done(1)
    before = set(seen)
    back(play, "1")
    play.undo(2)
    play.done(3)
    assert play.state.state == "COMPLETED"
    assert len(set(seen) - before) == 1, "replays give the same, and the second way another one"


@pytest.mark.parametrize("step", ["", "9", "3", "x" * 500])
def test_a_step_that_it_can_not_go_back_to_is_refused(step: str) -> None:
    assert len(refusal(back(under_way(), step))) < 200


def test_one_that_is_paused_undone_or_over_is_refused() -> None:
    play = under_way()
    play.ask("pause")
    assert "resume it first" in refusal(back(play, "1"))
    play.ask("resume")
    play.ask("cancel")
    assert "being undone" in refusal(back(play, "1"))


def test_over_a_pivot_or_an_event_nothing_goes_back() -> None:
    @saga("onward")
    async def onward(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.pivot()
        await ctx.use(Payments).charge(order)
        await ctx.use(Mail).send(order)
        return "done"

    play = started(onward)
    play.done(1)
    play.done(2)
    assert "passed its pivot after step 1" in refusal(back(play, "1"))
    back(play, "2")
    assert play.decided(Reset) == [Reset("2", 3)]


def test_a_gather_and_a_time_out_after_it_are_undone_and_one_beside_it_is_refused() -> None:
    @saga("wide")
    async def wide(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.gather(ctx.use(Payments).charge(order), ctx.use(Inventory).reserve(order))
        await ctx.sleep(60)
        return "done"

    play = started(wide)
    play.done(1)
    paths = [step.path for step in play.state.order[1:]]
    play.done(paths[0])
    assert isinstance(back(play, paths[0]), NotApplicable)
    play.done(paths[1])
    back(play, "1")
    play.undo(paths[1])
    play.undo(paths[0])
    again = [each.step for each in play.decided(Send)]
    assert len(again) == 2
    assert not {*again} & {"1", *paths}
    for path in again:
        play.done(path)
    assert play.undone == [paths[1], paths[0]]


def test_the_same_action_again_changes_nothing() -> None:
    play = under_way()
    back(play, "1", "same")
    back(play, "1", "same")
    assert len(play.ever(Reset)) == 1
    assert ORDER.id

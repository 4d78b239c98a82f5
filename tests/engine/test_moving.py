"""A saga goes on in another version of its code where that does what its history has, and only there."""

from __future__ import annotations

import pytest

from engine.harness import Play
from engine.shop import ANSWERS, CHARGED, ORDER, Inventory, Order, Payments, Shipping, app_of, play_of
from kasaga import SagaContext, saga
from kasaga.engine.decide import Ignored
from kasaga.engine.model import Asked, Record, Send, Started, Tell
from kasaga.engine.versions import Adopt
from kasaga.errors import NotApplicable


@saga("order")
async def first(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Inventory).reserve(order)
    await ctx.use(Payments).charge(order)
    return "first"


@saga("order", version=2)
async def longer(ctx: SagaContext, order: Order) -> str:
    """The same beginning, and another end."""
    await ctx.use(Inventory).reserve(order)
    await ctx.use(Payments).charge(order)
    await ctx.use(Shipping).schedule(order)
    return "longer"


@saga("order", version=3)
async def other(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Payments).charge(order)
    return "other"


@saga("order", version=4)
async def broken(ctx: SagaContext, order: Order) -> str:
    raise ZeroDivisionError("a slip")


ALL = (first, longer, other, broken)


def begun() -> Play:
    """One step is done, the other is out."""
    play = Play(app_of(*ALL), "order", ANSWERS)
    play.start(ORDER)
    play.done(1)
    return play


def refusal(told: object) -> str:
    assert isinstance(told, NotApplicable), told
    assert told.code == "KSG-230"
    return told.message


def test_it_goes_on_in_the_other_version_from_where_it_is() -> None:
    play = begun()
    told = play.ask("move", value="2", reply_to="answers/0")
    assert isinstance(told, Record)
    assert play.decided(Adopt) == [Adopt(2)]
    assert [each.what for each in play.decided(Tell)] == ["applied"]
    assert play.decided(Send) == [], "nothing is sent again"
    assert play.state.version == 2
    play.done(2)
    assert [each.type for each in play.decided(Send)] == ["shipping.schedule"]
    play.done(3)
    assert play.state.state == "COMPLETED"


def test_what_is_undone_after_a_move_is_what_was_done_before_it_too() -> None:
    play = begun()
    play.ask("move", value="2")
    play.done(2)
    play.refused(3)
    play.undo(2)
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_it_can_be_moved_on_and_back() -> None:
    play = begun()
    for version in ("2", "1", "2"):
        play.ask("move", value=version)
    assert play.state.version == 2
    play.done(2)
    assert refusal(play.ask("move", value="1")).startswith("version 1 doesn't do what the saga's history has")
    play.done(3)
    assert play.state.state == "COMPLETED"


def test_code_that_does_something_else_is_refused_and_nothing_is_recorded() -> None:
    play = begun()
    records = len(play.bodies)
    said = refusal(play.ask("move", value="3"))
    assert said == (
        "version 3 doesn't do what the saga's history has: saga order version 3 now asks for payments.charge "
        "at test_moving.py:34 in other, where its history has inventory.reserve as step 1"
    )
    assert (len(play.bodies), play.state.version, play.state.state) == (records, 1, "RUNNING")
    play.done(2)
    assert play.state.state == "COMPLETED"


def test_code_that_breaks_is_refused() -> None:
    assert "ZeroDivisionError: a slip" in refusal(begun().ask("move", value="4"))


@pytest.mark.parametrize(
    "value", ["", "0", "-1", "1.5", "two", '"2"', "99999999999", "2147483648", "9" * 500]
)
def test_what_is_no_version_is_refused(value: str) -> None:
    said = refusal(begun().ask("move", value=value))
    assert said.startswith("a version is a number from 1, not")
    assert len(said) < 120


def test_a_version_that_nobody_has_here_is_refused_with_those_that_there_are() -> None:
    said = refusal(begun().ask("move", value="9"))
    assert said == "the saga's owner has no order version 9: it has 1, 2, 3, 4"


def test_to_the_version_that_it_has_it_is_not_moved() -> None:
    assert refusal(begun().ask("move", value="1")) == "the saga is of version 1 already"


def test_one_that_is_undone_needs_no_code() -> None:
    play = begun()
    play.ask("cancel")
    assert "which needs no code of it" in refusal(play.ask("move", value="2"))


def test_one_that_has_ended_stays_as_it_is() -> None:
    play = begun()
    play.done(2)
    assert "has ended" in refusal(play.ask("move", value="2"))


def test_the_same_action_again_changes_nothing() -> None:
    play = begun()
    play.ask("move", value="2", action_id="m")
    assert isinstance(play.ask("move", value="2", action_id="m"), Ignored)
    assert len(play.ever(Adopt)) == 1


def test_one_whose_code_was_changed_in_place_goes_on_in_a_version_that_fits() -> None:
    play = begun()

    @saga("order")
    async def changed(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Payments).charge(order)
        return "changed"

    play.load(app_of(changed, longer), "changed")
    play.done(2)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-202")
    play.ask("move", value="2")
    assert (play.state.state, play.state.version) == ("RUNNING", 2)
    assert [each.type for each in play.decided(Send)] == ["shipping.schedule"], "with the answer that came"
    play.done(3)
    assert play.state.state == "COMPLETED"


def test_one_that_waits_for_its_version_goes_on_in_one_that_is_here() -> None:
    play = play_of(first)
    play.start(ORDER)
    play.done(1)
    play.load(app_of(longer), "two")
    play.done(2)
    assert (play.state.code, play.state.version) == ("KSG-203", 1)
    play.ask("move", value="2")
    assert (play.state.code, play.state.version, play.state.await_row) == ("", 2, 0)
    play.done(3)
    assert play.state.state == "COMPLETED"


def test_a_paused_one_is_moved_and_stays_paused() -> None:
    play = begun()
    play.ask("pause")
    play.ask("move", value="2")
    assert (play.state.state, play.state.version) == ("PAUSED", 2)
    play.done(2)
    assert play.ever(Send)[-1].type == "payments.charge"
    play.ask("resume")
    assert [each.type for each in play.decided(Send)] == ["shipping.schedule"]


def test_a_paused_one_that_was_stuck_goes_on_when_it_is_resumed_and_tried() -> None:
    play = begun()
    play.load(app_of(other), "gone")
    play.done(2)
    play.ask("pause")
    play.load(app_of(*ALL), "all")
    play.ask("move", value="2")
    assert (play.state.state, play.state.version) == ("PAUSED", 2)
    play.ask("resume")
    play.new_code(app_of(*ALL), "all again")
    assert [each.type for each in play.ever(Send)][-1] == "shipping.schedule"


def test_one_that_has_not_begun_is_moved_without_a_look() -> None:
    play = Play(app_of(longer), "order", ANSWERS, version=1)
    play.event(Started("s-1", "order", 1, longer.input.encode(ORDER), "", "", "", "/test"))
    assert play.state.code == "KSG-203"
    play.ask("move", value="2")
    assert (play.state.version, play.state.code) == (2, "")
    assert [each.type for each in play.decided(Send)] == ["inventory.reserve"]


def test_one_that_has_not_begun_is_not_moved_to_code_that_can_not_read_its_input() -> None:
    play = Play(app_of(longer), "order", ANSWERS, version=1)
    play.event(Started("s-1", "order", 1, b"", "", "", "", "/test"))
    assert refusal(play.ask("move", value="2")).startswith("version 2 can't read the saga's input: ")
    assert play.state.version == 1


def test_the_charge_is_the_one_that_was_recorded() -> None:
    play = begun()
    play.done(2)
    assert play.payload_of(2) == CHARGED
    assert Asked("a", "move", "anna", "", "", "2", "").value == "2"

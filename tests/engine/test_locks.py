"""`ctx.lock` in the engine: what a saga is told, what it keeps, and what it lets go of."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from engine.bodies import Body, of
from engine.harness import Play
from engine.shop import ORDER, Inventory, Order, app_of, play_of
from kasaga import Deadlock, LockRefused, SagaContext, saga
from kasaga.engine.decide import Ignored
from kasaga.engine.keylocks import Barred, Granted, Lock
from kasaga.engine.model import Move, Resume, Return, Send, Settle


async def locking(ctx: SagaContext, order: Order) -> str:
    await ctx.lock("b", "a", "b")
    await ctx.use(Inventory).reserve(order)
    await ctx.lock("a", "c")
    return "had all"


def begun() -> Play:
    play = of(locking)
    play.event(Granted("1"))
    play.done(2)
    return play


def test_a_saga_asks_goes_on_and_keeps_its_keys_to_the_end() -> None:
    play = of(locking)
    assert play.decided(Lock) == [Lock("1", ("a", "b"))]
    assert (play.state.locks, play.state.freed) == ({}, ())
    play.event(Granted("1"))
    assert play.kinds == [Settle, Resume, Send]
    assert list(play.state.locks or ()) == ["a", "b"]
    play.done(2)
    assert play.decided(Lock) == [Lock("3", ("a", "c"))]
    play.event(Granted("3"))
    assert play.kinds == [Settle, Resume, Return, Move]
    assert (play.state.locks, play.state.freed) == (None, ("a", "b", "c"))


def test_news_that_come_again_change_nothing() -> None:
    play = begun()
    assert play.event(Granted("1")) == Ignored("late")
    assert play.event(Barred("1", "KSG-262", "x is held by saga o-2")) == Ignored("late")
    assert play.event(Granted("2")) == Ignored("late")
    assert play.event(Granted("9")) == Ignored("unknown step")


@pytest.mark.parametrize("kind", [LockRefused, Deadlock])
def test_who_is_barred_is_undone_with_the_reason_and_keeps_the_others_to_its_end(
    kind: type[LockRefused],
) -> None:
    play = begun()
    play.event(Barred("3", kind.code, "c is held by saga o-2"))
    state = play.state
    assert (state.state, state.undo_code, state.undo_step) == ("COMPENSATING", kind.code, "3")
    assert state.undo_reason == "c is held by saga o-2"
    assert (state.freed, list(state.locks or ())) == (("c",), ["a", "b"])
    play.undo(2)
    assert (play.state.state, play.state.freed) == ("COMPENSATED", ("a", "b"))


def test_a_cancel_while_waiting_gives_up_the_place_and_no_more() -> None:
    play = begun()
    play.ask("cancel")
    assert (play.state.state, play.state.freed) == ("CANCELLING", ("c",))
    assert play.event(Granted("3")) == Ignored("late")
    play.undo(2)
    assert (play.state.state, play.state.freed) == ("COMPENSATED", ("a", "b"))


def test_a_terminated_saga_lets_go_of_all() -> None:
    play = begun()
    play.ask("terminate", reason="a test")
    assert (play.state.state, play.state.freed) == ("TERMINATED", ("c", "a", "b"))


def test_what_a_paused_saga_is_granted_it_has_when_it_goes_on() -> None:
    play = begun()
    play.ask("pause")
    play.event(Granted("3"))
    assert play.kinds == []
    assert play.event(Granted("3")) == Ignored("duplicate")
    play.ask("resume")
    assert play.state.state == "COMPLETED"


async def racing(ctx: SagaContext, order: Order) -> str:
    first, _ = await ctx.select(a=ctx.lock("a", "x"), b=ctx.lock("b", "x"))
    await ctx.use(Inventory).reserve(order)
    return first


def test_the_loser_of_a_race_is_in_no_queue_but_where_the_winner_is() -> None:
    play = of(racing)
    (first, second) = play.decided(Lock)
    play.event(Granted(second.step))
    assert (first.keys, second.keys) == (("a", "x"), ("b", "x"))
    assert (play.state.freed, list(play.state.locks or ())) == (("a",), ["b", "x"])


async def other_keys(ctx: SagaContext, order: Order) -> str:
    await ctx.lock("b")
    return "other"


async def no_lock(ctx: SagaContext, order: Order) -> str:
    await ctx.sleep(1)
    return "other"


@pytest.mark.parametrize("code", [other_keys, no_lock])
def test_code_that_locks_something_else_is_noticed(code: Body) -> None:
    play = of(locking)
    play.load(app_of(saga("locking")(code)))
    play.event(Granted("1"))
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-202")
    assert "lock a, b as step 1" in play.state.reason


def keys_of(order: Order) -> Iterable[str]:
    return [f"order:{order.id}", "all"] if order.id else ()


async def plain(ctx: SagaContext, order: Order) -> str:
    return "done"


def test_the_first_locks_are_made_of_the_input() -> None:
    play = play_of(saga("plain", locks=keys_of)(plain))
    play.start(ORDER)
    assert play.decided(Lock) == [Lock("1", ("all", f"order:{ORDER.id}"))]
    play.event(Granted("1"))
    assert play.state.state == "COMPLETED"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([""], "'' can't be a key"),
        (["x" * 201], "can't be a key"),
        (["a\nb"], "can't be a key"),
        ([7], "7 can't be a key"),
        ("abc", "'abc' is one text"),
        ([str(number) for number in range(101)], "101 keys"),
    ],
)
def test_what_is_no_key_is_told_and_waits_for_mended_code(keys: list[str], said: str) -> None:
    play = play_of(saga("plain", locks=lambda _: keys)(plain))
    play.start(ORDER)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-264")
    assert said in play.state.reason
    play.new_code(app_of(saga("plain")(plain)))
    assert play.state.state == "COMPLETED"

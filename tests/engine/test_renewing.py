"""Long lives: a saga goes on as a new run of itself, and is told when its history is long."""

from __future__ import annotations

from typing import NoReturn

import pytest

from engine.bodies import Body, of
from engine.harness import Play
from engine.shop import Inventory, Order, Payments, play_of, started
from kasaga import SagaContext, saga
from kasaga.engine.decide import Ignored
from kasaga.engine.kinship import Parent, Recalled
from kasaga.engine.model import COMMAND, DONE, Asked, Replied, Return, Send, Started
from kasaga.engine.renewals import Continue, Swell
from kasaga.errors import HistoryTooLong, NotApplicable, OpenEnds, PayloadTooLarge

FEW = 3
"""Signals that a run of `account` takes."""


def result(play: Play) -> str:
    """What the saga has returned."""
    assert play.state.returned is not None
    made: str = play.app.sagas[play.name, play.version].result.decode(play.state.returned, play.schemas)
    return made


async def account(ctx: SagaContext, order: Order) -> str:
    """Adds up what it is sent; each run takes a few signals."""
    total, number = order.total, ctx.run_number

    def correct(by: int) -> int:
        nonlocal total
        total += by
        return total

    ctx.query("total", lambda: [number, total])
    ctx.update("correct", int, correct)
    for _ in range(FEW):
        amount = await ctx.signal("paid", int)
        if not amount:
            return f"{total} in run {ctx.run_number}"
        total += amount
    return await ctx.continue_as_new(Order(id=order.id, total=total))


async def two_steps(ctx: SagaContext, order: Order) -> str:
    """A step in each of two runs; the second is refused or done."""
    await ctx.use(Inventory).reserve(order)
    if ctx.run_number == 1:
        return await ctx.continue_as_new(order)
    await ctx.use(Payments).charge(order)
    return f"{ctx.run_number} {ctx.uuid()}"


def test_a_saga_goes_on_as_a_new_run() -> None:
    play = of(account)
    for amount in (1, 2, 3):
        play.signal("paid", amount)
    (renewed,) = play.decided(Continue)
    assert (renewed.number, renewed.saga_id, renewed.version) == (2, "s-1", 1)
    assert (play.state.number, play.state.base, play.state.state) == (2, 4, "RUNNING")
    assert play.query("total") == [2, 16]
    play.signal("paid", 0)
    assert play.state.state == "COMPLETED"
    assert result(play) == "16 in run 2"


def test_what_nobody_has_taken_goes_over_in_order_and_once() -> None:
    play = of(account)
    play.ask("pause")
    for number in range(1, 9):
        play.signal("paid", number, key=f"k{number}")
    play.ask("resume")
    assert len(play.decided(Continue)) == 2  # three, three, and two wait for a third
    assert play.query("total") == [3, 46]
    for number in range(1, 9):
        assert isinstance(play.signal("paid", number, key=f"k{number}"), Ignored), "each counts once"
    play.crash()
    play.signal("paid", 0)
    assert result(play) == "46 in run 3"


def test_numbers_of_steps_go_on_so_that_a_late_answer_is_nobodys() -> None:
    play = of(two_steps)
    play.done(1)
    assert [each.step for each in play.decided(Send)] == ["2"]
    late = Replied("1", COMMAND, 1, DONE, play.sent[0].step.encode())
    assert play.event(late) == Ignored("unknown step")
    play.done(2)
    play.done(3)
    assert play.state.state == "COMPLETED"
    assert [each.step for each in play.sent] == ["1", "2", "3"]


def test_the_uuids_of_two_runs_differ() -> None:
    async def told(ctx: SagaContext, order: Order) -> str:
        made = f"{order.id} {ctx.uuid()} {ctx.random.random()}"
        await ctx.signal("on", int)
        if ctx.run_number == 2:
            return made
        return await ctx.continue_as_new(Order(id=made))

    play = of(told)
    play.signal("on", 1)
    play.signal("on", 1)
    assert len(set(result(play).split()[1:])) == 4


def test_finished_steps_of_an_ended_run_are_final() -> None:
    play = of(two_steps)
    play.done(1)
    play.done(2)
    play.refused(3)
    play.undo(2)
    assert play.state.state == "COMPENSATED"
    assert play.undone == ["2"], "the step of the first run stays"


def test_a_cancel_reaches_the_new_run() -> None:
    play = of(two_steps)
    play.done(1)
    play.ask("cancel")
    assert play.undone == ["2"]
    play.undo(2, "voided")
    assert play.state.state == "COMPENSATED"


def test_who_waits_for_the_end_is_told_that_of_the_last_run() -> None:
    play = play_of(saga("told")(two_steps))
    play.start(Order(id="o"), reply_to="answers/0")
    play.done(1)
    play.event(Asked("w1", "watch", "anna", "", "", "", "answers/1"))
    play.done(2)
    assert not play.told
    play.done(3)
    assert {(each.to, each.what) for each in play.told} == {
        ("answers/0", "COMPLETED"),
        ("answers/1", "COMPLETED"),
    }


def test_an_action_counts_once_in_all_runs() -> None:
    play = of(two_steps)
    play.ask("pause", action_id="p1")
    play.ask("resume", action_id="r1")
    play.done(1)
    assert play.state.number == 2
    assert isinstance(play.ask("pause", action_id="p1"), Ignored)


def test_an_update_is_answered_alike_after_a_new_run() -> None:
    play = of(account)
    play.update("correct", 5, key="u")
    for _ in range(FEW):
        play.signal("paid", 1)
    assert play.state.number == 2
    assert isinstance(play.update("correct", 5, key="u"), Ignored)
    assert play.state.mail is not None
    assert play.state.mail.updates["u"].result == b"15"
    play.update("correct", -1, key="v")
    assert [step.path for step in play.state.mail.updates.values()] == ["u1", "u2"]
    assert play.query("total") == [2, 17]


def test_updates_are_handled_before_the_run_that_has_let_them_pass_ends() -> None:
    play = of(account)
    for _ in range(FEW - 1):
        play.signal("paid", 1)
    play.ask("pause")
    play.signal("paid", 1)
    play.update("correct", 100, key="u")
    play.update("correct", 50, key="v")
    play.ask("resume")
    assert play.state.number == 2
    assert play.query("total") == [2, 163]
    assert play.state.mail is not None
    assert [step.result for step in play.state.mail.updates.values()] == [b"112", b"162"]


def test_attributes_go_over() -> None:
    async def named(ctx: SagaContext, order: Order) -> str:
        if ctx.run_number == 1:
            await ctx.set_attributes(customer="c-7", level=3)
        await ctx.signal("on", int)
        if ctx.run_number == 2:
            return "done"
        await ctx.set_attributes(level=None)
        return await ctx.continue_as_new(order)

    play = of(named)
    play.signal("on", 1)
    assert (play.state.number, play.state.attributes) == (2, {"customer": "c-7"})


def test_each_run_has_its_own_deadline() -> None:
    play = started(saga("timed", timeout=60)(two_steps))
    first = play.state.deadline_due
    play.now += 50_000_000
    play.done(1)
    assert play.state.deadline_due == first + 50_000_000
    play.fire()
    assert play.state.state == "CANCELLING"


def test_a_run_that_lives_on_from_something_waits_until_that_is_undone() -> None:
    async def raced(ctx: SagaContext, order: Order) -> str:
        if ctx.run_number == 2:
            await ctx.signal("go", int)
            return "done"
        await ctx.race(ctx.use(Payments).charge(order), ctx.signal("go", int))
        return await ctx.continue_as_new(order)

    play = of(raced)
    play.signal("go", 1)
    assert play.state.returned is not None
    assert play.decided(Return) == [Return(play.state.returned, renews=True)]
    assert play.state.number == 1
    play.signal("go", 2)
    assert isinstance(play.update("correct", 1), NotApplicable)
    play.undo("1.1", "voided")
    assert play.state.state == "COMPLETED", "the signal that came in between is the new run's"
    assert play.state.number == 2


def test_a_cancel_before_a_run_goes_on_undoes_that_run() -> None:
    async def raced(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.race(ctx.use(Payments).charge(order), ctx.signal("go", int))
        return await ctx.continue_as_new(order)

    play = of(raced)
    play.done(1)
    play.signal("go", 1)
    play.ask("cancel")
    play.undo("2.1", "voided")
    play.undo(1)
    assert (play.state.state, play.state.number) == ("COMPENSATED", 1)


async def beside(ctx: SagaContext, order: Order) -> str:
    async def branch() -> None:
        await ctx.use(Inventory).reserve(order)

    ctx.spawn(branch())
    await ctx.signal("go", int)
    return await ctx.continue_as_new(order)


async def within(ctx: SagaContext, order: Order) -> str:
    async with ctx.scope():
        await ctx.signal("go", int)
        return await ctx.continue_as_new(order)


async def inside(ctx: SagaContext, order: Order) -> str:
    async def branch() -> NoReturn:
        await ctx.signal("go", int)
        await ctx.continue_as_new(order)

    await ctx.gather(branch(), ctx.use(Inventory).reserve(order))
    return "never"


async def unawaited(ctx: SagaContext, order: Order) -> str:
    asked = ctx.use(Inventory).reserve(order)
    assert asked is not None
    await ctx.signal("go", int)
    return await ctx.continue_as_new(order)


async def at_once(ctx: SagaContext, order: Order) -> str:
    if not ctx.patched("never"):
        await ctx.signal("go", int)
    return await ctx.continue_as_new(order)


async def gathered(ctx: SagaContext, order: Order) -> str:
    await ctx.signal("go", int)
    await ctx.gather(ctx.continue_as_new(order))
    return "never"


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (beside, OpenEnds.code, "while other branches run, at test_renewing.py"),
        (within, OpenEnds.code, "in a scope"),
        (inside, OpenEnds.code, "in a branch"),
        (unawaited, OpenEnds.code, "inventory.reserve"),
        (at_once, OpenEnds.code, "has waited for nothing"),
        (gathered, "KSG-201", "ctx.gather got a ctx.continue_as_new"),
    ],
)
def test_what_is_open_must_be_joined_first(body: Body, code: str, said: str) -> None:
    play = of(body)
    if play.state.state != "STUCK":
        play.signal("go", 1)
    assert (play.state.state, play.state.code) == ("STUCK", code)
    assert said in play.state.reason


def test_a_time_out_around_it_ends_with_the_run() -> None:
    async def timed(ctx: SagaContext, order: Order) -> str:
        async with ctx.timeout(60):
            await ctx.signal("go", int)
            if ctx.run_number == 2:
                return "done"
            return await ctx.continue_as_new(order)

    play = of(timed)
    play.signal("go", 1)
    assert (play.state.number, play.state.state) == (2, "RUNNING")
    play.signal("go", 1)
    assert play.state.state == "COMPLETED"


def test_code_that_holds_on_is_unwound_and_nothing_of_it_counts() -> None:
    async def clingy(ctx: SagaContext, order: Order) -> str:
        await ctx.signal("go", int)
        try:
            if ctx.run_number == 1:
                await ctx.continue_as_new(order)
        except ValueError:
            return "swallowed"
        finally:
            if ctx.run_number == 2:
                await ctx.signal("go", int)
        return "done"

    play = of(clingy)
    play.signal("go", 1)
    assert (play.state.number, play.state.state) == (2, "RUNNING")


def test_an_input_that_does_not_fit() -> None:
    async def wrong(ctx: SagaContext, order: Order) -> str:
        await ctx.signal("go", int)
        return await ctx.continue_as_new("an order")

    async def large(ctx: SagaContext, order: Order) -> str:
        await ctx.signal("go", int)
        return await ctx.continue_as_new(Order(id="x" * 2_000_000))

    for body, code in ((wrong, "KSG-200"), (large, PayloadTooLarge.code)):
        play = of(body)
        play.signal("go", 1)
        assert (play.state.state, play.state.code) == ("STUCK", code)


def test_a_new_run_takes_the_newest_version_that_all_have() -> None:
    play = of(account)

    def newest(name: str) -> int:
        assert name == play.name
        return 7

    play.defs = play.defs._replace(fleet=newest)
    for _ in range(FEW):
        play.signal("paid", 1)
    (renewed,) = play.decided(Continue)
    assert renewed.version == play.state.version == 7
    assert (play.state.state, play.state.code) == ("RUNNING", "KSG-203"), "it waits for a process that has it"


# --- children and parents


def parent() -> Parent:
    return Parent("p-1", "prun.1", 1, "replies/0", True, 1)


def test_a_child_answers_with_its_last_run_and_is_undone_as_that() -> None:
    play = play_of(saga("child")(two_steps))
    declared = play.app.sagas[play.name, 1]
    play.event(Started("s-1", play.name, 1, declared.input.encode(Order(id="o")), "", "", "", "", parent()))
    play.done(1)
    assert play.state.parent == parent()
    play.done(2)
    play.done(3)
    assert play.state.state == "COMPLETED"
    play.event(Recalled("prun.1", "run", "undo", 1, "done", 0, parent(), play.name, 1))
    assert play.undone == ["3"]
    play.undo(3)
    play.undo(2)
    assert (play.state.state, play.undone) == ("COMPENSATED", ["3", "2"])


# --- long histories


def long(play: Play, events: int) -> Play:
    play.defs = play.defs._replace(max_events=events, warn_at=0.5)
    return play


async def told(ctx: SagaContext, order: Order) -> str:
    seen: list[tuple[int, bool]] = []
    ctx.query("seen", lambda: seen)
    while True:
        seen.append((ctx.history_length, ctx.should_continue))
        if await ctx.signal("go", int) == 0:
            return await ctx.continue_as_new(order)


def test_the_code_is_told_once_that_its_history_is_long() -> None:
    play = long(of(told), 10)
    for _ in range(5):
        play.signal("go", 1)
    assert play.query("seen") == [[1, False], [2, False], [3, False], [4, False], [5, False], [6, True]]
    assert [each.events for each in play.ever(Swell)] == [5]
    assert [each.what for each in play.told] == ["LONG_HISTORY"]
    long(play, 100)
    play.crash()
    assert play.query("seen")[-1] == [6, True], "what was told is recorded"
    play.signal("go", 0)
    assert play.query("seen") == [[1, False]]
    assert play.state.swollen is None


def test_a_history_that_is_too_long_makes_the_saga_stuck_and_says_what_to_do() -> None:
    play = long(of(told), 10)
    while play.state.state == "RUNNING":
        play.signal("go", 1)
    assert (play.state.code, play.state.remedy) == (HistoryTooLong.code, HistoryTooLong.default_remedy)
    assert "10 records" in play.state.reason
    play.ask("retry")
    assert play.state.code == HistoryTooLong.code
    long(play, 100)
    play.ask("retry")
    assert play.state.state == "RUNNING"
    long(play, 10)
    play.signal("go", 1)
    play.ask("cancel")
    assert play.state.state == "COMPENSATED", "undoing takes no step of its code"


def test_bytes_count_as_well() -> None:
    play = of(told)
    play.defs = play.defs._replace(max_bytes=1000, warn_at=0.5)
    play.state.size = 600
    play.signal("go", 1)
    assert [each.size for each in play.decided(Swell)] == [600]
    play.state.size = 1000
    play.signal("go", 1)
    assert play.state.code == HistoryTooLong.code

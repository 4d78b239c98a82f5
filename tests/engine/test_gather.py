"""`ctx.gather`: one batch out, answers in any order, one failure ends it by the stated rule."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable

import pytest

from engine.harness import Play
from engine.shop import (
    CHARGED,
    PARCEL,
    RESERVED,
    Inventory,
    Mail,
    Order,
    Payments,
    Shipping,
    app_of,
    play_of,
    started,
)
from engine.shop import ORDER as THE_ORDER
from kasaga import SagaContext, SagaFailed, StepRefused, saga
from kasaga.engine.model import Leave, Move, Resume, Return, Send, Settle, Sleep
from kasaga.errors import Nondeterminism

LINE = r"test_gather.py:\d+ in "


@saga("trio")
async def trio(ctx: SagaContext, order: Order) -> str:
    reserved, charge, parcel = await ctx.gather(
        ctx.use(Inventory).reserve(order), ctx.use(Payments).charge(order), ctx.use(Shipping).schedule(order)
    )
    assert (reserved, charge, parcel) == (RESERVED, CHARGED, PARCEL)
    return f"{reserved.shelf} {charge.id} {parcel.number}"


async def two_steps(ctx: SagaContext, order: Order) -> str:
    shelf = (await ctx.use(Inventory).reserve(order)).shelf
    number = (await ctx.use(Shipping).schedule(order)).number
    return f"{shelf} {number}"


@saga("pair")
async def pair(ctx: SagaContext, order: Order) -> str:
    """A branch of two steps beside one that is a mere step; then a step after both."""
    text, charge = await ctx.gather(two_steps(ctx, order), ctx.use(Payments).charge(order))
    await ctx.use(Mail).send(order)
    return f"{text} {charge.id}"


@saga("keeping")
async def keeping(ctx: SagaContext, order: Order) -> str:
    kept = await ctx.gather(two_steps(ctx, order), ctx.use(Payments).charge(order), return_exceptions=True)
    return ", ".join(type(each).__name__ for each in kept)


def test_all_go_out_in_one_batch_and_the_last_answer_ends_it() -> None:
    for order in itertools.permutations((1, 2, 3)):
        play = started(trio)
        assert play.kinds == [Move, Resume, Send, Send, Send]
        assert [sent.step for sent in play.decided(Send)] == ["1.1", "1.2", "1.3"]
        for index, child in enumerate(order):
            assert play.state.state == "RUNNING"
            play.done(f"1.{child}")
            assert play.kinds[:2] == [Settle, Resume]
            assert (play.kinds[2:] == []) == (index < 2)
        assert play.state.state == "COMPLETED"
        assert play.ever(Return)[0].result


def test_paths_name_the_branch() -> None:
    play = started(pair)
    assert [step.path for step in play.state.order] == ["1.1.1", "1.2"]
    play.done("1.1.1")
    play.done("1.2")
    play.done("1.1.2")
    assert [step.path for step in play.state.order] == ["1.1.1", "1.2", "1.1.2", "2"]
    play.done(2)
    assert play.state.state == "COMPLETED"


def test_a_failure_lets_nothing_new_begin_waits_for_what_is_in_flight_and_undoes_all_in_reverse() -> None:
    play = started(pair)
    play.refused("1.2")
    assert play.kinds == [Settle, Resume, Leave]
    assert play.state.state == "RUNNING"
    play.done("1.1.1")
    assert play.kinds == [Settle, Resume, Move, Send]
    assert (play.state.state, play.state.undo_step) == ("COMPENSATING", "1.2")
    assert play.undone == ["1.1.1"]
    play.undo("1.1.1")
    assert play.state.state == "COMPENSATED"
    assert [step.path for step in play.state.order] == ["1.1.1", "1.2"]


def test_undos_go_in_reverse_of_scheduling_whatever_order_answers_came_in() -> None:
    for order in itertools.permutations((1, 2, 3)):
        play = started(trio)
        for child in order[:2]:
            play.done(f"1.{child}")
        play.refused(f"1.{order[2]}")
        expected = [f"1.{child}" for child in sorted(order[:2], reverse=True)]
        for path in expected:
            play.undo(path)
        assert play.state.state == "COMPENSATED"
        assert play.undone == expected


def test_two_refusals_and_the_first_is_raised() -> None:
    play = started(trio)
    play.refused("1.2", "no money")
    play.refused("1.1", "no stock")
    assert play.state.state == "RUNNING"
    play.done("1.3")
    assert play.state.undo_step == "1.2"
    assert "no money" in play.state.undo_reason


def test_what_is_in_flight_gets_no_further_attempt() -> None:
    play = started(trio)
    play.refused("1.2")
    play.failed("1.1")
    assert play.step("1.1").outcome == "unknown"
    assert play.undone == ["1.1"]
    play.fire("1.3", "command")
    assert play.step("1.3").outcome == "unknown"
    assert play.state.state == "COMPENSATING"
    play.undo("1.3", "nothing")
    play.undo("1.1", "nothing")
    assert play.state.state == "COMPENSATED"


def test_what_waits_for_its_next_attempt_is_given_up_at_once() -> None:
    play = started(trio)
    play.failed("1.1")
    assert play.step("1.1").last_at > play.now
    play.refused("1.2")
    assert play.step("1.1").outcome == "unknown"
    assert play.undone == ["1.1"]
    play.done("1.3")
    assert play.state.state == "COMPENSATING"


def test_a_sleeping_branch_is_not_waited_for() -> None:
    @saga("sleepy")
    async def sleepy(ctx: SagaContext, order: Order) -> None:
        await ctx.gather(ctx.sleep(86_400), ctx.use(Payments).charge(order))

    play = started(sleepy)
    play.refused("1.2")
    assert play.state.state == "COMPENSATED"
    assert play.step("1.1").outcome == "left"


def test_a_failure_that_is_caught_and_the_saga_goes_on() -> None:
    @saga("catching")
    async def catching(ctx: SagaContext, order: Order) -> str:
        try:
            await ctx.gather(ctx.use(Inventory).reserve(order), ctx.use(Payments).charge(order))
        except StepRefused as error:
            await ctx.use(Mail).send(order)
            return error.step
        return "all"

    play = started(catching)
    play.refused("1.1")
    play.done("1.2")
    play.done(2)
    assert play.state.state == "COMPLETED"
    assert play.undone == []


def test_return_exceptions_lets_all_go_on() -> None:
    play = started(keeping)
    play.refused("1.2")
    play.done("1.1.1")
    play.done("1.1.2")
    assert play.state.state == "COMPLETED"
    assert play.ever(Leave) == []
    play = started(keeping)
    play.done("1.2")
    play.done("1.1.1")
    play.refused("1.1.2")
    assert play.state.state == "COMPLETED"


def test_nothing_to_gather() -> None:
    @saga("empty")
    async def empty(ctx: SagaContext, order: Order) -> str:
        nothing: list[Awaitable[str]] = []
        return str(await ctx.gather(*nothing))

    assert started(empty).state.state == "COMPLETED"


def test_branches_that_take_no_step() -> None:
    async def number(value: int) -> int:
        return value

    @saga("plain")
    async def plain(ctx: SagaContext, order: Order) -> str:
        return str(await ctx.gather(number(1), number(2)))

    assert started(plain).state.state == "COMPLETED"


def test_a_step_that_was_never_sent_is_as_if_never_asked() -> None:
    async def fails() -> None:
        raise SagaFailed("no")

    @saga("early")
    async def early(ctx: SagaContext, order: Order) -> None:
        await ctx.gather(ctx.use(Inventory).reserve(order), fails(), ctx.use(Payments).charge(order))

    play = started(early)
    assert play.state.state == "COMPENSATED"
    assert play.state.order == []


def test_gathers_within_gathers() -> None:
    @saga("nested")
    async def nested(ctx: SagaContext, order: Order) -> str:
        inventory, payments = ctx.use(Inventory), ctx.use(Payments)
        (one, two), three = await ctx.gather(
            ctx.gather(inventory.reserve(order), payments.charge(order)), inventory.reserve(order)
        )
        return f"{one.shelf} {two.id} {three.shelf}"

    play = started(nested)
    assert [step.path for step in play.state.order] == ["1.1.1.1", "1.1.1.2", "1.2"]
    play.refused("1.1.1.2")
    play.refused("1.2")
    assert play.state.state == "RUNNING"
    play.done("1.1.1.1")
    assert play.state.undo_step == "1.2"
    play.undo("1.1.1.1")
    assert play.state.state == "COMPENSATED"


def test_cancel_and_deadline_with_several_steps_in_flight() -> None:
    for end in ("cancel", "deadline"):

        @saga("limited", timeout=60)
        async def limited(ctx: SagaContext, order: Order) -> None:
            await ctx.gather(two_steps(ctx, order), ctx.use(Payments).charge(order))

        play = started(limited)
        play.done("1.1.1")
        play.ask("cancel") if end == "cancel" else play.fire()
        assert play.state.state == "CANCELLING"
        for path, how in (("1.1.2", "nothing"), ("1.2", "undone"), ("1.1.1", "undone")):
            play.undo(path, how)
        assert play.state.state == "COMPENSATED"
        assert play.undone == ["1.1.2", "1.2", "1.1.1"]


def test_a_bug_in_a_branch_makes_the_saga_stuck_with_its_line_and_mended_code_goes_on() -> None:
    def code(*, bug: bool) -> object:
        async def branch(ctx: SagaContext, order: Order) -> str:
            reserved = await ctx.use(Inventory).reserve(order)
            if bug:
                raise TypeError(reserved.shelf)
            await ctx.use(Shipping).schedule(order)
            return reserved.shelf

        @saga("buggy")
        async def buggy(ctx: SagaContext, order: Order) -> str:
            try:
                shelf, _ = await ctx.gather(branch(ctx, order), ctx.use(Payments).charge(order))
            except Exception as error:
                raise AssertionError("an author's `except` sees no bug of a branch") from error
            return shelf

        return buggy

    play = started(code(bug=True))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    play.done("1.1.1")
    assert (play.state.state, play.state.code, play.state.parked) == ("STUCK", "KSG-207", True)
    assert "TypeError: A7 (at test_gather.py:" in play.state.reason
    assert play.state.reason.endswith("in branch, branch 1.1)")
    play.done("1.2")
    play.ask("retry")
    assert play.state.state == "STUCK"
    play.new_code(app_of(code(bug=False)))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    play.done("1.1.2")
    assert play.state.state == "COMPLETED"


def test_code_that_gathers_something_else_is_named_with_its_branch() -> None:
    play = started(pair)
    play.done("1.1.1")

    async def other(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.use(Mail).send(order)
        return ""

    @saga("pair")
    async def changed(ctx: SagaContext, order: Order) -> str:
        await ctx.gather(other(ctx, order), ctx.use(Payments).charge(order))
        return ""

    play.load(app_of(changed))
    with pytest.raises(
        Nondeterminism, match=f"now asks for mail.send at {LINE}other, branch 1.1, where its"
    ) as e:
        play.run.live(play.defs)
    assert "history has shipping.schedule as step 1.1.2" in e.value.message
    assert e.value.step == "1.1.2"

    @saga("pair")
    async def sequential(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.use(Payments).charge(order)
        return ""

    play.load(app_of(sequential))
    with pytest.raises(
        Nondeterminism, match=r"asks for inventory.reserve .*\(as step 1\), where .* as step 1.1.1"
    ):
        play.run.live(play.defs)


def test_code_that_gives_up_otherwise_is_noticed() -> None:
    play = started(trio)
    play.refused("1.2")

    @saga("trio")
    async def kept(ctx: SagaContext, order: Order) -> str:
        await ctx.gather(
            ctx.use(Inventory).reserve(order),
            ctx.use(Payments).charge(order),
            ctx.use(Shipping).schedule(order),
            return_exceptions=True,
        )
        return ""

    play.load(app_of(kept))
    with pytest.raises(Nondeterminism, match=r"inventory.reserve \(step 1.1\) being given up"):
        play.run.live(play.defs)

    play = started(saga("trio")(kept.function))
    play.refused("1.2")
    play.load(app_of(trio))
    with pytest.raises(
        Nondeterminism, match=r"now gives up inventory.reserve \(step 1.1\), where its history goes on"
    ):
        play.run.live(play.defs)


def many(count: int) -> Play:
    @saga("many")
    async def saga_of_many(ctx: SagaContext, order: Order) -> str:
        inventory = ctx.use(Inventory)
        reserved = await ctx.gather(*[inventory.reserve(order) for _ in range(count)])
        return str(len(reserved))

    return play_of(saga_of_many)


def test_too_many_steps_at_once_are_refused_before_any_is_sent() -> None:
    play = many(11)
    play.defs = play.defs._replace(max_steps=10)
    play.start(THE_ORDER)
    assert (play.state.code, play.state.order) == ("KSG-214", [])


def test_too_many_bytes_at_once_are_refused_before_any_is_sent() -> None:
    play = many(11)
    play.defs = play.defs._replace(max_together=100)
    play.start(THE_ORDER)
    assert (play.state.code, play.state.order) == ("KSG-205", [])
    assert "11 steps and events at once have" in play.state.reason


def test_sleeps_and_functions_side_by_side() -> None:
    def look() -> int:
        return 1

    def see() -> str:
        return "2"

    @saga("mixed")
    async def mixed(ctx: SagaContext, order: Order) -> str:
        one, two, _ = await ctx.gather(ctx.run(look), ctx.run(see), ctx.sleep(5))
        return f"{one}{two}"

    play = started(mixed)
    assert len(play.decided(Sleep)) == 1
    play.done("1.2", "2")
    play.fire("1.3")
    play.done("1.1", 1)
    assert play.state.state == "COMPLETED"

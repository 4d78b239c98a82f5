"""Scopes: bugs in them, wrong uses, the pivot, and other code in the middle of one."""

from __future__ import annotations

import pytest

from engine.bodies import of, stuck
from engine.shop import CHARGED, Inventory, Mail, Order, Payments, Shipping, app_of, started
from engine.test_scopes import ONCE, choosing, refused
from kasaga import SagaContext, StepError, StepRefused, saga
from kasaga.engine.model import Enter, Fired, Leave, Move, Settle, Tell
from kasaga.engine.state import fold
from kasaga.errors import HistoryUnreadable, Nondeterminism

# --- what isn't an outcome


def test_a_bug_in_a_scope_undoes_nothing_and_is_never_caught_behind_it() -> None:
    async def buggy(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.scope():
                await ctx.use(Inventory).reserve(order)
                raise ValueError("a bug")
        except ValueError:
            await ctx.use(Shipping).schedule(order)
        return ""

    async def mended(ctx: SagaContext, order: Order) -> str:
        async with ctx.scope():
            await ctx.use(Inventory).reserve(order)
        return "mended"

    play = of(buggy)
    play.done(2)
    assert play.kinds == [Settle, Move, Tell]
    assert (play.state.state, play.state.code, play.undone) == ("STUCK", "KSG-207", [])
    assert "ValueError: a bug (at test_scope_edges.py:" in play.state.reason
    play.new_code(app_of(saga("buggy")(mended)))
    assert play.state.state == "COMPLETED"


def test_a_type_that_fails_the_saga_is_an_outcome() -> None:
    @saga("failing", fails_on=[KeyError])
    async def failing(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.scope():
                await ctx.use(Inventory).reserve(order)
                raise KeyError("no")
        except KeyError:
            return "caught"

    play = started(failing)
    play.done(2)
    play.undo(2)
    assert play.state.state == "COMPLETED"


def test_a_scope_that_isnt_used_as_one() -> None:
    async def awaited(ctx: SagaContext, order: Order) -> str:
        await ctx.scope()
        return ""

    async def loose(ctx: SagaContext, order: Order) -> str:
        ctx.scope("loose")
        return ""

    async def twice(ctx: SagaContext, order: Order) -> str:
        scope = ctx.scope()
        async with scope:
            pass
        async with scope:
            pass
        return ""

    async def gathered(ctx: SagaContext, order: Order) -> str:
        await ctx.gather(ctx.scope())
        return ""

    async def long(ctx: SagaContext, order: Order) -> str:
        async with ctx.scope("x" * 101):
            return ""

    async def crossed(ctx: SagaContext, order: Order) -> str:
        outer, inner = ctx.scope("outer"), ctx.scope("inner")
        await outer.__aenter__()
        await inner.__aenter__()
        await outer.__aexit__(None, None, None)
        return ""

    async def left_twice(ctx: SagaContext, order: Order) -> str:
        scope = ctx.scope("one")
        async with scope:
            pass
        await scope.__aexit__(None, None, None)
        return ""

    async def never_begun(ctx: SagaContext, order: Order) -> str:
        await ctx.scope("one").__aexit__(None, None, None)
        return ""

    assert stuck(never_begun).startswith("KSG-201 scope one is left, and was never begun")
    assert stuck(awaited).startswith("KSG-201 ctx.scope was awaited")
    assert stuck(loose) == "KSG-213 the saga returned and never awaited what it called: scope loose"
    assert stuck(twice).startswith("KSG-201 scope was awaited a second time")
    assert stuck(gathered).startswith("KSG-201 ctx.gather got a ctx.scope")
    assert stuck(long).startswith("KSG-200 the name of a ctx.scope has 101 characters")
    assert stuck(crossed).startswith("KSG-201 scope outer is left before one that was begun in it")
    assert stuck(left_twice).startswith(
        "KSG-201 scope one is left before one that was begun in it, or a second"
    )


# --- the pivot


def test_the_pivot_cant_stand_in_a_scope() -> None:
    async def inside(ctx: SagaContext, order: Order) -> str:
        async with ctx.scope("A"):
            await ctx.pivot()
        return ""

    assert stuck(inside).startswith("KSG-216 ctx.pivot in a scope A, which may be undone by itself yet")


def test_a_scope_behind_the_pivot_undoes_what_is_in_it_and_nothing_before() -> None:
    async def behind(ctx: SagaContext, order: Order) -> str:
        async with ctx.scope("over"):
            await ctx.use(Payments).charge(order)
        await ctx.pivot()
        try:
            async with ctx.scope("A"):
                await ctx.use(Inventory).reserve(order)
                await ctx.use(Shipping, retry=ONCE).schedule(order)
        except StepRefused:
            await ctx.use(Mail).send(order)
        return ""

    play = of(behind)
    play.done(2)
    play.done(4)
    play.failed(5)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-223")
    play.refused(5)
    play.undo(4)
    play.done(6)
    assert (play.state.state, play.undone) == ("COMPLETED", ["4"])


# --- replay


def test_other_code_in_the_middle_of_a_scopes_undo() -> None:
    async def renamed(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Payments).charge(order)
        try:
            async with ctx.scope("another name"):
                await ctx.use(Inventory).reserve(order)
                await ctx.use(Shipping).schedule(order)
        except StepError:
            return "given up"
        return "A"

    async def without(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Payments).charge(order)
        await ctx.use(Inventory).reserve(order)
        await ctx.use(Shipping).schedule(order)
        return "A"

    async def catching(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Payments).charge(order)
        async with ctx.scope("A"):
            await ctx.use(Inventory).reserve(order)
            try:
                await ctx.use(Shipping).schedule(order)
            except StepError:
                await ctx.use(Shipping).schedule(order)
        return "A"

    for body, said in (
        (without, r"asks for inventory.reserve at .*, where its history has scope A as step 2"),
        (catching, r"asks for shipping.schedule at .*, where its history has no step"),
    ):
        play = refused()
        play.load(app_of(saga("choosing")(body)))
        with pytest.raises(Nondeterminism, match=said):
            play.run.live(play.defs)
    play = refused()
    play.load(app_of(saga("choosing")(renamed)))
    play.undo(3)
    assert play.state.state == "COMPLETED"


def test_code_that_puts_a_scope_around_what_is_running() -> None:
    async def plain(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        return ""

    async def scoped(ctx: SagaContext, order: Order) -> str:
        async with ctx.scope("new"):
            await ctx.use(Inventory).reserve(order)
        return ""

    play = of(plain)
    play.load(app_of(saga("plain")(scoped)))
    play.done(1)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-202")
    assert "asks for scope new at test_scope_edges.py" in play.state.reason


def test_a_history_in_which_no_scope_is_left_or_one_is_begun_twice_is_unreadable() -> None:
    for decision in (Leave(("3",), "scoped"), Leave(("9",), "scoped"), Enter("2")):
        play = refused()
        last = play.records[-1]
        with pytest.raises(HistoryUnreadable, match="row 4 can't be"):
            fold("run", [*play.records[:-1], last._replace(decisions=(*last.decisions, decision))])


def test_mended_code_goes_on_behind_a_scope() -> None:
    async def buggy(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Payments).charge(order)
        try:
            async with ctx.scope("A"):
                await ctx.use(Inventory).reserve(order)
                await ctx.use(Shipping).schedule(order)
        except StepError as error:
            raise ValueError("a bug behind it") from error
        return ""

    play = refused(buggy)
    play.undo(3)
    assert (play.state.state, play.state.code, play.step(2).outcome) == ("STUCK", "KSG-207", "undone")
    assert [step.path for step in play.state.unfed] == ["2"]
    play.new_code(app_of(saga("buggy")(choosing)))
    assert play.state.state == "RUNNING"
    play.done(5)
    assert play.state.state == "COMPLETED"


def test_a_saga_that_was_parked_while_its_scope_is_undone_keeps_the_answer() -> None:
    play = refused()
    play.fault()
    play.undo(3)
    assert (play.state.state, play.step(3).undo_how) == ("STUCK", "")
    play.ask("retry")
    assert (play.step(3).undo_how, play.step(2).outcome, "5" in play.state.steps) == (
        "undone",
        "undone",
        True,
    )


def test_a_late_answer_of_a_step_in_a_scope_that_was_left() -> None:
    play = refused()
    play.undo(3)
    play.done(5)
    play.done(3, attempt=1)
    play.event(Fired("2", "sleep"))
    assert play.state.state == "COMPLETED"
    assert play.payload_of(1) == CHARGED

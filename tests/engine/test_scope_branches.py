"""Scopes and branches: spawned in one, ended in one."""

from __future__ import annotations

from engine.bodies import of
from engine.shop import Inventory, Mail, Order, Payments, Shipping
from kasaga import BranchEnded, SagaContext, SagaFailed, Spawned, StepError, StepRefused, TimedOut
from kasaga.engine.model import Leave, Return

# --- gathers and races


def test_a_gather_in_a_scope_is_undone_in_the_reverse_of_the_order_in_which_it_was_sent() -> None:
    async def pair(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)
        await ctx.use(Shipping).schedule(order)

    async def gathering(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.scope():
                await ctx.gather(pair(ctx, order), pair(ctx, order))
                raise SagaFailed("no")
        except SagaFailed:
            return ""

    play = of(gathering)
    for path in ("2.1.1", "2.2.1", "2.2.2", "2.1.2"):
        play.done(path)
    for path in ("2.2.2", "2.1.2", "2.2.1", "2.1.1"):
        assert play.undone[-1] == path
        play.undo(path)
    assert play.state.state == "COMPLETED"


async def in_scope(ctx: SagaContext, order: Order) -> str:
    async with ctx.scope("branch"):
        await ctx.use(Inventory).reserve(order)
        await ctx.use(Shipping).schedule(order)
        await ctx.use(Payments).charge(order)
    return "well"


def test_a_branch_that_is_drained_in_its_scope_leaves_nothing_of_it() -> None:
    async def gathering(ctx: SagaContext, order: Order) -> str:
        try:
            await ctx.gather(in_scope(ctx, order), ctx.use(Mail).send(order))
        except StepRefused:
            await ctx.sleep(1)
        return ""

    play = of(gathering)
    play.done("1.1.2")
    play.refused("1.2")
    leaves = [leave for leave in play.decided(Leave) if leave.why == "scoped"]
    assert leaves == [Leave(("1.1.1", "1.1.2", "1.1.3"), "scoped", "its branch was ended")]
    assert (play.undone, play.step("1.1.1").outcome) == ([], "left")
    play.done("1.1.3")  # it was in flight: its outcome is waited for, and the gather with it
    assert (play.undone, "2" in play.state.steps) == (["1.1.3"], True)
    play.undo("1.1.3")
    play.fire(2)
    assert (play.state.state, play.undone) == ("RUNNING", ["1.1.3", "1.1.2"])
    play.undo("1.1.2")
    assert play.state.state == "COMPLETED"


def test_a_step_of_a_drained_scope_that_has_no_more_attempts() -> None:
    async def gathering(ctx: SagaContext, order: Order) -> str:
        try:
            await ctx.gather(in_scope(ctx, order), ctx.use(Mail).send(order))
        except StepRefused:
            return ""
        return "well"

    play = of(gathering)
    play.done("1.1.2")
    play.refused("1.2")
    play.failed("1.1.3")
    assert play.undone == ["1.1.3"]
    play.undo("1.1.3", "nothing")
    play.undo("1.1.2")
    assert play.state.state == "COMPLETED"


def test_a_branch_that_loses_in_its_scope_is_undone_as_any_loser() -> None:
    async def racing(ctx: SagaContext, order: Order) -> str:
        return str(await ctx.race(in_scope(ctx, order), ctx.sleep(5)))

    play = of(racing)
    play.done("1.1.2")
    play.fire("1.2")
    assert [leave.why for leave in play.decided(Leave)] == ["lost"]
    assert play.undone == ["1.1.3"]
    play.undo("1.1.3", "nothing")
    play.undo("1.1.2")
    assert (play.state.state, play.undone) == ("COMPLETED", ["1.1.3", "1.1.2"])


def test_a_branch_that_loses_while_its_scope_is_undone() -> None:
    async def racing(ctx: SagaContext, order: Order) -> str:
        return str(await ctx.race(in_scope(ctx, order), ctx.sleep(5)))

    play = of(racing)
    play.done("1.1.2")
    play.refused("1.1.3")
    assert play.undone == ["1.1.2"]
    play.fire("1.2")
    assert (play.step("1.1.1").outcome, play.undone) == ("left", ["1.1.2"])
    play.undo("1.1.2")
    assert play.state.state == "COMPLETED"


def test_scopes_of_branches_within_the_scope_of_a_branch_that_is_ended() -> None:
    async def outer(ctx: SagaContext, order: Order) -> str:
        async with ctx.scope("outer"):
            await ctx.use(Payments).charge(order)
            await ctx.gather(in_scope(ctx, order), ctx.use(Inventory).reserve(order))
        return ""

    async def cut(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.timeout(30):
                await ctx.gather(outer(ctx, order), ctx.sleep(60))
        except TimedOut:
            return "cut"
        return ""

    play = of(cut)
    play.done("2.1.2")
    play.done("2.1.3.1.2")
    play.done("2.1.3.2")
    play.fire(1)
    scoped = [leave for leave in play.decided(Leave) if leave.why == "scoped"]
    assert [leave.steps[0] for leave in scoped] == ["2.1.1"]
    undone: list[str] = []
    while play.state.state == "RUNNING":
        undone.append(play.undone[-1])
        play.undo(undone[-1], "nothing" if play.step(undone[-1]).outcome == "unknown" else "undone")
    assert undone == ["2.1.3.1.3", "2.1.3.2", "2.1.3.1.2", "2.1.2"]
    assert play.state.state == "COMPLETED"


# --- spawned


async def beside(ctx: SagaContext, order: Order) -> str:
    try:
        async with ctx.scope():
            ctx.spawn(ctx.use(Inventory).reserve(order))
            await ctx.use(Payments).charge(order)
    except StepError as error:
        await ctx.use(Shipping).schedule(order)
        return f"after {error.step}"
    await ctx.use(Mail).send(order)
    return "well"


def test_a_scope_waits_for_what_is_spawned_in_it() -> None:
    play = of(beside)
    assert [step.path for step in play.state.order] == ["1", "3", "2.1"]
    play.done(3)
    assert (play.step(1).outcome, "4" in play.state.steps) == ("", False)
    play.done("2.1")
    assert (play.step(1).outcome, play.step(4).type) == ("left", "mail.send")


def test_what_a_spawned_branch_ends_with_leaves_the_scope() -> None:
    play = of(beside)
    play.refused("2.1")
    play.done(3)
    assert (play.undone, play.step(1).error) == (["3"], "inventory.reserve refused: no")
    play.undo(3)
    play.done(4)
    assert b"after 2.1" in play.ever(Return)[0].result
    play = of(beside)
    play.done(3)
    play.refused("2.1")
    assert play.undone == ["3"]


def test_what_a_spawned_branch_has_in_flight_is_waited_for() -> None:
    play = of(beside)
    play.refused(3)
    assert (play.undone, play.step("2.1").left) == ([], "drained")
    play.done("2.1")
    assert play.undone == ["2.1"]
    play.undo("2.1")
    assert play.step(4).type == "shipping.schedule"


def test_a_branch_from_outside_isnt_the_scopes() -> None:
    async def outside(ctx: SagaContext, order: Order) -> str:
        branch: Spawned[object] = ctx.spawn(ctx.use(Inventory).reserve(order))
        try:
            async with ctx.scope():
                await ctx.use(Payments).charge(order)
                await branch
                await ctx.use(Mail).send(order)
        except StepRefused:
            return "no"
        return "well"

    play = of(outside)
    play.done(3)
    play.done("1.1")
    play.refused(4)
    assert play.undone == ["3"]
    play.undo(3)
    assert (play.state.state, play.undone) == ("COMPLETED", ["3"])
    play = of(outside)
    play.done(3)
    play.refused("1.1")
    assert play.undone == ["3"]


def test_a_branch_from_outside_that_ends_in_a_scope_belongs_to_its_spawner() -> None:
    async def spawner(ctx: SagaContext, order: Order) -> None:
        ctx.spawn(ctx.use(Inventory).reserve(order))
        async with ctx.scope("A"):
            await ctx.use(Payments).charge(order)
            async with ctx.scope("B"):
                await ctx.use(Shipping).schedule(order)

    async def racing(ctx: SagaContext, order: Order) -> str:
        await ctx.race(spawner(ctx, order), ctx.sleep(5))
        return ""

    play = of(racing)
    play.done("1.1.3")
    play.done("1.1.1.1")
    play.fire("1.2")
    assert play.decided(Leave)[0].steps == ("1.1.1.1", "1.1.2", "1.1.3", "1.1.4", "1.1.5")
    for path in ("1.1.5", "1.1.3", "1.1.1.1"):
        play.undo(path, "nothing" if path == "1.1.5" else "undone")
    assert play.state.state == "COMPLETED"


def test_branches_spawned_in_a_scope_end_with_its_branch() -> None:
    async def losing(ctx: SagaContext, order: Order) -> str:
        made: list[Spawned[object]] = []

        async def spawner() -> None:
            async with ctx.scope():
                made.append(ctx.spawn(ctx.use(Inventory).reserve(order)))
                await ctx.use(Payments).charge(order)

        async def waiter() -> str:
            await ctx.use(Shipping).schedule(order)
            try:
                await made[0]
            except BranchEnded:
                return "ended"
            return ""

        return str(await ctx.gather(ctx.race(spawner(), ctx.sleep(5)), waiter()))

    play = of(losing)
    play.done("1.2.1")
    play.fire("1.1.1.2")
    assert b"ended" in play.ever(Return)[0].result
    assert play.undone == ["1.1.1.1.3"]
    for path in ("1.1.1.1.3", "1.1.1.1.2.1"):
        play.undo(path, "nothing")
    assert play.state.state == "COMPLETED"


def test_what_failed_branches_have_spawned_is_undone_when_they_lose() -> None:
    """The branch is out of the race with its error; what it had in flight was waited for, and is undone."""

    async def spawner(ctx: SagaContext, order: Order) -> None:
        ctx.spawn(ctx.use(Inventory).reserve(order))
        await ctx.use(Mail).send(order)

    async def racing(ctx: SagaContext, order: Order) -> str:
        await ctx.race(spawner(ctx, order), ctx.sleep(5), skip_failures=True)
        return ""

    play = of(racing)
    play.refused("1.1.2")
    play.done("1.1.1.1")
    play.fire("1.2")
    assert play.undone == ["1.1.1.1"]
    play.undo("1.1.1.1")
    assert play.state.state == "COMPLETED"


def test_a_branch_that_is_ended_while_its_scope_waits_for_what_is_in_flight() -> None:
    async def spawner(ctx: SagaContext, order: Order) -> None:
        async with ctx.scope():
            ctx.spawn(ctx.use(Inventory).reserve(order))
            await ctx.use(Mail).send(order)

    async def gathering(ctx: SagaContext, order: Order) -> str:
        try:
            await ctx.gather(spawner(ctx, order), ctx.use(Shipping).schedule(order))
        except StepRefused as error:
            return error.step
        return ""

    play = of(gathering)
    play.refused("1.1.3")  # the scope waits for what the spawned branch has in flight
    play.refused("1.2")  # and so does the gather now
    assert play.state.state == "RUNNING"
    play.done("1.1.2.1")
    assert b"1.2" in play.ever(Return)[0].result
    assert play.undone == ["1.1.2.1"]
    play.undo("1.1.2.1")
    assert play.state.state == "COMPLETED"


def test_what_an_updates_handler_spawns_isnt_the_scopes() -> None:
    async def updated(ctx: SagaContext, order: Order) -> str:
        def handle(number: int) -> int:
            ctx.spawn(ctx.use(Inventory).reserve(order))
            return number

        ctx.update("more", int, handle)
        try:
            async with ctx.scope():
                await ctx.use(Payments).charge(order)
        except StepRefused:
            return "no"
        return ""

    play = of(updated)
    play.update("more", 7)
    play.refused(2)
    play.done("3.1")
    assert (play.state.state, play.undone) == ("COMPLETED", [])


def test_a_branch_that_waits_for_itself_in_a_scope_is_found() -> None:
    async def circle(ctx: SagaContext, order: Order) -> str:
        made: list[Spawned[None]] = []

        async def itself() -> None:
            await ctx.sleep(1)
            async with ctx.scope():
                await made[0]

        made.append(ctx.spawn(itself()))
        return ""

    play = of(circle)
    play.fire("1.1")
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-215")

"""What a saga's code sees: time, chance, ids, sleeps and functions of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.harness import BEGIN, SECOND
from engine.shop import ORDER, Inventory, Mail, Order, play_of, started
from kasaga import RetryPolicy, SagaContext, SagaFailed, StepFailed, StepRefused, StepTimeout, saga
from kasaga.engine import driver
from kasaga.engine.model import RunLocal, Sleep
from kasaga.errors import Evicted

SEEN: list[object] = []


@pytest.fixture(autouse=True)
def seen() -> None:
    SEEN.clear()


def lookup(number: int) -> str:
    return f"number {number}"


async def fetch(number: int) -> list[int]:
    return [number]


def write(number: int) -> int:
    return number


def unwrite(result: int | None) -> None:
    """Takes back what `write` did."""


def untold(number):  # type: ignore[no-untyped-def]  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]
    return number  # pyright: ignore[reportUnknownVariableType]


def test_now_is_the_recorded_time_of_the_event() -> None:
    @saga("clock")
    async def clock(ctx: SagaContext, order: Order) -> str:
        first = ctx.now
        assert ctx.now is not first
        await ctx.use(Inventory).reserve(order)
        second = ctx.now
        await ctx.use(Mail).send(order)
        return f"{first.isoformat()} {second.isoformat()} {ctx.now.isoformat()}"

    play = started(clock)
    play.now += 10 * SECOND
    play.done(1)
    play.crash()
    play.now += 5 * SECOND
    play.done(2)
    begin = datetime.fromtimestamp(BEGIN / SECOND, UTC)
    times = [begin, begin + timedelta(seconds=10), begin + timedelta(seconds=15)]
    said = clock.result.decode(play.state.returned or b"", play.schemas)
    assert said == " ".join(each.isoformat() for each in times)


def test_chance_is_the_same_in_each_replay() -> None:
    @saga("dice")
    async def dice(ctx: SagaContext, order: Order) -> None:
        SEEN.extend((ctx.uuid(), ctx.uuid(), ctx.random.random()))
        await ctx.sleep(1)
        SEEN.extend((ctx.uuid(), ctx.random.randint(1, 10**9)))
        await ctx.sleep(1)

    play = started(dice, always_replay=False)
    play.fire(1)
    first = list(SEEN)
    assert len(set(first)) == 5
    SEEN.clear()
    play.crash()
    play.fire(2)
    assert first == SEEN

    SEEN.clear()
    other = play_of(dice, run_id="another run", always_replay=False)
    other.start(ORDER)
    assert SEEN[0] != first[0]


def test_ids() -> None:
    @saga("ids")
    async def ids(ctx: SagaContext, order: Order) -> str:
        return f"{ctx.saga_id} {ctx.run_id}"

    play = play_of(ids, run_id="r-1")
    play.start(ORDER, saga_id="s-9")
    assert ids.result.decode(play.state.returned or b"", play.schemas) == "s-9 r-1"


@pytest.mark.parametrize("length", [0, 0.5, 3600, timedelta(days=365)])
def test_a_sleep_is_a_timer(length: float | timedelta) -> None:
    @saga("nap")
    async def nap(ctx: SagaContext, order: Order) -> None:
        await ctx.sleep(length)

    play = started(nap)
    (sleep,) = play.decided(Sleep)
    micros = (length if isinstance(length, timedelta) else timedelta(seconds=length)) // timedelta(
        microseconds=1
    )
    assert sleep == Sleep("1", BEGIN + micros)
    play.fire(1)
    assert play.state.state == "COMPLETED"


@pytest.mark.parametrize("length", [-1, float("nan"), float("inf"), 10**10])
def test_a_sleep_that_can_not_be(length: float) -> None:
    @saga("nap")
    async def nap(ctx: SagaContext, order: Order) -> None:
        await ctx.sleep(length)

    play = started(nap)
    assert play.state.state == "STUCK"
    assert "sleep" in play.state.reason


def test_functions_are_run_and_their_results_kept() -> None:
    @saga("runs")
    async def runs(ctx: SagaContext, order: Order) -> str:
        text = await ctx.run(lookup, 7)
        numbers = await ctx.run(fetch, 8)
        assert isinstance(numbers, list)
        return f"{text}, {numbers}"

    play = started(runs)
    assert play.decided(RunLocal)[0][:4] == ("1", "local", 1, "lookup")
    play.done(1, "number 7")
    play.done(2, [8])
    assert runs.result.decode(play.state.returned or b"", play.schemas) == "number 7, [8]"


def test_a_function_that_fails_is_tried_again_and_then_unknown() -> None:
    @saga("runs")
    async def runs(ctx: SagaContext, order: Order) -> str:
        try:
            return await ctx.run(lookup, 7, retry=RetryPolicy(maximum_attempts=2))
        except StepFailed as error:
            return error.message

    play = started(runs)
    play.ran(1, "OSError", "no route")
    (again,) = play.decided(RunLocal)
    assert again.attempt == 2
    assert again.send_at > play.now
    play.ran(1, "OSError", "no route")
    assert play.step(1).outcome == "unknown"
    assert runs.result.decode(play.state.returned or b"", play.schemas) == "lookup failed: no route"
    assert play.state.state == "COMPLETED"  # it is for reads: nothing is to be undone


def test_a_function_that_takes_too_long_is_tried_again_at_once_and_then_unknown() -> None:
    @saga("runs")
    async def runs(ctx: SagaContext, order: Order) -> str:
        try:
            return await ctx.run(lookup, 7, timeout=5, retry=RetryPolicy(maximum_attempts=2))
        except StepTimeout as error:
            return error.message

    play = started(runs)
    play.ran(1, driver.TIMED_OUT, "attempt 1 didn't end within 5 s")
    (again,) = play.decided(RunLocal)
    assert (again.attempt, again.send_at) == (2, 0)
    play.ran(1, driver.TIMED_OUT, "attempt 2 didn't end within 5 s")
    assert play.step(1).outcome == "unknown"
    said = runs.result.decode(play.state.returned or b"", play.schemas)
    assert said == "lookup timed out: attempt 2 didn't end within 5 s"


@pytest.mark.parametrize(
    ("timeout", "recorded"),
    [(5, 5_000_000), (timedelta(minutes=2), 120_000_000), (None, 0), ("default", 60_000_000)],
)
def test_what_a_function_may_take_is_recorded(timeout: Any, recorded: int) -> None:
    @saga("runs")
    async def runs(ctx: SagaContext, order: Order) -> str:
        return await (ctx.run(lookup, 7) if timeout == "default" else ctx.run(lookup, 7, timeout=timeout))

    step = started(runs).step(1)
    assert step.policy is not None
    assert step.undo_policy is not None
    assert (step.policy.timeout, step.undo_policy.timeout) == (recorded, recorded)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), timedelta(0)])
def test_a_time_out_that_is_none_is_refused(timeout: Any) -> None:
    @saga("runs")
    async def runs(ctx: SagaContext, order: Order) -> str:
        return await ctx.run(lookup, 7, timeout=timeout)

    play = started(runs)
    assert play.state.state == "STUCK"
    assert "timeout is" in play.state.reason


def test_a_function_that_says_no() -> None:
    @saga("runs")
    async def runs(ctx: SagaContext, order: Order) -> str:
        try:
            return await ctx.run(lookup, 7)
        except StepRefused as error:
            raise SagaFailed(f"then not: {error.message}") from error

    play = started(runs)
    play.ran(1, "SagaFailed", "no such number")
    assert play.state.reason == "then not: lookup refused: no such number"
    assert play.state.state == "COMPENSATED"


@saga("writes")
async def writes(ctx: SagaContext, order: Order) -> None:
    await ctx.run(write, 7, undo=unwrite)
    await ctx.use(Mail).send(order)


def test_a_function_that_writes_is_undone_by_another() -> None:
    play = started(writes)
    assert play.step(1).compensation == f"{__name__}:unwrite"
    play.done(1, 7)
    play.refused(2)
    (undo,) = play.decided(RunLocal)
    assert undo[:4] == ("1", "undo", 1, f"{__name__}:unwrite")
    play.ran(1, "OSError", "away", form="undo")
    assert play.step(1).undo_attempt == 2
    play.ran(1, form="undo")
    assert play.state.state == "COMPENSATED"


def test_a_writing_function_of_unknown_outcome_is_undone_too() -> None:
    play = started(writes)
    for _ in range(10):
        play.ran(1, "OSError", "away")
    assert play.step(1).outcome == "unknown"
    assert play.step(1).undo_form == "undo"
    for _ in range(9):
        play.ran(1, "OSError", "away", form="undo")
    assert play.state.state == "COMPENSATING"
    play.ran(1, "OSError", "away", form="undo")
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-220")
    play.ask("skip")
    assert play.state.state == "COMPENSATED"


def test_a_function_cut_off_by_a_cancel_is_undone() -> None:
    play = started(writes)
    play.ask("cancel")
    assert play.step(1).undo_form == "undo"
    play.ran(1, form="undo")
    assert play.state.state == "COMPENSATED"


def test_an_undo_must_be_found_by_its_name() -> None:
    @saga("local")
    async def local(ctx: SagaContext, order: Order) -> None:
        await ctx.run(write, 7, undo=lambda result: None)

    play = started(local)
    assert play.state.code == "KSG-201"
    assert "top level of a module" in play.state.reason


def test_a_function_without_an_annotation_has_no_result() -> None:
    @saga("untold")
    async def untold_saga(ctx: SagaContext, order: Order) -> str:
        return repr(await ctx.run(untold, 7))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]

    play = started(untold_saga)
    play.done(1, None)
    assert untold_saga.result.decode(play.state.returned or b"", play.schemas) == "None"


def test_eviction_lets_no_author_s_code_do_anything() -> None:
    @saga("tidy")
    async def tidy(ctx: SagaContext, order: Order) -> None:
        try:
            await ctx.use(Inventory).reserve(order)
        except Evicted:
            SEEN.append("evicted")
            raise
        finally:
            for use in (
                lambda: ctx.now,
                ctx.uuid,
                lambda: ctx.sleep(1),
                lambda: ctx.use(Mail),
                lambda: ctx.random,
            ):
                try:
                    use()
                except Evicted:
                    SEEN.append("refused")
            await ctx.use(Mail).send(order)

    play = started(tidy, always_replay=False)
    before = len(play.bodies)
    play.evict()
    assert ["evicted", *["refused"] * 5] == SEEN
    assert len(play.bodies) == before
    assert play.run.driver is None
    assert not driver.GRAVEYARD
    play.done(1)
    assert play.step(2).type == "mail.send"


def test_an_evicted_saga_comes_back_from_its_state_alone() -> None:
    @saga("long")
    async def long(ctx: SagaContext, order: Order) -> None:
        for number in range(20):
            await ctx.sleep(number)

    play = started(long)
    for path in range(1, 21):
        play.evict()
        play.fire(path)
    assert play.state.state == "COMPLETED"

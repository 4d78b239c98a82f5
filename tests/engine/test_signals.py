"""Signals: kept until they are awaited, in order, each taken once."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

from engine.bodies import of
from engine.harness import SECOND, Play
from engine.shop import Inventory, Order, started
from kasaga import SagaContext, SignalTimeout, TimedOut, saga
from kasaga.engine import signals
from kasaga.engine.decide import Ignored, record_parked
from kasaga.engine.model import (
    LEFT,
    MISSED,
    SIGNAL,
    Alarm,
    Drop,
    Faulted,
    Listen,
    Record,
    Signalled,
    Take,
)
from kasaga.errors import MailboxFull, SagaOver, SignalRefused


class Approval(BaseModel):
    by: str
    limit: int = Field(default=0, ge=0)


async def approved(ctx: SagaContext, order: Order) -> str:
    approval = await ctx.signal("approved", Approval)
    return approval.by


async def three(ctx: SagaContext, order: Order) -> str:
    return "".join([(await ctx.signal("letter", str)) for _ in range(3)])


async def patient(ctx: SagaContext, order: Order) -> str:
    try:
        await ctx.signal("approved", Approval, timeout=60)
    except SignalTimeout:
        return "too late"
    return "approved"


def refusal(out: object) -> str:
    """The code of what is refused."""
    code: str = getattr(out, "code", "")
    return code


def test_a_signal_that_is_awaited_goes_on_with_the_saga() -> None:
    play = of(approved)
    assert play.kinds[-1] is Listen
    assert not play.rows
    play.signal("approved", Approval(by="anna"))
    assert play.state.state == "COMPLETED"
    (take,) = play.decided(Take)
    assert take == Take("1", "k1")


def test_signals_that_came_before_are_kept_in_order() -> None:
    async def busy(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        return await three(ctx, order)

    play = of(busy)
    for letter in "abc":
        play.signal("letter", letter)
        assert play.kinds == []
    play.done(1)
    assert play.state.state == "COMPLETED"
    assert play.run.state.returned is not None
    assert b"abc" in play.run.state.returned


def test_the_same_key_twice_is_one_signal_also_after_it_was_taken() -> None:
    play = of(three)
    for key in ("1", "1", "2", "1"):
        out = play.signal("letter", "x", key=key)
    assert isinstance(out, Ignored)
    assert len(play.ever(Take)) == 2
    play.crash()
    assert isinstance(play.signal("letter", "x", key="2"), Ignored)
    play.signal("letter", "x", key="3")
    assert play.state.state == "COMPLETED"
    assert isinstance(play.signal("letter", "x", key="3"), Ignored)


def test_the_time_is_over() -> None:
    play = of(patient)
    (alarm,) = play.decided(Alarm)
    assert alarm.due_at == play.now + 60 * SECOND
    play.fire(1)
    assert play.step(1).outcome == MISSED
    assert play.state.returned is not None
    assert b"too late" in play.state.returned
    assert refusal(play.signal("approved", Approval(by="anna"))) == SagaOver.code


def test_a_signal_in_time_closes_its_timer() -> None:
    play = of(patient)
    play.signal("approved", Approval(by="anna"))
    assert play.state.state == "COMPLETED"
    assert not play.rows


def test_uncaught_the_saga_is_undone() -> None:
    async def strict(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.signal("approved", timeout=1)
        return ""

    play = of(strict)
    play.done(1)
    play.fire(2)
    assert (play.state.state, play.state.undo_code) == ("COMPENSATING", SignalTimeout.code)
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_in_a_race_the_loser_takes_nothing() -> None:
    async def either(ctx: SagaContext, order: Order) -> str:
        name, _ = await ctx.select(paid=ctx.signal("paid"), gone=ctx.sleep(60))
        await ctx.signal("paid")
        return name

    play = of(either)
    play.fire("1.2")
    assert play.step("1.1").outcome == LEFT
    play.signal("paid")
    assert play.state.state == "COMPLETED"
    assert play.step("2").details == "k2"


def test_in_a_gather_the_first_to_wait_gets_the_first() -> None:
    async def both(ctx: SagaContext, order: Order) -> str:
        a, b = await ctx.gather(ctx.signal("letter", str), ctx.signal("letter", str, timeout=60))
        return a + b

    play = of(both)
    play.signal("letter", "a")
    play.signal("letter", "b")
    assert play.state.returned is not None
    assert b"ab" in play.state.returned


def test_a_gather_that_fails_waits_for_no_signal() -> None:
    async def both(ctx: SagaContext, order: Order) -> str:
        await ctx.gather(ctx.signal("letter", str), ctx.use(Inventory).reserve(order))
        return ""

    play = of(both)
    play.refused("1.2")
    assert play.step("1.1").outcome == LEFT
    assert play.state.state == "COMPENSATED"


def test_a_block_with_a_time_out_cuts_a_wait_off() -> None:
    async def block(ctx: SagaContext, order: Order) -> str:
        try:
            async with ctx.timeout(5):
                await ctx.signal("approved", Approval)
        except TimedOut:
            return "late"
        return "in time"

    play = of(block)
    play.fire(1)
    assert play.step(2).outcome == LEFT
    assert play.state.state == "COMPLETED"


def test_what_can_t_be_read_is_set_aside_and_the_wait_goes_on() -> None:
    play = of(approved)
    play.signal("approved", "no approval")
    (drop,) = play.decided(Drop)
    assert (drop.name, drop.signal_id) == ("approved", "k1")
    assert drop.reason
    assert play.state.state == "RUNNING"
    play.signal("approved", json='{"by": "bob", "limit": -1}')
    assert "limit" in play.decided(Drop)[0].reason
    play.signal("approved", json='{"by": "bob"}')
    assert play.state.state == "COMPLETED"
    assert play.decided(Take)[0].payload
    assert play.state.mail is not None
    assert play.state.mail.dropped == 2


def test_what_a_saga_declares_is_held_against_what_comes() -> None:
    @saga("strict", signals={"approved": Approval})
    async def strict(ctx: SagaContext, order: Order) -> str:
        return (await ctx.signal("approved", Approval)).by

    play = started(strict)
    out = play.signal("aproved", Approval(by="anna"))
    assert refusal(out) == SignalRefused.code
    assert "approved" in str(out)
    assert refusal(play.signal("approved", json='{"by": 1}')) == SignalRefused.code
    assert refusal(play.signal("approved", "x")) == SignalRefused.code
    play.signal("approved", json='{"by": "anna"}')
    assert play.state.state == "COMPLETED"


@pytest.mark.parametrize("name", ["other", "approved"])
def test_code_that_awaits_what_isn_t_declared_is_stuck(name: str) -> None:
    @saga("strict", signals={"approved": Approval})
    async def strict(ctx: SagaContext, order: Order) -> str:
        return await ctx.signal(name, str)

    assert "isn't what @saga(signals=...) declares" in started(strict).state.reason


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_times_and_names_that_can_t_be(seconds: float) -> None:
    async def wrong_time(ctx: SagaContext, order: Order) -> str:
        await ctx.signal("approved", timeout=seconds)
        return ""

    async def wrong_name(ctx: SagaContext, order: Order) -> str:
        await ctx.signal("appr oved")
        return ""

    assert "timeout=" in of(wrong_time).state.reason
    assert "appr oved" in of(wrong_name).state.reason


def test_a_parked_saga_keeps_what_comes_and_takes_it_when_it_is_mended() -> None:
    play = of(three)
    play.fault()
    for letter in "abc":
        assert isinstance(play.signal("letter", letter), Record)
    assert play.state.state == "STUCK"
    play.ask("retry")
    assert play.state.state == "COMPLETED"


def test_a_signal_wins_over_a_time_out_that_was_recorded_while_parked() -> None:
    play = of(patient)
    play.fault()
    play.signal("approved", Approval(by="anna"))
    play.fire(1, SIGNAL)
    play.ask("retry")
    assert play.state.returned is not None
    assert b"approved" in play.state.returned


def test_a_saga_that_is_undone_or_has_ended_takes_nothing() -> None:
    play = of(approved)
    play.ask("cancel")
    assert play.state.state == "COMPENSATED"
    assert refusal(play.signal("approved", Approval(by="anna"))) == SagaOver.code


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "MAX_WAITING", 3)
    play = of(approved)
    for _ in range(3):
        play.signal("other")
    assert refusal(play.signal("other")) == MailboxFull.code
    monkeypatch.setattr(signals, "MAX_WAITING", 10)
    monkeypatch.setattr(signals, "MAX_WAITING_BYTES", 50)
    assert refusal(play.signal("other", "x" * 50)) == MailboxFull.code
    monkeypatch.setattr(signals, "MAX_MESSAGES", 3)
    assert refusal(play.signal("other")) == MailboxFull.code


def test_one_that_is_too_large() -> None:
    play = of(approved)
    assert refusal(play.signal("approved", "x" * 900_001)) == MailboxFull.code


def test_a_replay_tells_another_signal() -> None:
    async def before(ctx: SagaContext, order: Order) -> str:
        await ctx.signal("approved", Approval)
        await ctx.use(Inventory).reserve(order)
        return ""

    async def after(ctx: SagaContext, order: Order) -> str:
        await ctx.signal("settled", Approval)
        await ctx.use(Inventory).reserve(order)
        return ""

    play = of(before)
    play.signal("approved", Approval(by="anna"))
    other = of(after).app
    other.sagas = {("before", 1): other.sagas["after", 1]}
    play.load(other)
    play.done(2)
    assert play.state.code == "KSG-202"
    assert "signal settled" in play.state.reason
    assert "signal approved" in play.state.reason


def test_a_fault_keeps_the_signals_of_its_batch() -> None:
    play = of(approved)
    event = Signalled("k", "approved", b"", "anna")
    fault = Faulted("KSG-210", "refused", "mend it")
    play.commit(list(record_parked(play.defs, play.run, [event], fault, at=play.now, row=play.next_row)))
    assert play.state.mail is not None
    assert play.state.mail.count == 1


def test_a_thousand_signals_are_taken_in_order() -> None:
    async def many(ctx: SagaContext, order: Order) -> str:
        return ",".join([str(await ctx.signal("n", int)) for _ in range(200)])

    play: Play = of(many)
    expected: list[Any] = []
    for number in range(200):
        play.signal("n", number)
        expected.append(str(number))
    assert play.state.returned is not None
    assert ",".join(expected).encode() in play.state.returned

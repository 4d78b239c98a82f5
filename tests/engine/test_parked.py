"""What reaches a parked saga is history first, and is decided when the saga is unparked."""

from __future__ import annotations

from engine.harness import SECOND, Play
from engine.shop import CHARGED, ORDER, Inventory, Mail, Order, Payments, app_of, payment, play_of, started
from kasaga import Saga, SagaContext, StepError, saga
from kasaga.engine.decide import Ignored, Run, record_parked
from kasaga.engine.model import (
    COMMAND,
    Asked,
    CodeArrived,
    Event,
    Faulted,
    Fired,
    Move,
    Replied,
    Resume,
    Send,
    Settle,
    Tell,
)
from kasaga.engine.model import Record as Decided
from kasaga.errors import NotApplicable

FAULT = Faulted("KSG-209", "the process died", "look for what can end it")


def test_input_is_recorded_undecided() -> None:
    play = started(payment)
    play.fault("KSG-210", "invalid byte sequence")
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-210")
    assert play.state.fingerprint == play.defs.fingerprint
    play.done(1)
    assert play.decisions == ()
    assert [type(event) for event in play.state.pending] == [Replied]
    assert len(play.rows) == 1
    play.ask("retry")
    assert play.kinds == [Move, Tell, Settle, Resume, Send]
    assert not play.state.pending
    assert play.step(1).result
    play.done(2)
    play.done(3)
    assert play.state.state == "COMPLETED"


def test_the_same_fault_is_recorded_once() -> None:
    play = started(payment)
    play.fault("KSG-210", "invalid byte sequence")
    assert play.fault("KSG-210", "invalid byte sequence") == Ignored("the same fault")
    play.fault("KSG-210", "another")
    assert play.state.reason == "another"


def test_the_same_news_are_recorded_once() -> None:
    play = started(payment)
    play.fault()
    play.done(1)
    assert play.done(1) == Ignored("duplicate")
    play.failed(1, "down")
    assert play.failed(1, "down since 12:00") == Ignored("duplicate")
    play.now = play.step(1).due_at
    play.event(Fired("1", COMMAND))
    assert play.event(Fired("1", COMMAND)) == Ignored("duplicate")
    assert len(play.state.pending) == 3


def test_an_answer_wins_against_a_timer_that_was_read_before_it() -> None:
    play = started(payment)
    play.fault()
    play.fire(1)
    play.now += SECOND
    play.done(1)
    play.ask("retry")
    assert [each.step for each in play.decided(Send)] == ["2"]
    assert play.step(1).attempt == 1


def test_a_failure_that_was_read_before_an_answer_sends_nothing() -> None:
    """The row of the attempt that was planned and not needed is never opened."""
    play = started(payment)
    play.fault()
    play.failed(1)
    play.done(1)
    play.ask("retry")
    assert [(each.step, each.attempt) for each in play.decided(Send)] == [("1", 2), ("2", 1)]
    assert [each.step for each in play.sent if isinstance(each, Send)] == ["1", "2"]


def test_timers_are_decided_by_the_clock_of_the_unparking() -> None:
    play = started(payment)
    play.fault()
    play.fire(1)
    play.failed(1)
    play.now += 1000 * SECOND
    play.ask("retry")
    (sent,) = play.decided(Send)
    assert sent.attempt == 2
    assert sent.send_at > play.now


def test_the_code_can_break_again_halfway() -> None:
    """Two outcomes were recorded; the code breaks at the second one: the first stays fed."""

    def version(broken: bool) -> Saga[Order, None]:
        @saga("half")
        async def half(ctx: SagaContext, order: Order) -> None:
            await ctx.use(Inventory).reserve(order)
            try:
                await ctx.use(Mail).send(order)
            except StepError:
                if broken:
                    raise ValueError("again") from None
            await ctx.use(Payments).charge(order)

        return half

    broken, mended = version(True), version(False)
    play = started(broken)
    play.fault()
    play.done(1)
    play.ask("retry")
    play.fault()
    play.refused(2)
    play.ask("retry")
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-207")
    assert play.step(2).outcome == "refused"
    assert [step.path for step in play.state.unfed] == ["2"]
    assert not play.state.pending
    play.new_code(app_of(mended))
    assert play.decided(Resume) == [Resume("2")]
    play.done(3)
    assert play.state.state == "COMPLETED"


def test_the_undoing_of_a_parked_saga_waits_too() -> None:
    play = started(payment)
    play.done(1)
    play.refused(2)
    play.fault()
    play.undo(1)
    assert play.step(1).undo_open
    play.ask("retry")
    assert play.state.state == "COMPENSATED"


def test_a_void_that_answers_while_the_saga_is_parked() -> None:
    @saga("mailing")
    async def mailing(ctx: SagaContext, order: Order) -> None:
        try:
            await ctx.use(Mail).send(order)
        except StepError:
            await ctx.use(Inventory).reserve(order)

    play = started(mailing)
    play.failed(1, retryable=False)
    play.fault()
    play.undo(1, "executed")
    play.answer(2, "failed", form=COMMAND)
    play.ask("retry")
    assert (play.state.state, play.state.code, play.state.stuck_step) == ("STUCK", "KSG-221", "1")
    assert not play.state.parked
    assert play.step(2).attempt == 2


def test_a_step_that_was_blocked_before_is_still_blocked_after() -> None:
    @saga("mailing")
    async def mailing(ctx: SagaContext, order: Order) -> None:
        try:
            await ctx.use(Mail).send(order)
        except StepError:
            await ctx.use(Inventory).reserve(order)

    play = started(mailing)
    play.failed(1, retryable=False)
    play.undo(1, "executed")
    play.fault()
    assert play.state.code == "KSG-210"
    play.new_code(app_of(mailing))
    assert (play.state.state, play.state.code, play.state.stuck_step) == ("STUCK", "KSG-221", "1")


def test_who_wants_to_watch_a_parked_saga_is_told_its_end() -> None:
    play = started(payment)
    play.fault()
    play.ask("watch", reply_to="shop.answers/1", action_id="w")
    play.ask("cancel")
    play.undo(1)
    assert play.told[-2:] == [Tell("shop.answers/1", "COMPENSATED", "w"), Tell("", "COMPENSATED")]


# --- record_parked: for a saga that can't be stepped at all ---


def park(play: Play, *events: Event) -> list[Decided]:
    """As the shell does: the run as it was committed, and the events that were decided since."""
    play.run.evict()
    play.run = Run(play.state.run_id, play.records)
    made = list(record_parked(play.defs, play.run, events, FAULT, at=play.now, row=play.next_row))
    play.commit(made)
    return made


def a_start() -> Event:
    return started(payment).records[0].event


def test_a_start_that_kills_is_recorded_and_parked_without_running_it() -> None:
    play = play_of(payment)
    (record,) = park(play, a_start())
    assert (play.state.state, play.state.code, play.state.reason) == ("STUCK", "KSG-209", "the process died")
    assert play.state.saga_id == "s-1"
    assert play.state.begun_at == 0
    assert [type(each) for each in record.decisions] == [Move, Move, Tell]
    play.new_code(app_of(payment))
    assert play.state.state == "RUNNING"
    assert play.step(1).type == "inventory.reserve"


def test_what_came_in_the_same_batch_as_a_start_is_pending() -> None:
    play = play_of(payment)
    made = park(play, a_start(), Asked("w", "watch", "anna", "", "", "", "shop.answers/1"))
    assert len(made) == 2
    assert play.state.watchers == (("shop.answers/1", "w", "", ""),)


def test_events_of_a_running_saga_are_recorded_after_the_fault() -> None:
    play = started(payment)
    play.done(1)
    data = play.spec("payments.charge").result.encode(CHARGED)
    done = Replied("2", COMMAND, 1, "done", data)
    made = park(play, done, done, Fired("2", COMMAND))
    assert [type(record.event) for record in made] == [Faulted, Replied]
    assert play.state.pending == (done,)
    play.ask("retry")
    assert play.step(2).outcome == "done"
    play.done(3)
    assert play.state.state == "COMPLETED"


def test_actions_are_answered_not_carried_out() -> None:
    play = started(payment)
    cancel = Asked("c", "cancel", "anna", "why", "", "", "shop.answers/1")
    made = park(play, cancel, Asked("r", "retry", "anna", "why", "", "", ""), CodeArrived("x"), FAULT)
    assert [type(record.event).__name__ for record in made] == ["Faulted", "Asked", "Asked"]
    assert play.state.state == "STUCK"
    assert play.told[-1] == Tell("shop.answers/1", "not_applicable", "c")


def test_parking_what_is_parked_or_over_or_unknown() -> None:
    play = started(payment)
    park(play)
    park(play)
    assert play.state.state == "STUCK"
    assert play.told == [Tell("", "STUCK")]
    play.ask("cancel")
    play.undo(1)
    assert park(play, FAULT) == []
    assert park(play_of(payment)) == []
    assert park(play_of(payment), Fired("1", COMMAND)) == []


def test_a_parked_saga_keeps_its_rows() -> None:
    play = started(payment)
    park(play, Fired("1", COMMAND))
    assert len(play.rows) == 1
    assert play.start(ORDER) == Ignored("duplicate start")
    assert not isinstance(play.ask("retry"), NotApplicable)
    assert play.step(1).attempt == 1

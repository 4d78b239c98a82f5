"""What a saga's spans say: one trace, true times, the same ids whoever makes them, errors as errors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from engine.harness import BEGIN, SECOND
from engine.shop import Mail, Order, Payments, Shipping, payment
from kasaga import RetryPolicy, SagaContext, SagaFailed, StepTimeout, saga
from kasaga.engine.model import COMMAND
from kasaga.orchestrator.rows import Addresses, add_record
from kasaga.orchestrator.traceids import Sampling, hashed_trace_id, span_id
from kasaga.store.base import SagaWrite
from kasaga_wire.topics import Topics
from observability.conventions import current
from observability.traced import SPAN, TRACE, TRACEPARENT, Traced, attributes, ids, named, outcomes

UNDONE = [
    ("inventory.reserve", "done"),
    ("payments.charge", "refused"),
    ("inventory.release", "undone"),
    ("payment", None),
]


def refused() -> Traced:
    play = Traced(payment).begin()
    play.now += SECOND
    play.done(1)
    play.now += SECOND
    play.refused(2, "the card is blocked")
    play.now += SECOND
    play.undo(1)
    return play


def error(span: ReadableSpan) -> str | None:
    return span.status.description if span.status.status_code is StatusCode.ERROR else None


# --- one trace


def test_a_saga_is_one_trace_with_a_span_for_each_attempt() -> None:
    spans = refused().spans
    assert outcomes(spans) == UNDONE
    trace, root = hashed_trace_id("run"), span_id("run")
    assert [ids(span) for span in spans] == [
        (trace, root, span_id("run.1.1")),
        (trace, root, span_id("run.2.1")),
        (trace, root, span_id("run.1~undo.1")),
        (trace, "", root),
    ]


def test_the_starters_trace_goes_on() -> None:
    play = Traced(payment).begin(TRACEPARENT, "vendor=x")
    for path in (1, 2, 3):
        play.done(path)
    root = named(play.spans)["payment"]
    assert ids(root) == (TRACE, SPAN, span_id("run"))
    assert root.parent is not None
    assert root.parent.is_remote
    for span in play.spans:
        context = span.get_span_context()
        assert context is not None
        assert context.trace_state.to_header() == "vendor=x"
        assert ids(span)[0] == TRACE


def test_times_are_those_of_the_history() -> None:
    spans = named(refused().spans)
    times = {
        name: ((span.start_time or 0) - BEGIN * 1000, (span.end_time or 0) - BEGIN * 1000)
        for name, span in spans.items()
    }
    second = SECOND * 1000
    assert times == {
        "inventory.reserve": (0, second),
        "payments.charge": (second, 2 * second),
        "inventory.release": (2 * second, 3 * second),
        "payment": (0, 3 * second),
    }


def test_the_headers_of_an_attempt_name_its_span() -> None:
    """What a participant gets is the id under which the attempt's span is exported later."""
    play = Traced(payment).begin(TRACEPARENT, "vendor=x")
    write = SagaWrite(0, uuid4())
    run_id = str(write.run_id)
    play.state.run_id = run_id
    add_record(write, play.state, play.records[0], Addresses(Topics("shop"), "/kasaga/shop", 16), "code")
    (headers,) = [dict(row.headers) for row in write.opens if row.headers]
    assert headers["traceparent"].decode() == f"00-{TRACE}-{span_id(f'{run_id}.1.1')}-01"
    assert headers["tracestate"] == b"vendor=x"


# --- what a span says


def test_an_attempt_tells_its_command_its_topic_and_its_outcome() -> None:
    span = named(refused().spans)["inventory.reserve"]
    assert span.kind is SpanKind.PRODUCER
    assert error(span) is None
    assert attributes(span) == {
        "kasaga.saga": "payment",
        "kasaga.saga_id": "s-1",
        "kasaga.run_id": "run",
        "kasaga.step": "1",
        "kasaga.attempt": 1,
        "kasaga.outcome": "done",
        "kasaga.command": "inventory.reserve",
        "kasaga.command_id": "run.1",
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "test.inventory.commands",
        "messaging.message.id": "run.1.1",
        "messaging.message.conversation_id": "s-1",
    }


def test_the_messaging_attributes_are_those_of_todays_conventions() -> None:
    found = {name for span in refused().spans for name in attributes(span) if name.startswith("messaging.")}
    assert found <= current("messaging")
    assert len(found) >= 6


def test_the_root_tells_how_the_saga_ended() -> None:
    root = named(refused().spans)["payment"]
    assert error(root) == "payments.charge refused: the card is blocked"
    assert root.kind is SpanKind.CONSUMER
    told = attributes(root)
    assert (told["kasaga.state"], told["kasaga.steps"], told["kasaga.saga_version"]) == ("COMPENSATED", 2, 1)
    assert [event.name for event in root.events] == ["saga compensating"]


def test_a_completed_saga_is_well() -> None:
    play = Traced(payment).begin()
    for path in (1, 2, 3):
        play.done(path)
    root = play.spans[-1]
    assert root.status.status_code is StatusCode.OK
    assert root.events == ()


def test_refused_failed_and_silent_attempts_are_errors_that_say_why() -> None:
    play = Traced(payment).begin()
    play.failed(1, "the shelf is on fire")
    play.fire(1)
    play.undeliverable(1, "no such topic")
    play.now = play.step(1).last_at
    play.refused(1, "none left")
    spans = play.spans
    assert [(attributes(span).get("error.type"), error(span)) for span in spans[:4]] == [
        ("Broken", "failed: the shelf is on fire"),
        ("kasaga.Timeout", "timed_out: no answer in time"),
        ("kasaga.Undeliverable", "undeliverable: no such topic"),
        ("OutOfStock", "refused: none left"),
    ]
    assert [attributes(span)["kasaga.attempt"] for span in spans[:4]] == [1, 2, 3, 4]


def test_a_retry_begins_when_it_is_sent_not_when_it_is_decided() -> None:
    play = Traced(payment).begin()
    play.now += SECOND
    play.failed(1)
    sent = play.step(1).last_at
    assert sent > play.now
    play.now = sent + SECOND
    play.done(1)
    second = play.spans[1]
    assert ((second.start_time or 0) // 1000, (second.end_time or 0) // 1000) == (sent, sent + SECOND)


def test_an_attempt_that_was_never_sent_has_no_span() -> None:
    play = Traced(payment).begin()
    play.failed(1)
    assert play.step(1).last_at > play.now, "waits for its time"
    play.ask("cancel")
    play.undo(1)
    assert outcomes(play.spans) == [
        ("inventory.reserve", "failed"),
        ("inventory.release", "undone"),
        ("payment", None),
    ]


def test_an_answer_to_an_earlier_attempt_says_so() -> None:
    play = Traced(payment).begin()
    play.fire(1)
    play.done(1, attempt=1)
    first, second = play.spans
    assert attributes(first)["kasaga.outcome"] == "timed_out"
    assert (attributes(second)["kasaga.outcome"], attributes(second)["kasaga.answered_attempt"]) == (
        "done",
        1,
    )


@saga("patient")
async def patient(ctx: SagaContext, order: Order) -> str:
    await ctx.sleep(timedelta(hours=1))
    try:
        await ctx.use(Shipping, retry=RetryPolicy(maximum_attempts=1)).schedule(order)
    except StepTimeout:
        await ctx.use(Payments).charge(order)
    return await ctx.run(_look, order.id)


def _look(order_id: str) -> str:
    return order_id


def test_sleeps_local_steps_and_undos_in_passing_have_spans_of_their_own() -> None:
    play = Traced(patient).begin()
    play.fire(1)
    play.fire(2)
    play.undo(2)
    play.done(3)
    play.done(4, "ok")
    spans = play.spans
    assert outcomes(spans) == [
        ("sleep", "done"),
        ("shipping.schedule", "timed_out"),
        ("shipping.cancel", "undone"),
        ("payments.charge", "done"),
        (spans[4].name, "done"),
        ("patient", None),
    ]
    assert spans[4].name.endswith("_look")
    assert [span.kind for span in (spans[0], spans[4])] == [SpanKind.INTERNAL] * 2
    assert (spans[0].end_time or 0) - (spans[0].start_time or 0) == 3600 * SECOND * 1000
    assert "messaging.system" not in attributes(spans[4])


@saga("careless")
async def careless(ctx: SagaContext, order: Order) -> None:
    await ctx.use(Mail, retry=RetryPolicy(maximum_attempts=1)).send(order)


@saga("choosy")
async def choosy(ctx: SagaContext, order: Order) -> None:
    await ctx.use(Payments).charge(order)
    raise SagaFailed("too dear")


def test_an_answer_that_the_saga_does_not_like_is_done_all_the_same() -> None:
    """Its undo is sent in the same decision, which is no second attempt of a step that nobody could read."""
    play = Traced(choosy).begin()
    play.done(1)
    play.undo(1)
    assert outcomes(play.spans) == [
        ("payments.charge", "done"),
        ("payments.refund", "undone"),
        ("choosy", None),
    ]


def test_a_void_that_finds_nothing_or_a_refusal_is_well_and_one_that_finds_the_step_done_is_not() -> None:
    for outcome, well in (("voided", True), ("refused", True), ("executed", False)):
        play = Traced(careless).begin()
        play.fire(1)
        play.undo(1, outcome)
        void = named(play.spans)["void mail.send"]
        assert (error(void) is None) == well
        assert attributes(void)["messaging.destination.name"] == "test.mail.commands"
        assert ids(void)[2] == span_id("run.1~void.1")


# --- stuck, and people


def test_a_stuck_saga_shows_at_once_and_its_root_tells_the_story() -> None:
    play = Traced(payment).begin()
    play.now += SECOND
    play.answer(1, "conflict", form=COMMAND, error="another command has this id")
    first, stuck = play.spans
    assert attributes(first)["kasaga.outcome"] == "conflict"
    assert (stuck.name, ids(stuck)[1], stuck.start_time) == ("saga stuck", span_id("run"), stuck.end_time)
    told = attributes(stuck)
    assert told["kasaga.step"] == "1"
    assert str(told["kasaga.code"]).startswith("KSG-")
    assert told["kasaga.remedy"]
    assert "another command has this id" in (error(stuck) or "")
    play.now += SECOND
    play.ask("resolve", step="1", value='{"shelf": "B2"}', reason="found it by hand")
    play.done(2)
    play.done(3)
    spans = play.spans
    assert outcomes(spans) == [
        ("inventory.reserve", "conflict"),
        ("saga stuck", None),
        ("payments.charge", "done"),
        ("shipping.schedule", "done"),
        ("payment", None),
    ], "the halted attempt ended when it was answered, and has one span"
    root = spans[-1]
    assert attributes(root)["kasaga.with_exceptions"] is True
    assert [event.name for event in root.events] == ["saga stuck", "saga resolve", "saga running"]
    assert (root.events[1].attributes or {}) == {
        "kasaga.by": "anna",
        "kasaga.reason": "found it by hand",
        "kasaga.step": "1",
    }
    assert root.events[1].timestamp == (BEGIN + 2 * SECOND) * 1000


def test_a_cancelled_saga_ends_its_open_attempts() -> None:
    play = Traced(payment).begin()
    play.ask("cancel", reason="sold")
    play.undo(1, "nothing")
    spans = play.spans
    assert outcomes(spans) == [
        ("inventory.reserve", "cancelled"),
        ("inventory.release", "nothing"),
        ("payment", None),
    ]
    assert [error(span) for span in spans[:2]] == [None, None]
    assert "cancelled by anna: sold" in (error(spans[2]) or "")


# --- whoever makes them


@pytest.mark.parametrize("dies_after", range(1, 5))
def test_after_any_crash_the_next_process_makes_the_same_spans(dies_after: int) -> None:
    def spans(crash: int) -> list[str]:
        play = Traced(payment).begin(TRACEPARENT)
        steps: list[Callable[[], object]] = [
            lambda: play.failed(1),
            lambda: play.done(1),
            lambda: play.refused(2),
            lambda: play.undo(1),
        ]
        for number, step in enumerate(steps, 1):
            if number == crash:
                play.crash()
            play.now += 10 * SECOND
            step()
        return [span.to_json() for span in play.spans]

    assert spans(dies_after) == spans(0)


# --- sampling


def test_the_flag_in_the_headers_says_whether_the_saga_is_traced() -> None:
    play = Traced(payment).begin()
    state = play.state
    half = int(hashed_trace_id("run")[16:], 16)
    assert Sampling().keeps(state)
    assert not Sampling(below=0).keeps(state)
    assert not Sampling(below=half).keeps(state)
    assert Sampling(below=half + 1).keeps(state)
    starter = Traced(payment).begin(TRACEPARENT).state
    assert Sampling(below=0).keeps(starter), "the starter has decided"
    assert not Sampling(parent_based=False, below=0).keeps(starter)
    unsampled = Traced(payment).begin(f"00-{TRACE}-{SPAN}-00").state
    assert not Sampling().keeps(unsampled)
    assert Sampling(parent_based=False).keeps(unsampled)
    random_bit = Traced(payment).begin(f"00-{TRACE}-{SPAN}-02").state
    assert not Sampling().keeps(random_bit)

"""A saga that all goes well, and what its history holds."""

from __future__ import annotations

from engine.harness import SECOND
from engine.shop import ORDER, Receipt, payment, play_of, started
from kasaga.engine.decide import Ignored
from kasaga.engine.model import Move, Resume, Return, Send, Settle, Started, Tell


def test_three_steps_one_after_the_other() -> None:
    play = started(payment)
    assert play.kinds == [Move, Resume, Send]
    for path in (1, 2, 3):
        assert play.state.state == "RUNNING"
        (sent,) = play.decided(Send)
        assert (sent.step, sent.attempt, sent.due_at) == (str(path), 1, play.now + 60 * SECOND)
        play.now += SECOND
        play.done(path)
    assert play.kinds == [Settle, Resume, Return, Move]
    assert play.state.state == "COMPLETED"
    assert len(play.bodies) == 4
    result = payment.result.decode(play.state.returned or b"", play.schemas)
    assert result == Receipt(order_id="o-1", charge_id=7)
    types = ["inventory.reserve", "payments.charge", "shipping.schedule"]
    assert [each.type for each in play.sent if isinstance(each, Send)] == types


def test_the_payload_of_a_command_is_written_once() -> None:
    """Attempts send the same bytes, which the first attempt's row of history holds."""
    play = started(payment)
    (first,) = play.decided(Send)
    assert first.payload
    assert play.step(1).payload == first.payload
    play.fire(1)
    (second,) = play.decided(Send)
    assert (second.attempt, second.payload, second.policy) == (2, b"", None)


def test_a_second_start_is_a_duplicate() -> None:
    play = started(payment)
    assert play.event(Started("s-1", "payment", 1, b"", "", "", "", "")) == Ignored("duplicate start")


def test_nothing_happens_to_a_saga_that_has_not_started() -> None:
    play = play_of(payment)
    assert play.ask("cancel") == Ignored("unknown saga")
    assert play.bodies == []


def test_who_started_it_is_told_the_end() -> None:
    play = play_of(payment)
    play.start(ORDER, reply_to="shop.answers/3")
    for path in (1, 2, 3):
        play.done(path)
    assert play.told == [Tell("shop.answers/3", "COMPLETED", "run")]


def test_everybody_who_watches_is_told_the_end() -> None:
    play = started(payment)
    play.ask("watch", action_id="w1", reply_to="shop.answers/1")
    play.ask("watch", action_id="w2", reply_to="shop.answers/2")
    play.ask("watch", action_id="w3")
    play.refused(1)
    assert play.told == [
        Tell("shop.answers/1", "COMPENSATED", "w1"),
        Tell("shop.answers/2", "COMPENSATED", "w2"),
        Tell("", "COMPENSATED"),
    ]


def test_time_never_goes_back() -> None:
    play = started(payment)
    play.now += 5 * SECOND
    play.done(1)
    play.now -= 3 * SECOND
    play.done(2)
    assert [record.at - play.records[0].at for record in play.records] == [0, 5 * SECOND, 5 * SECOND]

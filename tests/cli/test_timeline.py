"""What a history looks like to a person."""

from __future__ import annotations

from datetime import timedelta

from cli.tales import BEGIN, SCHEMAS, Tale
from kasaga.engine.model import UNDO, Clear, Move, Replied, Settle
from kasaga.timeline import as_text, timeline
from kasaga.timeline_data import as_json, decoder


def told(tale: Tale, *, later: float = 0, full: bool = False, payloads: bool = False) -> str:
    now = tale.at + timedelta(seconds=later)
    lines = as_text(timeline(tale.records), decoder(SCHEMAS), now=now, full=full, payloads=payloads, width=90)
    return "\n" + "\n".join(lines) + "\n"


def test_a_saga_that_goes_well() -> None:
    assert (
        told(Tale().reserved().completed(), payloads=True)
        == """
   +0.000  ▶    payment            started by /kasaga/clients/shop
                  in  {"id": "o-1", "lines": 2}
   +0.000  ✓ 1  inventory.reserve  done in 12 ms
                  in  the saga's input
                  out {"shelf": "A7"}
   +0.012  ✓ 2  payments.charge    done in 20 ms
                  in  the saga's input
                  out {"shelf": "A7"}
   +0.032  ■    COMPLETED
                  out {"shelf": "A7"}
"""
    )


def test_a_refusal_and_its_undoing() -> None:
    tale = Tale().reserved().charge_failed().charge_refused(2, after=1.003).released()
    assert (
        told(tale)
        == """
   +0.000  ▶    payment            started by /kasaga/clients/shop
   +0.000  ✓ 1  inventory.reserve  done in 12 ms
   +0.012  ✗ 2  payments.charge    refused in 1.1 s, 2 attempts: CardBlocked: the card is blocked
                  attempt 1 failed after 100 ms: DeadlockDetected: try again
                  attempt 2 refused after 3 ms
   +1.115  ■    COMPENSATING       KSG-253: the card is blocked
   +1.115  ↶ 1  inventory.release  undone in 15 ms
   +1.130  ■    COMPENSATED
"""
    )


def test_who_did_what_and_why() -> None:
    tale = Tale().reserved().charge_refused().release_fails()
    again = Move("COMPENSATING", "KSG-253", "the card is blocked", "", "2")
    tale.asks("skip", "the shelf is gone", Clear("1", "skipped"), again, again._replace(state="COMPENSATED"))
    assert (
        told(tale)
        == """
   +0.000  ▶    payment            started by /kasaga/clients/shop
   +0.000  ✓ 1  inventory.reserve  done in 12 ms
   +0.012  ✗ 2  payments.charge    refused in 3 ms: CardBlocked: the card is blocked
   +0.015  ■    COMPENSATING       KSG-253: the card is blocked
   +0.015  ↶ 1  inventory.release  skipped by anna, 3 attempts
                  attempt 1 failed after 1.0 s: OperationalError: no disk
                  attempt 2 failed after 1.0 s: OperationalError: no disk
                  attempt 3 sent
   +4.015  ■    STUCK              KSG-220: release has failed 2 times: no disk
    +1:04  @    skip               by anna: the shelf is gone
    +1:04  ■    COMPENSATING       KSG-253: the card is blocked
    +1:04  ■    COMPENSATED
"""
    )


def test_what_still_goes_on() -> None:
    tale = Tale().reserved().charge_failed()
    assert "…  2  payments.charge" not in told(tale)
    assert told(tale, later=0.4).splitlines()[-3:] == [
        "   +0.012  … 2  payments.charge    attempt 2 in 600 ms",
        "                  attempt 1 failed after 100 ms: DeadlockDetected: try again",
        "                  attempt 2 in 600 ms",
    ]
    assert "attempt 2, sent 11 s ago" in told(tale, later=12)


def test_an_attempt_that_nobody_answered() -> None:
    lines = told(Tale().reserved().timed_out(), later=3)
    assert "attempt 1 no answer after 1 min" in lines
    assert "attempt 2 sent 3.0 s ago" in lines


def test_a_sleep() -> None:
    assert "… 2  sleep 2 h          goes on" in told(Tale().sleeps(7200))


def test_a_bug_and_a_cancel() -> None:
    tale = Tale().reserved().parked()
    tale.asks(
        "cancel", "customer called", Move("CANCELLING", "KSG-257", "cancelled by anna: customer called")
    )
    text = told(tale)
    assert "■    STUCK              KSG-207: TypeError at sagas.py:12" in text
    assert "@    cancel             by anna: customer called" in text


def test_a_value_that_an_operator_found_out() -> None:
    tale = Tale().reserved().timed_out()
    tale.asks("resolve", "the bank says so", Settle("2", "done", b""))
    assert "✓ 2  payments.charge    resolved by anna, 2 attempts" in told(tale)


def test_payloads_of_unknown_schemas_say_so() -> None:
    entries = timeline(Tale().records)
    nothing = decoder(type(SCHEMAS)())
    lines = as_text(entries, nothing, now=BEGIN)
    assert any("which isn't known here" in line for line in lines)


def test_nothing_steers_the_terminal() -> None:
    tale = Tale().reserved().asks("cancel", "\x1b[2J\x07 boo")
    assert "\x1b" not in told(tale)


def test_full_shows_whole_payloads() -> None:
    text = told(Tale().reserved().charge_refused(), full=True, payloads=True)
    assert '                  in  {\n                        "id": "o-1",' in text


def test_json_is_stable() -> None:
    entries = as_json(timeline(Tale().reserved().charge_refused().records), decoder(SCHEMAS))
    assert entries[0] == {
        "at": "2026-01-02T10:00:00.000000Z",
        "kind": "start",
        "name": "payment",
        "by": "/kasaga/clients/shop",
        "input": {"id": "o-1", "lines": 2},
    }
    assert entries[2] == {
        "at": "2026-01-02T10:00:00.012000Z",
        "kind": "command",
        "name": "payments.charge",
        "step": "2",
        "ended_at": "2026-01-02T10:00:00.015000Z",
        "outcome": "refused",
        "reason": "CardBlocked: the card is blocked",
        "input": {"id": "o-1", "lines": 2},
        "attempts": [
            {
                "attempt": 1,
                "at": "2026-01-02T10:00:00.012000Z",
                "ended_at": "2026-01-02T10:00:00.015000Z",
                "outcome": "refused",
                "error": "CardBlocked: the card is blocked",
            }
        ],
    }
    assert [entry["kind"] for entry in entries] == ["start", "command", "command", "state", "undo"]


def test_an_attempt_that_was_never_sent_is_not_told() -> None:
    """A retry and a resolve while the undo waits for its next attempt: three were sent, the third at once."""
    tale = Tale().reserved().charge_refused().release_fails()
    tale.asks("retry", "", tale.undo("1", "inventory.release", attempt=4), seconds=1)
    failed = Replied("1", UNDO, 4, "failed", b"", "OperationalError", "no disk")
    tale.at += timedelta(seconds=1)
    tale.then(0, failed, tale.undo("1", "inventory.release", attempt=5, after=8))
    assert "attempt 5 in 8.0 s" in told(tale)
    tale.asks("resolve", "by hand", Clear("1", "resolved"), seconds=2)
    text = told(tale)
    assert "inventory.release  resolved by anna, 3 attempts\n" in text
    assert "attempt 4 failed after 1.0 s: OperationalError: no disk\n" in text
    assert "attempt 3" not in text
    assert "attempt 5" not in text
    (undo,) = (entry for entry in as_json(timeline(tale.records), decoder(SCHEMAS)) if entry["kind"] == UNDO)
    assert [each["attempt"] for each in undo["attempts"]] == [1, 2, 4]

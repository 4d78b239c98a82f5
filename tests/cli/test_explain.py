"""Where a saga stands, and what a person can do about it, in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cli.tales import POLICY, SCHEMAS, Tale
from kasaga.engine.model import COMMAND, UNKNOWN, Asked, Clear, Deadline, Move, Replied, Settle
from kasaga.explain import Explanation, as_json, as_text, explain
from kasaga.store.base import ShardLease
from kasaga.timeline import attempts_sent, timeline
from kasaga.timeline_data import decoder

SENT = "for payments.charge (step 2), sent 12 s ago to test.payments.commands; next attempt in 48 s"
CANCEL = Asked("a-1", "cancel", "anna", "", "", "", "")
OWNED = ShardLease(3, "host-1", False)


def about(tale: Tale, *, later: float = 0, lease: ShardLease | None = OWNED) -> Explanation:
    now = tale.at + timedelta(seconds=later)
    sent = attempts_sent(tale.records, now)
    return explain(tale.row, tale.state, tale.open_rows, now=now, lease=lease, sent=sent)


def told(tale: Tale, *, later: float = 0, lease: ShardLease | None = OWNED) -> str:
    return "\n".join(as_text(about(tale, later=later, lease=lease), decoder(SCHEMAS))) + "\n"


def waits(tale: Tale, *, later: float = 0, lease: ShardLease | None = OWNED) -> list[str]:
    return [wait.text for wait in about(tale, later=later, lease=lease).waits]


def test_a_stuck_undo_says_everything() -> None:
    assert (
        told(Tale().reserved().charge_refused().release_fails(), later=1)
        == """\
payment o-1 is STUCK
  KSG-220: release has failed 2 times: no disk.
  Mend the participant: the next retry goes through by itself.

  run       0198c0de-0000-7000-8000-000000000001 (version 1, shard 3, owned by host-1)
  started   2026-01-02 10:00:00 UTC, 5.0 s ago
  changed   2026-01-02 10:00:04 UTC, 1.0 s ago
  progress  Undoing: 0 of 1 steps cleared
  input     {"id": "o-1", "lines": 2}

It waits for inventory.release, which undoes step 1: attempt 3 goes to test.inventory.commands in 3.0 s.

STEP  NAME               STATE                         ATTEMPTS  UNDO
1     inventory.reserve  done                          1         inventory.release: stuck, 2 attempts: no disk
2     payments.charge    refused: the card is blocked  1

You can run
  kasaga retry o-1                 send inventory.release again now
  kasaga resolve o-1 --reason '…'  you undid inventory.reserve by hand: go on without inventory.release
  kasaga skip o-1 --reason '…'     leave inventory.reserve as it is: go on without inventory.release
"""
    )


def test_attempts_are_those_that_were_sent() -> None:
    tale = Tale().reserved().charge_refused().release_fails()  # the third is 4 s away
    assert [about(tale, later=later).steps[0].undo_attempts for later in (0, 3.9, 4.1)] == [2, 2, 3]
    tale.asks("retry", "", tale.undo("1", "inventory.release", attempt=4), seconds=1)
    assert about(tale).steps[0].undo_attempts == 3
    tale.asks("resolve", "by hand", Clear("1", "resolved"), seconds=1)
    assert about(tale, later=100).steps[0].undo_attempts == 3
    assert "resolved, 3 attempts" in told(tale, later=100)


def test_a_step_that_was_sent() -> None:
    assert waits(Tale().reserved(), later=12) == [SENT]


def test_a_step_that_is_sent_again_later() -> None:
    tale = Tale().reserved().charge_failed()
    assert waits(tale, later=0.25) == [
        "for payments.charge (step 2): attempt 2 goes to test.payments.commands in 750 ms"
    ]
    assert waits(tale, later=13) == [
        (
            "for payments.charge (step 2), attempt 2, sent 12 s ago to test.payments.commands; "
            "next attempt in 48 s"
        )
    ]
    assert about(tale).steps[1].state == "retrying"
    assert "retrying: DeadlockDetected: try again, next in 750 ms" in told(tale, later=0.25)


def test_the_last_attempt_says_that_it_is_the_last() -> None:
    tale = Tale(policy=POLICY._replace(maximum_attempts=1))
    assert waits(tale, later=10) == [
        (
            "for inventory.reserve (step 1), sent 10 s ago to test.inventory.commands; "
            "it is the last attempt, and has 50 s left"
        )
    ]


def test_a_time_out_that_is_about_to_be_decided() -> None:
    assert waits(Tale(), later=61)[0].endswith("; its time is over, which is decided in a moment")


def test_a_sleep_that_was_cut_off_is_told_as_in_the_history() -> None:
    tale = Tale().sleeps(7200)
    tale.then(1, CANCEL, Settle("2", UNKNOWN, b"", "kasaga.Cancelled", "cancelled by anna"))
    step, entry = about(tale).steps[1], timeline(tale.records)[2]
    assert (step.name, step.state) == ("sleep", "cut off")
    assert (entry.kind, entry.outcome) == ("sleep", "cut off")
    assert "unknown" not in told(tale)


def test_a_sleep_says_until_when() -> None:
    assert waits(Tale().sleeps(7200)) == [
        "until 2026-01-02 12:00:00 UTC, which is in 2 h (step 2 is a sleep)"
    ]


def test_a_deadline_is_told_too() -> None:
    tale = Tale()
    first = tale.records[0]
    due = tale.micros + 600_000_000
    tale.records[0] = first._replace(decisions=(*first.decisions, Deadline(due)))
    assert (
        waits(tale)[-1]
        == "for its own deadline too: in 10 min, at 2026-01-02 10:10:00 UTC, it is cancelled and undone"
    )


def test_a_shard_without_an_owner_comes_first() -> None:
    assert waits(Tale(), lease=ShardLease(3, "host-1", True))[0] == (
        "for an orchestrator: nobody owns shard 3, so nothing of this saga moves"
    )


def test_a_bug_in_the_code_of_the_saga() -> None:
    told_text = told(Tale().reserved().parked())
    assert "It waits for mended code, with which it goes on by itself." in told_text
    assert [each.command for each in about(Tale().reserved().parked()).remedies] == [
        "kasaga retry o-1",
        "kasaga cancel o-1 --reason '…'",
    ]


def test_a_conflict_can_be_resolved_with_a_value() -> None:
    tale = Tale().reserved()
    tale.then(
        1, Replied("2", COMMAND, 1, "conflict", b""), Move("STUCK", "KSG-222", "another input", "", "2")
    )
    assert about(tale).remedies[1].command == "kasaga resolve o-1 --reason '…' --value '{…}'"


def test_of_several_stuck_steps_each_is_named() -> None:
    tale = Tale().reserved()
    undo = tale.undo("1", "inventory.release")
    stuck = Move("STUCK", "KSG-220", "no disk", "", "1")
    tale.then(
        1, Replied("2", COMMAND, 1, "conflict", b""), stuck._replace(code="KSG-222", step="2"), undo, stuck
    )
    assert [each.command for each in about(tale).remedies] == [
        "kasaga retry o-1 --step 2",
        "kasaga resolve o-1 --step 2 --reason '…' --value '{…}'",
        "kasaga retry o-1 --step 1",
        "kasaga resolve o-1 --step 1 --reason '…'",
        "kasaga skip o-1 --step 1 --reason '…'",
        "kasaga cancel o-1 --reason '…'",
    ]


def test_an_id_that_a_shell_would_take_apart_is_quoted() -> None:
    tale = Tale(saga_id="o'1; rm -rf").reserved().parked()
    assert about(tale).remedies[0].command == """kasaga retry 'o'"'"'1; rm -rf'"""


def test_a_saga_that_ended() -> None:
    text = told(Tale().reserved().completed(), later=60)
    assert text.startswith("payment o-1 is COMPLETED\n\n")
    assert "  ended     2026-01-02 10:00:00 UTC, after 32 ms\n" in text
    assert '  result    {"shelf": "A7"}\n' in text
    assert "It waits" not in text
    assert "All 2 steps are done" in text


def test_of_very_many_steps_the_telling_ones_are_shown() -> None:
    told_about = about(Tale().reserved())
    done, waiting = told_about.steps
    told_about.steps = [replace(done, path=str(number)) for number in range(1, 1000)]
    told_about.steps[499] = replace(waiting, path="500")
    lines = as_text(told_about, decoder(SCHEMAS))
    table = lines[next(number for number, line in enumerate(lines) if line.startswith("STEP")) + 1 :]
    assert [line.split()[0] for line in table[:-1]] == ["500", *map(str, range(990, 1000))]
    assert table[-1] == "(988 steps not shown; `kasaga history` has them)"


def test_json_is_stable() -> None:
    made = as_json(about(Tale().reserved(), later=12), decoder(SCHEMAS))
    assert made == {
        "saga_id": "o-1",
        "run_id": "0198c0de-0000-7000-8000-000000000001",
        "name": "payment",
        "version": 1,
        "state": "RUNNING",
        "shard": 3,
        "started_at": "2026-01-02T10:00:00.000000Z",
        "updated_at": "2026-01-02T10:00:00.012000Z",
        "ended_at": None,
        "code": None,
        "reason": None,
        "remedy": None,
        "step": None,
        "with_exceptions": False,
        "attributes": {},
        "owner": "host-1",
        "progress": "1 of 2 steps so far are done, at step 2 (payments.charge)",
        "input": {"id": "o-1", "lines": 2},
        "result": None,
        "steps": [
            {
                "path": "1",
                "name": "inventory.reserve",
                "kind": "command",
                "state": "done",
                "attempts": 1,
                "undo": "inventory.release",
            },
            {
                "path": "2",
                "name": "payments.charge",
                "kind": "command",
                "state": "waiting",
                "attempts": 1,
                "undo": "payments.refund",
            },
        ],
        "waits_for": [
            {
                "text": SENT,
                "kind": "command",
                "step": "2",
                "name": "payments.charge",
                "attempt": 1,
                "topic": "test.payments.commands",
                "sent_at": "2026-01-02T10:00:00.012000Z",
                "until": "2026-01-02T10:01:00.012000Z",
            }
        ],
        "remedies": [],
        "paused": None,
        "leaves": [],
        "parent": None,
        "run": {"number": 1, "began_at": "2026-01-02T10:00:00.000000Z", "records": 2},
        "locks": [],
    }

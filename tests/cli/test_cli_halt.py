"""`kasaga pause`, `resume` and `terminate`, dry runs, and bulks that are run again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cli.shell import NOW, Shell
from cli.tales import SECOND, Tale
from kasaga.cli.act import Action
from kasaga.engine.model import (
    COMMAND,
    DONE,
    Asked,
    Deadline,
    Faulted,
    Fence,
    Hold,
    Move,
    Postpone,
    Release,
    Replied,
    Settle,
    Tell,
)
from kasaga.foresight import AT_ONCE, NAMED, Intent, as_json, foresee, foresee_all
from kasaga.store.base import SagaState


def paused(number: int = 1) -> Tale:
    tale = Tale(number).reserved()
    return tale.then(1, Asked("p", "pause", "anna", "a move", "", "", ""), Hold(), Tell("", "PAUSED"))


def seen(shell: Shell, action: str, saga_id: str = "o-1", **more: Any) -> Any:
    row = shell.store.saga(saga_id)
    assert row is not None
    intent = Intent(action, more.pop("reason", "why"), "anna", more.pop("step", ""))
    (found,) = foresee_all(shell.store, intent, [row], NOW)
    return found


# --- what would happen


def test_a_running_saga(shell: Shell) -> None:
    shell.keep(Tale().reserved())
    assert seen(shell, "pause").would == (
        "holds what would go out next; the answers to 2 (payments.charge) are kept"
    )
    assert seen(shell, "cancel").would == "undoes 2 (payments.charge), 1 (inventory.reserve)"
    told = seen(shell, "terminate")
    assert told.would.startswith("ends as it is; it leaves done and not undone: 1 (inventory.reserve)")
    assert [left.what for left in told.leaves] == ["done", "unknown"]
    assert (
        seen(shell, "terminate", reason="").refused
        == "terminate needs a reason, which is kept in the history"
    )
    assert seen(shell, "resume").refused == "only a PAUSED saga can be resumed, this one is RUNNING"
    assert seen(shell, "retry").refused == "only a STUCK saga can be retried, this one is RUNNING"


def test_a_paused_saga(shell: Shell) -> None:
    shell.keep(paused())
    assert seen(shell, "resume").would == "goes on as RUNNING"
    assert seen(shell, "cancel").would.startswith("when it is resumed, undoes 2 (payments.charge)")
    assert seen(shell, "retry").refused == "the saga is paused by anna: a move: resume it first"
    shell.keep(paused(2).then(1, Replied("2", COMMAND, 1, DONE, b"")))
    assert (
        seen(shell, "resume", "o-2").would == "goes on as RUNNING, and decides 1 answer that came meanwhile"
    )
    asked = Asked("c", "cancel", "ben", "", "", "", "")
    shell.keep(paused(3).then(1, asked, Postpone()))
    assert seen(shell, "resume", "o-3").would == "is undone, since it was cancelled by ben"
    fault = Faulted("KSG-210", "refused", "mend it")
    move = Move("STUCK", "KSG-210", "refused", "mend it", "", True, "code")
    shell.keep(paused(4).then(1, fault, move))
    assert seen(shell, "resume", "o-4").would == "is STUCK again: refused"


def test_a_deadline_that_has_passed(shell: Shell) -> None:
    tale = Tale().reserved()
    due = tale.micros + SECOND
    signal = Asked("w", "watch", "", "", "", "", "")
    tale.then(0.1, signal, Deadline(due))
    tale.then(0.1, Asked("p", "pause", "anna", "", "", "", ""), Hold())
    shell.keep(tale)
    assert seen(shell, "resume").would == "is undone, since its own deadline has passed"


def test_a_stuck_saga(shop: Shell) -> None:
    assert seen(shop, "retry", "o-3").would == "tries 1 (inventory.reserve) again"
    assert seen(shop, "skip", "o-3").would == "leaves 1 (inventory.reserve) as it is, and goes on"
    assert seen(shop, "resolve", "o-3").would == (
        "takes 1 (inventory.reserve) for undone by you, and goes on"
    )
    assert seen(shop, "retry", "o-4").would == "runs its code again, with what runs now"


def test_one_that_has_ended_and_one_that_can_not_be_read(shell: Shell) -> None:
    shell.keep(Tale().reserved().completed(), Tale(2).reserved())
    assert seen(shell, "cancel").refused == "the saga has ended: it is COMPLETED"
    row = shell.store.saga("o-2")
    assert row is not None
    (entry, *others) = shell.store.load([(row.shard, row.run_id)])[row.run_id]
    entry.body = b"\xc1"
    told = foresee(Intent("cancel"), row, [entry, *others], NOW)
    assert told.refused.startswith("its history can't be read: ")
    assert as_json(told, "cancel")["fits"] is False


def test_many_are_read_some_at_a_time(shell: Shell) -> None:
    shell.keep(*(Tale(number).reserved() for number in range(1, AT_ONCE + 20)))
    lines = shell("pause", "--name", "payment", "--dry-run", "-o", "json").jsonl
    assert len(lines) == AT_ONCE + 19
    assert {(line["outcome"], line["fits"]) for line in lines} == {("dry_run", True)}
    assert shell.owner.sent == []
    assert NAMED < AT_ONCE


# --- doing it


def test_what_a_filter_means(shell: Shell) -> None:
    shell.keep(
        Tale(1).reserved(), paused(2), Tale(3).reserved().parked(), Tale(4).reserved().charge_refused()
    )
    for command, meant in (
        (("pause",), {"o-1", "o-3", "o-4"}),
        (("resume",), {"o-2"}),
        (("cancel",), {"o-1", "o-2", "o-3"}),
        (("terminate", "--reason", "x"), {"o-3"}),
    ):
        shell.owner.asked.clear()
        assert shell(*command, "--name", "payment", "--yes").status == 0
        assert {saga_id for _, saga_id, _ in shell.owner.asked} == meant, command


def test_a_dry_run_says_who_would_refuse(shell: Shell) -> None:
    shell.keep(Tale(1).reserved(), paused(2))
    said = shell("pause", "o-1", "o-2", "--dry-run")
    assert said.err == "This would pause 1 saga, and 1 would refuse. Nothing was done.\n"
    assert "would be refused: the saga is PAUSED already: paused by anna: a move" in said.out


def test_terminate_needs_a_reason_and_says_what_is_left(shell: Shell) -> None:
    shell.keep(Tale().reserved())
    assert shell("terminate", "o-1").status == 2
    shell.owner.sagas["o-1"].reason = "terminated by anna: gone; it leaves nothing"
    said = shell("terminate", "o-1", "--reason", "gone")
    assert said.out == "o-1: terminated, now RUNNING: terminated by anna: gone; it leaves nothing.\n"


def test_a_bulk_that_is_run_again_uses_the_same_ids(shell: Shell) -> None:
    shell.keep(Tale(1).reserved(), Tale(2).reserved())

    def ids() -> list[str]:
        found = [dict(out.headers)["ce_id"] for out in shell.owner.sent]
        shell.owner.sent.clear()
        return sorted(str(each) for each in found)

    shell("pause", "--name", "payment", "--yes", "--bulk-id", "b1")
    first = ids()
    shell("pause", "--name", "payment", "--yes", "--bulk-id", "b1")
    assert ids() == first
    shell("pause", "--name", "payment", "--yes", "--bulk-id", "b2")
    assert not set(ids()) & set(first)
    shell("pause", "--name", "payment", "--yes")
    assert not set(ids()) & set(first)


@pytest.mark.parametrize("bulk", ["b1", "b2"])
def test_what_a_bulk_has_done_to_a_saga_that_has_ended_since(shell: Shell, bulk: str) -> None:
    asked = Asked(
        Action("terminate", "gone", bulk="b1").id_for("o-1"), "terminate", "anna", "gone", "", "", ""
    )
    settle = Settle("2", "unknown", b"", "kasaga.Terminated", "gone")
    move = Move("TERMINATED", "KSG-261", "terminated by anna: gone; it leaves nothing")
    tale = Tale().reserved()
    tale.then(1, asked, settle, Fence("2", tale.micros + SECOND), move)
    shell.keep(tale)
    shell.owner.refuse = "the saga has ended: it is TERMINATED"
    said = shell("terminate", "o-1", "--reason", "gone", "--bulk-id", bulk)
    assert (said.status, "now TERMINATED" in said.out) == ((0, True) if bulk == "b1" else (1, False))


# --- what is told


def test_describe_and_history(shell: Shell) -> None:
    shell.keep(paused(1), paused(2).then(1, Asked("r", "resume", "ben", "", "", "", ""), Release()))
    told = shell("describe", "o-1").out
    assert "is PAUSED" in told
    assert "paused by anna: a move" in told
    assert "It waits for `kasaga resume`: anna paused it " in told
    assert "kasaga resume o-1" in told
    document = shell("describe", "o-1", "-o", "json").json
    assert document["paused"] == {
        "since": document["updated_at"],
        "by": "anna",
        "reason": "a move",
        "state": "RUNNING",
        "cancelled_by": None,
    }
    history = shell("history", "o-2").out
    assert "PAUSED" in history
    assert "by ben" in history
    assert shell("list", "--state", "paused").out.count("PAUSED") == 1
    assert SagaState.TERMINATED in SagaState
    assert timedelta(0) < NOW - paused().at

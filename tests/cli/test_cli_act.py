"""`kasaga retry`, `skip`, `resolve` and `cancel`: who is asked, what is sent, what is answered."""

from __future__ import annotations

import pytest

from cli.shell import Shell
from cli.tales import Tale


def asked(shell: Shell) -> list[tuple[str, str, str, str]]:
    return [(action, saga_id, body.by, body.reason) for action, saga_id, body in shell.owner.asked]


UNKNOWN = (
    "Remedy: Look at the id, the namespace and the topic prefix; ended sagas are forgotten after a time."
)


def test_one_saga(shop: Shell) -> None:
    said = shop("retry", "o-3", "--reason", "disk is back")
    assert (said.status, said.out) == (0, "o-3: retried, now STUCK\n")
    assert asked(shop) == [("retry", "o-3", "anna", "disk is back")]


def test_several_sagas_and_who_did_it(shop: Shell) -> None:
    said = shop("cancel", "o-3", "p-5", "--by", "ben")
    assert said.out == "o-3: cancelled, now STUCK\np-5: cancelled, now RUNNING\n2 of 2 sagas cancelled\n"
    assert asked(shop) == [("cancel", "o-3", "ben", ""), ("cancel", "p-5", "ben", "")]


def test_what_does_not_fit_is_said_and_is_an_error(shop: Shell) -> None:
    shop.owner.refuse = "only a STUCK saga can be retried, this one is RUNNING"
    said = shop("retry", "p-5", "o-9")
    assert said.status == 1
    assert said.out == (
        "p-5: not retried: KSG-230: only a STUCK saga can be retried, this one is RUNNING. "
        "Remedy: See `kasaga describe` for the state and what may be done in it.\n"
        f"o-9: not retried: KSG-504: there is no saga o-9. {UNKNOWN}\n"
        "0 of 2 sagas retried, 2 not\n"
    )


def test_json_lines(shop: Shell) -> None:
    lines = shop("skip", "o-3", "o-9", "--reason", "gone", "-o", "json").jsonl
    assert lines[0] == {
        "saga_id": "o-3",
        "action": "skip",
        "outcome": "applied",
        "state": "STUCK",
        "run_id": "0198c0de-0000-7000-8000-000000000003",
    }
    assert (lines[1]["outcome"], lines[1]["code"]) == ("unknown", "KSG-504")
    assert f"Remedy: {lines[1]['remedy']}." == UNKNOWN


def test_a_value_is_passed_on_as_json(shop: Shell) -> None:
    assert shop("resolve", "o-3", "--reason", "the bank says so", "--value", '{"shelf": "A7"}').status == 0
    assert shop.owner.asked[0][2].value == '{"shelf": "A7"}'
    said = shop("resolve", "o-3", "--reason", "x", "--value", "{shelf}")
    assert (said.status, said.err[:34]) == (1, "kasaga: KSG-524: --value is no JSO")


def test_a_saga_is_moved_to_a_version(shop: Shell) -> None:
    assert shop("move", "p-5", "--to", "2").out == "p-5: moved, now RUNNING\n"
    assert (asked(shop)[0][0], shop.owner.asked[0][2].value) == ("move", "2")
    assert shop("move", "p-5", "--to", "0").status == 2
    assert shop("move", "p-5").status == 2
    told = shop("move", "p-5", "o-3", "--to", "2", "--dry-run").out
    assert "goes on in version 2, if its owner has that and a replay in it agrees" in told
    assert "would be refused: the saga is being undone, which needs no code of it" in told
    assert (
        "would be refused: the saga is of version 1 already"
        in shop("move", "p-5", "--to", "1", "--dry-run").out
    )
    assert len(asked(shop)) == 1


@pytest.mark.parametrize("command", ["skip", "resolve"])
def test_what_leaves_something_behind_needs_a_reason(shop: Shell, command: str) -> None:
    said = shop(command, "o-3")
    assert said.status == 2
    assert "--reason" in said.err
    assert shop.owner.asked == []


def test_a_filter_means_stuck_sagas_by_default(shop: Shell) -> None:
    said = shop("retry", "--name", "payment", "--yes", "--reason", "outage is over")
    assert said.status == 0
    assert sorted(saga_id for _, saga_id, _, _ in asked(shop)) == ["o-3", "o-4"]
    assert said.out.endswith("2 of 2 sagas retried\n")


def test_a_filter_by_code_and_state(shop: Shell) -> None:
    shop("retry", "--state", "STUCK", "--code", "KSG-220", "--started-before", "2026-02-01", "--yes")
    assert [saga_id for _, saga_id, _, _ in asked(shop)] == ["o-3"]


def test_a_filter_of_cancel_means_live_sagas(shop: Shell) -> None:
    shop("cancel", "--name", "payment", "--yes")
    assert sorted(saga_id for _, saga_id, _, _ in asked(shop)) == ["o-3", "o-4", "p-5"]


def test_a_bulk_is_shown_first(shop: Shell) -> None:
    said = shop("retry", "--state", "STUCK", "--dry-run")
    assert (said.status, said.err) == (0, "This would retry 2 sagas. Nothing was done.\n")
    assert said.out.splitlines()[1:] == [
        "o-4   payment  STUCK  runs its code again, with what runs now",
        "o-3   payment  STUCK  tries 1 (inventory.reserve) again",
    ]
    assert shop.owner.sent == []
    lines = shop("retry", "--state", "STUCK", "--dry-run", "-o", "json").jsonl
    assert [(line["saga_id"], line["outcome"]) for line in lines] == [("o-4", "dry_run"), ("o-3", "dry_run")]
    assert shop("retry", "o-3", "--dry-run").err == "This would retry 1 saga. Nothing was done.\n"


def test_a_bulk_is_not_done_unasked(shop: Shell) -> None:
    said = shop("cancel", "--state", "STUCK")
    assert said.status == 1
    assert said.err == (
        "kasaga: KSG-525: this would cancel 2 sagas. Remedy: Look at it with --dry-run, then pass --yes.\n"
    )
    assert shop.owner.sent == []


def test_nothing_is_done_to_everything(shop: Shell) -> None:
    said = shop("cancel", "--yes")
    assert said.status == 2
    assert "Name sagas by their ids, or choose them by a filter" in said.err
    assert shop("cancel", "o-3", "--state", "STUCK", "--yes").status == 2
    assert shop.owner.sent == []


def test_no_saga_fits(shop: Shell) -> None:
    said = shop("retry", "--code", "KSG-999", "--yes")
    assert (said.status, said.out, said.err) == (0, "", "No saga fits.\n")


def test_many_are_told_in_one_line(shell: Shell) -> None:
    shell.keep(*(Tale(number).reserved().parked() for number in range(1, 101)))
    assert shell("retry", "--state", "STUCK", "--yes").out == "100 of 100 sagas retried\n"
    assert len(shell.owner.asked) == 100
    del shell.owner.sagas["o-7"]
    said = shell("retry", "--state", "STUCK", "--yes")
    assert (
        said.out
        == f"o-7: not retried: KSG-504: there is no saga o-7. {UNKNOWN}\n99 of 100 sagas retried, 1 not\n"
    )
    assert said.status == 1


def test_nobody_answers(shop: Shell) -> None:
    shop.owner.deaf = 1000
    said = shop("retry", "o-3", "--timeout", "0.05")
    assert said.status == 1
    assert said.out == (
        "o-3: not retried: KSG-505: nobody answered `retry` for saga o-3 within 0.05 s. "
        "Remedy: Is an orchestrator running? `kasaga list` shows whether the saga moves.\n"
    )


def test_without_a_database_the_namespace_is_named(shop: Shell) -> None:
    del shop.environment["KASAGA_DATABASE_URL"]
    assert shop("retry", "o-3").err.startswith("kasaga: KSG-523: no namespace is named")
    assert shop("retry", "o-3", "--namespace", "orders").status == 0
    assert shop("retry", "--state", "STUCK", "--namespace", "orders").err.startswith("kasaga: KSG-522")

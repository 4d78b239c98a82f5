"""`kasaga list`, `describe` and `history`: what they print, to the letter."""

from __future__ import annotations

import pytest

from cli.shell import Shell
from cli.tales import Tale
from kasaga.engine.model import Asked
from kasaga.lookup import asked_before, first_record, read_records


def test_a_list_for_people(shop: Shell) -> None:
    said = shop("list")
    assert (
        said.out
        == """\
SAGA  NAME     STATE        STARTED (UTC)        FOR         REASON
p-5   payment  RUNNING      2026-01-02 10:00:04  4 min 56 s
o-4   payment  STUCK        2026-01-02 10:00:03  4 min 57 s  KSG-207 TypeError at sagas.py:12
o-3   payment  STUCK        2026-01-02 10:00:02  4 min 58 s  KSG-220 release has failed 2 times: no disk
o-2   payment  COMPENSATED  2026-01-02 10:00:01  30 ms       KSG-253 the card is blocked
o-1   payment  COMPLETED    2026-01-02 10:00:00  32 ms
"""
    )
    assert (said.status, said.err) == (0, "")


def test_a_list_for_programs_is_json_lines(shop: Shell) -> None:
    lines = shop("list", "-o", "json").jsonl
    assert [line["saga_id"] for line in lines] == ["p-5", "o-4", "o-3", "o-2", "o-1"]
    assert lines[2] == {
        "saga_id": "o-3",
        "run_id": "0198c0de-0000-7000-8000-000000000003",
        "name": "payment",
        "version": 1,
        "state": "STUCK",
        "shard": 3,
        "started_at": "2026-01-02T10:00:02.000000Z",
        "updated_at": "2026-01-02T10:00:06.015000Z",
        "ended_at": None,
        "code": "KSG-220",
        "reason": "release has failed 2 times: no disk",
        "remedy": "Mend the participant: the next retry goes through by itself",
        "step": "1",
        "with_exceptions": False,
        "attributes": {},
    }


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--state", "STUCK"], ["o-4", "o-3"]),
        (["--state", "stuck", "--state", "RUNNING"], ["p-5", "o-4", "o-3"]),
        (["--code", "ksg-207"], ["o-4"]),
        (["--id-prefix", "p-"], ["p-5"]),
        (["--name", "shipment"], []),
        (["--started-before", "2026-01-02T10:00:02"], ["o-2", "o-1"]),
        (["--started-after", "2026-01-02T11:00:03.5+01:00"], ["p-5"]),
        (["--limit", "2"], ["p-5", "o-4"]),
        (["--all"], ["p-5", "o-4", "o-3", "o-2", "o-1"]),
    ],
)
def test_filters(shop: Shell, options: list[str], ids: list[str]) -> None:
    assert [line["saga_id"] for line in shop("list", "-o", "json", *options).jsonl] == ids


def test_a_list_that_is_cut_says_so(shop: Shell) -> None:
    assert shop("list", "--limit", "2").err == "These are the newest 2; there are more (--limit, --all).\n"
    assert shop("list", "--limit", "5").err == ""


def test_long_lists_are_read_by_pages(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kasaga.cli.read.PAGE", 3)
    shell.keep(*(Tale(number) for number in range(1, 11)))
    assert len(shell("list", "--all", "-o", "json").jsonl) == 10
    assert len(shell("list", "--limit", "7", "-o", "json").jsonl) == 7


def test_counts(shop: Shell) -> None:
    assert (
        shop("list", "--count").out
        == """\
STATE        SAGAS
RUNNING      1
STUCK        2
COMPLETED    1
COMPENSATED  1
"""
    )
    assert shop("list", "--count", "-o", "json").json["STUCK"] == 2


def test_no_saga_at_all(shell: Shell) -> None:
    said = shell("list")
    assert (said.status, said.out, said.err) == (0, "", "No saga fits.\n")
    assert shell("list", "-o", "json").out == ""


def test_describe(shop: Shell) -> None:
    said = shop("describe", "o-3")
    assert said.status == 0
    assert said.out.startswith("payment o-3 is STUCK\n  KSG-220: release has failed 2 times: no disk.\n")
    assert "owned by host-1" in said.out
    assert "  kasaga skip o-3 --reason '…'" in said.out
    made = shop("describe", "o-3", "-o", "json").json
    assert made["waits_for"][0]["topic"] == "test.inventory.commands"
    assert made["remedies"][0]["command"] == "kasaga retry o-3"


def test_history(shop: Shell) -> None:
    assert (
        shop("history", "o-2").out
        == """\
payment o-2 is COMPENSATED: the card is blocked
run 0198c0de-0000-7000-8000-000000000002, started 2026-01-02 10:00:01 UTC

   +0.000  ▶    payment            started by /kasaga/clients/shop
                  in  {"id": "o-1", "lines": 2}
   +0.000  ✓ 1  inventory.reserve  done in 12 ms
                  in  the saga's input
                  out {"shelf": "A7"}
   +0.012  ✗ 2  payments.charge    refused in 3 ms: CardBlocked: the card is blocked
                  in  the saga's input
   +0.015  ■    COMPENSATING       KSG-253: the card is blocked
   +0.015  ↶ 1  inventory.release  undone in 15 ms
   +0.030  ■    COMPENSATED
"""
    )
    assert "shelf" not in shop("history", "o-2", "--no-payloads").out
    made = shop("history", "o-2", "-o", "json").json
    assert made["state"] == "COMPENSATED"
    assert [entry["kind"] for entry in made["history"]] == [
        "start",
        "command",
        "command",
        "state",
        "undo",
        "state",
    ]


def test_raw_history(shop: Shell) -> None:
    lines = shop("history", "o-1", "--raw").out.splitlines()
    assert lines[0].startswith(
        "   1  2026-01-02T10:00:00.000000Z  Started(saga_id='o-1', name='payment', version=1, input={"
    )
    assert lines[1] == "      → Move(state='RUNNING')"
    records = shop("history", "o-1", "--raw", "-o", "json").jsonl
    assert records[1]["event"] == {
        "type": "Replied",
        "step": "1",
        "form": "command",
        "attempt": 1,
        "outcome": "done",
        "payload": {"shelf": "A7"},
    }
    send = records[0]["decisions"][2]
    assert (send["type"], send["command"], send["key"]) == ("Send", "inventory.reserve", "o-1")
    assert send["due_at"] == "2026-01-02T10:01:00.000000Z"
    assert send["policy"]["maximum_attempts"] == 10


@pytest.mark.parametrize("command", ["describe", "history"])
def test_a_saga_that_is_not_there(shop: Shell, command: str) -> None:
    said = shop(command, "o-9")
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        "kasaga: KSG-504: there is no saga o-9. Remedy: `kasaga list --id-prefix` finds it; "
        "a start just sent may not have been read yet.\n"
    )


def test_nouns_come_first_if_you_like(shop: Shell) -> None:
    assert shop("saga", "list").out == shop("list").out


def test_colours_are_for_terminals(shop: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kasaga.cli.output.Output.on_terminal", staticmethod(lambda: True))
    assert "\x1b[31mSTUCK" in shop("list").out
    shop.environment["NO_COLOR"] = "1"
    assert "\x1b" not in shop("list").out
    monkeypatch.undo()
    del shop.environment["NO_COLOR"]
    assert "\x1b" not in shop("list").out


def test_a_saga_whose_history_can_not_be_read_is_described_by_its_row(shell: Shell) -> None:
    """Where it is STUCK for it, with what to do; where nobody has noticed yet, with what is wrong."""
    shell.keep(Tale(1).reserved().parked(), Tale(2).reserved())
    for history in shell.store._tables.history.values():  # pyright: ignore[reportPrivateUsage]
        history[2].body = b"\xc1"
    said = shell("describe", "o-1")
    assert said.status == 0
    assert "Its history can't be read: row 2" in said.out
    assert "kasaga retry o-1" in said.out
    told = shell("describe", "o-2", "-o", "json").json
    assert (told["state"], told["remedies"]) == ("RUNNING", [])
    said = shell("history", "o-1")
    assert (said.status, said.out) == (1, "")
    assert "KSG-211" in said.err


def test_what_is_looked_up_in_a_damaged_history_is_found_as_far_as_it_goes(shell: Shell) -> None:
    shell.keep(Tale(1).reserved().parked().asks("retry", "it is mended"))
    store = shell.store
    row = store.saga("o-1")
    assert row is not None
    (asked,) = (each.event for each in read_records(store, row) if isinstance(each.event, Asked))
    first = first_record(store, row)
    store._tables.history[row.run_id][2].body = b""  # pyright: ignore[reportPrivateUsage]
    assert asked_before(store, "o-1", asked.action_id) == row
    assert asked_before(store, "o-1", "another") is None
    assert first_record(store, row) == first
    store._tables.history[row.run_id][1].body = b""  # pyright: ignore[reportPrivateUsage]
    assert first_record(store, row) is None

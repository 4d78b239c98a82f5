"""`kasaga locks`: who holds what, and who waits."""

from __future__ import annotations

from uuid import uuid4

from cli.shell import Shell
from kasaga.store.locks import Wanted


def test_keys_with_their_holders_and_the_queue_of_one(shell: Shell) -> None:
    assert (shell("locks").out, shell("locks").err) == ("", "Nobody holds a key.\n")
    row = shell.store.claim(3, "p", ttl=30)
    assert row is not None
    first, second = uuid4(), uuid4()
    wishes = [Wanted(3, first, "1", ("order:1", "room:7")), Wanted(3, second, "1", ("room:7",))]
    shell.store.contend([(3, row.token)], wishes)
    assert [line.split() for line in shell("locks").out.splitlines()] == [
        ["KEY", "HELD", "BY", "WAITING"],
        ["order:1", str(first), "0"],
        ["room:7", str(first), "1"],
    ]
    assert [line["key"] for line in shell("locks", "--prefix", "room:", "-o", "json").jsonl] == ["room:7"]
    assert [line["key"] for line in shell("locks", "--limit", "1", "-o", "json").jsonl] == ["order:1"]
    assert [(line["place"], line["run_id"]) for line in shell("locks", "room:7", "-o", "json").jsonl] == [
        (0, str(first)),
        (1, str(second)),
    ]
    assert "holds it" in shell("locks", "room:7").out
    assert shell("locks", "room:8").err == "Nobody holds room:8.\n"

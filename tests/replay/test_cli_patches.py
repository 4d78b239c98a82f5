"""`kasaga patches`: who needs the old branch of a patch."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from cli.shell import Shell
from cli.tales import Tale
from imported import imported_from
from replay.test_cli_replay import SHOP, change

STEP = "    return await ctx.use(Payments).charge(order)\n"
PATCHED = '    if ctx.patched("pay-later"):\n        await ctx.sleep(3)\n' + STEP


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Generator[Shell]:
    (tmp_path / "replayed.py").write_text(SHOP)
    made = Shell(capsys, tmp_path)
    made.keep(
        Tale(1).reserved().completed(),
        Tale(2).reserved().charge_refused().release_fails(),
        Tale(5, saga_id="p-5").reserved(),
        Tale(6),
    )
    with imported_from(tmp_path, "replayed"):
        yield made


def test_who_is_past_it_is_on_the_old_branch(shell: Shell) -> None:
    change(shell, STEP, PATCHED)
    said = shell("patches", "replayed")
    assert (said.status, said.err) == (1, "")
    assert said.out == (
        "payment/1 patch pay-later: 1 on the old branch, 0 on the new one\n"
        "    on the old branch: p-5\n"
        "3 live sagas looked at\n"
    )
    document = shell("patches", "replayed", "-o", "json").json
    assert (document["ok"], document["sagas"], document["more"], document["untold"]) == (False, 3, False, [])
    assert document["patches"] == [
        {"name": "payment", "version": 1, "patch": "pay-later", "old": 1, "new": 0, "on_old": ["p-5"]}
    ]


def test_nobody_needs_it(shell: Shell) -> None:
    said = shell("patches", "replayed")
    assert (said.status, said.out) == (0, "3 live sagas looked at\n")


def test_what_can_not_be_told_is_not_nobody(shell: Shell) -> None:
    change(shell, "    await ctx.use(Inventory).reserve(order)\n", "    await ctx.sleep(3)\n")
    said = shell("patches", "replayed")
    assert said.status == 1
    assert "p-5 can't be told: KSG-202: " in said.out


def test_more_than_were_looked_at(shell: Shell) -> None:
    said = shell("patches", "replayed", "--running", "1")
    assert (said.status, said.out) == (1, "1 live saga looked at; there are more: raise --running\n")


def test_what_can_not_be_tried(shell: Shell) -> None:
    assert shell("patches", "nowhere").status == 2
    change(shell, 'App("orders"', 'App("others"')
    said = shell("patches", "replayed")
    assert (said.status, "Name the App's own database" in said.err) == (2, True)

"""`kasaga replay` and `kasaga export` as they are run: answers, exit statuses, and what can't be tried."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from cli.shell import NOW, Shell
from cli.tales import Tale
from imported import imported_from

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden_histories" / "0.1.0"

# What the tales of tests/cli tell: reserve, then charge.
SHOP = """\
from typing import Protocol
from pydantic import BaseModel
from kasaga import App, SagaContext, saga
from kasaga_wire import command, compensation, participant

class Order(BaseModel):
    id: str
    lines: int

class Stock(BaseModel):
    shelf: str

@participant("inventory")
class Inventory(Protocol):
    @command
    async def reserve(self, order: Order) -> Stock: ...
    @compensation(reserve)
    async def release(self, order: Order, reserved: Stock | None) -> None: ...

@participant("payments")
class Payments(Protocol):
    @command
    async def charge(self, order: Order) -> Stock: ...
    @compensation(charge)
    async def refund(self, order: Order, charged: Stock | None) -> None: ...

@saga("payment")
async def payment(ctx: SagaContext, order: Order) -> Stock:
    await ctx.use(Inventory).reserve(order)
    return await ctx.use(Payments).charge(order)

app = App("orders", sagas=[payment], participants=[Inventory, Payments])
"""


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Generator[Shell]:
    (tmp_path / "replayed.py").write_text(SHOP)
    made = Shell(capsys, tmp_path)
    made.keep(
        Tale(1).reserved().completed(),
        Tale(2).reserved().charge_refused().released(),
        Tale(3).reserved().charge_refused().release_fails(),
        Tale(4, shard=5).reserved().parked(),
        Tale(5, saga_id="p-5").reserved(),
    )
    with imported_from(tmp_path, "replayed"):
        yield made


def change(shell: Shell, before: str, after: str) -> None:
    text = (shell.folder / "replayed.py").read_text()
    assert before in text
    (shell.folder / "replayed.py").write_text(text.replace(before, after))


def test_the_same(shell: Shell) -> None:
    said = shell("replay", "replayed", "--from-db")
    assert (said.status, said.err) == (0, "")
    assert said.out == "payment/1: 3 running and 2 finished: 5 same\n"


def test_another_step(shell: Shell) -> None:
    change(shell, "    await ctx.use(Inventory).reserve(order)\n", "    await ctx.sleep(3)\n")
    said = shell("replay", "replayed:app", "--from-db")
    assert said.status == 1
    assert said.out.startswith(
        "payment/1 needs a patch at step 1, replayed.py:29 in payment\n"
        "    KSG-202: saga payment version 1 now asks for sleep at replayed.py:29 in payment, "
        "where its history has inventory.reserve as step 1.\n"
    )
    assert said.out.splitlines()[-1] == "payment/1: 3 running and 2 finished: 1 same and 4 to patch"


def test_for_programs(shell: Shell) -> None:
    change(shell, '@saga("payment")', '@saga("payment", version=2)')
    document = shell("replay", "replayed", "--from-db", "-o", "json").json
    assert document["ok"] is False
    assert document["definitions"] == [
        {"name": "payment", "version": 1, "running": 3, "finished": 0}
        | {"same": 1, "patch": 0, "breaks": 2, "gone": 0},
    ]
    first = document["differences"][0]
    assert set(first) == {"kind", "saga_id", "run_id", "name", "version", "state", "live"} | {
        "code",
        "message",
        "remedy",
        "step",
        "line",
    }
    assert (first["kind"], first["code"], first["live"]) == ("breaks", "KSG-203", True)


def test_an_export_is_what_a_database_is(shell: Shell) -> None:
    said = shell("export")
    assert (said.status, said.err) == (0, "5 histories\n")
    lines = said.jsonl
    assert lines[0]["kasaga"] == "histories"
    assert sorted(line["saga_id"] for line in lines if "rows" in line) == ["o-1", "o-2", "o-3", "o-4", "p-5"]
    (shell.folder / "histories.jsonl").write_text(said.out)
    replayed = shell("replay", "replayed", "--file", "histories.jsonl")
    assert (replayed.status, replayed.out) == (0, "payment/1: 3 running and 2 finished: 5 same\n")


def test_an_export_of_one(shell: Shell) -> None:
    lines = shell("export", "o-2").jsonl
    assert [line["saga_id"] for line in lines if "rows" in line] == ["o-2"]
    assert "KSG-504" in shell("export", "o-99").err


def test_choices(shell: Shell) -> None:
    assert shell("replay", "replayed", "--from-db", "--sample", "0").out.startswith(
        "payment/1: 3 running and 0 fin"
    )
    assert shell("replay", "replayed", "--from-db", "--running", "1", "--sample", "1").out.startswith(
        "payment/1: 1 running and 1 finished: 2 same"
    )


def test_nothing_to_try_is_no_failure(shell: Shell) -> None:
    said = shell("replay", "replayed", "--from-db", "--running", "0", "--sample", "0")
    assert (said.status, said.out) == (0, "There was no history to try.\n")


def test_what_can_not_be_tried_is_2(shell: Shell) -> None:
    (shell.folder / "rubbish").write_text("rubbish")
    for arguments, says in (
        (["replayed"], "name one: --from-db, or --file FILE"),
        (["replayed", "--from-db", "--file", "x"], "name one"),
        (["nowhere", "--from-db"], "KSG-521"),
        (["replayed", "--file", "absent"], "KSG-524: absent can't be read"),
        (["replayed", "--file", "rubbish"], "KSG-630: rubbish:1: this is no JSON"),
    ):
        said = shell("replay", *arguments)
        assert (said.status, said.out) == (2, "")
        assert says in said.err


def test_a_program_that_ends_the_process_is_no_success(shell: Shell) -> None:
    change(shell, "from typing import Protocol", "from typing import Protocol\nraise SystemExit(0)")
    for command in (["replay", "--from-db"], ["check"]):
        said = shell(*command, "replayed")
        assert said.status == (2 if "replay" in command else 1)
        assert "KSG-521: replayed ends the process when it is imported" in said.err


def test_no_database(shell: Shell) -> None:
    del shell.environment["KASAGA_DATABASE_URL"]
    said = shell("replay", "replayed", "--from-db")
    assert said.status == 2
    assert "KSG-522" in said.err


def test_another_namespace(shell: Shell) -> None:
    change(shell, 'App("orders"', 'App("returns"')
    said = shell("replay", "replayed", "--from-db")
    assert said.status == 2
    assert "the database is of namespace 'orders', the App of 'returns'" in said.err


def test_a_database_that_is_away(shell: Shell) -> None:
    from kasaga.store.errors import StoreUnavailable

    def away(point: str) -> None:
        raise StoreUnavailable("no connection to the database")

    shell.store = type(shell.store)(namespace="orders", clock=lambda: NOW, fault=away)
    said = shell("replay", "replayed", "--from-db")
    assert said.status == 2
    assert "KSG-301" in said.err


def test_many_alike_are_told_once(shell: Shell) -> None:
    shell.keep(*(Tale(number).reserved() for number in range(10, 20)))
    change(shell, "    await ctx.use(Inventory).reserve(order)\n", "    await ctx.sleep(3)\n")
    said = shell("replay", "replayed", "--from-db")
    assert said.out.count("needs a patch") == 1
    assert "and 10 more" in said.out or "and 11 more" in said.out

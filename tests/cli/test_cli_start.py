"""`kasaga start`, and what all commands do alike: settings, errors, exit statuses."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.shell import Shell
from imported import imported_from

SAGAS = """
from pydantic import BaseModel, Field
from kasaga import App, SagaContext, saga

class Line(BaseModel):
    sku: str
    quantity: int = Field(gt=0)

class Order(BaseModel):
    id: str
    lines: list[Line]

class Receipt(BaseModel):
    paid: int

@saga("payment", version=1)
async def payment(ctx: SagaContext, order: Order) -> Receipt:
    return Receipt(paid=1)

@saga("payment", version=2)
async def newer(ctx: SagaContext, order: Order) -> Receipt:
    return Receipt(paid=2)

@saga("tidy")
async def tidy(ctx: SagaContext, order: Order) -> None:
    return None

app = App("orders", sagas=[payment, newer, tidy])
"""
ORDER = '{"id": "o-1", "lines": [{"sku": "a", "quantity": 1}]}'


@pytest.fixture
def typed(shell: Shell, tmp_path: Path) -> Iterator[Shell]:
    """A folder with an App in it."""
    (tmp_path / "typed_sagas.py").write_text(SAGAS)
    with imported_from(tmp_path, "typed_sagas"):
        yield shell


def ends(shell: Shell, state: str, result: object = None, *, name: str = "payment", reason: str = "") -> None:
    """Have the next saga end so."""
    from kasaga.cli.inputs import find_saga, load_app

    app = load_app("typed_sagas:app")
    codec = find_saga(app, name, None).result
    value = None if state != "COMPLETED" else codec.encode(codec.from_json(json.dumps(result)))
    shell.owner.ends_at_once = (state, value)
    shell.owner.ends_because = reason


def test_a_start_is_accepted(typed: Shell) -> None:
    said = typed("start", "typed_sagas:app", "payment", "--id", "o-1", "--input", ORDER)
    assert (said.status, said.out) == (0, "payment o-1 is accepted\n")
    said = typed("start", "typed_sagas:app", "payment", "--id", "o-2", "--input", ORDER, "-o", "json")
    assert said.json == {"saga_id": "o-2", "run_id": None, "state": "ACCEPTED"}


def test_a_start_that_comes_again_names_no_run_that_will_never_be(typed: Shell) -> None:
    start = ("start", "typed_sagas:app", "payment", "--id", "o-1", "--input", ORDER)
    first, again = typed(*start), typed(*start)
    assert (again.status, again.out) == (0, first.out)
    ends(typed, "COMPLETED", {"paid": 7})
    typed.owner.end("o-1", *typed.owner.ends_at_once or ("", None))
    waited = typed(*start, "--wait", "-o", "json")
    assert waited.json["run_id"] == typed.owner.sagas["o-1"].run_id


def test_waiting_prints_the_result(typed: Shell) -> None:
    ends(typed, "COMPLETED", {"paid": 7})
    said = typed("start", "typed_sagas:app", "payment", "--id", "o-1", "--input", ORDER, "--wait")
    assert (said.status, json.loads(said.out)) == (0, {"paid": 7})
    said = typed(
        "start", "typed_sagas:app", "payment", "--id", "o-2", "--input", ORDER, "--wait", "-o", "json"
    )
    assert (said.json["state"], said.json["result"]) == ("COMPLETED", {"paid": 7})


def test_a_saga_without_a_result(typed: Shell) -> None:
    ends(typed, "COMPLETED", None, name="tidy")
    said = typed("start", "typed_sagas:app", "tidy", "--id", "o-1", "--input", ORDER, "--wait")
    assert (said.status, said.out) == (0, "tidy o-1 is COMPLETED\n")


def test_a_saga_that_is_not_completed_is_status_3(typed: Shell) -> None:
    ends(typed, "COMPENSATED", reason="the card is blocked")
    said = typed("start", "typed_sagas:app", "payment", "--id", "o-1", "--input", ORDER, "--wait")
    assert (said.status, said.out) == (3, "")
    assert said.err == "kasaga: KSG-510: saga o-1 was undone: the card is blocked.\n"
    ends(typed, "STUCK", reason="no disk")
    said = typed(
        "start", "typed_sagas:app", "payment", "--id", "o-2", "--input", ORDER, "--wait", "-o", "json"
    )
    assert (said.status, said.json["state"], said.json["reason"]) == (3, "STUCK", "no disk")


def test_waiting_ends(typed: Shell) -> None:
    said = typed(
        "start", "typed_sagas:app", "payment", "--id", "o-1", "--input", ORDER, "--wait", "--timeout", "0.05"
    )
    assert said.status == 3
    assert said.err.startswith("kasaga: KSG-503: saga o-1 hasn't ended within 0.05 s; it goes on.")


def test_input_from_a_file_and_from_a_pipe(
    typed: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "order.json").write_text(ORDER)
    assert typed("start", "typed_sagas:app", "payment", "--id", "o-1", "--input", "@order.json").status == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(ORDER))
    assert typed("start", "typed_sagas:app", "payment", "--id", "o-2", "--input", "-").status == 0
    assert typed.owner.sagas["o-1"].value == typed.owner.sagas["o-2"].value
    said = typed("start", "typed_sagas:app", "payment", "--id", "o-3", "--input", "@none.json")
    assert said.err.startswith("kasaga: KSG-524: none.json can't be read: No such file")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ('{"id": "o-1", "lines": [{"sku": "a", "quantity": 0}]}', "lines[0].quantity"),
        ('{"id": "o-1"}', "lines"),
        ("{", "line 1 column 2"),
        ("[" * 100_000, "JSON"),
        (
            '{"id": "o-1", "lines": [], "colour": 1}',
            ".colour: Order has no such field. Remedy: it has id, lines.",
        ),
        (
            '{"id": "o-1", "lines": [{"sku": "a", "quantity": 1, "x": 0}]}',
            ".lines[0].x: Line has no such field",
        ),
        ('{"id": 1, "lines": []}', ".id: a whole number where text is wanted"),
        ("order.json", "@order.json for a file"),
    ],
)
def test_the_bad_field_is_named_before_anything_is_sent(typed: Shell, given: str, named: str) -> None:
    said = typed("start", "typed_sagas:app", "payment", "--id", "o-1", "--input", given)
    assert said.status == 1
    assert "KSG-524: the input doesn't fit saga 'payment'" in said.err
    assert named in said.err
    assert said.err.count("\n") == 1
    assert typed.owner.sent == []


@pytest.mark.parametrize(
    ("target", "name", "text"),
    [
        (
            "typed_sagas:nothing",
            "payment",
            "typed_sagas has no App named 'nothing'. Remedy: It has typed_sagas:app.",
        ),
        ("typed_sagas.py", "payment", "'typed_sagas.py' names no App"),
        ("not_there:app", "payment", "not_there can't be imported: ModuleNotFoundError"),
        (
            "typed_sagas",
            "paiment",
            "the App has no saga 'paiment'. Remedy: It has: payment 1, payment 2, tidy 1.",
        ),
    ],
)
def test_an_app_that_is_not_there(typed: Shell, target: str, name: str, text: str) -> None:
    said = typed("start", target, name, "--id", "o-1", "--input", ORDER)
    assert said.status == 1
    assert f"KSG-521: {text}" in said.err


def test_an_app_with_a_bug_shows_the_line(typed: Shell, tmp_path: Path) -> None:
    (tmp_path / "broken_sagas.py").write_text("x = 1\ny = 1 / 0\n")
    said = typed("start", "broken_sagas:app", "payment", "--id", "o-1", "--input", ORDER)
    assert (
        "broken_sagas can't be imported: ZeroDivisionError: division by zero (broken_sagas.py:2)" in said.err
    )
    (tmp_path / "unclosed_sagas.py").write_text("x = (\n")
    said = typed("start", "unclosed_sagas:app", "payment", "--id", "o-1", "--input", ORDER)
    assert "SyntaxError: '(' was never closed (unclosed_sagas.py:1)" in said.err


def test_the_newest_version_unless_another_is_named(typed: Shell) -> None:
    typed("start", "typed_sagas:app", "payment", "--id", "o-1", "--input", ORDER)
    typed("start", "typed_sagas:app", "payment", "--id", "o-2", "--input", ORDER, "--version", "1")
    sent = [dict(out.headers) for out in typed.owner.sent if out.topic == "orders.sagas"]
    assert [headers["ce_kasagasaga"] for headers in sent] == [b"payment/2", b"payment/1"]
    said = typed("start", "typed_sagas:app", "payment", "--id", "o-3", "--input", ORDER, "--version", "9")
    assert "the App has no saga 'payment' version 9" in said.err


# --- what all commands do alike


def test_an_option_wins_over_the_environment(shop: Shell) -> None:
    shop("list", "--database-url", "another")
    assert shop.opened == ["another"]
    shop("retry", "o-3", "--kafka", "elsewhere:9")
    assert shop.brokers[0].bootstrap == "elsewhere:9"


def test_secrets_come_from_files(shop: Shell, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("from-file\n")
    del shop.environment["KASAGA_DATABASE_URL"]
    shop.environment["KASAGA_DATABASE_URL_FILE"] = str(tmp_path / "url")
    shop("list")
    assert shop.opened == ["from-file"]


def test_what_kasaga_dev_runs_is_found_in_its_folder(shop: Shell, tmp_path: Path) -> None:
    (tmp_path / ".kasaga").mkdir()
    known = {"database_url": "dev-url", "kafka": "dev:1", "namespace": "orders", "topic_prefix": ""}
    (tmp_path / ".kasaga" / "dev.json").write_text(json.dumps(known))
    shop.folder = tmp_path / "below" / "it"
    shop("list")
    assert shop.opened == ["memory"]
    shop.environment.clear()
    shop("list")
    shop("retry", "o-3")
    assert shop.opened == ["memory", "dev-url"]
    assert shop.brokers[0].bootstrap == "dev:1"


def test_what_kasaga_dev_runs_is_never_mixed_with_real_servers(shop: Shell, tmp_path: Path) -> None:
    (tmp_path / ".kasaga").mkdir()
    (tmp_path / ".kasaga" / "dev.json").write_text('{"kafka": "dev:1", "namespace": "orders"}')
    del shop.environment["KASAGA_KAFKA_BOOTSTRAP_SERVERS"]
    assert shop("retry", "o-3").err.startswith("kasaga: KSG-527: no Kafka brokers are named")


def test_a_command_that_needs_a_database_says_how_to_name_one(shell: Shell) -> None:
    shell.environment.clear()
    said = shell("list")
    assert said.status == 1
    assert said.err == (
        "kasaga: KSG-522: no database is named. Remedy: Set KASAGA_DATABASE_URL, pass --database-url, "
        "or run `kasaga dev` in this folder.\n"
    )


@pytest.mark.parametrize(
    "command", [("list",), ("describe", "o-1"), ("history", "o-1"), ("retry", "o-3", "--dry-run")]
)
def test_another_namespace_than_the_databases_is_refused(shop: Shell, command: tuple[str, ...]) -> None:
    shop.environment["KASAGA_NAMESPACE"] = "zzz"
    said = shop(*command)
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith(
        "kasaga: KSG-303: the database belongs to namespace 'orders', not to 'zzz'. Remedy"
    )
    shop.environment["KASAGA_NAMESPACE"] = "orders"
    assert shop(*command).status == 0


def test_wrong_usage_is_status_2(shell: Shell) -> None:
    assert shell("list", "--state", "BORED").status == 2
    assert shell("list", "--started-before", "yesterday").status == 2
    assert (
        "write 2026-01-31T10:00 (UTC), or 90s, 2h, 3d" in shell("list", "--started-before", "yesterday").err
    )
    assert shell("fly").status == 2


def test_a_bug_is_one_line_unless_you_debug(shop: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise RuntimeError("oh\nno")

    monkeypatch.setattr(type(shop.store), "list_sagas", fail)
    said = shop("list")
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        "kasaga: KSG-599: RuntimeError: oh no. Remedy: Report it with what KASAGA_DEBUG=1 shows.\n"
    )
    monkeypatch.setenv("KASAGA_DEBUG", "1")
    assert "Traceback" in shop("list").err


def test_an_error_shows_no_password(shop: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise RuntimeError("can't connect to postgresql://anna:hunter2@db/orders")

    monkeypatch.setattr(type(shop.store), "list_sagas", fail)
    assert "hunter2" not in shop("list").err
    monkeypatch.setenv("KASAGA_DEBUG", "1")
    assert "hunter2" not in shop("list").err


def test_ctrl_c(shop: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(shop.store), "list_sagas", interrupt)
    said = shop("list")
    assert (said.status, said.err) == (130, "\nInterrupted.\n")


def test_version_and_help(shell: Shell) -> None:
    assert re.fullmatch(r"kasaga, version \S+ \((compiled|pure Python)\)\n", shell("--version").out)
    said = shell("--help")
    assert said.status == 0
    for command in (
        "dev",
        "migrate",
        "orchestrator",
        "start",
        "list",
        "describe",
        "history",
        "retry",
        "skip",
    ):
        assert f"\n  {command} " in said.out

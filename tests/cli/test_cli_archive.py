"""`kasaga archive` finds what retention has written, opens it with the keys, and says how it is doing."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from cli.shell import NOW, Shell
from kasaga.archive import Archiver
from kasaga.archive.sheet import Sheet
from kasaga.orchestrator.metrics import Metrics
from kasaga.store.base import HistoryRow, SagaFilter, SagaRow
from kasaga.store.sealed import seal_body, seal_result
from kasaga_wire.codec import Schemas
from kasaga_wire.objects import Objects
from kasaga_wire.sealing import Sealer

KEY = bytes(range(32))


@pytest.fixture
def away(shop: Shell) -> Shell:
    """A shop two of whose sagas have ended, were archived and deleted."""
    shop.environment["KASAGA_ARCHIVE_URL"] = f"memory://{uuid4().hex}"
    put_away(shop)
    return shop


def objects(shell: Shell) -> Objects:
    return Objects(shell.environment["KASAGA_ARCHIVE_URL"])


def ended(shell: Shell) -> list[SagaRow]:
    return [row for row in shell.store.list_sagas(SagaFilter()) if row.ended_at is not None]


def put_away(shell: Shell) -> None:
    archiver = Archiver(objects(shell), shell.store, "orders", Metrics())
    for written in archiver.written(sorted(ended(shell), key=lambda row: row.run_id)):
        assert shell.store.delete(written) == len(written)


def test_what_is_in_it(away: Shell) -> None:
    lines = away("archive", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == ["SAGA", "o-2", "o-1"]
    said = away("archive", "list", "-o", "json").jsonl
    assert [(each["saga_id"], each["state"]) for each in said] == [
        ("o-2", "COMPENSATED"),
        ("o-1", "COMPLETED"),
    ]
    assert away("archive", "list", "-o", "json", "--state", "COMPLETED").jsonl == said[1:]
    assert away("archive", "list", "-o", "json", "--name", "other").jsonl == []
    assert "there are more" in away("archive", "list", "--limit", "1").err
    assert "No archived saga fits" in away("archive", "list", "--started-before", "2025-12-31T00:00").err


def test_a_saga_is_told_as_it_was(shop: Shell) -> None:
    before, whole = shop("history", "o-1"), shop("history", "o-1", "-o", "json").json
    shop.environment["KASAGA_ARCHIVE_URL"] = f"memory://{uuid4().hex}"
    put_away(shop)
    assert "purged" in shop("history", "o-1").err
    after = shop("archive", "show", "o-1")
    assert after.out.splitlines()[3:] == before.out.splitlines()[3:]
    said = shop("archive", "show", "o-1", "-o", "json").json
    assert said["history"] == whole["history"]
    assert said["result"] == whole["history"][-1].get("result", said["result"])
    assert {key: said[key] for key in ("saga_id", "run_id", "state", "name")} == {
        key: whole[key] for key in ("saga_id", "run_id", "state", "name")
    }
    assert '"total"' not in shop("archive", "show", "o-1", "--no-payloads").out


@pytest.mark.parametrize("known", [True, False])
def test_it_is_found_with_and_without_a_database(away: Shell, known: bool) -> None:
    if not known:
        del away.environment["KASAGA_DATABASE_URL"]
        away.environment["KASAGA_NAMESPACE"] = "orders"
    assert "o-1 is COMPLETED" in away("archive", "show", "o-1").out
    missing = away("archive", "show", "o-9")
    assert missing.status == 1
    assert "KSG-502" in missing.err or "there is no saga o-9 in the archive" in missing.err
    assert away("archive", "show", "o-1", "--started-before", "2025-12-31T00:00").status == 1


def test_an_id_that_was_used_again(away: Shell) -> None:
    row = away.store.saga("o-1")
    assert row is not None
    again = replace(row, run_id=uuid4(), started_at=NOW, updated_at=NOW, ended_at=NOW, reason="again")
    sheet = Sheet(Schemas())
    sheet.add(again, [])
    name, data = sheet.finish()
    objects(away).write(f"orders/{name}", data)
    del away.environment["KASAGA_DATABASE_URL"]
    away.environment["KASAGA_NAMESPACE"] = "orders"
    said = away("archive", "show", "o-1")
    assert "again" in said.out
    assert f"--run {row.run_id}" in said.err
    assert str(row.run_id) in away("archive", "show", "o-1", "--run", str(row.run_id)).out


def sealed(shell: Shell) -> Callable[..., list[HistoryRow]]:
    """As a Postgres with keys gives histories out."""
    sealer, kept = Sealer({"k1": KEY}), shell.store.kept

    def found(shard: int, run_id: object, *, before: int | None = None) -> list[HistoryRow]:
        rows = kept(shard, run_id, before=before)  # type: ignore[arg-type]
        return [replace(row, body=seal_body(sealer, run_id, row)) for row in rows]  # type: ignore[arg-type]

    return found


def test_what_is_encrypted_opens_where_the_key_is(shop: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = shop("history", "o-1", "-o", "json").json["history"]
    shop.environment["KASAGA_ARCHIVE_URL"] = f"memory://{uuid4().hex}"
    monkeypatch.setattr(shop.store, "kept", sealed(shop))
    for row in ended(shop):
        table = shop.store._tables.sagas[row.run_id]  # pyright: ignore[reportPrivateUsage]
        table.result = seal_result(Sealer({"k1": KEY}), row)
    put_away(shop)
    told = shop("archive", "show", "o-1")
    assert "o-1 is COMPLETED" in told.out
    assert "key k1" in told.err
    failed = shop("archive", "show", "o-1", "-o", "json")
    assert (failed.status, "KSG-114" in failed.err) == (1, True)
    shop.environment["KASAGA_PAYLOAD_KEYS"] = f"k1={base64.b64encode(KEY).decode()}"
    assert shop("archive", "show", "o-1", "-o", "json").json["history"] == plain


def test_how_it_is_doing(away: Shell) -> None:
    url = away.environment["KASAGA_ARCHIVE_URL"]
    said = away("archive", "status")
    assert said.status == 0
    assert f"{url}: 2 sagas in " in said.out
    assert "It takes what it is given." in said.out
    away.store.note_archive_failed(url, "no such bucket")
    said = away("archive", "status")
    assert said.status == 1
    assert "it takes nothing, and finished sagas are kept: no such bucket" in said.out
    said = away("archive", "status", "-o", "json")
    assert (said.status, said.json["error"], said.json["sagas"]) == (1, "no such bucket", 2)


def test_without_an_archive(shell: Shell) -> None:
    assert "Nothing has been archived yet" in shell("archive", "status").err
    assert shell("archive", "status", "-o", "json").json is None
    said = shell("archive", "list")
    assert (said.status, "KASAGA_ARCHIVE_URL isn't set" in said.err) == (1, True)


def test_options_come_from_a_file_and_are_never_shown(shell: Shell, tmp_path: Path) -> None:
    shell.environment["KASAGA_ARCHIVE_URL"] = "memory://x"
    (tmp_path / "options").write_text('{"secret": "hunter22-secret"')
    shell.environment["KASAGA_ARCHIVE_OPTIONS_FILE"] = str(tmp_path / "options")
    said = shell("archive", "list")
    assert "KSG-154" in said.err
    assert "hunter22" not in said.err + said.out
    shell.environment["KASAGA_ARCHIVE_URL"] = "ftp://anna:hunter22@host"
    assert "hunter22" not in shell("archive", "list").err


def test_damage_is_told_and_passed_over(away: Shell) -> None:
    place = objects(away)
    (day, *_) = place.names("orders")
    name = place.names(f"orders/{day}")[0]
    data = place.read(f"orders/{day}/{name}")
    assert data is not None
    place.write(f"orders/{day}/{name.replace('.jsonl', 'x.jsonl')}", data[:-40])
    said = away("archive", "list")
    assert "KSG-313" in said.err
    assert "o-1" in said.out

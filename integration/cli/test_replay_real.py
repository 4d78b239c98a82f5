"""`kasaga replay` on a real Postgres: it reads in read-only transactions, and gives up before it disturbs."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cli.tales import Tale, put
from kasaga.cli import run
from kasaga.cli.session import Session
from kasaga.store.migrate import migrate
from kasaga.store.postgres import PostgresStore
from kasaga.store.settings import StoreSettings
from replay.test_cli_replay import SHOP

GUIDE = Path(__file__).parents[2] / "orchestrator" / "deploying.md"


@pytest.fixture
def filled(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[str]:
    """A database with sagas in it, and a folder with their code."""
    migrate(database, namespace="orders", shards=8)
    store = PostgresStore(database)
    put(
        store,
        Tale(1).reserved().completed(),
        Tale(2).reserved().charge_refused().released(),
        Tale(3).reserved().charge_refused().release_fails(),
        Tale(4, shard=5).reserved().parked(),
        Tale(5, saga_id="p-5").reserved(),
    )
    store.close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "replayed.py").write_text(SHOP)
    yield database
    sys.modules.pop("replayed", None)


def kasaga(database: str, *arguments: str) -> int:
    return run([*arguments], Session(environment={"KASAGA_DATABASE_URL": database}))


def test_histories_of_a_real_database(
    filled: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert kasaga(filled, "replay", "replayed", "--from-db") == 0
    assert capsys.readouterr().out == "payment/1: 3 running and 2 finished: 5 same\n"
    assert kasaga(filled, "export") == 0
    (tmp_path / "histories.jsonl").write_text(capsys.readouterr().out)
    assert kasaga("", "replay", "replayed", "--file", "histories.jsonl") == 0
    assert capsys.readouterr().out == "payment/1: 3 running and 2 finished: 5 same\n"


@pytest.mark.parametrize("pooled", [False, True])
def test_a_reader_can_write_nothing(filled: str, pooled: bool) -> None:
    store = PostgresStore(StoreSettings(filled, read_only=True, pooled=pooled), readers=1)
    try:
        with pytest.raises(Exception, match="read-only transaction"):
            store.put_schemas({b"\0" * 32: '"string"'})
        assert sorted(row.saga_id for row in store.waiting(3)[0]) == ["o-3", "p-5"]
    finally:
        store.close()


def test_a_role_that_may_only_read_on_a_server_that_takes_no_writes(
    filled: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what the guide grants, no more; `default_transaction_read_only` makes it look like a standby."""
    role = f"reader_{uuid4().hex[:10]}"
    grants = re.search(r"```sql\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert grants
    with psycopg.connect(filled, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role}".encode())
        try:
            owner.execute(grants[1].replace("TO reader", f"TO {role}").encode())
            options = f"-c role={role} -c default_transaction_read_only=on"
            standby = make_conninfo(filled, options=options)
            assert kasaga(standby, "list") == 1  # refuses such a server: the loop's store wants to write
            assert kasaga(standby, "replay", "replayed", "--from-db") == 0
        finally:
            owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
    assert capsys.readouterr().out == "payment/1: 3 running and 2 finished: 5 same\n"


def test_a_table_that_somebody_has_locked_is_not_waited_for(
    filled: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A migration holds it: whoever reads behind it would hold up everybody else."""
    with psycopg.connect(filled) as other:
        other.execute("LOCK TABLE kasaga.history IN ACCESS EXCLUSIVE MODE")
        assert kasaga(filled, "replay", "replayed", "--from-db") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "KSG-301" in said.err

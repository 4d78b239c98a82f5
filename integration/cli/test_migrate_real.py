"""`kasaga migrate --wait`, as the chart's Job runs it, outlasts a database that is away, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eventually import eventually
from fix_proxy import TcpProxy
from kasaga.dev.servers import PostgresServer

PATIENCE = 60.0


class Migration:
    """One `kasaga migrate` that runs."""

    def __init__(self, folder: Path, url: str, *arguments: str) -> None:
        (folder / "url").write_text(url)
        self.errors = folder / "errors"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KASAGA_")}
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kasaga", "migrate", *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=folder,
                env=environment
                | {"KASAGA_DATABASE_URL_FILE": str(folder / "url"), "KASAGA_NAMESPACE": "shop"},
            )

    def end(self) -> tuple[int, str, str]:
        out, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, self.errors.read_text()


@pytest.fixture
def away(postgres_proxy: TcpProxy) -> TcpProxy:
    postgres_proxy.stop()
    return postgres_proxy


def test_it_waits_for_the_database(
    tmp_path: Path, away: TcpProxy, postgres: PostgresServer, database: str, namespace: str
) -> None:
    migration = Migration(tmp_path, postgres.url(namespace, port=away.port), "--phase", "pre", "--wait", "60")
    eventually(lambda: "waiting" in migration.errors.read_text(), timeout=PATIENCE)
    away.start()
    status, out, errors = migration.end()
    assert status == 0, errors
    assert "applied 0001_pre_tables.sql" in out
    assert errors.count("waiting") >= 1


def test_it_waits_no_longer_than_it_is_told(
    tmp_path: Path, away: TcpProxy, postgres: PostgresServer, database: str, namespace: str
) -> None:
    status, _, errors = Migration(tmp_path, postgres.url(namespace, port=away.port), "--wait", "1").end()
    assert status == 1
    assert "KSG-301" in errors


def test_what_waiting_does_not_mend_ends_it_at_once(tmp_path: Path, database: str) -> None:
    first, again = ("--shards", "4"), ("--shards", "8", "--wait", "3600")
    assert Migration(tmp_path, database, *first).end()[0] == 0
    status, _, errors = Migration(tmp_path, database, *again).end()
    assert status == 1
    assert "KSG-304" in errors
    assert "waiting" not in errors

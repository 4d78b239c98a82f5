"""`kasaga drill` on a real Kafka and a real Postgres: compensations are run, and nothing comes of them."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections.abc import Generator
from typing import Any, LiteralString

import psycopg
import pytest

from audit.drill_shop import NAMESPACE, Order, buying
from audit.in_process import kasaga
from cli.town import PATIENCE, STOP_SECONDS, Town
from eventually import eventually
from kasaga.client import Client
from kasaga.dev.servers import KafkaServer, PostgresServer

ORDERS = ("o-1", "o-2", "o-raises", "o-commits", "o-leaves", "o-deferred")
TABLES: tuple[LiteralString, ...] = ("reserved", "entry", "book", "kasaga_inbox.inbox")


class DrillTown(Town):
    shop = "audit.drill_shop"
    namespace = NAMESPACE


@pytest.fixture(scope="module")
def town(
    tmp_path_factory: pytest.TempPathFactory, kafka: KafkaServer, postgres: PostgresServer
) -> Generator[DrillTown]:
    names = [f"t{uuid.uuid4().hex[:8]}" for _ in range(2)]
    databases = [postgres.create_database(name) for name in names]
    made = DrillTown(tmp_path_factory.mktemp("drill"), kafka, *databases)
    made.environment["OUTSIDE"] = str(made.folder / "outside")
    try:
        made.begin()
        asyncio.run(bought(made))
        yield made
    finally:
        made.end()
        for name in names:
            postgres.drop_database(name)


async def bought(town: Town) -> None:
    async with Client(NAMESPACE, town.kafka, topic_prefix=town.prefix) as client:
        await asyncio.gather(
            *(client.run(buying, Order(id=each), id=each, timeout=PATIENCE) for each in ORDERS)
        )


def contents(town: Town) -> list[Any]:
    """All rows of the service, with the transactions that wrote them."""
    with psycopg.connect(town.own) as connection:
        return [
            sorted(map(str, connection.execute(f"SELECT xmin::text, * FROM {table}").fetchall()))
            for table in TABLES
        ]


def drilled(town: Town, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    status, out, err = kasaga(town, "drill", "audit.drill_shop:app", "-o", "json", *arguments)
    assert out, err
    return status, {each["compensation"]: each for each in json.loads(out)["compensations"]}


def counted(found: dict[str, Any]) -> tuple[int, int, int, int]:
    return found["works"], found["fails"], found["left_out"], found["unanswered"]


def test_nobody_in_drill_mode_is_told(town: Town) -> None:
    before = contents(town)
    status, found = drilled(town, "--sample", "1", "--timeout", "1")
    assert status == 4
    assert {counted(each) for each in found.values()} == {(0, 0, 0, 1)}
    whys = {each["reasons"][0]["why"].partition(": ")[2] for each in found.values()}
    assert whys <= {"nobody serves it with KASAGA_DRILL=1", ""}, "the latter once another test had served it"
    assert contents(town) == before


@pytest.mark.parametrize("alone", [False, True])
def test_compensations_are_run_and_nothing_comes_of_them(town: Town, alone: bool) -> None:
    before = contents(town)
    assert all(before)
    environment = {**town.environment, "KASAGA_DATABASE_URL": town.own, "KASAGA_DRILL": "1"}
    environment["KASAGA_DRILL_ALONE"] = str(int(alone))
    name = f"drill-{alone}"
    participant = town.process(name, ["-m", "audit.drill_shop"], environment)
    try:
        log = town.folder / f"{name}.log"
        eventually(lambda: log.read_text().count("reads partitions") >= 4, timeout=PATIENCE)
        assert "is in drill mode" in log.read_text()
        status, found = drilled(town, "--rate", "200")
    finally:
        participant.stop(signal.SIGTERM, STOP_SECONDS)
    assert status == 1
    assert counted(found["stock.release"]) == (3, 3, 0, 0)
    raised, ended = sorted(found["stock.release"]["reasons"], key=lambda each: each["count"])
    assert (raised["saga_id"], raised["why"]) == ("o-raises", "RuntimeError: the shelf of o-raises is gone")
    assert (ended["count"], "ended the transaction" in ended["why"]) == (2, True)
    assert counted(found["ledger.unpost"]) == (5, 1, 0, 0)
    [deferred] = found["ledger.unpost"]["reasons"]
    assert (deferred["saga_id"], "entry_book_fkey" in deferred["why"]) == ("o-deferred", True)
    assert counted(found["bank.refund"]) == ((6, 0, 0, 0) if alone else (0, 0, 6, 0))
    assert counted(found["mailer.unmail"]) == (0, 0, 6, 0)
    assert contents(town) == before
    assert not (town.folder / "outside").exists()
    audit, out, _ = kasaga(town, "audit", "-o", "json")
    assert (audit, json.loads(out)["sagas"]) == (0, {"COMPLETED": len(ORDERS)})


def test_only_what_ended_since_or_is_named(town: Town) -> None:
    assert drilled(town, "--since", "2020-01-01", "--sample", "2", "--timeout", "0.5")[1].keys() == {
        "stock.release",
        "ledger.unpost",
        "bank.refund",
        "mailer.unmail",
    }
    status, out, err = kasaga(town, "drill", "audit.drill_shop:app", "--name", "selling")
    assert (status, out) == (2, "")
    assert "KSG-524" in err

"""`kasaga audit` on a real Kafka and a real Postgres: what is planted in an inbox is found and named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator, Sequence
from typing import Any, LiteralString

import psycopg
import pytest

from cli.real_shop import Order, purchase
from cli.town import PATIENCE, Said, Town, town
from kasaga.client import SagaCompensated

__all__ = ["town"]

DONE, UNDONE = "a-done-{}", "a-undone-{}"


@pytest.fixture(scope="module")
def sagas(town: Town) -> dict[str, str]:
    """Some that are completed and some that are compensated: run ids by saga id."""

    async def scene() -> dict[str, str]:
        runs: dict[str, str] = {}
        async with town.client() as client:
            for number in range(6):
                id_ = DONE.format(number)
                handle = await client.start(purchase, Order(id=id_), id=id_, wait=True)
                await handle.result(timeout=PATIENCE)
                runs[id_] = str(handle.run_id)
            for number in range(4):
                id_ = UNDONE.format(number)
                handle = await client.start(purchase, Order(id=id_, wish="refuse"), id=id_, wait=True)
                with pytest.raises(SagaCompensated):
                    await handle.result(timeout=PATIENCE)
                runs[id_] = str(handle.run_id)
        return runs

    return asyncio.run(scene())


class Inbox:
    """The service's own table, to plant in; what was there comes back."""

    def __init__(self, url: str) -> None:
        self.url = url
        with psycopg.connect(url) as connection:
            self._rows = connection.execute("SELECT * FROM kasaga_inbox.inbox").fetchall()

    def plant(self, sql: LiteralString, *values: object) -> None:
        with psycopg.connect(self.url) as connection:
            assert connection.execute(sql, values).rowcount == 1

    def restore(self) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute("DELETE FROM kasaga_inbox.inbox")
            with connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO kasaga_inbox.inbox VALUES (%s, %s, %s, %s, %s, %s)", self._rows
                )


@pytest.fixture
def inbox(town: Town, sagas: dict[str, str]) -> Generator[Inbox]:
    made = Inbox(town.own)
    yield made
    made.restore()


def audited(town: Town, *arguments: str) -> tuple[Said, dict[str, Any]]:
    said = town.kasaga("audit", "-o", "json", "--confirm", "0.1", *arguments)
    assert said.out, said.err
    return said, json.loads(said.out)


def by_kafka(town: Town) -> Sequence[str]:
    return ()


def by_database(town: Town) -> Sequence[str]:
    return ("--inbox", f"goods={town.own}")


@pytest.mark.parametrize("way", [by_kafka, by_database])
def test_all_is_well(town: Town, sagas: dict[str, str], way: Any) -> None:
    said, report = audited(town, *way(town))
    assert (said.status, report["ok"], report["findings"]) == (0, True, []), town.logs()
    assert report["sagas"] == {"COMPLETED": 6, "COMPENSATED": 4}
    assert report["steps"] == 20
    text = town.kasaga("audit", *way(town))
    assert text.out.strip().endswith("10 sagas (4 COMPENSATED, 6 COMPLETED), 20 steps compared: 0 violations")


DELETE: LiteralString = "DELETE FROM kasaga_inbox.inbox WHERE id = %s"
FLIP: LiteralString = "UPDATE kasaga_inbox.inbox SET outcome = %s WHERE id = %s"


@pytest.mark.parametrize("way", [by_kafka, by_database])
def test_what_is_planted_is_found(town: Town, sagas: dict[str, str], inbox: Inbox, way: Any) -> None:
    def row(id_: str, path: str) -> str:
        return f"{sagas[id_]}.{path}"

    inbox.plant(DELETE, row("a-done-0", "1"))
    inbox.plant(FLIP, "refused", row("a-done-1", "2"))
    inbox.plant(FLIP, "void", row("a-done-2", "1"))
    inbox.plant(
        "INSERT INTO kasaga_inbox.inbox (id, type, outcome) VALUES (%s, 'goods.give_back', 'undone')",
        row("a-done-3", "1~undo"),
    )
    inbox.plant(
        "INSERT INTO kasaga_inbox.inbox (id, type, outcome) VALUES (%s, 'goods.take', 'done')",
        row("a-done-4", "3"),
    )
    inbox.plant("UPDATE kasaga_inbox.inbox SET payload = payload || 'x' WHERE id = %s", row("a-done-5", "1"))
    inbox.plant(DELETE, row("a-undone-0", "1~undo"))
    inbox.plant(FLIP, "done", row("a-undone-1", "2"))
    inbox.plant(DELETE, row("a-undone-2", "2"))
    said, report = audited(town, *way(town))
    assert said.status == 1
    assert sorted((each["saga_id"], each["step"], each["code"]) for each in report["findings"]) == [
        ("a-done-0", "1", "KSG-640"),
        ("a-done-1", "2", "KSG-640"),
        ("a-done-2", "1", "KSG-640"),
        ("a-done-3", "1", "KSG-644"),
        ("a-done-4", "3", "KSG-646"),
        ("a-done-5", "1", "KSG-645"),
        ("a-undone-0", "1", "KSG-643"),
        ("a-undone-1", "2", "KSG-641"),
        ("a-undone-2", "2", "KSG-642"),
    ]
    assert all(each["remedy"] and each["history"] and each["inbox"] for each in report["findings"])
    one, report = audited(town, "a-done-0", *way(town))
    assert (one.status, len(report["findings"]), report["sagas"]) == (1, 1, {"COMPLETED": 1})


def test_a_participant_that_does_not_answer_is_no_clean_audit(town: Town, sagas: dict[str, str]) -> None:
    said, report = audited(town, "--inbox", "goods=postgresql://kasaga:hunter22@127.0.0.1:1/nothing")
    assert (said.status, report["ok"], report["violations"]) == (4, False, 0)
    assert [(each["participant"], each["sagas"], each["code"]) for each in report["unanswered"]] == [
        ("goods", 10, "KSG-650")
    ]
    assert "hunter22" not in said.out + said.err

"""`kasaga audit` on a real Kafka and a real Postgres: what is planted in an inbox is found and named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest

from audit.in_process import kasaga
from cli.real_shop import Order, purchase
from cli.town import PATIENCE, Town, town
from eventually import eventually
from kasaga.client import SagaCompensated, SagaStuck
from kasaga.store.audit import Book, MemoryBook, PostgresBook, PostgresEnds, Slice
from kasaga.store.settings import StoreSettings
from kasaga_wire.envelope import AUDIT, CommandEnvelope, ReplyTo
from kasaga_wire.kafka import Producer
from kasaga_wire.topics import Topics

__all__ = ["town"]

COMPLETED, COMPENSATED = 6, 4

STEPS = 2 * (COMPLETED + COMPENSATED)

Runs = dict[str, str]


@pytest.fixture(scope="module")
def sagas(town: Town) -> Runs:
    """Some that are completed and some that are compensated: run ids by saga id."""

    async def scene() -> Runs:
        runs: Runs = {}
        async with town.client() as client:
            for number in range(COMPLETED):
                order = Order(id=f"a-done-{number}")
                handle = await client.start(purchase, order, id=order.id, wait=True)
                await handle.result(timeout=PATIENCE)
                runs[order.id] = str(handle.run_id)
            for number in range(COMPENSATED):
                order = Order(id=f"a-undone-{number}", wish="refuse")
                handle = await client.start(purchase, order, id=order.id, wait=True)
                with pytest.raises(SagaCompensated):
                    await handle.result(timeout=PATIENCE)
                runs[order.id] = str(handle.run_id)
        return runs

    return asyncio.run(scene())


DELETE: LiteralString = "DELETE FROM kasaga_inbox.inbox WHERE id = %s"
INSERT: LiteralString = "INSERT INTO kasaga_inbox.inbox VALUES (%s, %s, %s, %s, %s, %s)"
ADD: LiteralString = "INSERT INTO kasaga_inbox.inbox (id, type, outcome) VALUES (%s, %s, %s)"
FLIP: LiteralString = "UPDATE kasaga_inbox.inbox SET outcome = %s WHERE id = %s"
OTHER: LiteralString = "UPDATE kasaga_inbox.inbox SET payload = payload || 'x'::bytea WHERE id = %s"


class Inbox:
    """The service's own table, to plant in; what was there comes back."""

    def __init__(self, url: str, runs: Runs) -> None:
        self.url, self.runs = url, runs
        with psycopg.connect(url) as connection:
            self._rows = connection.execute("SELECT * FROM kasaga_inbox.inbox").fetchall()

    def plant(self, sql: LiteralString, saga_id: str, path: str, *values: str) -> None:
        """Change one row: its id is the statement's first value, or its last."""
        id_ = f"{self.runs[saga_id]}.{path}"
        ordered = (id_, *values) if sql is ADD else (*values, id_)
        with psycopg.connect(self.url) as connection:
            assert connection.execute(sql, ordered).rowcount == 1

    def restore(self) -> None:
        with psycopg.connect(self.url) as connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM kasaga_inbox.inbox")
            cursor.executemany(INSERT, self._rows)


@pytest.fixture
def inbox(town: Town, sagas: Runs) -> Generator[Inbox]:
    made = Inbox(town.own, sagas)
    yield made
    made.restore()


def audited(town: Town, *arguments: str, **more: str) -> tuple[int, dict[str, Any]]:
    status, out, err = kasaga(town, "audit", "-o", "json", "--confirm", "0.1", *arguments, **more)
    assert out, err
    return status, json.loads(out)


BY_KAFKA, BY_DATABASE = "by Kafka", "by database"
WAYS = pytest.mark.parametrize("way", [BY_KAFKA, BY_DATABASE])


def named(town: Town, way: str) -> dict[str, str]:
    return {"KASAGA_INBOX_GOODS_URL": town.own} if way == BY_DATABASE else {}


@WAYS
def test_all_is_well(town: Town, sagas: Runs, way: str) -> None:
    status, report = audited(town, **named(town, way))
    assert (status, report["ok"], report["findings"]) == (0, True, []), town.logs()
    assert report["sagas"]["COMPLETED"] == COMPLETED
    assert report["sagas"]["COMPENSATED"] >= COMPENSATED  # another test makes one more
    assert report["steps"] >= STEPS


@WAYS
def test_what_is_planted_is_found(town: Town, sagas: Runs, inbox: Inbox, way: str) -> None:
    inbox.plant(DELETE, "a-done-0", "1")
    inbox.plant(FLIP, "a-done-1", "2", "refused")
    inbox.plant(FLIP, "a-done-2", "1", "void")
    inbox.plant(ADD, "a-done-3", "1~undo", "goods.give_back", "undone")
    inbox.plant(ADD, "a-done-4", "3", "goods.take", "done")
    inbox.plant(OTHER, "a-done-5", "1")
    inbox.plant(DELETE, "a-undone-0", "1~undo")
    inbox.plant(FLIP, "a-undone-1", "2", "done")
    inbox.plant(DELETE, "a-undone-2", "2")
    status, report = audited(town, **named(town, way))
    assert status == 1
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
    status, report = audited(town, "a-done-0", **named(town, way))
    assert (status, len(report["findings"]), report["sagas"]) == (1, 1, {"COMPLETED": 1})
    status, out, _ = kasaga(town, "audit", "--confirm", "0", "a-undone-1", **named(town, way))
    assert (status, "goods says: done" in out, "Undo this effect by hand" in out) == (1, True, True)


def test_a_page_reads_no_more_than_it_may(town: Town, sagas: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = PostgresEnds(StoreSettings(town.database, read_only=True))
    now = datetime.now(UTC)
    hour = (now - timedelta(hours=1), now)
    try:
        found = ends.ended(Slice(*hour, dict.fromkeys(range(4), hour)), limit=1_000)
        assert found is not None
        assert {row.saga_id for row in found} >= set(sagas)
        assert ends.ended(Slice(*hour, {}), limit=1_000) == []
        assert ends.ended(Slice(now, now + timedelta(days=9), {0: hour}), limit=1_000) == []
        narrow = {shard: (hour[0], ends.bounds()[shard] - timedelta(hours=2)) for shard in ends.bounds()}
        assert ends.ended(Slice(*hour, narrow), limit=1_000) == []
        assert ends.ended(Slice(*hour, dict.fromkeys(range(4), hour)), limit=1) is None
    finally:
        ends.close()
    # However few rows a page may read, the walk finds them all.
    monkeypatch.setattr("kasaga.store.audit.ROWS_A_SAGA", 1)
    monkeypatch.setattr("kasaga.audit.walk.LIMIT", 8)
    status, report = audited(town)
    assert (status, report["sagas"]["COMPLETED"]) == (0, COMPLETED)


def test_a_database_that_is_away_is_no_clean_audit(town: Town, sagas: Runs) -> None:
    url = "postgresql://kasaga:hunter22@127.0.0.1:1/nothing"
    status, out, err = kasaga(town, "audit", "-o", "json", "--inbox", f"goods={url}")
    report = json.loads(out)
    assert (status, report["ok"], report["violations"], report["steps"]) == (4, False, 0, 0)
    [unanswered] = report["unanswered"]
    assert (unanswered["participant"], unanswered["sagas"] >= len(sagas)) == ("goods", True)
    assert "hunter22" not in out + err
    # A database without an inbox is none, either.
    status, report = audited(town, KASAGA_INBOX_GOODS_URL=town.database)
    assert (status, report["unanswered"][0]["code"]) == (4, "KSG-650")


def test_a_participant_that_does_not_answer_is_no_clean_audit(town: Town, sagas: Runs) -> None:
    service = town.running[1]
    service.pause()
    try:
        status, report = audited(town, "--timeout", "0.7")
    finally:
        service.resume()
    assert (status, report["steps"]) == (4, 0)
    assert report["unanswered"][0]["reason"] == "goods: no answer within 0.7 s"
    assert audited(town)[0] == 0


def test_garbage_among_the_questions_harms_nobody(town: Town, sagas: Runs) -> None:
    topics = Topics(town.namespace, town.prefix)
    producer = Producer(town.kafka)
    for number, value in enumerate((None, b"", b"\x00garbage", b"x" * 100_000)):
        envelope = CommandEnvelope(
            command_id=f"{uuid4()}.1",
            attempt=1,
            source="/somebody",
            type=AUDIT,
            time=datetime.now(UTC),
            saga_id="garbage",
            saga="",
            reply_to=ReplyTo(topics.answers, 0),
        )
        headers: Sequence[tuple[str, bytes]] = [
            header for header in envelope.to_headers() if header[0] != "ce_kasagasaga"
        ]
        producer.produce(topics.commands("goods"), number % 4, b"garbage", value, headers, lambda error: None)
    producer.close()
    status, report = audited(town)
    assert (status, report["steps"] >= STEPS) == (0, True)


def test_a_saga_that_is_stuck_is_listed_and_is_no_violation(town: Town, sagas: Runs) -> None:
    async def scene() -> None:
        town.broken.touch()
        try:
            async with town.client() as client:
                order = Order(id="z-stuck", wish="refuse")
                handle = await client.start(purchase, order, id=order.id, wait=True)
                with pytest.raises(SagaStuck):
                    await handle.result(timeout=PATIENCE)
                status, report = audited(town)
                assert (status, [each["saga_id"] for each in report["stuck"]]) == (0, ["z-stuck"])
                town.broken.unlink()
                await client.act("skip", "z-stuck", reason="written off")
                with pytest.raises(SagaCompensated):
                    await handle.result(timeout=PATIENCE)
        finally:
            town.broken.unlink(missing_ok=True)

    asyncio.run(scene())
    status, report = audited(town, "z-stuck")
    assert (status, [each["saga_id"] for each in report["by_person"]]) == (0, ["z-stuck"])


# --- going on


def test_an_audit_goes_on_where_the_last_one_was_killed(town: Town, sagas: Runs, inbox: Inbox) -> None:
    inbox.plant(DELETE, "a-done-0", "1")
    inbox.plant(FLIP, "a-undone-3", "2", "done")
    since = (datetime.now(UTC) - timedelta(minutes=10)).isoformat()
    slow = town.process(
        "audit",
        ["-m", "kasaga", "audit", "--resume", "night", "--since", since, "--rate", "1", "--confirm", "0"],
        town.environment,
    )
    try:
        eventually(lambda: opened(town, "night"), timeout=PATIENCE)
    finally:
        slow.kill()
    assert slow.ended() != 0
    status, report = audited(town, "--resume", "night", "--since", since)
    assert (status, {each["saga_id"] for each in report["findings"]}) == (1, {"a-done-0", "a-undone-3"})
    status, report = audited(town, "--resume", "night")
    assert {each["saga_id"] for each in report["findings"]} == {"a-done-0", "a-undone-3"}
    assert report["sagas"]["COMPLETED"] + report["sagas"]["COMPENSATED"] < len(sagas)
    assert audited(town, "--resume", "night", "--mended", "a-done-0")[1]["violations"] == 1
    inbox.restore()
    assert audited(town, "--resume", "night")[0] == 0
    assert opened(town, "night") == 0


def opened(town: Town, name: str) -> int:
    with psycopg.connect(town.database) as connection:
        found = connection.execute("SELECT count(*) FROM kasaga.audit_open WHERE name = %s", [name])
        return int((found.fetchone() or [0])[0])


@pytest.mark.parametrize("kind", ["memory", "postgres"])
def test_notes_are_kept_alike(town: Town, kind: str) -> None:
    def book(name: str) -> Book:
        return MemoryBook() if kind == "memory" else PostgresBook(StoreSettings(town.database), name)

    one, other = book(f"{kind}-one"), book(f"{kind}-other")
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert (one.positions(), one.open(10)) == ({}, [])
    one.keep({0: noon, 1: noon})
    one.keep({1: noon - timedelta(days=1), 2: noon})
    one.keep({})
    assert one.positions() == {0: noon, 1: noon, 2: noon}, "it never goes back"
    runs = sorted((number % 2, uuid4()) for number in range(4))
    one.note(runs, [])
    one.note(runs[:1], runs[1:2])
    one.note([], [(0, uuid4())])
    assert sorted(one.open(10)) == sorted([runs[0], *runs[2:]])
    assert len(one.open(2)) == 2
    assert (other.positions(), other.open(10)) == ({}, [])
    one.close()
    other.close()


def test_it_locks_nothing_and_writes_nothing(town: Town, sagas: Runs) -> None:
    """An audit without --resume leaves both databases as they are, and waits for nobody's locks."""

    def versions(url: str, table: LiteralString) -> tuple[Any, ...] | None:
        with psycopg.connect(url) as connection:
            return connection.execute(f"SELECT count(*), max(xmin::text::bigint) FROM {table}").fetchone()

    def all_versions() -> list[tuple[Any, ...] | None]:
        ours: tuple[LiteralString, ...] = ("kasaga.saga", "kasaga.history", "kasaga.audit_open")
        return [versions(town.own, "kasaga_inbox.inbox"), *(versions(town.database, each) for each in ours)]

    before = all_versions()
    with psycopg.connect(town.own) as one, psycopg.connect(town.database) as two:
        one.execute("SELECT FROM kasaga_inbox.inbox FOR UPDATE")
        two.execute("SELECT FROM kasaga.saga FOR UPDATE")
        assert audited(town)[0] == 0
        assert audited(town, KASAGA_INBOX_GOODS_URL=town.own)[0] == 0
    assert all_versions() == before

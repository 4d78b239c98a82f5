"""What people do where payloads are encrypted: audits, drills, decoding, counting, mending."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path

import psycopg
import pytest

from audit.drill_shop import NAMESPACE as DRILL_SHOP
from audit.drill_shop import Order as DrillOrder
from audit.drill_shop import buying
from audit.in_process import kasaga
from cli.real_shop import Order, asking, purchase
from cli.test_late_real import Desk
from cli.town import PATIENCE, Town
from eventually import eventually
from kasaga.client import Client, SagaCompensated
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.store.base import SagaRow
from kasaga.store.postgres import PostgresStore
from kasaga_wire.errors import CannotOpen
from kasaga_wire.kafka import Record
from kasaga_wire.sealing import COMPRESS, COMPRESSED, KEYS, is_sealed, sealer_from
from kasaga_wire.topics import Topics
from payloads.sealed_shop import gift
from payloads.vault import NEW, OLD, SECRET, Vault
from raw_kafka import create_topic, flushes, producer


def buy(vault: Vault, *ids: str, keys: str = "", wish: str = "") -> None:
    async def scene() -> None:
        async with vault.client(keys=keys) as client:
            for each in ids:
                await client.start(purchase, Order(id=SECRET, wish=wish), id=each)

    asyncio.run(scene())


def dead_letter(vault: Vault, topic: str) -> Record:
    """The only one of a topic."""

    def found() -> Record:
        [record] = [each for each in vault.records() if each.topic == topic]
        return record

    return eventually(found, timeout=PATIENCE, interval=0.5)


def test_audits_compare_what_is_inside(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    buy(vault, "a-1", "a-2")
    buy(vault, "a-3", wish="refuse")
    vault.becomes("COMPLETED", "a-2")
    vault.becomes("COMPENSATED", "a-3")
    monkeypatch.setenv(KEYS, OLD)
    status, out, err = kasaga(vault, "audit", "-o", "json")
    assert (status, json.loads(out)["violations"]) == (0, 0), out + err
    inbox = f"goods={vault.own}"
    status, out, err = kasaga(vault, "audit", "--inbox", inbox, "-o", "json")
    assert (status, json.loads(out)["violations"]) == (0, 0), out + err
    with psycopg.connect(vault.own) as connection:  # another's result isn't taken for it, though it is sealed
        said = "UPDATE kasaga_inbox.inbox SET payload = other.payload FROM kasaga_inbox.inbox AS other"
        where = "WHERE inbox.id LIKE '%.1' AND other.id LIKE '%.2' AND inbox.outcome = other.outcome"
        changed = connection.execute(f"{said} {where}").rowcount  # pyright: ignore[reportArgumentType]
        assert changed
    status, out, err = kasaga(vault, "audit", "--inbox", inbox)
    assert status == 4
    assert "KSG-650" in out + err
    monkeypatch.setenv(KEYS, NEW)
    vault.environment[KEYS] = NEW
    status, out, err = kasaga(vault, "audit", "--inbox", inbox)
    assert "encrypted with key k1" in out + err


def retention_reads(store: PostgresStore, rows: list[SagaRow]) -> None:
    begun = store.beginnings([(row.shard, row.run_id) for row in rows])
    assert not any(is_sealed(each.body) for each in begun.values()), "to know who began a saga"
    kept = [each for row in rows for each in store.kept(row.shard, row.run_id)]
    assert all(is_sealed(each.body) for each in kept), "and archives what is encrypted as it is"


def test_payloads_are_decoded_and_keys_counted(vault: Vault) -> None:
    buy(vault, "a-1")
    vault.becomes("COMPLETED")
    both = f"{NEW},{OLD}"
    vault.again(service=both, orchestrator=both)
    vault.environment[KEYS] = both
    buy(vault, "a-2", keys=both)
    vault.becomes("COMPLETED", "a-2")

    commands = Topics(vault.namespace, vault.prefix).commands("goods")
    records = [each for each in vault.records() if each.topic == commands]
    place = f"{records[0].topic}/{records[0].partition}/{records[0].offset}"
    status, out, err = kasaga(vault, "payload", "decode", place, "-o", "json")
    assert status == 0, err
    told = json.loads(out)
    assert told["value"]["id"] == SECRET
    assert told["key_id"] in ("k1", "k2")
    assert told["headers"]["ce_type"].startswith("goods.")
    with psycopg.connect(vault.own) as connection:
        asked = "SELECT id, encode(payload, 'hex') FROM kasaga_inbox.inbox WHERE type = 'goods.take' LIMIT 1"
        row = connection.execute(asked).fetchone()
    assert row is not None
    status, out, err = kasaga(vault, "payload", "decode", "--reply", row[0], row[1])
    assert (status, json.loads(out)) == (0, {"shelf": f"shelf of {SECRET}"}), err
    status, out, err = kasaga(vault, "payload", "decode", "--command", row[0], row[1])
    assert (status, "KSG-114" in err, SECRET in out + err) == (1, True, False)
    status, out, err = kasaga(vault, "payload", "decode", f"{commands}/0/999999")
    assert (status, "KSG-524" in err) == (1, True), err

    status, out, err = kasaga(vault, "keys", "in-use", "--inbox", f"goods={vault.own}", "-o", "json")
    assert status == 0, err
    found = {each["key"]: each for each in json.loads(out)["keys"]}
    assert found["k2"]["first"]
    assert not found["k1"]["first"]
    for each in found.values():
        assert each["here"]
        assert each["rows"] == {"history": 3, "results": 1, "outbox": 0, "events": 0, "goods": 2}, out
    vault.environment[KEYS] = NEW
    status, out, err = kasaga(vault, "keys", "in-use")
    assert "missing" in out, out + err
    store = PostgresStore(vault.database, sealer=sealer_from(both))
    try:
        rows = [kept for each in ("a-1", "a-2") if (kept := store.saga(each)) is not None]
        assert len(rows) == 2
        retention_reads(store, rows)
    finally:
        store.close()


def test_a_locked_answer_waits_for_its_key_whatever_people_do(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEYS, OLD)
    vault.again(service=f"{NEW},{OLD}")
    buy(vault, "a-1", "a-2", wish="refuse")
    assert "key k2" in vault.becomes("STUCK", "a-1", CannotOpen.code)
    vault.becomes("STUCK", "a-2", CannotOpen.code)
    for action in ("retry", "cancel"):
        said = kasaga(vault, action, "a-1", "--reason", "why not")
        assert said[0] == 1, said
        assert vault.state() == ("STUCK", CannotOpen.code, vault.state()[2])
    said = kasaga(vault, "terminate", "a-2", "--reason", "enough", "--yes")
    assert said[0] == 0, said
    vault.again(orchestrator=f"{OLD},{NEW}")
    vault.becomes("COMPENSATED", "a-1")
    assert vault.state("a-2")[0] == "TERMINATED"


def test_a_participant_without_the_key_says_so_and_does_nothing(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEYS, f"{OLD},{NEW}")
    vault.again(service=NEW, orchestrator=f"{OLD},{NEW}")
    buy(vault, "a-1")

    def told() -> bool:
        said = kasaga(vault, "history", "a-1", "--full")
        assert "key k1" in said[1], said
        return True

    eventually(told, timeout=PATIENCE, interval=0.3)
    assert vault.state()[0] == "RUNNING"
    with psycopg.connect(vault.own) as connection:
        assert connection.execute("SELECT count(*) FROM kasaga_inbox.inbox").fetchone() == (0,)
    vault.again(service=f"{NEW},{OLD}")
    vault.becomes("COMPLETED")


def test_a_start_that_nobody_can_open_is_a_dead_letter_and_can_be_sent_again(vault: Vault) -> None:
    buy(vault, "a-1", keys=NEW)
    own = Topics(vault.namespace, vault.prefix)
    dead = dead_letter(vault, own.orchestrator_dead_letters)
    headers = {name: (value or b"").decode() for name, value in dead.headers}
    assert headers["kasaga_dlq_code"] == CannotOpen.code
    assert "key k2" in headers["kasaga_dlq_reason"]
    both = f"{OLD},{NEW}"
    vault.again(orchestrator=both)
    sender = producer(vault.kafka.bootstrap)
    kept: list[tuple[str, str | bytes | None]] = [
        (name, value) for name, value in dead.headers if not name.startswith("kasaga_dlq_")
    ]
    sender.produce(own.sagas, dead.value, dead.key, int(headers["kasaga_dlq_partition"]), headers=kept)
    assert flushes(sender)
    vault.becomes("COMPLETED")


@pytest.mark.parametrize("wish", ["", "refuse"])
def test_children_are_sealed_too(vault: Vault, wish: str) -> None:
    async def scene() -> None:
        async with vault.client() as client:
            handle = await client.start(gift, Order(id=SECRET, wish=wish), id="a-1", wait=True)
            if wish:
                with pytest.raises(SagaCompensated):
                    await handle.result(timeout=PATIENCE)
            else:
                assert await handle.result(timeout=PATIENCE) == f"shelf of {SECRET}"

    asyncio.run(scene())
    for record in vault.records():
        assert is_sealed(record.value) or record.value is None, record
    held = vault.tables()
    assert f"shelf of {SECRET}" not in held
    assert f"shelf of {SECRET}".encode().hex() not in held


def test_what_is_heard_is_sealed_from_there_on(vault: Vault) -> None:
    """Also what comes before a saga awaits it: it is kept, sealed, and counted by its key."""
    topics = [f"{vault.prefix}orders.{name}" for name in ("placed", "shipped")]
    log = vault.folder / "orchestrator.log"
    for topic in topics:
        create_topic(vault.kafka.bootstrap, topic, 1)
    eventually(lambda: all(f"{topic}/0 at" in log.read_text() for topic in topics), timeout=PATIENCE)
    sender = producer(vault.kafka.bootstrap)
    sender.produce(topics[1], json.dumps({"id": SECRET, "wish": "x"}).encode())
    assert flushes(sender)

    def kept() -> bool:
        status, out, err = kasaga(vault, "keys", "in-use", "-o", "json")
        assert status == 0, err
        return [each["rows"]["events"] for each in json.loads(out)["keys"]] == [1]

    eventually(kept, timeout=PATIENCE, interval=0.5)
    assert SECRET not in vault.tables()
    sender.produce(topics[0], json.dumps({"id": SECRET, "wish": "x"}).encode())
    assert flushes(sender)
    vault.becomes("COMPLETED", "heard-x")
    assert all(is_sealed(each.value) for each in vault.records() if each.value is not None)
    assert SECRET not in vault.tables()


def test_large_payloads_are_compressed_without_any_key(
    tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer
) -> None:
    names = [f"t{uuid.uuid4().hex[:8]}" for _ in range(2)]
    vault = Vault(tmp_path, kafka, *[postgres.create_database(name) for name in names])
    vault.environment[COMPRESS] = "1000"
    try:
        vault.begin_with("")
        large = "a chair, " * 20_000

        async def scene() -> None:
            async with Client(vault.namespace, vault.kafka, topic_prefix=vault.prefix) as client:
                done = await client.start(purchase, Order(id=large), id="a-1", wait=True)
                assert (await done.result(timeout=PATIENCE)).order == large  # plain starts are as good
                await client.start(asking, Order(id="small"), id="a-2")

        asyncio.run(scene())
        commands = Topics(vault.namespace, vault.prefix).commands("goods")
        for record in vault.records():
            value = record.value or b""
            if record.topic == commands:
                assert is_sealed(value)
                assert value[2] == COMPRESSED
                assert len(value) < 2_000
        with psycopg.connect(vault.database) as connection:
            asked = "SELECT max(length(body)), max(length(result)) FROM kasaga.history, kasaga.saga"
            row = connection.execute(asked).fetchone()
        assert row is not None
        assert max(row) < 5_000
    finally:
        vault.end()
        for name in names:
            postgres.drop_database(name)


class SealedDrill(Town):
    shop = "audit.drill_shop"
    namespace = DRILL_SHOP


def test_a_drill_opens_and_seals(
    tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEYS, OLD)
    names = [f"t{uuid.uuid4().hex[:8]}" for _ in range(2)]
    town = SealedDrill(tmp_path, kafka, *[postgres.create_database(name) for name in names])
    town.environment |= {KEYS: OLD, "OUTSIDE": str(tmp_path / "outside")}
    try:
        town.begin()

        async def bought() -> None:
            async with Client(town.namespace, town.kafka, topic_prefix=town.prefix) as client:
                for each in ("o-1", "o-raises"):
                    await client.run(buying, DrillOrder(id=each), id=each, timeout=PATIENCE)

        asyncio.run(bought())
        environment = {**town.environment, "KASAGA_DATABASE_URL": town.own, "KASAGA_DRILL": "1"}
        participant = town.process("drill", ["-m", "audit.drill_shop"], environment)
        town.running.append(participant)
        log = tmp_path / "drill.log"
        eventually(lambda: log.read_text().count("reads partitions") >= 4, timeout=PATIENCE)
        status, out, err = kasaga(town, "drill", "audit.drill_shop:app", "-o", "json")
        assert status == 1, out + err
        found = {each["compensation"]: each for each in json.loads(out)["compensations"]}
        assert (found["stock.release"]["works"], found["stock.release"]["fails"]) == (1, 1)
        assert found["stock.release"]["reasons"][0]["why"] == "RuntimeError: the shelf of o-raises is gone"
    finally:
        town.end()
        for name in names:
            postgres.drop_database(name)


def test_late_answers_are_sealed(tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer) -> None:
    names = [f"t{uuid.uuid4().hex[:8]}" for _ in range(2)]
    desk = Desk(tmp_path, kafka, *[postgres.create_database(name) for name in names])
    desk.environment[KEYS] = OLD
    try:
        desk.begin()
        desk.start("oslo")
        desk.deferred("oslo")
        assert desk.desk("look", "oslo", "anna").status == 0
        desk.kill_service()
        assert desk.desk("approve", "oslo", SECRET).status == 0
        assert desk.ended("oslo", "COMPLETED")["result"] == f"approved by {SECRET}"
        again = desk.desk("approve", "oslo", SECRET)
        assert again.status == 0, again.err
        assert "KSG-454" in desk.desk("approve", "oslo", "eve").err
        with psycopg.connect(desk.own) as connection:
            rows = connection.execute("SELECT payload FROM kasaga_inbox.inbox").fetchall()
        assert rows
        assert all(is_sealed(payload) for (payload,) in rows)
    finally:
        desk.end()
        for name in names:
            postgres.drop_database(name)

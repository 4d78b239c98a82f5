"""Payloads that are encrypted, on a real Kafka and a real Postgres: nothing of them is found in either.

Keys change while sagas wait, and one that is missing is missed by name.
"""

from __future__ import annotations

import asyncio
import json
from signal import SIGKILL

import psycopg
import pytest

from audit.in_process import kasaga
from cli.real_shop import Approval, Note, Order, asking, purchase
from cli.town import PATIENCE
from eventually import eventually
from kasaga.client import SagaCompensated
from kasaga_wire.errors import CannotOpen
from kasaga_wire.sealing import KEYS, is_sealed
from payloads.vault import NEW, OLD, SECRET, Vault


def test_nothing_of_a_payload_is_found_anywhere(vault: Vault) -> None:
    async def scene() -> None:
        async with vault.client() as client:
            done = await client.start(purchase, Order(id=SECRET), id="a-1", wait=True)
            assert (await done.result(timeout=PATIENCE)).shelf == f"shelf of {SECRET}"
            again = await client.start(purchase, Order(id=SECRET), id="a-1", wait=True)
            assert (await again.result(timeout=PATIENCE)).order == SECRET  # the same start, other bytes
            undone = await client.start(purchase, Order(id=SECRET, wish="refuse"), id="a-2", wait=True)
            with pytest.raises(SagaCompensated):
                await undone.result(timeout=PATIENCE)
            asked = await client.start(asking, Order(id=SECRET), id="a-3", wait=True)
            assert await client.update("a-3", "note", Note(text=SECRET), int) == 1
            assert await client.query("a-3", "notes", list[str]) == [SECRET]
            await client.signal("a-3", "approved", Approval(by=SECRET))
            assert await asked.result(timeout=PATIENCE) == SECRET

    asyncio.run(scene())
    records = vault.records()
    assert len(records) > 15
    for record in records:
        assert SECRET.encode() not in (record.value or b""), record
        assert is_sealed(record.value) or record.value is None, record
    held = vault.tables()
    assert "\\\\xc14b" in held or "\\xc14b" in held
    assert SECRET not in held
    assert SECRET.encode().hex() not in held
    assert SECRET not in vault.logs()
    assert OLD.partition("=")[2] not in vault.logs()


def test_people_with_the_key_read_it_and_others_are_told_which_one(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with vault.client() as client:
            await (await client.start(purchase, Order(id=SECRET), id="a-1", wait=True)).result(PATIENCE)

    asyncio.run(scene())
    monkeypatch.setenv(KEYS, OLD)
    status, out, err = kasaga(vault, "describe", "a-1", "-o", "json")
    assert status == 0, err
    assert json.loads(out)["result"]["order"] == SECRET
    monkeypatch.setenv(KEYS, NEW)
    status, out, err = kasaga(vault, "describe", "a-1")
    assert SECRET not in out
    assert "encrypted with key k1" in out, out + err


def test_keys_change_while_sagas_wait(vault: Vault) -> None:
    async def begin() -> None:
        async with vault.client() as client:
            for number in range(3):
                await client.start(asking, Order(id=SECRET), id=f"a-{number}")
            await client.signal("a-0", "approved", Approval(by="old"), keep=True)

    async def end() -> None:
        async with vault.client(keys=f"{NEW},{OLD}") as client:
            for number in (1, 2):
                await client.signal(f"a-{number}", "approved", Approval(by="new"))
            for number, who in enumerate(("old", "new", "new")):
                assert await client.handle(asking, f"a-{number}").result(timeout=PATIENCE) == who

    asyncio.run(begin())
    vault.again(service=f"{OLD},{NEW}")
    vault.again(orchestrator=f"{OLD},{NEW}", signal=SIGKILL)
    vault.again(orchestrator=f"{NEW},{OLD}", service=f"{NEW},{OLD}", signal=SIGKILL)
    asyncio.run(end())


def test_a_missing_key_is_missed_by_name_and_nothing_is_lost(vault: Vault) -> None:
    """The service answers with a key that the orchestrator hasn't got; when it has, the saga goes on."""
    vault.again(service=f"{NEW},{OLD}")

    async def begin() -> None:
        async with vault.client() as client:
            await client.start(purchase, Order(id=SECRET), id="a-1")

    asyncio.run(begin())

    def told() -> bool:
        with psycopg.connect(vault.database) as connection:
            row = connection.execute("SELECT state, code, remedy FROM kasaga.saga").fetchone()
        assert row is not None
        assert row[:2] == ("STUCK", CannotOpen.code), vault.logs()
        assert "key k2" in row[2]
        return True

    eventually(told, timeout=PATIENCE)
    vault.again(orchestrator=f"{OLD},{NEW}")

    async def end() -> None:
        async with vault.client(keys=f"{OLD},{NEW}") as client:
            result = await client.handle(purchase, "a-1").result(timeout=PATIENCE)
            assert result.shelf == f"shelf of {SECRET}"

    asyncio.run(end())

"""Payloads that are objects, on real servers: Kafka has claims, and whatever a claim names is there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from signal import SIGKILL

import pytest

from audit.in_process import kasaga
from cli.real_shop import Order, purchase
from cli.town import PATIENCE
from kasaga.client import SagaCompensated
from kasaga_wire.claims import BYTES, URL, claims_from, fetch, is_claim
from kasaga_wire.envelope import split_command_id
from kasaga_wire.kafka import Record
from kasaga_wire.sealing import KEYS
from payloads.vault import OLD, Vault

LARGE = "chair-4711 " * 20_000


def _command(record: Record) -> str:
    return next((value or b"").decode() for name, value in record.headers if name == "ce_kasagacommand")


def test_kills_leave_no_claim_to_what_is_not_there(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {URL: f"file://{tmp_path}/objects", BYTES: "5000"}
    vault.environment |= settings
    vault.again(orchestrator=OLD, service=OLD)

    async def begin(first: int, most: int) -> None:
        async with vault.client() as client:
            for number in range(first, most):
                wish = "refuse" if number % 3 == 2 else ""
                await client.start(purchase, Order(id=LARGE, wish=wish), id=f"a-{number}")

    async def end() -> None:
        async with vault.client() as client:
            for number in range(12):
                done = client.handle(purchase, f"a-{number}")
                if number % 3 == 2:
                    with pytest.raises(SagaCompensated):
                        await done.result(timeout=PATIENCE)
                else:
                    assert (await done.result(timeout=PATIENCE)).shelf == f"shelf of {LARGE}"

    asyncio.run(begin(0, 6))
    vault.again(orchestrator=OLD, signal=SIGKILL)
    asyncio.run(begin(6, 12))
    vault.again(service=OLD, signal=SIGKILL)
    asyncio.run(end())

    claims = claims_from(settings[URL])
    found = [record for record in vault.records() if is_claim(record.value)]
    kinds = {"replies" in record.topic for record in found}
    assert kinds == {True, False}
    for record in found:
        assert fetch(claims, _command(record), record.value or b"")
    runs = {split_command_id(_command(record))[0] for record in found}
    assert {path.name for path in (tmp_path / "objects").iterdir()} >= runs

    for name in (KEYS, URL, BYTES):
        monkeypatch.setenv(name, vault.environment[name])
    record = found[0]
    place = f"{record.topic}/{record.partition}/{record.offset}"
    status, out, err = kasaga(vault, "payload", "decode", place, "-o", "json")
    assert status == 0, err
    assert LARGE in json.dumps(json.loads(out)["value"])

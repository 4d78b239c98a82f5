"""Signals, updates and queries over HTTP."""

from __future__ import annotations

import httpx
import pytest

from api.desk_api import Desk, is_problem
from cli.tales import Tale
from kasaga.client import sending
from kasaga.errors import MailboxFull

SAGA = "/api/v1/sagas/o-3"


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.keep(Tale(3).reserved())
    return made


def test_a_signal_with_a_key(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        said = await caller.post(
            f"{SAGA}/signals/approved", json={"value": {"by": "é"}}, headers={"Idempotency-Key": "k-1"}
        )
        assert said.status_code == 200, said.text
        assert said.json() == {"saga_id": "o-3", "name": "approved", "key": "k-1", "outcome": "accepted"}
        ((envelope, value),) = desk.owner.messages
        assert (envelope.key, envelope.name, value) == ("k-1", "approved", '{"by":"é"}'.encode())

    desk.play(scene)


def test_a_key_that_is_not_printable_is_refused_as_the_document_says(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        for key in (b"a\tb", "é".encode("latin-1")):
            said = await caller.post(
                f"{SAGA}/signals/approved", json={"value": 1}, headers=[(b"Idempotency-Key", key)]
            )
            is_problem(said, 422, "KSG-545")
            assert "Idempotency-Key" in said.text
        assert not desk.owner.messages

    desk.play(scene)


def test_an_update_and_a_query(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        said = await caller.post(f"{SAGA}/updates/move", json={"value": 1})
        assert said.json() == {"saga_id": "o-3", "name": "move", "result": {"done": True}}
        assert (await caller.get(f"{SAGA}/queries/notes")).json()["result"] == ["a"]

    desk.play(scene)


def test_a_refusal_is_a_conflict_with_its_code(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        desk.owner.refuse, desk.owner.refuse_code = "too much waits", MailboxFull.code
        is_problem(await caller.post(f"{SAGA}/signals/approved", json={}), 409, "KSG-234")

    desk.play(scene)


def test_nobody_answers(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        desk.owner.deaf = 99
        said = await caller.post(f"{SAGA}/signals/approved?wait=1", json={})
        assert (said.status_code, said.json()["outcome"]) == (202, "sent")
        named = {"Idempotency-Key": "move-1"}
        said = await caller.post(f"{SAGA}/updates/move?wait=1", json={}, headers=named)
        assert (said.status_code, said.json()["outcome"], said.json()["key"]) == (202, "sent", "move-1")
        is_problem(await caller.get(f"{SAGA}/queries/where?wait=1"), 503, "KSG-505")

    desk.play(scene)


def test_unknown_sagas_and_names_that_can_t_be(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "UNREAD_SECONDS", 0.05)

    async def scene(caller: httpx.AsyncClient) -> None:
        is_problem(await caller.post("/api/v1/sagas/nobody/signals/go", json={}), 404, "KSG-504")
        is_problem(await caller.post(f"{SAGA}/signals/a%20b", json={}), 422, "KSG-545")
        is_problem(await caller.post(f"{SAGA}/signals/a", json={"vale": 1}), 422, "KSG-545")

    desk.play(scene)

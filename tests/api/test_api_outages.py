"""Postgres or Kafka are away, from the start or in the middle, and come back."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from api.desk_api import INPUT, Desk, connected, is_problem, settings, soon, tale
from kasaga.api import backend, ends
from kasaga.client.link import Outgoing
from kasaga.store.errors import NotMigrated, StoreUnavailable
from kasaga.store.memory import MemoryStore
from kasaga_wire.errors import KafkaUnavailable

BODY = {"saga_id": "o-1", "name": "payment", "input": INPUT}


class Faults:
    """What the store says to everything."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __call__(self, point: str) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def desk(faults: Faults) -> Desk:
    made = Desk(store=MemoryStore(namespace="orders", fault=faults))
    made.keep(tale(1).reserved().completed())
    return made


def test_postgres_goes_and_comes_back(desk: Desk, faults: Faults) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        faults.error = StoreUnavailable("connection to server at secret-host failed")
        for said in (
            await caller.get("/api/v1/sagas"),
            await caller.get("/api/v1/sagas/o-1"),
            await caller.get("/api/v1/sagas/o-1/result"),
            await caller.post("/api/v1/sagas", json=BODY),
        ):
            told = is_problem(said, 503, "KSG-301")
            assert said.headers["retry-after"]
            assert "secret-host" not in said.text
            assert "Postgres" in told["detail"]
        assert desk.starts == []
        said = await caller.get("/ready")
        assert (said.status_code, "secret-host" in said.text) == (503, False)
        assert (await caller.get("/live")).status_code == 200
        faults.error = None
        assert (await caller.get("/api/v1/sagas/o-1")).status_code == 200
        assert (await caller.get("/ready")).status_code == 200

    desk.play(scene)


def test_an_action_needs_no_postgres(desk: Desk, faults: Faults) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        faults.error = StoreUnavailable("gone")
        assert (await caller.post("/api/v1/sagas/o-1/cancel", json={})).status_code == 200
        faults.error = None

    desk.play(scene)


def test_who_waits_goes_on_waiting(desk: Desk, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "AWAY_SECONDS", 0.05)

    async def scene(caller: httpx.AsyncClient) -> None:
        waiting = asyncio.create_task(caller.get("/api/v1/sagas/o-2/result", params={"wait": 10}))
        backend = desk.served
        await soon(lambda: backend.ends.taken)
        faults.error = StoreUnavailable("gone")
        await asyncio.sleep(0.2)
        assert not waiting.done()
        faults.error = None
        desk.keep(tale(2).reserved().completed())
        assert (await waiting).json()["state"] == "COMPLETED"

    desk.play(scene)


def test_neither_is_there_at_the_start(desk: Desk, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_brokers() -> tuple[int, int]:
        raise KafkaUnavailable("no broker at secret-host answers")

    found = desk.owner.open
    faults.error = StoreUnavailable("gone")
    monkeypatch.setattr(desk.owner, "open", no_brokers)

    async def scene() -> None:
        async with desk.serving() as caller:
            is_problem(await caller.get("/api/v1/sagas/o-1"), 503, "KSG-301")
            assert (await caller.get("/ready")).status_code == 503
            faults.error = None
            assert (await caller.get("/api/v1/sagas/o-1")).status_code == 200
            said = await caller.get("/ready")
            assert (said.status_code, "Kafka" in said.text, "secret-host" in said.text) == (503, True, False)
            for path, body in (("", {**BODY, "saga_id": "o-2"}), ("/o-1/retry", {})):
                told = is_problem(
                    said := await caller.post(f"/api/v1/sagas{path}", json=body), 503, "KSG-143"
                )
                assert said.headers["retry-after"]
                assert "nothing was sent" in told["detail"]
            desk.owner.open = found  # type: ignore[method-assign]
            await connected(caller)
            assert (await caller.post("/api/v1/sagas", json={**BODY, "saga_id": "o-2"})).status_code == 202

    asyncio.run(asyncio.wait_for(scene(), 20))


def test_a_database_without_tables_says_so(desk: Desk, faults: Faults) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        faults.error = NotMigrated("the database lacks its namespace")
        told = is_problem(await caller.get("/api/v1/sagas"), 503, "KSG-302")
        assert "kasaga migrate" in told["remedy"]
        faults.error = None

    desk.play(scene)


def test_a_database_of_another_namespace_is_not_read() -> None:
    desk = Desk(settings=settings(namespace="billing"))
    desk.keep(tale(1).reserved())

    async def scene() -> None:
        async with desk.serving() as caller:
            is_problem(await caller.get("/api/v1/sagas/o-1"), 503, "KSG-303")
            is_problem(await caller.get("/api/v1/definitions"), 503, "KSG-303")
            assert "billing" in (await caller.get("/ready")).text

    asyncio.run(asyncio.wait_for(scene(), 20))


def test_what_kafka_does_not_take_is_not_heaped_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "MAX_UNCONFIRMED_BYTES", 100)
    desk.settings = settings(confirm_seconds=0.05)
    taken: list[Outgoing] = []

    def deaf(outgoing: Outgoing) -> bool:
        taken.append(outgoing)
        return True

    async def start(caller: httpx.AsyncClient, number: int) -> httpx.Response:
        return await caller.post("/api/v1/sagas", json={**BODY, "saga_id": f"o-{number}"})

    async def scene(caller: httpx.AsyncClient) -> None:
        assert (await start(caller, 2)).status_code == 202
        desk.owner.confirm = deaf
        codes = [(await start(caller, number)).json()["code"] for number in range(3, 20)]
        assert codes[0] == "KSG-501"
        is_problem(said := await start(caller, 20), 503, "KSG-143")
        assert said.headers["retry-after"]
        assert codes.count("KSG-501") == len(taken) < 17
        desk.owner.confirm = lambda _: None
        for outgoing in taken:
            outgoing.done(None)
        await asyncio.sleep(0)
        assert (await start(caller, 21)).status_code == 202

    desk.play(scene)

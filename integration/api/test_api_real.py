"""The HTTP API as a process, with a real Kafka, a real Postgres, an orchestrator and a service."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from signal import SIGTERM

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from api.served import Served, serving
from cli.real_shop import Order, purchase
from cli.town import PATIENCE, Town, town
from eventually import eventually
from kasaga.engine.model import Started
from kasaga.lookup import find, first_record
from kasaga.store.postgres import PostgresStore

__all__ = ["town"]

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def api(town: Town) -> Generator[Served]:
    with serving(town) as made:
        yield made


@pytest.fixture
def broken(town: Town) -> Generator[None]:
    town.broken.touch()
    yield
    town.broken.unlink(missing_ok=True)


def problem(said: httpx.Response, status: int, code: str) -> None:
    assert (said.status_code, said.json()["code"]) == (status, code), said.text
    assert said.headers["content-type"] == "application/problem+json"


def test_from_start_to_result(api: Served) -> None:
    said = api.start("a-1", wait=30)
    assert said.status_code == 200, said.text
    assert said.json()["result"] == {"order": "a-1", "shelf": "shelf of a-1"}
    again = api.start("a-1", wait=30)
    assert again.json() == said.json()
    problem(api.start("a-1", "other"), 409, "KSG-502")

    told = api.get("sagas/a-1").json()
    assert (told["state"], told["input"]) == ("COMPLETED", {"id": "a-1", "wish": ""})
    names = [entry["name"] for entry in api.get("sagas/a-1/history").json()["history"]]
    assert names == ["purchase", "goods.take", "goods.pay", "COMPLETED"]
    undone = api.start("a-2", "refuse", wait=30)
    assert (undone.status_code, undone.json()["state"]) == (200, "COMPENSATED")
    assert undone.json()["reason"] == "goods.pay refused: the card is blocked"
    listed = api.get("sagas", id_prefix="a-", limit=1).json()
    assert [saga["saga_id"] for saga in listed["sagas"]] == ["a-2"]
    rest = api.get("sagas", id_prefix="a-", limit=1, cursor=listed["next_cursor"]).json()
    assert [saga["saga_id"] for saga in rest["sagas"]] == ["a-1"]
    assert rest["next_cursor"] is None
    assert api.get("counts", id_prefix="a-").json()["total"] == 2
    problem(api.get("sagas/a-9"), 404, "KSG-504")


def test_it_is_the_saga_that_a_program_with_the_code_starts(api: Served) -> None:
    """The bytes of the input are the same, whoever encodes them."""

    async def scene() -> None:
        async with api.town.client() as client:
            first = await client.start(purchase, Order(id="b-1", wish="wait"), id="b-1")
            eventually(lambda: api.get("sagas/b-1").status_code == 200)
            said = api.start("b-1", "wait")
            assert (said.status_code, said.json()["run_id"]) == (202, first.run_id)
            run_id = api.start("b-2").json()["run_id"]
            again = await client.start(purchase, Order(id="b-2"), id="b-2", wait=True)
            assert (await again.result(timeout=PATIENCE)).order == "b-2"
            assert again.run_id == run_id

    asyncio.run(scene())
    assert api.act("b-1", "cancel", reason="enough").status_code == 200


def test_what_can_be_started_is_known_without_the_code(api: Served) -> None:
    (told,) = (each for each in api.get("definitions").json()["definitions"] if each["name"] == "purchase")
    assert (told["version"], told["newest"]) == (1, True)
    assert told["input"]["required"] == ["id"]
    body = {"saga_id": "c-1", "name": "purchase", "input": {"id": 7}}
    problem(said := api.caller.post("/api/v1/sagas", json=body), 422, "KSG-110")
    assert said.json()["fields"] == [
        {"field": "body.input.id", "reason": "body.input.id: a whole number where text is wanted"}
    ]
    problem(api.get("sagas/c-1"), 404, "KSG-504")


def test_a_stuck_saga_and_what_people_do_about_it(api: Served, broken: None) -> None:
    for saga_id in ("s-1", "s-2", "s-3"):
        said = api.start(saga_id, "refuse", wait=30)
        assert (said.status_code, said.json()["state"], said.json()["code"]) == (202, "STUCK", "KSG-220")
    assert [saga["saga_id"] for saga in api.get("sagas", state="STUCK", code="KSG-220").json()["sagas"]] == [
        "s-3",
        "s-2",
        "s-1",
    ]
    assert api.get("sagas/s-1").json()["waits_for"][0]["name"] == "goods.give_back"

    skipped = api.act("s-1", "skip", reason="worth nothing", by="anna")
    assert (skipped.status_code, skipped.json()["outcome"]) == (200, "applied"), skipped.text
    resolved = api.act("s-2", "resolve", reason="by hand")
    assert resolved.json()["state"] == "COMPENSATED"
    for saga_id, with_exceptions in (("s-1", True), ("s-2", True)):
        ended = api.get(f"sagas/{saga_id}/result", wait=30).json()
        assert (ended["state"], ended["with_exceptions"]) == ("COMPENSATED", with_exceptions)
    acts = [entry for entry in api.get("sagas/s-1/history").json()["history"] if entry["kind"] == "action"]
    assert [(act["name"], act["by"], act["reason"]) for act in acts] == [("skip", "anna", "worth nothing")]

    api.town.broken.unlink()
    key = {"Idempotency-Key": "5f0c"}
    for _ in range(2):  # the same one twice: carried out once, and answered twice
        said = api.caller.post("/api/v1/sagas/s-3/retry", json={"reason": "open again"}, headers=key)
        assert said.status_code == 200, said.text
        eventually(lambda: api.get("sagas/s-3/result").status_code == 200, timeout=PATIENCE)
    history = api.get("sagas/s-3/history").json()["history"]
    assert [entry["by"] for entry in history if entry["kind"] == "action"] == ["http-api"]
    problem(api.act("s-3", "cancel"), 409, "KSG-230")
    problem(api.act("nobody", "retry"), 404, "KSG-504")


def test_many_at_once(api: Served) -> None:
    with ThreadPoolExecutor(40) as pool:
        told = [each.result() for each in [pool.submit(api.start, f"m-{n}", wait=30) for n in range(200)]]
    assert {said.status_code for said in told} == {200}
    assert [said.json()["result"]["order"] for said in told] == [f"m-{number}" for number in range(200)]


def test_a_trace_goes_on_and_the_log_names_it(api: Served) -> None:
    body = {"saga_id": "t-1", "name": "purchase", "input": {"id": "t-1"}}
    said = api.caller.post("/api/v1/sagas", json=body, params={"wait": 30}, headers={"traceparent": TRACE})
    assert said.status_code == 200
    store = PostgresStore(api.town.database)
    record = first_record(store, find(store, "t-1"))
    assert record is not None
    assert isinstance(record.event, Started)
    assert record.event.traceparent == TRACE
    assert record.event.source.startswith("/kasaga/clients/api@")
    lines = [json.loads(line) for line in api.log().splitlines()]
    (line,) = [line for line in lines if line.get("saga_id") == "t-1"]
    assert line["trace_id"] == TRACE.split("-")[1]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/api/v1/sagas", 200)


def test_probes_and_metrics(api: Served) -> None:
    assert api.probe("/live").status_code == 200
    assert api.probe("/ready").json()["namespace"] == "clishop"
    assert api.start("probed-1", "wait").status_code == 202
    shown = api.probe("/metrics").text
    assert re.search(
        r'kasaga_api_requests_total\{method="POST",route="/api/v1/sagas",status="202"\} [1-9]', shown
    )
    assert api.act("probed-1", "cancel").status_code == 200
    assert 'kasaga_api_records_total{record="start",result="confirmed"}' in shown
    assert "process_open_fds" in shown
    assert api.caller.get("/metrics").status_code == 404


def test_connections_to_postgres_are_bounded(api: Served) -> None:
    with ThreadPoolExecutor(40) as pool:
        for asked in [pool.submit(api.get, "sagas") for _ in range(200)]:
            assert asked.result().status_code == 200
    with psycopg.connect(api.town.database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kasaga api'"
            " AND datname = current_database()"
        ).fetchone()
    assert row is not None
    # One for each of the eight readers, and the one that those who wait share.
    assert 1 <= row[0] <= 9


def test_a_role_that_may_only_read_is_enough(town: Town) -> None:
    """The API writes no saga: here it couldn't."""
    role = f"reader_{town.prefix.rstrip('.')}"
    with psycopg.connect(town.database, autocommit=True) as connection:
        for statement in (
            "CREATE ROLE {} LOGIN PASSWORD 'reader'",
            "GRANT USAGE ON SCHEMA kasaga TO {}",
            "GRANT SELECT ON ALL TABLES IN SCHEMA kasaga TO {}",
        ):
            connection.execute(sql.SQL(statement).format(sql.Identifier(role)))
        url = make_conninfo(town.database, user=role, password="reader")
        try:
            with serving(town, "reading", KASAGA_DATABASE_URL=url) as api:
                said = api.start("ro-1", "refuse", wait=30)
                assert (said.status_code, said.json()["state"]) == (200, "COMPENSATED"), said.text
                for path in ("sagas", "counts", "definitions", "sagas/ro-1", "sagas/ro-1/history"):
                    assert api.get(path).status_code == 200, path
                problem(api.act("ro-1", "retry"), 409, "KSG-230")
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


def test_the_process_ends_in_order(town: Town) -> None:
    with serving(town, "ending") as api, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.start, "e-1", "wait", wait=50)
        eventually(lambda: api.get("sagas/e-1").status_code == 200)
        api.process.stop(SIGTERM, PATIENCE)
        said = waiting.result(PATIENCE)
        said_state = said.json()["state"]
        assert (said.status_code, said_state in ("ACCEPTED", "RUNNING")) == (202, True), said_state
        assert api.process.ended() == 0
        assert "Traceback" not in api.log()


def test_another_process_knows_what_became_of_a_killed_ones_start(town: Town, api: Served) -> None:
    with serving(town, "killed") as other, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.start, "k-1", "wait", wait=50)
        eventually(lambda: api.get("sagas/k-1").status_code == 200)
        other.process.kill()
        with pytest.raises(httpx.TransportError):
            waiting.result(PATIENCE)
        run_id = api.get("sagas/k-1").json()["run_id"]
        said = api.start("k-1", "wait")
        assert (said.status_code, said.json()["run_id"]) == (202, run_id)
        assert api.act("k-1", "cancel").status_code == 200


def test_an_address_in_use_ends_the_command(api: Served) -> None:
    said = api.town.kasaga("api", "--port", str(api.port))
    assert (said.status, said.err.startswith("kasaga: KSG-550")) == (1, True), said.err
    said = api.town.kasaga("api", "--host", "0.0.0.0")
    assert (said.status, said.err.startswith("kasaga: KSG-541")) == (1, True), said.err

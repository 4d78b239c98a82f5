"""Starting sagas over HTTP: once per id, by the author's schema and bounds, without the author's code."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Annotated, Any

import httpx
import jsonschema
import pydantic
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from api.desk_api import INPUT, Desk, is_problem, settings, soon, tale
from cli.tales import ORDER, STOCKS
from kasaga.api import payloads
from kasaga.client.link import Outgoing
from kasaga.orchestrator import announce
from kasaga.store.base import DefinitionRow
from kasaga_wire.codec import Schemas, codec_for, to_json
from kasaga_wire.errors import DeliveryError
from wire.samples import whole_models

BODY = {"saga_id": "o-1", "name": "payment", "input": INPUT}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def post(caller: httpx.AsyncClient, body: Any = BODY, **query: Any) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    return await caller.post("/api/v1/sagas", content=json.dumps(body), params=query, headers=headers)


def test_a_start_is_the_record_that_the_authors_code_would_send(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        headers = {"traceparent": TRACE, "tracestate": "vendor=1"}
        said = await caller.post("/api/v1/sagas", json=BODY, headers=headers)
        assert said.status_code == 202, said.text
        assert said.headers["location"] == "/api/v1/sagas/o-1"
        told = said.json()
        assert (told["saga_id"], told["name"], told["version"], told["state"]) == (
            "o-1",
            "payment",
            1,
            "ACCEPTED",
        )
        ((envelope, value),) = desk.starts
        assert told["run_id"] == envelope.run_id
        assert (envelope.saga, envelope.saga_version, envelope.saga_id) == ("payment", 1, "o-1")
        assert (envelope.traceparent, envelope.tracestate) == (TRACE, "vendor=1")
        assert envelope.source == "/kasaga/clients/api"
        assert envelope.reply_to is None
        assert value == ORDER

    desk.play(scene)


def test_the_end_can_be_waited_for(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        desk.becomes(tale(1).reserved().completed())
        said = await post(caller, wait=10)
        assert (said.status_code, said.json()["state"]) == (200, "COMPLETED")
        assert said.json()["result"] == {"shelf": "A7"}

    desk.play(scene)


def test_a_saga_that_gets_stuck_is_not_waited_for_any_longer(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        desk.becomes(tale(1).reserved().parked())
        said = await post(caller, wait=60)
        assert (said.status_code, said.json()["state"], said.json()["code"]) == (202, "STUCK", "KSG-207")

    desk.play(scene)


def test_waiting_has_an_end(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        unseen = await post(caller, wait=0.1)
        assert (unseen.status_code, unseen.json()["state"]) == (202, "ACCEPTED")
        desk.becomes(tale(2).reserved())
        runs = await post(caller, {**BODY, "saga_id": "o-2"}, wait=0.2)
        assert (runs.status_code, runs.json()["state"]) == (202, "RUNNING")

    desk.play(scene)


def test_the_same_start_again_is_the_saga_that_there_is(desk: Desk) -> None:
    desk.keep(tale(1).reserved().completed(), tale(2).reserved())

    async def scene(caller: httpx.AsyncClient) -> None:
        done = await post(caller)
        assert (done.status_code, done.json()["state"], done.json()["result"]) == (
            200,
            "COMPLETED",
            {"shelf": "A7"},
        )
        runs = await post(caller, {**BODY, "saga_id": "o-2"})
        assert (runs.status_code, runs.json()["state"]) == (202, "RUNNING")
        waited = await post(caller, {**BODY, "saga_id": "o-2"}, wait=0.1)
        assert (waited.status_code, waited.json()["run_id"]) == (202, runs.json()["run_id"])
        assert desk.starts == []

    desk.play(scene)


@pytest.mark.parametrize("change", [{"input": {"id": "o-1", "lines": 3}}, {"name": "refund"}])
def test_another_saga_with_the_same_id_is_refused(desk: Desk, change: dict[str, Any]) -> None:
    desk.keep(tale(1).reserved())

    async def scene(caller: httpx.AsyncClient) -> None:
        is_problem(await post(caller, {**BODY, **change}), 409, "KSG-502")
        assert desk.starts == []

    desk.play(scene)


def test_another_start_that_came_first_in_the_meantime(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        desk.becomes(tale(1).reserved().completed())
        is_problem(await post(caller, {**BODY, "input": {"id": "o-1", "lines": 7}}, wait=10), 409, "KSG-502")

    desk.play(scene)


def test_the_same_input_after_its_schema_has_changed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start is repeated across a deploy that gave the input another field."""
    monkeypatch.setattr(payloads, "DEFINITIONS_SECONDS", 0.0)
    desk.keep(tale(1).reserved())

    class Order(BaseModel):
        id: str
        lines: int
        note: str = ""

    newer = codec_for(Order, name="payment.input")
    assert newer.schema.json != desk.store.schemas()[desk.store.definitions()[0].input]
    desk.store.put_schemas({newer.schema.hash: newer.schema.json})
    desk.store.announce([DefinitionRow("payment", 1, newer.schema.hash, STOCKS.schema.hash)])

    async def scene(caller: httpx.AsyncClient) -> None:
        assert (await post(caller)).json()["state"] == "RUNNING"
        is_problem(await post(caller, {**BODY, "input": {**INPUT, "note": "x"}}), 409, "KSG-502")
        fresh = {**BODY, "saga_id": "o-9", "input": {**INPUT, "note": "x"}}
        assert (await post(caller, fresh)).status_code == 202

    desk.play(scene)
    ((_, value),) = desk.starts
    assert value == newer.encode(Order(id="o-1", lines=2, note="x"))


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"name": "payment", "input": INPUT}, 422, "KSG-545", "body.saga_id"),
        ({**BODY, "saga_id": ""}, 422, "KSG-545", "body.saga_id"),
        ({**BODY, "saga_id": "x" * 257}, 422, "KSG-545", "body.saga_id"),
        ({**BODY, "saga_id": "a\nb"}, 422, "KSG-508", None),
        ({**BODY, "saga_id": "a\u0000b"}, 422, "KSG-508", None),
        ({**BODY, "name": "pay ment"}, 422, "KSG-545", "body.name"),
        ({**BODY, "version": 0}, 422, "KSG-545", "body.version"),
        ({**BODY, "versoin": 1}, 422, "KSG-545", "body.versoin"),
        ({"saga_id": "o-1", "name": "payment"}, 422, "KSG-545", "body.input"),
        ({**BODY, "name": "pament"}, 422, "KSG-548", None),
        ({**BODY, "version": 2}, 422, "KSG-548", None),
        ({**BODY, "input": {"id": "o-1"}}, 422, "KSG-110", "body.input.lines"),
        ({**BODY, "input": {**INPUT, "lines": "2"}}, 422, "KSG-110", "body.input.lines"),
        ({**BODY, "input": {**INPUT, "id": "\ud800"}}, 422, "KSG-110", "body.input.id"),
        ({**BODY, "input": {**INPUT, "more": 1}}, 422, "KSG-110", "body.input.more"),
        ({**BODY, "input": []}, 422, "KSG-110", "body.input"),
        ({**BODY, "input": {**INPUT, "id": "x" * 900_000}}, 413, "KSG-205", None),
        ([], 422, "KSG-545", "body"),
    ],
)
def test_what_can_not_be_started_is_named(
    desk: Desk, body: Any, status: int, code: str, field: str | None
) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        told = is_problem(await post(caller, body), status, code)
        assert [each["field"] for each in told.get("fields", [])] == ([] if field is None else [field])
        assert told["remedy"]
        assert desk.starts == []

    desk.play(scene)


def test_the_bounds_of_the_authors_model_hold(desk: Desk) -> None:
    """Else the saga would be STUCK at its first line."""
    form = """{"type": "object", "properties": {"id": {"minLength": 2, "pattern": "^o"},
        "lines": {"exclusiveMinimum": 2, "if": {"const": 9}, "then": {"not": {}}}}}"""
    desk.store.announce([replace(desk.store.definitions()[0], form=form)])

    async def scene(caller: httpx.AsyncClient) -> None:
        told = is_problem(await post(caller, {**BODY, "input": {"id": "x", "lines": 2}}), 422, "KSG-545")
        assert sorted((each["field"], each["reason"]) for each in told["fields"]) == [
            ("body.input.id", 'does not match "^o"'),
            ("body.input.id", "has less than 2 characters"),
            ("body.input.lines", "is not more than 2"),
        ]
        told = is_problem(await post(caller, {**BODY, "input": {"id": "o-1", "lines": 9}}), 422, "KSG-545")
        assert told["fields"] == [{"field": "body.input.lines", "reason": "doesn't fit `not`"}]
        assert (await post(caller, {**BODY, "input": {"id": "o-1", "lines": 3}})).status_code == 202

    desk.play(scene)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_a_body_that_is_no_json(desk: Desk, content: bytes) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        said = await caller.post(
            "/api/v1/sagas", content=content, headers={"Content-Type": "application/json"}
        )
        assert said.status_code in (400, 422)
        assert said.json()["code"] == "KSG-545"

    desk.play(scene)


def test_a_body_that_is_no_json_is_told_with_line_and_column(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        headers = {"Content-Type": "application/json"}
        said = await caller.post("/api/v1/sagas", content='{"é": 1,\n  nothing}', headers=headers)
        told = is_problem(said, 400, "KSG-545")
        why = "it is no JSON: Expecting property name enclosed in double quotes: line 2 column 3"
        assert (told["detail"], told["fields"]) == (f"body: {why}", [{"field": "body", "reason": why}])
        said = await caller.post("/api/v1/sagas", content="x", headers=headers)
        assert is_problem(said, 400, "KSG-545")["detail"].endswith("Expecting value: line 1 column 1")

    desk.play(scene)


def test_kafka_does_not_confirm() -> None:
    desk = Desk(settings=settings(confirm_seconds=0.1))

    async def scene(caller: httpx.AsyncClient) -> None:
        desk.owner.confirm = lambda outgoing: outgoing.topic.endswith(".sagas")
        told = is_problem(said := await post(caller), 503, "KSG-501")
        assert said.headers["retry-after"]
        assert "same id and input" in told["remedy"]

        def refused(outgoing: Outgoing) -> DeliveryError | None:
            return DeliveryError("_MSG_TIMED_OUT", "too late", permanent=False)

        desk.owner.confirm = refused
        is_problem(await post(caller), 503, "KSG-501")
        desk.owner.confirm = lambda _: DeliveryError("MSG_SIZE_TOO_LARGE", "too large", permanent=True)
        is_problem(await post(caller), 422, "KSG-142")
        desk.owner.confirm = lambda _: DeliveryError("TOPIC_AUTHORIZATION_FAILED", "no", permanent=True)
        is_problem(await post(caller), 500, "KSG-142")
        desk.owner.confirm = lambda _: None
        assert (await post(caller)).status_code == 202

    desk.play(scene)


def test_there_is_room_for_so_many_who_wait() -> None:
    desk = Desk(settings=settings(max_waiters=1))

    async def scene(caller: httpx.AsyncClient) -> None:
        waiting = asyncio.create_task(post(caller, wait=5))
        await soon(lambda: desk.starts)
        is_problem(said := await post(caller, {**BODY, "saga_id": "o-2"}, wait=1), 503, "KSG-547")
        assert said.headers["retry-after"]
        assert len(desk.starts) == 1
        is_problem(await caller.get("/api/v1/sagas/o-1/result", params={"wait": 1}), 503, "KSG-547")
        assert (await post(caller, {**BODY, "saga_id": "o-2"})).status_code == 202
        desk.keep(tale(1).reserved().completed())
        assert (await waiting).status_code == 200
        assert (await caller.get("/api/v1/sagas/o-2/result", params={"wait": 0.05})).status_code == 404

    desk.play(scene)


def test_a_caller_who_hangs_up_makes_room() -> None:
    desk = Desk(settings=settings(max_waiters=1))

    async def scene(caller: httpx.AsyncClient) -> None:
        app = desk.app()
        sent: list[Any] = []
        messages: asyncio.Queue[Any] = asyncio.Queue()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/v1/sagas/o-1/result",
            "raw_path": b"/api/v1/sagas/o-1/result",
            "query_string": b"wait=30",
            "headers": [(b"host", b"localhost")],
        }
        request = asyncio.create_task(app(scope, messages.get, send))
        backend = desk.served
        await soon(lambda: backend.ends.taken)
        await messages.put({"type": "http.disconnect"})
        await request
        assert backend.ends.taken == 0
        assert sent[0]["status"] == 499
        await backend.close()

    desk.play(scene)


def test_those_who_wait_are_let_go_when_the_process_ends(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        waiting = asyncio.create_task(post(caller, wait=50))
        await soon(lambda: desk.starts)
        desk.served.ends.stop()
        assert (await waiting).json()["state"] == "ACCEPTED"
        assert (await post(caller, wait=50)).json()["state"] == "ACCEPTED"

    desk.play(scene)


def test_a_saga_that_is_announced_this_moment(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        is_problem(await post(caller, {**BODY, "name": "later"}), 422, "KSG-548")
        row = replace(desk.store.definitions()[0], name="later", form="")
        desk.store.announce([*desk.store.definitions(), row])
        assert (await post(caller, {**BODY, "name": "later"})).status_code == 202

    desk.play(scene)


class Nested(BaseModel):
    inner: Nested | None = None
    number: Annotated[int, Field(gt=0)] = 1


def test_an_input_that_is_nested_as_deep_as_it_may_be(desk: Desk) -> None:
    codec = codec_for(Nested, name="nested.input")
    desk.store.put_schemas({codec.schema.hash: codec.schema.json})
    form = json.dumps(Nested.model_json_schema())
    desk.store.announce([DefinitionRow("nested", 1, codec.schema.hash, STOCKS.schema.hash, form)])
    value: dict[str, Any] = {}
    for _ in range(99):
        value = {"inner": value}

    async def scene(caller: httpx.AsyncClient) -> None:
        body = {"saga_id": "n-1", "name": "nested", "input": value}
        assert (await post(caller, body)).status_code == 202
        deeper = {**body, "saga_id": "n-2", "input": {"inner": value}}
        assert "nested too deep" in is_problem(await post(caller, deeper), 422, "KSG-110")["detail"]
        shallow = {**body, "saga_id": "n-3", "input": {"inner": {"inner": {"number": 0}}}}
        told = is_problem(await post(caller, shallow), 422, "KSG-545")
        assert told["fields"] == [{"field": "body.input.inner.inner.number", "reason": "is not more than 0"}]

    desk.play(scene)


@examples(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=30)
@given(st.data())
def test_a_form_takes_all_that_its_model_takes(data: st.DataObject) -> None:
    """What a model accepts must not be refused before it sees it."""
    kind = data.draw(whole_models)
    codec = codec_for(kind.annotation, name="shop")
    payload = codec.encode(data.draw(kind.values))
    schemas = Schemas()
    schemas.add(codec.schema)
    shown = json.loads(json.dumps(to_json(payload, schemas)))
    adapter = pydantic.TypeAdapter[Any](kind.annotation)
    form = adapter.json_schema(by_alias=False, schema_generator=announce.Form)
    validator: Any = jsonschema.Draft202012Validator(form)
    refused = [error for error in validator.iter_errors(shown) if error.instance not in ("inf", "-inf")]
    assert refused == []  # but for what JSON has no number for

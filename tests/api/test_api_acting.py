"""Actions over HTTP: a record to the owner with who and why, and the owner's answer."""

from __future__ import annotations

from typing import Any
from uuid import uuid5

import httpx
import pytest

from api.desk_api import Desk, is_problem
from cli.tales import Tale
from kasaga.api import actions
from kasaga.engine.model import Asked, Clear, Move
from kasaga_wire.envelope import ControlEnvelope

ACTION_ID = str(uuid5(actions._KEYS, "skip\no-6\nk-1"))  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.keep(Tale(3).reserved().charge_refused().release_fails())
    return made


def ids(desk: Desk) -> set[str]:
    return {
        ControlEnvelope.parse(list(out.headers)).id
        for out in desk.owner.sent
        if out.topic.endswith(".control")
    }


@pytest.mark.parametrize(
    ("action", "body", "expected"),
    [
        ("retry", {}, ("http-api", "", None, None)),
        ("retry", {"reason": "disk", "by": "anna", "step": "1"}, ("anna", "disk", "1", None)),
        ("skip", {"reason": "gone"}, ("http-api", "gone", None, None)),
        ("resolve", {"reason": "by hand", "value": {"a": "é"}}, ("http-api", "by hand", None, '{"a": "é"}')),
        ("resolve", {"reason": "by hand", "by": "anna", "step": "2"}, ("anna", "by hand", "2", "null")),
        ("cancel", {"reason": "changed"}, ("http-api", "changed", None, None)),
        ("pause", {"reason": "a move", "by": "anna"}, ("anna", "a move", None, None)),
        ("resume", {}, ("http-api", "", None, None)),
        ("move", {"to": 2, "by": "anna"}, ("anna", "", None, "2")),
        ("terminate", {"reason": "last resort", "by": "anna"}, ("anna", "last resort", None, None)),
    ],
)
def test_an_action_says_who_and_why(
    desk: Desk, action: str, body: dict[str, Any], expected: tuple[str | None, ...]
) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        said = await caller.post(f"/api/v1/sagas/o-3/{action}", json=body)
        assert said.status_code == 200, said.text
        told = said.json()
        assert (told["saga_id"], told["action"], told["outcome"]) == ("o-3", action, "applied")
        ((asked, saga_id, record),) = desk.owner.asked
        assert (asked, saga_id) == (action, "o-3")
        assert (record.by, record.reason, record.step, record.value) == expected

    desk.play(scene)


@pytest.mark.parametrize(
    ("action", "body", "field"),
    [
        ("skip", {}, "body.reason"),
        ("terminate", {}, "body.reason"),
        ("terminate", {"reason": ""}, "body.reason"),
        ("skip", {"reason": ""}, "body.reason"),
        ("resolve", {"value": 1}, "body.reason"),
        ("retry", {"reason": "x" * 2001}, "body.reason"),
        ("cancel", {"step": "1"}, "body.step"),
        ("cancel", {"by": 7}, "body.by"),
        ("retry", [], "body"),
        ("move", {}, "body.to"),
        ("move", {"to": 0}, "body.to"),
    ],
)
def test_what_can_not_be_is_named(desk: Desk, action: str, body: Any, field: str) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        told = is_problem(await caller.post(f"/api/v1/sagas/o-3/{action}", json=body), 422, "KSG-545")
        assert [each["field"] for each in told["fields"]] == [field]
        assert desk.owner.asked == []

    desk.play(scene)


def test_a_reason_that_is_no_text_anywhere(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        body = b'{"reason": "\\ud800"}'
        said = await caller.post(
            "/api/v1/sagas/o-3/retry", content=body, headers={"Content-Type": "application/json"}
        )
        assert said.status_code == 422, said.text

    desk.play(scene)


def test_what_the_owner_refuses(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        desk.owner.refuse = "it isn't stuck"
        told = is_problem(await caller.post("/api/v1/sagas/o-3/retry", json={}), 409, "KSG-230")
        assert "it isn't stuck" in told["detail"]
        is_problem(await caller.post("/api/v1/sagas/nobody/retry", json={}), 404, "KSG-504")
        is_problem(await caller.post("/api/v1/sagas/a%0Ab/retry", json={}), 422, "KSG-508")

    desk.play(scene)


def test_an_action_that_nobody_answers_yet_can_be_sent_again(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        desk.owner.deaf = 1000
        said = await caller.post("/api/v1/sagas/o-3/retry", json={}, params={"wait": 1})
        assert (said.status_code, said.json()["outcome"]) == (202, "sent")
        key = said.json()["action_id"]
        desk.owner.deaf = 0
        again = await caller.post("/api/v1/sagas/o-3/retry", json={}, headers={"Idempotency-Key": key})
        assert (again.status_code, again.json()["action_id"]) == (200, key)
        assert len(ids(desk)) == 1
        await caller.post("/api/v1/sagas/o-3/cancel", json={}, headers={"Idempotency-Key": key})
        assert len(ids(desk)) == 2

    desk.play(scene)


def test_an_action_that_was_done_before_the_saga_ended(desk: Desk) -> None:
    """The owner has forgotten it; the history hasn't."""
    done = Tale(6).reserved().charge_refused().release_fails()
    end = Move("COMPENSATED", "KSG-253", "the card is blocked", "", "2")
    asked = Asked(ACTION_ID, "skip", "anna", "gone", "", "", "")
    done.then(60, asked, Clear("1", "skipped"), Move("COMPENSATING"), end)
    desk.keep(done)
    desk.owner.refuse = "the saga is COMPENSATED"

    async def scene(caller: httpx.AsyncClient) -> None:
        body = {"reason": "gone"}
        again = await caller.post("/api/v1/sagas/o-6/skip", json=body, headers={"Idempotency-Key": "k-1"})
        assert (again.status_code, again.json()["state"]) == (200, "COMPENSATED"), again.text
        other = await caller.post("/api/v1/sagas/o-6/skip", json=body, headers={"Idempotency-Key": "k-2"})
        is_problem(other, 409, "KSG-230")

    desk.play(scene)


def test_an_action_that_kafka_does_not_take(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        desk.owner.confirm = lambda outgoing: True
        said = await caller.post("/api/v1/sagas/o-3/retry", json={}, params={"wait": 1})
        told = is_problem(said, 503, "KSG-505")
        assert "Kafka didn't confirm" in told["detail"]
        key = told["remedy"].split("Idempotency-Key: ")[1].split(";")[0]
        desk.owner.confirm = lambda outgoing: None
        again = await caller.post("/api/v1/sagas/o-3/retry", json={}, headers={"Idempotency-Key": key})
        assert again.status_code == 200
        assert len(ids(desk)) == 1

    desk.play(scene)

"""A bulk over HTTP: a page of sagas at a time, each once per key; and a dry run that changes nothing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api.desk_api import Desk, is_problem
from cli.tales import Tale
from kasaga_wire.envelope import ControlEnvelope


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.keep(
        Tale(1).reserved(),
        Tale(2).reserved(),
        Tale(3).reserved().charge_refused().release_fails(),
        Tale(4).reserved().completed(),
    )
    return made


def ids(desk: Desk) -> list[str]:
    return [
        ControlEnvelope.parse(list(out.headers)).id
        for out in desk.owner.sent
        if out.topic.endswith(".control")
    ]


async def ask(
    caller: httpx.AsyncClient, action: str, body: dict[str, Any], *, key: str = "", **query: Any
) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    said = await caller.post(f"/api/v1/bulk/{action}", params=query, json=body, headers=headers)
    assert said.status_code == 200, said.text
    return said.json()


def test_a_filter_means_the_sagas_that_the_action_is_for(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        told = await ask(caller, "pause", {"filter": {"name": "payment"}, "reason": "a move", "by": "anna"})
        assert [each["saga_id"] for each in told["results"]] == ["o-3", "o-2", "o-1"]
        assert {each["outcome"] for each in told["results"]} == {"applied"}
        assert (told["fits"], told["next_cursor"], told["dry_run"]) == (3, None, False)
        assert {(action, body.by, body.reason) for action, _, body in desk.owner.asked} == {
            ("pause", "anna", "a move")
        }
        desk.owner.asked.clear()
        stuck = await ask(caller, "terminate", {"filter": {"name": "payment"}, "reason": "gone"})
        assert [each["saga_id"] for each in stuck["results"]] == ["o-3"]

    desk.play(scene)


def test_pages_and_the_same_page_again(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        body: dict[str, Any] = {"filter": {"id_prefix": "o-"}}
        first = await ask(caller, "pause", body, key="move-1", limit=2)
        again = await ask(caller, "pause", body, key="move-1", limit=2)
        assert first == again
        assert first["action_id"] == "move-1"
        assert len(ids(desk)) == 4
        assert len(set(ids(desk))) == 2, "each saga is acted on once"
        last = await ask(caller, "pause", body, key="move-1", limit=2, cursor=first["next_cursor"])
        assert [each["saga_id"] for each in last["results"]] == ["o-1"]
        assert last["next_cursor"] is None

    desk.play(scene)


def test_a_dry_run_says_what_would_happen_and_does_nothing(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        body = {"filter": {"id_prefix": "o-", "state": ["RUNNING", "STUCK", "COMPLETED"]}, "dry_run": True}
        told = await ask(caller, "terminate", {**body, "reason": "last resort"})
        said = {each["saga_id"]: each for each in told["results"]}
        assert told["fits"] == 3
        assert said["o-1"]["would"].startswith(
            "ends as it is; it leaves done and not undone: 1 (inventory.reserve); may have happened: 2"
        )
        assert [each["what"] for each in said["o-1"]["leaves"]] == ["done", "unknown"]
        assert said["o-4"]["fits"] is False
        assert said["o-4"]["refused"] == "the saga has ended: it is COMPLETED"
        assert ids(desk) == []

    desk.play(scene)


def test_what_is_refused_and_not_answered_is_told_by_saga(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        desk.owner.refuse = "the saga is PAUSED already"
        del desk.owner.sagas["o-1"]
        told = await ask(caller, "pause", {"filter": {"id_prefix": "o-"}})
        assert told["fits"] == 0
        said = {each["saga_id"]: (each["outcome"], each["code"]) for each in told["results"]}
        refused = ("not_applicable", "KSG-230")
        assert said == {"o-3": refused, "o-2": refused, "o-1": ("unknown", "KSG-504")}
        desk.owner.deaf = 1000
        told = await ask(caller, "pause", {"filter": {"saga_id": "o-2"}}, wait=1)
        assert [each["outcome"] for each in told["results"]] == ["sent"]

    desk.play(scene)


def test_kafka_that_is_away_is_told_by_saga(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        desk.owner.confirm = lambda outgoing: True
        told = await ask(caller, "pause", {"filter": {"saga_id": "o-2"}}, wait=1)
        assert [each["outcome"] for each in told["results"]] == ["not_sent"]

    desk.play(scene)


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("pause", {}),
        ("pause", {"filter": {}}),
        ("pause", {"filter": {"nam": "x"}}),
        ("explode", {"filter": {"name": "x"}}),
        ("pause?limit=501", {"filter": {"name": "x"}}),
        ("pause?cursor=x", {"filter": {"name": "x"}}),
    ],
)
def test_what_is_not_taken(desk: Desk, action: str, body: dict[str, Any]) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        is_problem(await caller.post(f"/api/v1/bulk/{action}", json=body), 422, "KSG-545")
        assert ids(desk) == []

    desk.play(scene)

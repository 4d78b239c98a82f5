"""What the API says of sagas."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api.desk_api import Desk, is_problem
from cli.tales import Tale
from kasaga.api import sagas

TALES = (
    Tale(1).reserved().completed(),
    Tale(2).reserved().charge_refused().released(),
    Tale(3).reserved().charge_refused().release_fails(),
    Tale(4, shard=5).reserved().parked(),
    Tale(5, saga_id="p-5").reserved(),
)


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.keep(*TALES)
    return made


def test_where_a_saga_stands(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        told = (await caller.get("/api/v1/sagas/o-3")).json()
        assert (told["saga_id"], told["state"], told["code"]) == ("o-3", "STUCK", "KSG-220")
        assert told["input"] == {"id": "o-1", "lines": 2}
        assert told["waits_for"][0]["name"] == "inventory.release"
        assert "kasaga retry o-3" in told["remedies"][0]["command"]
        missing = is_problem(await caller.get("/api/v1/sagas/nobody"), 404, "KSG-504")
        assert "there is no saga nobody" in missing["detail"]

    desk.play(scene)


@pytest.mark.parametrize("saga_id", ["2026/11", "a/history", "50%", "%2F", "é?#&=+ ", "count", "a/b/result"])
def test_an_id_may_hold_anything_printable(saga_id: str) -> None:
    desk = Desk()
    desk.keep(Tale(1, saga_id=saga_id).reserved().completed())

    async def scene(caller: httpx.AsyncClient) -> None:
        (listed,) = (await caller.get("/api/v1/sagas")).json()["sagas"]
        path = httpx.QueryParams({"": listed["saga_id"]}).__str__()[1:].replace("+", "%20")
        assert (await caller.get(f"/api/v1/sagas/{path}")).json()["saga_id"] == saga_id
        assert (await caller.get(f"/api/v1/sagas/{path}/history")).json()["saga_id"] == saga_id
        said = await caller.get(f"/api/v1/sagas/{path}/result")
        assert said.json()["saga_id"] == saga_id
        assert said.headers["location"] == f"/api/v1/sagas/{path}"

    desk.play(scene)


def test_a_list_by_pages(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        seen: list[str] = []
        cursor: Any = ""
        for _ in range(3):
            page = (await caller.get("/api/v1/sagas", params={"limit": 2, "cursor": cursor})).json()
            seen += [saga["saga_id"] for saga in page["sagas"]]
            cursor = page["next_cursor"]
        assert seen == ["p-5", "o-4", "o-3", "o-2", "o-1"]
        assert cursor is None
        exact = (await caller.get("/api/v1/sagas", params={"limit": 5})).json()
        assert exact["next_cursor"] is None

    desk.play(scene)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"state": "STUCK"}, ["o-4", "o-3"]),
        ({"state": "stuck"}, ["o-4", "o-3"]),
        ({"state": ["Stuck", "COMPLETED"]}, ["o-4", "o-3", "o-1"]),
        ({"name": "refund"}, []),
        ({"saga_id": "o-2"}, ["o-2"]),
        ({"id_prefix": "p-"}, ["p-5"]),
        ({"code": "ksg-207"}, ["o-4"]),
        ({"started_after": "2026-01-02T10:00:02Z"}, ["p-5", "o-4"]),
        ({"started_before": "2026-01-02T11:00:01+01:00"}, ["o-1"]),
        ({"updated_after": "2026-01-02T10:00:05Z"}, ["o-3"]),
        ({"updated_before": "2026-01-02T10:00:01Z", "name": "payment"}, ["o-1"]),
    ],
)
def test_filters(desk: Desk, query: dict[str, Any], expected: list[str]) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        page = (await caller.get("/api/v1/sagas", params=query)).json()
        assert [saga["saga_id"] for saga in page["sagas"]] == expected
        counted = (await caller.get("/api/v1/counts", params=query)).json()
        assert counted["total"] == sum(counted["counts"].values()) == len(expected)

    desk.play(scene)


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("sagas", {"stat": "STUCK"}, "query.stat"),
        ("sagas", {"state": "BROKEN"}, "query.state.0"),
        ("sagas", {"limit": "501"}, "query.limit"),
        ("sagas", {"limit": "0"}, "query.limit"),
        ("sagas", {"started_after": "yesterday"}, "query.started_after"),
        ("sagas", {"started_after": "2026-01-02T10:00:02"}, "query.started_after"),
        ("sagas", {"cursor": "AAAA"}, "query.cursor"),
        ("sagas", {"cursor": "é"}, "query.cursor"),
        ("counts", {"limit": "5"}, "query.limit"),
        ("sagas/o-1/history", {"cursor": "x"}, "query.cursor"),
        ("sagas/o-1/history", {"payloads": "maybe"}, "query.payloads"),
        ("sagas/o-1/result", {"wait": "nan"}, "query.wait"),
        ("sagas/o-1/result", {"wait": "61"}, "query.wait"),
        ("sagas/o-1/result", {"wait": "inf"}, "query.wait"),
        ("sagas/" + "x" * 257, {}, "path.saga_id"),
    ],
)
def test_what_can_not_be_is_named(desk: Desk, path: str, query: dict[str, str], field: str) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        told = is_problem(await caller.get(f"/api/v1/{path}", params=query), 422, "KSG-545")
        assert [each["field"] for each in told["fields"]] == [field]
        assert told["remedy"]

    desk.play(scene)


def test_a_cursor_belongs_to_its_list(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        ours = (await caller.get("/api/v1/sagas", params={"limit": 1})).json()["next_cursor"]
        is_problem(await caller.get("/api/v1/sagas/o-1/history", params={"cursor": ours}), 422, "KSG-545")
        page = (await caller.get("/api/v1/sagas/o-1/history", params={"limit": 1})).json()
        other = {"cursor": page["next_cursor"]}
        is_problem(await caller.get("/api/v1/sagas/o-2/history", params=other), 422, "KSG-545")
        is_problem(await caller.get("/api/v1/sagas", params=other), 422, "KSG-545")

    desk.play(scene)


def test_a_history_with_its_payloads(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        told = (await caller.get("/api/v1/sagas/o-2/history")).json()
        assert [entry["name"] for entry in told["history"]] == [
            "payment",
            "inventory.reserve",
            "payments.charge",
            "COMPENSATING",
            "inventory.release",
            "COMPENSATED",
        ]
        assert told["history"][0]["input"] == {"id": "o-1", "lines": 2}
        assert told["history"][1]["result"] == {"shelf": "A7"}
        assert told["next_cursor"] is None
        bare = (await caller.get("/api/v1/sagas/o-2/history", params={"payloads": False})).json()
        assert bare["history"][0]["input"] is None

        seen: list[dict[str, Any]] = []
        cursor: Any = ""
        while cursor is not None:
            query: dict[str, Any] = {"limit": 4, "cursor": cursor}
            page = (await caller.get("/api/v1/sagas/o-2/history", params=query)).json()
            seen, cursor = seen + page["history"], page["next_cursor"]
        assert seen == told["history"]
        is_problem(await caller.get("/api/v1/sagas/nobody/history"), 404, "KSG-504")

    desk.play(scene)


def test_the_history_of_all_runs(desk: Desk) -> None:
    desk.keep(Tale(6, saga_id="r-6").reserved().renewed())

    async def scene(caller: httpx.AsyncClient) -> None:
        last = (await caller.get("/api/v1/sagas/r-6/history")).json()["history"]
        every = (await caller.get("/api/v1/sagas/r-6/history", params={"all_runs": True})).json()["history"]
        assert "inventory.reserve" not in {entry["name"] for entry in last}
        assert "inventory.reserve" in {entry["name"] for entry in every}
        assert every[-1]["name"] == last[-1]["name"] == "shipping.schedule"

    desk.play(scene)


def test_a_page_of_a_history_has_a_size(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sagas, "MAX_PAYLOADS_BYTES", 10)

    async def scene(caller: httpx.AsyncClient) -> None:
        pages = 0
        cursor: Any = ""
        seen: list[str] = []
        while cursor is not None:
            page = (await caller.get("/api/v1/sagas/o-1/history", params={"cursor": cursor})).json()
            seen, cursor, pages = (
                seen + [each["name"] for each in page["history"]],
                page["next_cursor"],
                pages + 1,
            )
        assert seen == ["payment", "inventory.reserve", "payments.charge", "COMPLETED"]
        assert pages > 1

    desk.play(scene)


def test_results(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        done = await caller.get("/api/v1/sagas/o-1/result")
        assert (done.status_code, done.json()["state"]) == (200, "COMPLETED")
        assert done.json()["result"] == {"shelf": "A7"}
        undone = await caller.get("/api/v1/sagas/o-2/result", params={"wait": 30})
        assert (undone.status_code, undone.json()["result"]) == (200, None)
        assert undone.json()["reason"] == "the card is blocked"
        stuck = await caller.get("/api/v1/sagas/o-3/result", params={"wait": 30})
        assert (stuck.status_code, stuck.json()["code"]) == (202, "KSG-220")
        assert stuck.json()["remedy"]
        runs = await caller.get("/api/v1/sagas/p-5/result", params={"wait": 0.1})
        assert (runs.status_code, runs.json()["state"]) == (202, "RUNNING")
        is_problem(await caller.get("/api/v1/sagas/nobody/result"), 404, "KSG-504")
        is_problem(await caller.get("/api/v1/sagas/nobody/result", params={"wait": 0.1}), 404, "KSG-504")

    desk.play(scene)


def test_what_can_be_started(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        told = (await caller.get("/api/v1/definitions")).json()
        assert told["namespace"] == "orders"
        payment, refund = told["definitions"]
        assert (payment["name"], payment["version"], payment["newest"]) == ("payment", 1, True)
        assert payment["input"]["required"] == ["id", "lines"]
        assert payment["input_schema"]["name"] == "payment.input.Order"
        assert refund["input"] is None

    desk.play(scene)


def test_paths_that_there_are_not(desk: Desk) -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        for path in (
            "/api",
            "/api/v1",
            "/api/v1/sagas/",
            "/docs",
            "/redoc",
            "/api/v1/sagas/o-1/",
            "/x%ff",
        ):
            said = await caller.get(path)
            assert said.status_code in (400, 404), path
            assert said.json()["code"] in ("KSG-549", "KSG-545")
        is_problem(
            await caller.delete("/api/v1/sagas/o-1", headers={"Content-Type": "application/json"}),
            405,
            "KSG-549",
        )
        for method in ("DELETE", "PUT", "PATCH"):
            is_problem(await caller.request(method, "/api/v1/sagas/o-1"), 405, "KSG-549")
            is_problem(await caller.request(method, "/api/v1/no-such"), 404, "KSG-549")

    desk.play(scene)

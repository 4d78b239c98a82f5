"""`--where`, `kasaga count`, `--attribute`, and what describe and history say of search attributes."""

from __future__ import annotations

import pytest

from api.desk_api import Desk, is_problem
from cli.shell import Shell
from cli.tales import Tale
from ui.look import see

ALL = b'{"amount":120,"customer":"c-7","due":{"time":"2026-11-01T00:00:00.000000Z"},"tags":["a","b"]}'


def tales() -> list[Tale]:
    return [
        Tale(1, attributes=ALL).reserved().completed(),
        Tale(2, attributes=b'{"customer":"c-7"}').reserved().charge_refused().release_fails(),
        Tale(3, attributes=b'{"customer":"c-8"}').reserved(),
        Tale(4).reserved(),
    ]


@pytest.fixture
def named(shell: Shell) -> Shell:
    shell.keep(*tales())
    return shell


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (['attr.customer = "c-7"'], ["o-2", "o-1"]),
        (['attr.customer = "c-7"', "--state", "STUCK"], ["o-2"]),
        (["attr.customer is missing or attr.amount > 100"], ["o-4", "o-1"]),
    ],
)
def test_a_list_by_a_query(named: Shell, options: list[str], ids: list[str]) -> None:
    assert [line["saga_id"] for line in named("list", "--where", *options, "-o", "json").jsonl] == ids


def test_a_count_by_state_and_by_saga(named: Shell) -> None:
    said = named("count", "--where", "attr.customer exists")
    assert said.out == "STATE      SAGAS\nRUNNING    1\nSTUCK      1\nCOMPLETED  1\n"
    assert said.err == "3 sagas in all.\n"
    assert named("count", "--by", "saga").out == "SAGA     SAGAS\npayment  4\n"
    told = named("count", "--where", 'attr.customer = "c-7"', "-o", "json").json
    assert told == {"total": 2, "sagas": {"payment": {"COMPLETED": 1, "STUCK": 1}}}


def test_a_query_that_is_none_is_told_with_its_place(named: Shell) -> None:
    said = named("list", "--where", 'state = STUCK and customer = "c-7"')
    assert said.status == 1
    assert "KSG-241: at character 19: there is no field 'customer'" in said.err
    assert "attr.customer" in said.err


def test_a_bulk_by_a_query(named: Shell) -> None:
    said = named("pause", "--where", 'attr.customer in ("c-7", "c-8")', "--dry-run", "-o", "json")
    assert [line["saga_id"] for line in said.jsonl] == ["o-3", "o-2"]
    said = named("pause", "--where", 'attr.customer = "c-8"', "--yes", "--reason", "flooded")
    assert (said.status, [(what, saga) for what, saga, _ in named.owner.asked]) == (0, [("pause", "o-3")])
    said = named("cancel", "--where", "state = COMPLETED and attr.amount = 120", "--dry-run", "-o", "json")
    assert [line["saga_id"] for line in said.jsonl] == ["o-1"]  # the query names states itself


def test_describe_and_history_show_them(named: Shell) -> None:
    text = 'amount = 120, customer = "c-7", due = 2026-11-01T00:00:00.000000Z, tags = ["a", "b"]'
    assert f"found by  {text}" in named("describe", "o-1").out
    assert "set: amount = 120" in named("history", "o-1").out
    assert named("describe", "o-1", "-o", "json").json["attributes"] == {
        "amount": 120, "customer": "c-7", "due": {"time": "2026-11-01T00:00:00.000000Z"}, "tags": ["a", "b"]
    }  # fmt: skip


def test_the_api_lists_counts_and_acts_by_a_query() -> None:
    desk = Desk()
    desk.keep(*tales())

    async def scene(caller: object) -> None:
        get, post = getattr(caller, "get"), getattr(caller, "post")  # noqa: B009
        told = (await get("/api/v1/sagas", params={"where": 'attr.customer = "c-7"'})).json()
        assert [each["saga_id"] for each in told["sagas"]] == ["o-2", "o-1"]
        assert told["sagas"][0]["attributes"] == {"customer": "c-7"}
        told = (await get("/api/v1/counts", params={"where": 'attr.customer = "c-7"'})).json()
        assert (told["total"], told["sagas"]) == (2, {"payment": {"COMPLETED": 1, "STUCK": 1}})
        asked = {"filter": {"where": 'attr.customer = "c-8"'}, "dry_run": True}
        told = (await post("/api/v1/bulk/pause", json=asked)).json()
        assert [each["saga_id"] for each in told["results"]] == ["o-3"]
        is_problem(await get("/api/v1/sagas", params={"where": "attr.a = c-7"}), 422, "KSG-241")

    desk.play(scene)


def test_the_page_of_sagas_takes_a_query() -> None:
    desk = Desk()
    desk.keep(*tales())
    page = see(desk, "/sagas?where=attr.customer+%3D+%22c-7%22")
    found = [each.text for each in page.all("a") if each.attributes["href"].startswith("/sagas/")]
    assert found == ["o-2", "o-1"]
    assert page.one("input", name="where").attributes["value"] == 'attr.customer = "c-7"'
    assert "at character 10" in see(desk, "/sagas?where=attr.a+%3D+x", 422).text
    assert 'customer = "c-7"' in see(desk, "/sagas/o-1").text

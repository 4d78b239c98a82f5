"""The list: everything of a choice is in its address."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from api.desk_api import NOW, Desk
from cli.tales import Tale
from kasaga.store.base import SagaState
from kasaga.ui.listing import PAGE, saga_address, wanted
from ui.look import Page, see


@pytest.fixture(scope="module")
def desk() -> Desk:
    desk = Desk()
    desk.keep(
        *(Tale(number, shard=number % 4).reserved().completed() for number in range(1, PAGE + 21)),
        *(Tale(number).reserved().charge_refused().release_fails() for number in range(100, 103)),
        Tale(103).reserved(),
    )
    return desk


def ids(page: Page) -> list[str]:
    return [each.text for each in page.all("a") if each.attributes["href"].startswith("/sagas/")]


def test_newest_first_by_pages(desk: Desk) -> None:
    first = see(desk, "/sagas")
    assert ids(first)[:4] == ["o-103", "o-102", "o-101", "o-100"]
    assert len(ids(first)) == PAGE
    second = see(desk, first.one("a", rel="next").attributes["href"])
    assert ids(second)[0] == f"o-{int(ids(first)[-1][2:]) - 1}"
    assert len(ids(second)) == 24
    assert second.all("a", rel="next") == []
    assert "Newest" in [each.text for each in second.all("a", href="/sagas", class_="button")]


def test_a_filter_stays_in_the_form_and_in_the_next_address(desk: Desk) -> None:
    page = see(desk, "/sagas?state=stuck&state=RUNNING&name=payment&after=2026-01-01")
    assert ids(page) == ["o-103", "o-102", "o-101", "o-100"]
    boxes = page.all("input", type="checkbox")
    chosen = [each.attributes["value"] for each in boxes if "checked" in each.attributes]
    assert chosen == ["RUNNING", "STUCK"]
    assert page.one("input", name="after").attributes["value"] == "2026-01-01"
    assert page.all("title")[0].text.startswith("STUCK RUNNING Sagas")
    older = see(desk, "/sagas?state=COMPLETED&name=payment").one("a", rel="next").attributes["href"]
    assert older.startswith("/sagas?state=COMPLETED&name=payment&below=")
    assert ids(see(desk, "/sagas?code=ksg-220&prefix=o-101")) == ["o-101"]


def test_nothing_fits(desk: Desk) -> None:
    assert "No saga fits this filter." in see(desk, "/sagas?name=nothing").text
    assert "No saga has been started yet." in see(Desk(), "/sagas").text
    assert "There are no older ones." in see(desk, f"/sagas?below={UUID(int=1)}").text


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("after=yesterday", "'yesterday' is no time"),
        ("before=2026-99-99", "is no time"),
        ("before=9999999999999999d", "is no time"),
        ("state=ASLEEP", "there is no state 'ASLEEP': there are RUNNING, "),
        (
            "started_after=yesterday",
            "there is no filter 'started_after': there are state, name, prefix, code, after,",
        ),
        ("nmae=payment", "there is no filter 'nmae'"),
        ("name=payment&nmae=", "there is no filter 'nmae'"),
        ("<b>=1", "there is no filter '<b>'"),
        ("below=x", "the address names no page"),
    ],
)
def test_what_cannot_be_is_told(desk: Desk, query: str, problem: str) -> None:
    page = see(desk, f"/sagas?{query}", 422)
    assert problem in page.text
    assert ids(page) == []


def test_far_too_long_a_filter_is_cut(desk: Desk) -> None:
    page = see(desk, "/sagas?prefix=" + "x" * 5000)
    assert len(page.one("input", name="prefix").attributes["value"]) == 256


TEXTS = st.text(max_size=20).map(str.strip)


@given(
    st.lists(st.sampled_from(SagaState), unique=True),
    st.fixed_dictionaries({"name": TEXTS, "prefix": TEXTS, "code": TEXTS}),
    st.none() | st.uuids(),
)
def test_an_address_says_all_of_a_choice(
    states: list[SagaState], texts: dict[str, str], below: UUID | None
) -> None:
    made = wanted(QueryParams())
    made.states, made.texts = states, made.texts | texts
    _, _, query = made.address(below).partition("?")
    again = wanted(QueryParams(query))
    assert (again.states, again.texts, again.below, again.problems) == (states, made.texts, below, {})
    assert again.where(NOW).saga_id_prefix == texts["prefix"]


@given(st.text(min_size=1))
def test_a_sagas_address_is_of_this_site(saga_id: str) -> None:
    if saga_id.isprintable():
        address = saga_address(saga_id)
        assert address.startswith(("/sagas/", "/saga?id="))
        assert address.isascii()
        assert "/" not in address.removeprefix("/sagas/").removeprefix("/saga?")

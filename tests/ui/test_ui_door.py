"""The way in: the token, the session that it gives, and what doesn't open the pages."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.desk_api import Desk
from cli.tales import Tale
from kasaga.ui import session
from ui.look import OWN, TOKEN, Caller, Page, browse, see

KEY, NOW = b"key", 1_800_000_000.0
GUARDED = [
    "/",
    "/sagas",
    "/sagas/o-1",
    "/saga?id=o-1",
    "/payload?saga=o-1&entry=0&part=in",
    "/act?saga=o-1&action=retry",
]
OTHERS = [
    "//evil.example",
    "https://evil.example",
    "/\\evil.example",
    "javascript:alert(1)",
    "",
    "/\nx",
    "/\t/evil",
]


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.keep(Tale(1).reserved().charge_refused().release_fails())
    return made


@pytest.mark.parametrize("path", GUARDED)
def test_nothing_is_shown_without_the_token(desk: Desk, path: str) -> None:
    async def work(caller: Caller) -> None:
        answer = await caller.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=%2F")
        assert answer.text == ""
        page = Page((await caller.get(answer.headers["location"])).text)
        page.check()
        assert page.one("input", name="next").attributes["value"] == path
        entered = await caller.post("/login", data={"token": TOKEN, "next": path}, headers=OWN)
        assert (entered.status_code, entered.headers["location"]) == (303, path)
        assert (await caller.get(path)).status_code == 200

    browse(desk, work, token=TOKEN)


def test_the_cookie_is_strict_and_holds_no_token(desk: Desk) -> None:
    async def work(caller: Caller) -> None:
        entered = await caller.post("/login", data={"token": f" {TOKEN}\n", "next": "/"}, headers=OWN)
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Path=/" in cookie
        assert "Secure" not in cookie
        assert TOKEN not in cookie
        tls = await caller.post(
            "/login", data={"token": TOKEN}, headers={**OWN, "X-Forwarded-Proto": "https"}
        )
        assert "Secure" in tls.headers["set-cookie"]
        left = await caller.post("/logout", headers=OWN)
        assert left.headers["location"] == "/login"
        assert (await caller.get("/")).status_code == 303

    browse(desk, work, token=TOKEN)


def test_a_wrong_token_is_told(desk: Desk) -> None:
    async def work(caller: Caller) -> None:
        for wrong in ("", "x", TOKEN[:-1], "é" * 20):
            answer = await caller.post("/login", data={"token": wrong, "next": "/sagas"}, headers=OWN)
            assert answer.status_code == 401
            assert "set-cookie" not in answer.headers
            page = Page(answer.text)
            page.check()
            assert page.one("p", role="alert").text == "That isn't the token."
            assert page.one("input", name="next").attributes["value"] == "/sagas"

    browse(desk, work, token=TOKEN)


def test_a_session_opens_no_api_and_a_bearer_no_page(desk: Desk) -> None:
    async def work(caller: Caller) -> None:
        await caller.post("/login", data={"token": TOKEN}, headers=OWN)
        assert (await caller.get("/sagas/o-1")).status_code == 200
        assert (await caller.get("/api/v1/sagas/o-1")).status_code == 401
        caller.cookies.clear()
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert (await caller.get("/sagas/o-1", headers=bearer)).status_code == 303

    browse(desk, work, token=TOKEN)


def test_an_action_without_a_session_is_not_sent(desk: Desk) -> None:
    async def work(caller: Caller) -> None:
        fields = {"saga": "o-1", "action": "retry", "by": "x"}
        answer = await caller.post("/act", data=fields, headers=OWN)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert desk.owner.asked == []

    browse(desk, work, token=TOKEN)


def test_a_link_from_another_site_opens_itself_again_so_that_the_strict_cookie_comes(desk: Desk) -> None:
    async def work(caller: Caller) -> None:
        answer = await caller.get("/sagas/o-1", headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 200
        assert '<meta http-equiv="refresh" content="0">' in answer.text
        assert "o-1" not in answer.text

    browse(desk, work, token=TOKEN)


@pytest.mark.parametrize("there", OTHERS)
def test_the_way_in_leads_to_no_other_site(desk: Desk, there: str) -> None:
    async def work(caller: Caller) -> None:
        entered = await caller.post("/login", data={"token": TOKEN, "next": there}, headers=OWN)
        assert entered.headers["location"] == "/"
        again = await caller.get("/login", params={"next": there})
        assert again.headers["location"] == "/"

    browse(desk, work, token=TOKEN)


def test_where_no_token_is_asked_for_there_is_no_door(desk: Desk) -> None:
    async def work(caller: Caller) -> None:
        assert (await caller.get("/login")).headers["location"] == "/"
        assert "Sign out" not in (await caller.get("/")).text

    browse(desk, work)
    assert see(desk, "/").text


def test_a_session_ends_and_cannot_be_made_longer() -> None:
    cookie = session.signed(KEY, NOW)
    assert session.holds(KEY, cookie, NOW)
    assert session.holds(KEY, cookie, NOW + session.SESSION_SECONDS - 1)
    assert not session.holds(KEY, cookie, NOW + session.SESSION_SECONDS)
    assert not session.holds(b"another", cookie, NOW)
    end, _, signature = cookie.partition(".")
    assert not session.holds(KEY, f"{int(end) + 1}.{signature}", NOW)


@given(st.text())
def test_whatever_a_cookie_is_it_does_not_open(cookie: str) -> None:
    assert not session.holds(KEY, cookie, NOW)


ODD = [b"", b"x", b"%%%", b"[1]", b'["evil","x"]', b'["good",1]', b'["good"', b"\xff"]


@pytest.mark.parametrize("said", ODD)
@pytest.mark.parametrize("encode", [base64.urlsafe_b64encode, bytes])
def test_odd_cookies_are_nothing(desk: Desk, said: bytes, encode: Callable[[bytes], bytes]) -> None:
    async def work(caller: Caller) -> None:
        names = (session.SAID_COOKIE.encode(), session.NAME_COOKIE.encode())
        header = b"%s=%s; %s=\xff%s" % (names[0], encode(said), names[1], encode(said))
        answer = await caller.get("/act?saga=o-1&action=retry", headers=[(b"cookie", header)])
        assert answer.status_code == 200
        page = Page(answer.text)
        assert [each.attributes.get("id") for each in page.all("p", class_="said")] == ["stale"]

    browse(desk, work)

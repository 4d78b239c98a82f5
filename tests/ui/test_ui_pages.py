"""Every page: what it shows, what it escapes, its headers, and what it says when something is away."""

from __future__ import annotations

from datetime import timedelta

import pytest

from api.desk_api import NOW, Desk
from cli.tales import BEGIN, Tale
from kasaga.engine.model import REFUSED, UNDO, Clear, Move, Replied, Resume, Settle
from kasaga.errors import HistoryUnreadable
from kasaga.store.errors import StoreUnavailable
from kasaga.store.memory import MemoryStore
from kasaga.ui.listing import saga_address
from store.samples import purge
from ui.look import Caller, Page, browse, see

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</textarea></title></svg><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "{{7*7}}{% raw %}${7*7}",
    "a/b?c=d&e#f%2Fg%00",
    "..",
    ".",
    "é ñ 日本 🦊",
]


def a_desk(*tales: Tale) -> Desk:
    desk = Desk()
    desk.keep(*tales)
    return desk


def stuck(number: int = 1, saga_id: str = "") -> Tale:
    return Tale(number, saga_id=saga_id).reserved().charge_refused().release_fails()


def test_the_overview() -> None:
    tales = [stuck(1), *(Tale(number, shard=number % 16).reserved().completed() for number in range(2, 62))]
    tales += [Tale(70).reserved(), Tale(71, shard=4).reserved().charge_refused().released()]
    page = see(a_desk(*tales), "/")
    assert page.all("title")[0].text == "(1 stuck) Overview · Kasaga orders"
    assert "Stuck 1 the first for 4 min 56 s" in page.text
    assert "63 sagas started" in page.one("svg", class_="rates").attributes["aria-label"]
    assert "60 completed, 1 compensated" in page.one("svg", class_="rates").attributes["aria-label"]
    assert page.one("dl", class_="rows").text == "median32 ms95 %32 ms99 %32 ms"
    rows = [" ".join(row.text.split()) for row in page.all("tr")]
    assert "test.inventory.commands1 0" in rows
    assert "test.payments.commands1 0" in rows
    assert "host-116" in rows  # host-1 has all 16
    assert [each.text for each in page.all("a", href="/sagas/o-1")] == ["o-1"]
    assert page.one(id_="live").attributes["data-every"] == "2.0"


def test_an_empty_overview_says_so() -> None:
    page = see(Desk(), "/")
    for text in (
        "16 of 16 shards have no owner",
        "Nothing is stuck.",
        "Nothing was completed in the last 5 min",
        "No saga waits for anything.",
        "No orchestrator runs.",
        "No saga has been started yet.",
    ):
        assert text in page.text


def test_a_saga_that_is_stuck_says_why_and_what_can_be_done() -> None:
    page = see(a_desk(stuck()), "/sagas/o-1")
    assert page.all("title")[0].text == "o-1 STUCK · Kasaga orders"
    assert page.one("h1").text == "o-1"
    assert "KSG-220 release has failed 2 times: no disk." in page.text
    assert "Mend the participant: the next retry goes through by itself." in page.text
    assert "It waits for inventory.release, which undoes step 1, attempt 3" in page.text
    assert [each.text for each in page.all("a", role="button")] == [
        "Retry…",
        "Resolve…",
        "Skip…",
        "Pause…",
        "Terminate…",
    ]
    assert page.one("a", href="/act?saga=o-1&action=skip").attributes["title"].startswith("leave inventory.")
    assert page.one(id_="live").attributes["data-every"] == "2.0"


def test_a_saga_that_runs_can_be_cancelled_and_one_that_ended_cannot() -> None:
    desk = a_desk(Tale(1).reserved(), Tale(2).reserved().completed(), Tale(3).reserved().charge_refused())
    assert [each.text for each in see(desk, "/sagas/o-1").all("a", role="button")] == [
        "Cancel…",
        "Pause…",
        "Terminate…",
    ]
    ended = see(desk, "/sagas/o-2")
    assert ended.all("a", role="button") == []
    assert "data-every" not in ended.one(id_="live").attributes
    assert "All 2 steps are done" in ended.text
    undoing = see(desk, "/sagas/o-3").all("a", role="button")
    assert [each.text for each in undoing] == ["Pause…", "Terminate…"]


def test_a_history_with_payloads() -> None:
    page = see(a_desk(Tale().reserved().charge_failed().charge_refused(2).released()), "/sagas/o-1")
    payloads = [each.text for each in page.all("pre")]
    assert payloads == ['{\n  "id": "o-1",\n  "lines": 2\n}', '{\n  "shelf": "A7"\n}']
    assert "the saga's input" in page.text
    assert "attempt 1 failed after 100 ms: DeadlockDetected: try again" in page.text
    assert "inventory.release undone in 15 ms" in page.text
    assert len(page.all("summary")) == 3  # the undo has nothing to add


def test_a_saga_of_which_only_the_outcome_is_remembered() -> None:
    desk = a_desk(Tale().reserved().completed())
    purge(desk.store, timedelta(0))
    page = see(desk, "/sagas/o-1")
    assert "COMPLETED" in page.text
    assert "Its history has been purged." in page.text
    assert page.all("pre") == []


def test_a_history_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = a_desk(Tale().reserved().parked())

    def fail(seq: int, body: bytes) -> None:
        raise HistoryUnreadable(f"row {seq} has format 9; this release reads 1")

    monkeypatch.setattr("kasaga.lookup.decode", fail)
    page = see(desk, "/sagas/o-1")
    assert "Its history can't be read: row 1 has format 9; this release reads 1." in page.text
    assert "STUCK" in page.text
    assert [each.text for each in page.all("a", role="button")] == ["Retry…"]
    assert page.all("svg", class_="track") == []


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_an_id_is_it_is_shown_as_it_is(text: str) -> None:
    desk = a_desk(stuck(1, text))
    page = see(desk, saga_address(text))
    assert page.one("h1").text == text
    for path in ("/", "/sagas"):
        links = [each for each in see(desk, path).all("a") if each.text == text]
        assert links
        assert all(each.attributes["href"] == saga_address(text) for each in links)
    form = see(desk, page.all("a", role="button")[0].attributes["href"])
    assert form.one("input", name="saga").attributes["value"] == text
    assert see(desk, "/sagas?prefix=%22%3E%3Cscript%3E").one("input", name="prefix").attributes["value"] == (
        '"><script>'
    )


@pytest.mark.parametrize(
    "text", ["<b onclick=x>", "</pre><script>x</script>", "\u202egnp.exe", "\x1b[2J", "]]>"]
)
def test_whatever_a_participant_says_it_is_shown_as_text(text: str) -> None:
    reason = f"release has failed: {text}"
    tale = Tale().reserved()
    tale.then(
        1,
        Replied("2", "command", 1, REFUSED, b"", text, text, "", False),
        Settle("2", REFUSED),
        Resume("2"),
        Move("COMPENSATING", "KSG-253", reason, "", "2"),
        tale.undo("1", "inventory.release"),
    )
    tale.then(
        1,
        Replied("1", UNDO, 1, "failed", b"", text, text),
        tale.undo("1", "inventory.release", attempt=2),
        Move("STUCK", "KSG-220", reason, text, "1"),
    )
    again = Move("COMPENSATING", "KSG-253", reason, "", "2")
    tale.asks("skip", text, Clear("1", "skipped"), again)
    page = see(a_desk(tale), "/sagas/o-1")
    if text.isprintable():
        assert text in page.one("body").text
    else:
        assert text not in page.html
        assert "\\x" in page.text
    assert len(page.all("script")) == 3


def test_headers_that_let_nothing_in() -> None:
    desk = a_desk(stuck())
    paths = ("/", "/sagas", "/sagas/o-1", "/sagas/none", "/login", "/act?saga=o-1&action=retry")

    async def work(caller: Caller) -> None:
        for path in (*paths, "/ui/static/pages.css", "/ui/static/none", "/payload?saga=o-1&entry=0&part=in"):
            headers = (await caller.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "script-src 'self';" in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            if "pages.css" not in path:
                assert headers["cache-control"] == "no-store"

    browse(desk, work)


def test_a_saga_that_is_not_there() -> None:
    page = see(Desk(), "/sagas/nobody", 404)
    assert page.all("title")[0].text == "Not found · Kasaga orders"
    assert "KSG-504 There is no saga nobody." in page.text
    assert "kasaga list --id-prefix" in [each.text for each in page.all("code")]
    # A start may lie in its topic, read by nobody yet.
    assert page.one(id_="live").attributes["data-every"] == "2.0"


@pytest.mark.parametrize("path", ["/", "/sagas", "/sagas/o-1", "/act?saga=o-1&action=retry"])
def test_a_database_that_is_away_is_told_and_looked_for_again(path: str) -> None:
    desk, away = a_desk(stuck()), [True]

    def fault(point: str) -> None:
        if away[0]:
            raise StoreUnavailable("no connection to the database")

    store = MemoryStore(namespace="orders", clock=lambda: NOW, fault=fault)

    async def work(caller: Caller) -> None:
        answer = await caller.get(path)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"
        page = Page(answer.text)
        page.check()
        assert "KSG-301 No connection to the database." in page.text
        assert page.one(id_="live").attributes["data-every"] == "2.0"
        away[0] = False
        assert (await caller.get(path)).status_code in (200, 404)  # this store is empty

    browse(desk, work, store=store)


def test_a_bug_is_a_page_too(caplog: pytest.LogCaptureFixture) -> None:
    def fault(point: str) -> None:
        if point == "list_sagas":
            raise ZeroDivisionError("secret")

    store = MemoryStore(namespace="orders", clock=lambda: NOW, fault=fault)
    page = see(Desk(), "/sagas", 500, store=store)
    assert "KSG-599" in page.text
    assert "secret" not in page.html
    assert "ZeroDivisionError" in caplog.text


def test_a_payload_that_is_too_long_for_the_page_has_an_address() -> None:
    tale = Tale(saga_id="o-" + "ü" * 100)
    desk = a_desk(tale.reserved())

    async def work(caller: Caller) -> None:
        query = {"saga": tale.saga_id, "entry": "0", "part": "in"}
        whole = await caller.get("/payload", params=query)
        assert whole.headers["content-type"] == "text/plain; charset=utf-8"
        assert whole.text == '{\n  "id": "o-1",\n  "lines": 2\n}\n'
        wrong = [("entry", each) for each in ("99", "x", "-1", "9" * 50)] + [("part", "out"), ("part", "x")]
        for name, value in wrong:
            assert (await caller.get("/payload", params={**query, name: value})).status_code == 404

    browse(desk, work)


def test_the_history_has_pages() -> None:
    tale = Tale()
    for number in range(150):
        tale.asks("cancel", f"reason {number}", seconds=1)
    desk = a_desk(tale)
    first = see(desk, "/sagas/o-1")
    assert "reason 97" in first.one("ol", class_="history").text
    assert "reason 98" not in first.one("ol", class_="history").text
    assert "Page 1 of 2" in first.text
    assert first.one("a", rel="next").attributes["href"] == "/sagas/o-1?page=2#history"
    second = see(desk, "/sagas/o-1?page=2")
    assert "reason 149" in second.one("ol", class_="history").text
    assert second.one("a", rel="prev").attributes["href"] == "/sagas/o-1"
    for odd in ("0", "99", "x", "-1", "1" * 30, ""):
        assert see(desk, f"/sagas/o-1?page={odd}").one("ol", class_="history")


def test_the_history_is_that_of_the_last_run_until_somebody_asks_for_all() -> None:
    desk = a_desk(Tale().reserved().renewed())
    page = see(desk, "/sagas/o-1")
    assert "inventory.reserve" not in page.one("ol", class_="history").text
    assert "of its last run. All runs" in page.text
    every = see(desk, "/sagas/o-1?runs=all")
    assert "inventory.reserve" in every.one("ol", class_="history").text
    assert "run 2" in every.one("ol", class_="history").text
    assert "of all its runs. The last run alone" in every.text
    assert "inventory.reserve" not in see(desk, "/sagas/o-1?runs=other").one("ol", class_="history").text

    async def work(caller: Caller) -> None:
        numbers = {each: f"/payload?saga=o-1&entry=0&part=in{each}" for each in ("", "&runs=all")}
        answers = [(await caller.get(address)).status_code for address in numbers.values()]
        assert answers == [200, 200]

    browse(desk, work)


def test_times_are_told_from_the_start() -> None:
    page = see(a_desk(Tale().reserved().timed_out()), "/sagas/o-1")
    assert page.all("time")[0].attributes["datetime"] == BEGIN.strftime("%Y-%m-%dT%H:%M:%S.000000Z")


def test_an_address_that_is_none() -> None:
    async def work(caller: Caller) -> None:
        page = Page((await caller.get("/nowhere/at/all", headers={"Accept": "text/html,*/*"})).text)
        page.check()
        assert "There is no such page." in page.text
        assert "data-every" not in page.one(id_="live").attributes
        for path in ("/api/v1/nowhere", "/api", "/live/x", "/nowhere"):
            answer = await caller.get(path)
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
        assert (await caller.put("/sagas")).status_code in (403, 405)
        assert (await caller.get("/api/v1/openapi.json")).status_code == 200
        assert (await caller.get("/live")).json() == {}

    browse(Desk(), work)

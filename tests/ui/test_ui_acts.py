"""Actions: the form, what is sent to the saga's owner, and the answer that is shown."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from api.desk_api import Desk
from cli.tales import Tale
from kasaga.client.acting import Action
from kasaga.engine.model import Asked, Clear, Move, Replied
from kasaga.ui import acts
from kasaga.ui.acts import BadForm, Form
from kasaga_wire.errors import DeliveryError
from ui.look import OWN, Caller, Page, browse, see

ID = "0198c0de-0000-4000-8000-00000000000a"
FILLED = {"id": ID, "saga": "o-1", "action": "resolve", "step": "", "reason": "done by hand", "by": "anna"}


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.keep(Tale(1).reserved().charge_refused().release_fails(), Tale(2).reserved())
    return made


async def post(caller: Caller, **changes: Any) -> httpx.Response:
    for _ in range(10_000):
        if (await caller.get("/ready")).status_code == 200:
            break
        await asyncio.sleep(0.001)
    return await caller.post("/act", data={**FILLED, **changes}, headers=OWN)


async def said(caller: Caller, answer: httpx.Response) -> str:
    """What the page that comes next says."""
    assert answer.status_code == 303, answer.text
    page = Page((await caller.get(answer.headers["location"])).text)
    page.check()
    told = [each for each in page.all("p", class_="said") if each.attributes.get("id") != "stale"]
    return told[0].text if told else ""


@pytest.mark.parametrize("action", ["retry", "resolve", "skip", "cancel"])
def test_each_action_is_sent_and_its_answer_shown_once(desk: Desk, action: Action) -> None:
    async def work(caller: Caller) -> None:
        saga = "o-2" if action == "cancel" else "o-1"
        answer = await post(caller, action=action, saga=saga)
        assert answer.headers["location"] == f"/sagas/{saga}"
        name, saga_id, body = desk.owner.asked[-1]
        assert (name, saga_id, body.reason, body.by) == (action, saga, "done by hand", "anna")
        state = "RUNNING" if action == "cancel" else "STUCK"
        assert await said(caller, answer) == f"{acts.DONE[action]}: the saga is {state} now."
        assert "the saga is" not in (await caller.get(f"/sagas/{saga}")).text

    browse(desk, work)


def test_the_form_asks_for_what_is_needed(desk: Desk) -> None:
    form = see(desk, "/act?saga=o-1&action=skip")
    assert "Leave inventory.reserve as it is: go on without inventory.release." in form.text
    assert "required" in form.one("textarea", name="reason").attributes
    assert form.all("textarea", name="value") == []
    free = see(desk, "/act?saga=o-1&action=retry")
    assert "required" not in free.one("textarea", name="reason").attributes


def test_a_result_is_asked_for_where_the_saga_waits_for_one() -> None:
    desk = Desk()
    tale = Tale(1).reserved()
    move = Move("STUCK", "KSG-222", "another input", "Find out", "2", halted=True)
    tale.then(1, Replied("2", "command", 1, "conflict", b"", "", "another input"), move)
    desk.keep(tale)
    form = see(desk, "/act?saga=o-1&action=resolve")
    assert "required" in form.one("textarea", name="value").attributes

    async def work(caller: Caller) -> None:
        await post(caller, value='{"shelf": "B2"}')
        assert desk.owner.asked[-1][2].value == '{"shelf": "B2"}'
        wrong = await post(caller, value="{shelf")
        assert wrong.status_code == 422
        page = Page(wrong.text)
        assert "The result is no JSON" in page.text
        assert page.one("textarea", name="value").text == "{shelf"

    browse(desk, work)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"reason": "  "}, "Say why"),
        ({"by": ""}, "Say who you are"),
        ({"by": "x" * 101}, "No more than 100 characters"),
        ({"reason": "x" * 2001}, "No more than 2,000 characters"),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_sent(
    desk: Desk, changes: dict[str, str], problem: str
) -> None:
    async def work(caller: Caller) -> None:
        answer = await post(caller, **changes)
        assert answer.status_code == 422
        page = Page(answer.text)
        page.check()
        assert problem in page.one(role="alert").text
        assert desk.owner.asked == []

    browse(desk, work)


def test_an_action_that_fits_no_more(desk: Desk) -> None:
    page = see(desk, "/act?saga=o-2&action=retry", 409)
    assert "it is RUNNING" in page.text
    assert page.all("button", class_="main") == []
    desk.owner.refuse = "only a STUCK saga can be skipped, this one is <b>RUNNING</b>"

    async def work(caller: Caller) -> None:
        text = await said(caller, await post(caller, saga="o-2", action="skip"))
        assert text == "Not done, KSG-230: only a STUCK saga can be skipped, this one is <b>RUNNING</b>."

    browse(desk, work)


def test_nobody_answers(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "ANSWER_SECONDS", 0.05)
    desk.owner.deaf = 1000

    async def work(caller: Caller) -> None:
        text = await said(caller, await post(caller))
        assert text.startswith("No orchestrator answered within 0.05 s, KSG-505.")
        assert "will be carried out, once" in text

    browse(desk, work)


def test_a_saga_that_is_not_there(desk: Desk) -> None:
    async def work(caller: Caller) -> None:
        answer = await post(caller, saga="nobody")
        assert answer.status_code == 404
        assert "There is no saga nobody" in answer.text

    browse(desk, work)


@pytest.mark.parametrize("saga", ["", "x" * 257, "\x00", "a\nb"])
def test_ids_that_cannot_be(desk: Desk, saga: str) -> None:
    async def work(caller: Caller) -> None:
        answer = await post(caller, saga=saga)
        assert answer.status_code in (404, 422)
        assert desk.owner.asked == []

    browse(desk, work)


def test_the_name_is_remembered_for_the_next_form(desk: Desk) -> None:
    async def work(caller: Caller) -> None:
        await post(caller, by="Åsa <x>")
        form = Page((await caller.get("/act?saga=o-1&action=retry")).text)
        assert form.one("input", name="by").attributes["value"] == "Åsa <x>"

    browse(desk, work)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_of_another_page_is_not_taken(desk: Desk, headers: dict[str, str]) -> None:
    async def work(caller: Caller) -> None:
        for path in ("/act", "/login", "/logout"):
            assert (await caller.post(path, data=FILLED, headers=headers)).status_code == 403
        assert desk.owner.asked == []

    browse(desk, work)


@pytest.mark.parametrize("body", [b"\xff\xfe", b"a", b"&".join([b"a=1"] * 50), b"saga=%FF", b""])
def test_a_body_that_is_no_form(desk: Desk, body: bytes) -> None:
    async def work(caller: Caller) -> None:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await caller.post("/act", content=body, headers={**OWN, **kind})
        assert answer.status_code in (404, 422)

    browse(desk, work)
    with pytest.raises(BadForm):
        Form.read(body).check()


def test_actions_are_not_taken_by_get(desk: Desk) -> None:
    see(desk, "/act?saga=o-1&action=retry&reason=x&by=y")
    assert desk.owner.asked == []


def test_a_form_that_is_sent_twice_is_one_action(desk: Desk) -> None:
    async def work(caller: Caller) -> None:
        form = Page((await caller.get("/act?saga=o-1&action=retry")).text)
        action_id = form.one("input", name="id").attributes["value"]
        for _ in range(2):
            await post(caller, id=action_id)
        controls = [each for each in desk.owner.sent if each.topic.endswith(".control")]
        assert {dict(each.headers)["ce_id"] for each in controls} == {action_id.encode()}
        again = Page((await caller.get("/act?saga=o-1&action=retry")).text)
        assert again.one("input", name="id").attributes["value"] != action_id

    browse(desk, work)


def test_what_was_done_before_is_told_as_done() -> None:
    desk = Desk()
    tale = Tale(1).reserved().charge_refused().release_fails()
    again = Move("COMPENSATING", "KSG-253", "the card is blocked", "", "2")
    end = again._replace(state="COMPENSATED")
    tale.then(1, Asked(ID, "resolve", "anna", "by hand", "", "", ""), Clear("1", "resolved"), again, end)
    desk.keep(tale)
    desk.owner.refuse = "the saga has ended: it is COMPENSATED"

    async def work(caller: Caller) -> None:
        assert await said(caller, await post(caller)) == "Resolved: the saga is COMPENSATED now."
        other = await post(caller, id="0198c0de-0000-4000-8000-00000000000b")
        assert (await said(caller, other)).startswith("Not done, KSG-230")

    browse(desk, work)


def test_a_form_that_is_not_as_it_was_made(desk: Desk) -> None:
    async def work(caller: Caller) -> None:
        for changes in ({"id": "x"}, {"id": ""}, {"action": "watch"}, {"action": ""}):
            assert (await post(caller, **changes)).status_code == 422
        assert desk.owner.asked == []

    browse(desk, work)


def test_kafka_away_keeps_what_was_typed(desk: Desk) -> None:
    async def work(caller: Caller) -> None:
        desk.owner.confirm = lambda outgoing: DeliveryError("MSG_TIMED_OUT", "late", permanent=False)
        answer = await post(caller)
        assert answer.status_code == 503
        page = Page(answer.text)
        page.check()
        assert "KSG-142: MSG_TIMED_OUT: late." in page.one("p", role="alert").text
        assert page.one("textarea", name="reason").text == "done by hand"

    browse(desk, work)

"""The pages in a real browser, with a real orchestrator behind them."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser

from api.served import serving
from cli.town import PATIENCE
from eventually import eventually
from kasaga.dev.servers import PostgresServer
from kasaga.engine.codec import decode
from kasaga.engine.model import Asked
from kasaga.ui.listing import saga_address
from ui.town import DESK, PHONE, Eye, PageTown, Theme, looking

TOKEN = "a-long-and-random-token"
EVIL = "<img src=x onerror=alert(1)>\"'&</script>/é"


def asked(town: PageTown, saga_id: str) -> list[tuple[str, str, str]]:
    """What the history holds of people's actions."""
    row = town.store.saga(saga_id)
    assert row is not None
    events = [decode(each.seq, each.body).event for each in town.store.history(row)]
    return [(each.action, each.by, each.reason) for each in events if isinstance(each, Asked)]


def act(eye: Eye, action: str, reason: str = "") -> None:
    """Press the button, fill the dialog in, confirm, and wait for the answer."""
    page = eye.page
    page.get_by_role("button", name=f"{action}…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why").fill(reason)
    dialog.get_by_label("Who you are").fill("Anna")
    dialog.get_by_role("button", name=action).click()
    eye.sees("the saga is")


@pytest.mark.parametrize(
    ("action", "said", "end"),
    [
        ("Retry", "Retried: the saga is COMPENSATING now.", "COMPENSATED"),
        ("Skip", "Skipped: the saga is COMPENSATED now.", "COMPENSATED with exceptions"),
        ("Resolve", "Resolved: the saga is COMPENSATED now.", "COMPENSATED with exceptions"),
    ],
)
def test_an_action_on_a_stuck_saga(
    mended: PageTown, browser: Browser, prefix: str, action: str, said: str, end: str
) -> None:
    saga_id = mended.stuck(f"{prefix}order")
    with looking(browser, mended.address) as eye:
        eye.go(f"/sagas/{saga_id}")
        assert "STUCK" in eye.text(".head")
        assert "KSG-220" in eye.text(".reason")
        assert "inventory.release" in eye.text(".waits")
        mended.broken.unlink()
        act(eye, action, "the shelf is open again")
        assert said in eye.text()
        eye.sees(end, ".head")
        eye.sees(f"{action.lower()} by Anna: the shelf is open again", "#live")
        assert eye.page.get_by_role("button", name="…").count() == 0
    assert asked(mended, saga_id) == [(action.lower(), "Anna", "the shelf is open again")]


def test_cancelling_a_saga_that_sleeps(town: PageTown, browser: Browser, prefix: str) -> None:
    saga_id = town.start(f"{prefix}order", "sleep")
    with looking(browser, town.address, size=PHONE, theme="dark") as eye:
        eye.expected.add(404)  # until the start is read
        eye.go(f"/sagas/{saga_id}")
        eye.sees("is a sleep")
        act(eye, "Cancel", "")
        eye.sees("COMPENSATED", ".head")
        eye.sees("Cancelled: the saga is CANCELLING now.")
    assert asked(town, saga_id) == [("cancel", "Anna", "")]


def test_an_action_that_came_too_late_says_so(mended: PageTown, browser: Browser, prefix: str) -> None:
    saga_id = mended.stuck(f"{prefix}order")
    with looking(browser, mended.address) as eye, looking(browser, mended.address) as other:
        for each in (eye, other):
            each.go(f"/sagas/{saga_id}")
            each.page.get_by_role("button", name="Skip…").click()
            each.page.get_by_label("Why").fill("gone")
            each.page.get_by_label("Who you are").fill("Anna")
        eye.page.get_by_role("dialog").get_by_role("button", name="Skip").click()
        eye.sees("Skipped: the saga is COMPENSATED now.")
        other.page.get_by_role("dialog").get_by_role("button", name="Skip").click()
        other.sees("Not done, KSG-230: the saga")
    assert len(asked(mended, saga_id)) == 1


def test_without_scripts_all_of_it_works_too(mended: PageTown, browser: Browser, prefix: str) -> None:
    saga_id = mended.stuck(f"{prefix}order")
    with looking(browser, mended.address, scripts=False) as eye:
        page = eye.go(f"/sagas/{saga_id}")
        page.get_by_role("button", name="Skip…").click()
        eventually(lambda: page.url.endswith("action=skip"))
        page.get_by_label("Why").fill("gone")
        page.get_by_label("Who you are").fill("Anna")
        page.get_by_role("button", name="Skip").click()
        eye.sees("Skipped: the saga is COMPENSATED now.")
        assert page.locator("time").count() > 0


def test_pages_go_on_by_themselves(town: PageTown, browser: Browser, prefix: str) -> None:
    with looking(browser, town.address) as eye:
        page = eye.go("/")
        eye.sees("Newest")
        page.get_by_role("link", name="All sagas").focus()
        town.started(f"{prefix}order")
        eye.sees(f"{prefix}order", "#live")
        assert page.evaluate("document.activeElement.textContent") == "All sagas"
        eye.expected.add(404)
        eye.go(f"/sagas/{prefix}later")
        assert "There is no saga" in eye.text()
        town.started(f"{prefix}later")
        eye.sees("COMPLETED", ".head")
        assert page.title().startswith(f"{prefix}later COMPLETED")


def test_what_a_reader_has_opened_stays_open(mended: PageTown, browser: Browser, prefix: str) -> None:
    saga_id = mended.stuck(f"{prefix}order")
    with looking(browser, mended.address) as eye:
        page = eye.go(f"/sagas/{saga_id}")
        page.locator("summary").first.click()
        shown = page.locator("pre").first
        assert f'"id": "{saga_id}"' in shown.inner_text()
        before = eye.text(".facts")
        eventually(lambda: eye.text(".facts") != before, timeout=PATIENCE)  # it has been asked for again
        assert shown.is_visible()


def test_the_list_is_filtered_and_its_address_is_kept(town: PageTown, browser: Browser, prefix: str) -> None:
    for number in range(3):
        town.started(f"{prefix}{number}")
    with looking(browser, town.address) as eye:
        page = eye.go("/sagas")
        page.get_by_label("Id begins with").fill(prefix)
        page.get_by_label("COMPLETED", exact=True).check()
        page.get_by_role("button", name="Filter").click()
        eventually(lambda: f"state=COMPLETED&prefix={prefix}" in page.url)
        assert page.locator("tbody tr").count() == 3
        page.reload()
        assert page.get_by_label("Id begins with").input_value() == prefix
        page.get_by_role("link", name=f"{prefix}1").click()
        eye.sees("COMPLETED", ".head")
        page.go_back()
        assert page.locator("tbody tr").count() == 3


def test_by_keyboard_alone(mended: PageTown, browser: Browser, prefix: str) -> None:
    saga_id = mended.stuck(f"{prefix}order")
    with looking(browser, mended.address) as eye:
        page = eye.go(f"/sagas/{saga_id}")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == "Retry…":
                break
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Space")
        page.get_by_role("dialog").wait_for()
        page.keyboard.press("Escape")
        eventually(lambda: not page.get_by_role("dialog").is_visible())
        assert page.evaluate("document.activeElement.textContent") == "Retry…"
        mended.broken.unlink()
        page.keyboard.press("Enter")
        page.get_by_role("dialog").wait_for()
        page.keyboard.type("mended")
        page.keyboard.press("Tab")
        page.keyboard.type("Anna")
        page.keyboard.press("Enter")
        eye.sees("COMPENSATED", ".head")


def test_the_theme_is_the_systems_until_another_is_chosen(town: PageTown, browser: Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with looking(browser, town.address, theme="dark") as eye:
        page = eye.go("/")
        dark = page.evaluate(ground)
        page.get_by_role("button", name="Light theme").click()
        light = page.evaluate(ground)
        assert light != dark
        page.reload()
        assert page.evaluate(ground) == light
    with looking(browser, town.address) as eye:
        assert eye.go("/").evaluate(ground) == light


@pytest.fixture(scope="module")
def sights(town: PageTown) -> list[str]:
    """The addresses of pages that show everything there is."""
    town.broken.touch()
    town.started("sight-done")
    town.started("sight-retried", "retry")
    town.started("sight-stuck", "refuse", until="STUCK")
    town.started("sight-bug", "bug", until="STUCK", customer=EVIL)
    town.broken.unlink()
    town.started("sight-undone", "refuse", until="COMPENSATED")
    town.started("sight-sleeps", "sleep", until="RUNNING")
    town.started(EVIL, until="COMPLETED", customer=EVIL)
    town.started("sight-" + "x" * 250, until="COMPLETED", customer="y" * 5000)
    ids = ("done", "retried", "stuck", "bug", "undone", "sleeps", "x" * 250, "none")
    return [
        "/",
        "/sagas",
        "/sagas?state=STUCK&prefix=sight-&after=1d",
        "/sagas?after=never",
        "/sagas?name=nothing",
        "/act?saga=sight-stuck&action=resolve",
        "/act?saga=sight-done&action=cancel",
        saga_address(EVIL),
        *(saga_address(f"sight-{each}") for each in ids),
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_page_in_both_themes_at_both_widths(
    town: PageTown, browser: Browser, sights: list[str], theme: Theme, size: tuple[int, int]
) -> None:
    found: list[str] = []
    with looking(browser, town.address, theme=theme, size=size) as eye:
        eye.expected |= {404, 409, 422}
        for path in sights:
            page = eye.go(path)
            for summary in page.locator("summary").all():
                summary.click()
            found += [f"{path}: {each}" for each in eye.barriers()]
            if eye.is_too_wide():
                found.append(f"{path} has to be scrolled sideways")
    assert found == []


def test_users_data_runs_nowhere(town: PageTown, browser: Browser, sights: list[str]) -> None:
    with looking(browser, town.address) as eye:
        page = eye.go(sights[7])
        assert page.locator("h1").inner_text() == EVIL
        page.locator("summary").first.click()
        assert EVIL.replace('"', '\\"') in page.locator("pre").first.inner_text()
        assert page.locator("main img").count() == 0
        eye.go("/sagas/sight-bug")
        assert EVIL in eye.text(".reason")


def test_the_policy_lets_no_other_code_in(town: PageTown, browser: Browser) -> None:
    with looking(browser, town.address) as eye:
        page = eye.go("/sagas")
        refused: Any = page.evaluate(
            """() => new Promise(resolve => {
                const refused = [];
                addEventListener("securitypolicyviolation", event => {
                    refused.push(event.effectiveDirective);
                    if (refused.length === 3) resolve(refused.sort());
                });
                const script = document.createElement("script");
                script.textContent = "window.entered = true";
                const image = document.createElement("img");
                image.src = "http://elsewhere.example/x.png";
                document.body.append(script, image);
                document.body.setAttribute("style", "color: red");
            })"""
        )
        assert refused == ["img-src", "script-src-elem", "style-src-attr"]
        assert page.evaluate("window.entered") is None
        eye.wrong.clear()  # the browser has told of them too


def test_postgres_away_and_back(
    mended: PageTown, browser: Browser, postgres: PostgresServer, prefix: str
) -> None:
    saga_id = mended.stuck(f"{prefix}order")
    with looking(browser, mended.address) as eye, looking(browser, mended.address) as late:
        eye.expected.add(503)
        late.expected.add(503)
        eye.go(f"/sagas/{saga_id}")
        postgres.kill()
        eye.sees("What is shown is older")
        assert "STUCK" in eye.text(".head")  # what was known stays
        late.go("/")
        assert late.page.title().startswith("Not available now")
        assert "KSG-301" in late.text()
        postgres.start()
        late.sees("Needs a person")
        late.sees(saga_id)
        eventually(lambda: not eye.page.locator("#stale").is_visible(), timeout=PATIENCE)


def test_the_way_in_with_a_token(town: PageTown, browser: Browser, prefix: str) -> None:
    saga_id = town.started(f"{prefix}order")
    with serving(town, "guarded", KASAGA_API_TOKEN=TOKEN) as guarded:
        address = str(guarded.caller.base_url).rstrip("/")
        with looking(browser, address) as eye:
            eye.expected.add(401)
            page = eye.go(f"/sagas/{saga_id}")
            assert page.title().startswith("Sign in")
            assert eye.barriers() == []
            page.get_by_label("Token").fill("not the token at all")
            page.get_by_role("button", name="Sign in").click()
            eye.sees("That isn't the token.")
            page.get_by_label("Token").fill(TOKEN)
            page.keyboard.press("Enter")
            eye.sees("COMPLETED", ".head")
            assert page.url == f"{address}/sagas/{saga_id}"
            assert TOKEN not in str(eye.context.cookies())
            assert page.evaluate("document.cookie") == ""
            _from_another_site(eye, f"{address}/sagas/{saga_id}")
            eye.sees("COMPLETED", ".head")
            eye.go("/")
            page.get_by_role("button", name="Sign out").click()
            eventually(lambda: page.title().startswith("Sign in"))
            eye.go("/sagas")
            assert page.title().startswith("Sign in")


def _from_another_site(eye: Eye, address: str) -> None:
    """Follow a link that somebody wrote elsewhere: the strict cookie isn't sent with that request."""
    link = f'<!doctype html><title>x</title><a href="{address}">look</a>'
    eye.page.route(
        "http://elsewhere.example/", lambda route: route.fulfill(body=link, content_type="text/html")
    )
    eye.page.goto("http://elsewhere.example/")
    eye.page.get_by_role("link").click()

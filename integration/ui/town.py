"""One namespace with all its processes, the pages of its API, and a browser that looks at them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Response

from api.served import Served
from cli.town import PATIENCE, Town
from eventually import eventually
from kasaga.store.postgres import PostgresStore
from ui.shop import NAMESPACE

ROOT = Path(__file__).parents[2]
PATIENCE_MS = 30_000
DESK, PHONE = (1280, 900), (390, 844)

Theme = Literal["light", "dark"]


class PageTown(Town):
    """A town with the pages of its API."""

    shop = "ui.shop"
    namespace = NAMESPACE

    def begin(self) -> None:
        """An orchestrator, its services, and the API without a token."""
        super().begin()
        self.store = PostgresStore(self.database)
        self.served = Served(self)
        eventually(self.served.is_ready, timeout=PATIENCE)

    @property
    def address(self) -> str:
        """Where the pages are."""
        return str(self.served.caller.base_url).rstrip("/")

    def end(self) -> None:
        self.served.close()
        self.store.close()
        super().end()

    def start(self, saga_id: str, wish: str = "", customer: str = "") -> str:
        """Start a purchase; its id."""
        given = {"id": saga_id, "wish": wish, "customer": customer}
        body = {"saga_id": saga_id, "name": "purchase", "input": given}

        def accepted() -> bool:
            said = self.served.caller.post("/api/v1/sagas", json=body)
            assert said.is_success, said.text
            return True

        eventually(accepted, timeout=PATIENCE)  # the orchestrator may not have announced its sagas yet
        return saga_id

    def state(self, saga_id: str) -> str:
        row = self.store.saga(saga_id)
        return row.state.value if row else ""

    def started(self, saga_id: str, wish: str = "", *, until: str = "COMPLETED", customer: str = "") -> str:
        """Start a purchase and wait for a state."""
        self.start(saga_id, wish, customer)
        eventually(lambda: self.state(saga_id) == until, timeout=PATIENCE)
        return saga_id

    def stuck(self, saga_id: str) -> str:
        """A saga that can't give back what it has taken."""
        self.broken.touch()
        return self.started(saga_id, "refuse", until="STUCK")


# --- the browser


@cache
def chromium() -> str:
    """The browser's path; `.ci/chromium` installs it where it is missing."""
    said = subprocess.run([str(ROOT / ".ci" / "chromium")], check=False, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


def launch(playwright: Playwright) -> Browser:
    # Its sandbox needs rights of its own, which root in a container can't give away.
    alone = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=chromium(), args=[*alone, "--disable-dev-shm-usage"])


class Eye:
    """One browser's window, which notes whatever goes wrong in it."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.address = address
        self.context = context
        self.wrong: list[str] = []
        self.expected: set[int] = set()
        """Statuses that a test asks for."""
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        self.page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if "Failed to load resource" not in message.text:  # the response itself is judged
            self.wrong.append(f"console: {message.text}")

    def _response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self.wrong.append(f"{response.status} {response.url}")

    def go(self, path: str) -> Page:
        self.page.goto(f"{self.address}{path}")
        return self.page

    def text(self, selector: str = "main") -> str:
        return " ".join(self.page.locator(selector).inner_text().split())

    def sees(self, text: str, selector: str = "main") -> None:
        """Wait until a text is shown."""

        def shown() -> bool:
            assert text in self.text(selector), self.text(selector)[:2000]
            return True

        eventually(shown, timeout=PATIENCE)

    def is_too_wide(self) -> bool:
        """Whether one has to scroll sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))

    def barriers(self) -> list[str]:
        """What axe finds against the WCAG's levels A and AA."""
        self.page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
        levels = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        found: Any = self.page.evaluate(
            "levels => axe.run({runOnly: levels}).then(found => found.violations)", levels
        )
        return [
            f"{each['id']}: {node['target']} {node['failureSummary']}"
            for each in found
            for node in each["nodes"]
        ]


@contextmanager
def looking(
    browser: Browser,
    address: str,
    *,
    theme: Theme = "light",
    size: tuple[int, int] = DESK,
    scripts: bool = True,
) -> Generator[Eye]:
    """A window of its own; fails if anything went wrong in it."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=theme, java_script_enabled=scripts
    )
    try:
        eye = Eye(context, address)
        yield eye
        assert not eye.wrong, eye.wrong
    finally:
        context.close()

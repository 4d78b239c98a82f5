"""One namespace with all its processes, the pages of its API, and a browser that looks at them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from signal import SIGTERM
from typing import Any, Literal

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Response

from eventually import eventually
from kasaga.client import BlockingClient
from kasaga.dev.process import Process, log_tail
from kasaga.dev.servers import KafkaServer
from kasaga.store.migrate import migrate
from kasaga.store.postgres import PostgresStore
from kasaga_wire.kafka import KafkaSettings
from ui.shop import NAMESPACE, Order, purchase

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
STOP_SECONDS = 20.0
SHARDS = 4
PATIENCE_MS = 30_000
DESK, PHONE = (1280, 900), (390, 844)

Theme = Literal["light", "dark"]


class Town:
    """Starts processes and sagas."""

    def __init__(self, folder: Path, kafka: KafkaServer, database: str, own: str) -> None:
        self.folder, self.database, self.own = folder, database, own
        self.prefix = f"t{uuid.uuid4().hex[:8]}."
        self.bootstrap = kafka.bootstrap
        self.broken = folder / "broken"
        mine = (name for name in os.environ if not name.startswith(("KASAGA_", "OTEL_")))
        self.environment = {
            **{name: os.environ[name] for name in mine},
            "PYTHONPATH": str(ROOT / "integration"),
            "PYTHONHASHSEED": "0",
            "KASAGA_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
            "KASAGA_DATABASE_URL": database,
            "KASAGA_TOPIC_PREFIX": self.prefix,
            "KASAGA_LOG_FORMAT": "json",
            "BROKEN": str(self.broken),
        }
        self.running: dict[str, Process] = {}
        self.store = PostgresStore(database)
        self._client = BlockingClient(NAMESPACE, KafkaSettings(self.bootstrap), topic_prefix=self.prefix)
        # In a thread of its own: in the tests' one runs the browser's event loop.
        self._beside = ThreadPoolExecutor(1)
        migrate(database, namespace=NAMESPACE, shards=SHARDS)

    def begin(self) -> None:
        """An orchestrator, its services, and the API without a token."""
        self.run("orchestrator", ["-m", "kasaga", "orchestrator", "ui.shop:app"])
        self.run("service", ["-m", "ui.shop"], KASAGA_DATABASE_URL=self.own)
        eventually(self._all_owned, timeout=PATIENCE)
        self._beside.submit(self._client.__enter__).result(PATIENCE)
        self.address = self.api("api")

    def _all_owned(self) -> bool:
        self.check()
        return all(lease.owner and not lease.expired for lease in self.store.shards())

    def check(self) -> None:
        """All that was started still runs."""
        ended = [name for name, process in self.running.items() if process.ended() is not None]
        assert not ended, "\n".join(log_tail(self.folder / f"{name}.log") for name in ended)

    def run(self, name: str, arguments: list[str], **environment: str) -> Process:
        made = self.running[name] = Process(
            [sys.executable, *arguments],
            log=self.folder / f"{name}.log",
            cwd=self.folder,
            env={**self.environment, **environment},
        )
        return made

    def api(self, name: str, **environment: str) -> str:
        """Start an API; its address."""
        self.run(name, ["-m", "kasaga", "api", "--port", "0"], **environment)
        log = self.folder / f"{name}.log"

        def port() -> int:
            self.check()
            lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
            return next((int(line["port"]) for line in lines if line["message"] == "serving"), 0)

        return f"http://127.0.0.1:{eventually(port, timeout=PATIENCE)}"

    def stop(self, name: str) -> None:
        self.running.pop(name).stop(SIGTERM, STOP_SECONDS)

    def end(self) -> None:
        self._beside.submit(self._client.__exit__, None, None, None).result(PATIENCE)
        self._beside.shutdown()
        for name in list(self.running):
            self.stop(name)
        self.store.close()

    # --- sagas

    def start(self, saga_id: str, wish: str = "", customer: str = "") -> str:
        """Start a purchase; its id."""
        order = Order(id=saga_id, wish=wish, customer=customer)
        self._beside.submit(lambda: self._client.start(purchase, order, id=saga_id)).result(PATIENCE)
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

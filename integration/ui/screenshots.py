"""Takes the two pictures of the pages that the guide shows, of a shop at work on real servers.

    PYTHONPATH=integration:tests .venv/bin/python -m ui.screenshots

Writes orchestrator/docs/*.png. The fonts are the machine's: Debian's `fonts-inter` looks as intended.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from threading import Event, Thread

from playwright.sync_api import Browser, sync_playwright

from kasaga.dev.servers import KafkaServer, PostgresServer
from ui.town import ROOT, PageTown, Theme, launch, looking

FOLDER = ROOT / "orchestrator" / "docs"
SECONDS = 330
"""The overview tells of the last five minutes."""

WISHES = {"": 80, "retry": 12, "refuse": 8}
SIZE = (1200, 800)


def shop_for(town: PageTown, over: Event) -> None:
    """Orders come and go, more of them now and then."""
    chance = random.Random(7)
    number = 4100
    while not over.is_set():
        for _ in range(chance.randint(0, 4 if time.monotonic() % 90 < 60 else 7)):
            number += 1
            wish = chance.choices(list(WISHES), list(WISHES.values()))[0]
            town.start(f"order-{number}", wish, customer="anna")
        over.wait(0.25)


def take(browser: Browser, town: PageTown, name: str, path: str, theme: Theme, *, full: bool = False) -> None:
    with looking(browser, town.address, theme=theme, size=SIZE) as eye:
        page = eye.go(path)
        eye.sees("Timeline" if path.startswith("/sagas/") else "Newest")
        page.screenshot(path=FOLDER / f"{name}.png", full_page=full)
    print(f"{name}: {(FOLDER / f'{name}.png').stat().st_size:,} bytes")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="kasaga-pictures-"))
    folder.chmod(0o711)
    with PostgresServer(folder / "postgres") as postgres, KafkaServer(folder / "kafka") as kafka:
        databases = [postgres.create_database(name) for name in ("orders", "shop")]
        town = PageTown(folder, kafka, databases[0], databases[1], prefix="")
        town.environment["KASAGA_PROCESS"] = "orders-7f9c"
        try:
            town.begin()
            over = Event()
            shopping = Thread(target=shop_for, args=(town, over))
            shopping.start()
            time.sleep(SECONDS)
            town.broken.touch()
            town.started("order-42", "refuse", until="STUCK", customer="anna")
            town.started("order-43", "bug", until="STUCK", customer="bob")
            town.broken.unlink()
            time.sleep(8)
            with sync_playwright() as playwright, launch(playwright) as browser:
                take(browser, town, "overview", "/", "light")
                take(browser, town, "saga", "/sagas/order-42", "dark")
            over.set()
            shopping.join()
        finally:
            town.end()


if __name__ == "__main__":
    main()

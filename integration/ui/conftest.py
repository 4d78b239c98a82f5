from __future__ import annotations

import uuid
from collections.abc import Generator

import pytest
from playwright.sync_api import Browser, sync_playwright

from kasaga.dev.servers import KafkaServer, PostgresServer
from ui.town import PageTown, launch


@pytest.fixture(scope="module")
def town(
    tmp_path_factory: pytest.TempPathFactory, kafka: KafkaServer, postgres: PostgresServer
) -> Generator[PageTown]:
    names = [f"t{uuid.uuid4().hex[:8]}" for _ in range(2)]
    databases = [postgres.create_database(name) for name in names]
    made = PageTown(tmp_path_factory.mktemp("town"), kafka, *databases)
    try:
        made.begin()
        yield made
    finally:
        made.end()
        for name in names:
            postgres.drop_database(name)


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    """Of a module: while it runs, its thread can't run an event loop of its own."""
    with sync_playwright() as playwright, launch(playwright) as made:
        yield made


@pytest.fixture
def mended(town: PageTown) -> Generator[PageTown]:
    """The town, in which things can be given back again after a test."""
    yield town
    town.broken.unlink(missing_ok=True)


@pytest.fixture
def prefix() -> str:
    """For the ids of a test's own sagas."""
    return f"{uuid.uuid4().hex[:6]}-"

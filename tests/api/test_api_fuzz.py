"""schemathesis against the API on a store in memory: each answer is one that the document promises."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from pydantic import SecretStr
from schemathesis import GenerationMode

from api.desk_api import INPUT, Desk, settings
from api.fuzz import MODES, attack, operations
from cli.tales import Tale
from eventually import eventually
from kasaga.api.serve import listen

TOKEN = {"Authorization": f"Bearer {'t' * 20}"}
DOCUMENT = json.loads((Path(__file__).parents[2] / "orchestrator" / "openapi.json").read_text())
OPERATIONS = {each["operationId"]: each for path in DOCUMENT["paths"].values() for each in path.values()}
ATTACKS = [
    (name, mode)
    for name, operation in OPERATIONS.items()
    for mode in MODES
    if mode is MODES[0] or "parameters" in operation  # where nothing is sent, nothing can be wrong
]
EXAMPLES = 25
FEW, UNANSWERED = 6, ("signal_saga", "update_saga", "query_saga")
"""Nobody answers these here, so each example may take the shortest wait that can be asked for: a second."""


@contextmanager
def served(desk: Desk) -> Generator[str]:
    """Serve a desk's application in a thread; gives its address."""
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(desk.app(), log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        eventually(lambda: server.started and httpx.get(f"{base}/ready").status_code == 200)
        yield base
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture(scope="module")
def base() -> Generator[str]:
    desk = Desk(settings=settings(token=SecretStr("t" * 20), max_wait_seconds=3600))
    desk.keep(Tale(1).reserved().completed(), Tale(3).reserved().charge_refused().release_fails())
    with served(desk) as made:
        yield made


@pytest.mark.parametrize(("name", "mode"), ATTACKS, ids=lambda each: getattr(each, "value", each))
def test_every_answer_is_promised(base: str, name: str, mode: GenerationMode) -> None:
    found = operations(base)
    assert sorted(found) == sorted(OPERATIONS)
    statuses = attack(
        found[name],
        base,
        mode,
        examples=FEW if name in UNANSWERED else EXAMPLES,
        headers=TOKEN,
        start={"name": "payment", "input": INPUT},
    )
    assert statuses

"""Every test of the engine runs twice: with live coroutines, and replaying at every event."""

from __future__ import annotations

import pytest

from engine.harness import Play


@pytest.fixture(autouse=True, params=["live", "replayed"])
def replaying(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Play, "replaying", request.param == "replayed")

"""Objects of payloads go with their saga, before it, and keep it while they can't."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kasaga.orchestrator import retention as module
from kasaga.orchestrator.metrics import Metrics
from kasaga.orchestrator.retention import Retention
from kasaga_wire.errors import ObjectsUnavailable
from orchestrator.shelf import Shelf, furnish
from orchestrator.test_claim_check import LARGE
from orchestrator.test_crash_windows import until_over
from orchestrator.world import World


class Died(BaseException):
    """Here."""


def made(world: World, shelf: Shelf, metrics: Metrics) -> Retention:
    return Retention(
        world.store,
        lambda: True,
        metrics=metrics,
        keep=timedelta(days=1),
        remember=timedelta(days=30),
        claims=shelf.claims(),
        interval=3600.0,
        clock=world.now,
    )


def test_objects_go_with_their_saga(monkeypatch: pytest.MonkeyPatch) -> None:
    with World(7) as world:
        shelf, metrics = Shelf(), Metrics()
        furnish(world, shelf)
        world.odds.slow = 0.0
        world.join()
        world.start("trip", "one", LARGE)
        world.start("trip", "two", LARGE)
        until_over(world)
        other = shelf.claims().put("another-run", b"x" * 100)
        assert len(shelf.objects) > 5
        retention = made(world, shelf, metrics)
        try:
            assert retention.round() == 0
            assert len(shelf.objects) > 5
            world.pass_time(3 * 86_400.0)

            shelf.away = True
            with pytest.raises(ObjectsUnavailable):
                retention.round()
            shelf.away = False
            assert world.saga("one").ended_at is not None

            def die(point: str) -> None:
                if point == "retention.cleared":
                    raise Died

            monkeypatch.setattr(module, "crash_point", die)
            with pytest.raises(Died):
                retention.round()
            assert world.saga("one").ended_at is not None
            monkeypatch.undo()

            assert retention.round() == 2
            assert list(shelf.objects) == ["another-run/" + other[12:44].hex()]
        finally:
            retention.close()
        count = metrics.registry.get_sample_value
        labels = {"done": "delete", "outcome": "failed"}
        assert count("kasaga_payload_objects_total", labels) == 1

"""Sagas that leave the memory: what their code says then is left out, what stays behind is counted."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from kasaga import App, SagaContext, saga
from kasaga.engine.driver import GRAVEYARD
from kasaga.saga import Saga
from kasaga.store.base import SagaState
from kasaga_wire.logs import KasagaHandler, configure_logs, here
from orchestrator.node import Node
from orchestrator.trips import CONTRACTS, PATIENT, Hotel, Trip, trip
from orchestrator.world import World

log = logging.getLogger("shop.sagas")
STOP = [False]


@saga("noisy")
async def noisy(ctx: SagaContext, order: Trip) -> None:
    """Says what it believes."""
    log.warning("trip begins")
    try:
        await ctx.use(Hotel, timeout=900, retry=PATIENT).book(order)
    except BaseException:
        log.error("trip has failed")
        raise
    finally:
        log.warning("trip is over")


@saga("clingy")
async def clingy(ctx: SagaContext, order: Trip) -> None:
    """Swallows everything."""
    while not STOP[0]:
        try:
            await ctx.use(Hotel, timeout=900, retry=PATIENT).book(order)
        except BaseException:  # noqa: BLE001
            log.warning("never mind")


SAGAS: list[Saga[Any, Any]] = [noisy, clingy, trip]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    made = io.StringIO()
    root = logging.getLogger()
    level = root.level
    configure_logs("json", "info", stream=made, environment={})
    yield made
    for handler in [each for each in root.handlers if isinstance(each, KasagaHandler)]:
        root.removeHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def world(stream: io.StringIO) -> Iterator[World]:
    STOP[0] = False
    kept = len(GRAVEYARD)
    with World(shards=1, lease_seconds=1.0, heartbeat_seconds=0.2) as world:
        logging.getLogger("kasaga").setLevel(logging.INFO)
        world.odds.slow = 0.0
        world.app = App("trips", sagas=SAGAS, participants=CONTRACTS)
        world.desk.mood = lambda envelope: "silent"
        yield world
    STOP[0] = True  # now they let themselves be closed, and not by the collector at some other time
    for coroutine in GRAVEYARD[kept:]:
        coroutine.close()
    del GRAVEYARD[kept:]


def waiting(world: World, name: str) -> Node:
    """A process with a saga in memory that waits for its step."""
    node = world.join()
    world.start(name, "a")
    world.turns(node, 3)
    assert len(node.runs) == 1
    return node


def said(stream: io.StringIO, logger: str = "shop.sagas") -> list[tuple[str, str | None]]:
    """Each line of a logger, and which saga it is about."""
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [(line["message"], line.get("saga_id")) for line in lines if line["logger"] == logger]


def test_what_the_code_says_when_it_is_evicted_is_left_out(world: World, stream: io.StringIO) -> None:
    """Its saga hasn't failed, and isn't over: it goes on in another process."""
    node = waiting(world, "noisy")
    node.runs.close()
    assert said(stream) == [("trip begins", "a")]
    log.warning("after")
    assert said(stream)[-1] == ("after", None), "others are heard"


def test_nothing_of_it_is_heard_when_its_shard_is_lost(world: World, stream: io.StringIO) -> None:
    node = waiting(world, "noisy")
    world.pass_time(5)
    other = world.join()
    world.turns(other, 3)
    world.turns(node, 3)
    assert len(node.runs) == 0
    assert said(stream) == [("trip begins", "a")]


def test_what_it_says_when_it_is_cancelled_is_true(world: World, stream: io.StringIO) -> None:
    waiting(world, "noisy")
    world.control("cancel", "a")
    world.settle()
    assert said(stream) == [("trip begins", "a"), ("trip has failed", "a"), ("trip is over", "a")]
    assert world.saga("a").state is SagaState.COMPENSATED


def test_code_that_refuses_to_end_is_counted_and_named(world: World, stream: io.StringIO) -> None:
    node = waiting(world, "clingy")
    metrics = node.metrics
    before = len(GRAVEYARD)
    node.runs.close()
    assert said(stream) == []
    assert ("a saga's code can't be closed: it swallows BaseException", "a") in said(
        stream, "kasaga.orchestrator"
    )
    world.pass_time(1.5)
    world.turns(node, 3)
    assert metrics.registry.get_sample_value("kasaga_coroutines_unclosed") == len(GRAVEYARD) == before + 1


def test_nobody_is_muted_for_ever(world: World) -> None:
    node = waiting(world, "clingy")
    node.runs.close()
    assert not here.muted

"""The shop as it is: real servers, an orchestrator and three services as processes, killed at work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from eventually import eventually
from examples.audit import audit, read_books, read_sagas
from examples.contracts import NAMESPACE, Order
from examples.orders import (
    CARD_DECLINED,
    COMPLETED,
    NO_CARRIER,
    OUT_OF_STOCK,
    TOO_DEAR,
    forecast,
    load_orders,
)
from examples.sagas import payment
from examples.stage import SERVICES, Stage
from examples.world import world
from kasaga.client import Client
from kasaga.dev.servers import KafkaServer, PostgresServer

RUN_SECONDS = 120.0
"""How long all sagas may take, on a machine that does other things too."""

EACH_FAILURE = 6
"""How many orders of each kind that fails whatever the others do."""

ORDINARY = 50


def orders_of_every_kind() -> list[Order]:
    """About a hundred: some for each way to end, and all for one article and one voucher that run out."""
    shop = world()
    rarest = min(shop.articles, key=lambda article: article.stock)
    voucher = next(each.card.token for each in shop.customers if each.card.kind == "voucher")
    room = Counter(
        {COMPLETED: ORDINARY, CARD_DECLINED: EACH_FAILURE, NO_CARRIER: EACH_FAILURE, TOO_DEAR: EACH_FAILURE}
    )
    chosen: list[Order] = []
    for order in load_orders():
        if order.card == voucher or any(line.sku == rarest.sku for line in order.lines):
            chosen.append(order)
            continue
        (kind,) = forecast([order])
        if room[kind] > 0:
            room[kind] -= 1
            chosen.append(order)
    return chosen


@pytest.fixture
def stage(
    tmp_path: Path, postgres: PostgresServer, kafka: KafkaServer, topic_prefix: str
) -> Generator[Stage]:
    with Stage(tmp_path, postgres, kafka, prefix=topic_prefix, orchestrators=1) as stage:
        yield stage
    for name in ("kasaga", *SERVICES):
        postgres.drop_database(topic_prefix + name)


async def start_all(stage: Stage, orders: Sequence[Order]) -> None:
    async with Client(NAMESPACE, stage.kafka, topic_prefix=stage.prefix) as client:
        await asyncio.gather(*(client.start(payment, order, id=order.id) for order in orders))


def wait_for(stage: Stage, count: float) -> None:
    """Waits until so many sagas have ended."""

    def enough() -> bool:
        stage.check()
        sagas = read_sagas(stage.database("kasaga"))
        return sum(saga.state in ("COMPLETED", "COMPENSATED") for saga in sagas) >= count

    eventually(enough, timeout=RUN_SECONDS, interval=0.1)


def test_all_done_or_all_undone_whoever_is_killed(stage: Stage) -> None:
    orders = orders_of_every_kind()
    asyncio.run(start_all(stage, orders))
    for part, victim in ((0.2, "orchestrator-1"), (0.4, "payments"), (0.6, "inventory")):
        wait_for(stage, part * len(orders))
        stage.kill(victim)
        stage.start(victim)
    wait_for(stage, len(orders))

    sagas = read_sagas(stage.database("kasaga"))
    assert audit(orders, sagas, read_books(*map(stage.database, SERVICES))) == []
    foretold = forecast(orders)
    assert min(foretold[kind] for kind in (OUT_OF_STOCK, CARD_DECLINED, NO_CARRIER, TOO_DEAR)) > 0
    states = Counter(saga.state for saga in sagas)
    assert states == {"COMPLETED": foretold[COMPLETED], "COMPENSATED": len(orders) - foretold[COMPLETED]}

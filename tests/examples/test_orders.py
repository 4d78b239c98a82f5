"""The shipped orders: what the file holds, and that it can be made again."""

from __future__ import annotations

import random
from collections import Counter
from decimal import Decimal

import pytest

from examples.make_orders import as_jsonl, make_orders
from examples.orders import (
    CARD_DECLINED,
    COMPLETED,
    NO_CARRIER,
    ORDERS_FILE,
    OUT_OF_STOCK,
    TOO_DEAR,
    forecast,
    load_orders,
)
from examples.world import world


def test_the_shipped_file_is_what_make_orders_writes() -> None:
    assert ORDERS_FILE.read_text(encoding="utf-8") == as_jsonl(make_orders())


def test_another_seed_gives_other_orders() -> None:
    assert make_orders(seed=1) != load_orders()


def test_orders_have_ids_of_their_own_and_come_in_order_of_time() -> None:
    orders = load_orders()
    assert len(orders) == len({order.id for order in orders}) == 2_000
    assert [order.placed_at for order in orders] == sorted(order.placed_at for order in orders)


def test_orders_are_varied() -> None:
    orders = load_orders()
    assert len({order.customer for order in orders}) > 250
    assert len({order.address.country for order in orders}) > 20
    assert len({line.sku for order in orders for line in order.lines}) == len(world().articles)
    assert {len(order.lines) for order in orders} == {1, 2, 3, 4, 5}
    assert len({line.unit_price for order in orders for line in order.lines}) > 100
    assert len({order.total for order in orders}) > 1_000


@pytest.mark.parametrize("seed", range(5))
def test_the_outcome_does_not_depend_on_the_order_of_arrival(seed: int) -> None:
    orders = load_orders()
    random.Random(seed).shuffle(orders)
    assert forecast(orders) == {
        COMPLETED: 1_643,
        OUT_OF_STOCK: 128,
        CARD_DECLINED: 121,
        NO_CARRIER: 88,
        TOO_DEAR: 20,
    }


def test_what_is_not_meant_to_run_out_never_does_not_even_for_a_moment() -> None:
    """All orders at once, before any of them is undone: the forecast ignores that, and may."""
    shop = world()
    orders = load_orders()
    wanted = Counter[str]()
    for order in orders:
        for line in order.lines:
            wanted[line.sku] += line.quantity
    assert all(wanted[article.sku] < article.stock for article in shop.articles if not article.is_rare)
    asked: dict[str, Decimal] = {}
    for order in orders:
        asked[order.card] = asked.get(order.card, Decimal(0)) + order.total
    good = [customer.card for customer in shop.customers if customer.card.kind == "good"]
    assert all(asked.get(card.token, 0) <= card.credit_limit for card in good)


def test_orders_for_what_runs_out_can_fail_for_no_other_reason() -> None:
    """Else one that is undone would give back what decides about another: the totals would be a race."""
    shop = world()
    cards = {customer.card.token: customer.card for customer in shop.customers}
    rare = {article.sku for article in shop.articles if article.is_rare}
    for order in load_orders():
        wants_rare = [line for line in order.lines if line.sku in rare]
        if wants_rare or cards[order.card].kind == "voucher":
            assert cards[order.card].kind in ("good", "voucher")
            assert sum(line.quantity for line in wants_rare) <= 1
            assert forecast([order]) == {COMPLETED: 1}


def test_a_part_of_the_orders_can_be_loaded_but_no_more_than_there_are() -> None:
    assert [order.id for order in load_orders(2)] == ["o-00001", "o-00002"]
    with pytest.raises(ValueError, match="holds 2000 orders"):
        load_orders(2_001)

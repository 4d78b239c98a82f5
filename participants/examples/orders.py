"""The orders that the examples ship, and what must become of them.

`demo.py` and the tests start one saga for each. `forecast` is the three services and the saga as one plain
function, without Kafka, databases or crashes: what a run ends with has to add up to the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

from examples.contracts import Order
from examples.world import World, world

ORDERS_FILE = Path(__file__).with_name("orders.jsonl")

COMPLETED = "completed"
OUT_OF_STOCK = "out of stock"
CARD_DECLINED = "card declined"
NO_CARRIER = "no carrier"
TOO_DEAR = "shipping too dear"


def load_orders(count: int | None = None) -> list[Order]:
    """Gives the first `count` of the shipped orders, or all."""
    with ORDERS_FILE.open(encoding="utf-8") as file:
        orders = [Order.model_validate_json(line) for line in file]
    if count is not None and count > len(orders):
        raise ValueError(f"{ORDERS_FILE.name} holds {len(orders)} orders; {count} were asked for")
    return orders[:count]


def forecast(orders: Iterable[Order]) -> Counter[str]:
    """Counts how many orders end in which way. The order in which they come makes no difference."""
    shop = world()
    shelf = {article.sku: article.stock for article in shop.articles}
    cards = {customer.card.token: customer.card for customer in shop.customers}
    spent = dict.fromkeys(cards, Decimal(0))
    outcomes: Counter[str] = Counter()
    for order in orders:
        if any(shelf[line.sku] < line.quantity for line in order.lines):
            outcomes[OUT_OF_STOCK] += 1
            continue
        card = cards[order.card]
        if (
            card.blocked
            or card.expires < order.placed_at.date()
            or spent[card.token] + order.total > card.credit_limit
        ):
            outcomes[CARD_DECLINED] += 1
            continue
        outcome = _shipping(shop, order)
        if outcome == COMPLETED:
            spent[card.token] += order.total
            for line in order.lines:
                shelf[line.sku] -= line.quantity
        outcomes[outcome] += 1
    return outcomes


def _shipping(shop: World, order: Order) -> str:
    weight = sum(shop.article(line.sku).weight_grams * line.quantity for line in order.lines)
    offer = shop.cheapest(order.address.country, weight)
    if offer is None:
        return NO_CARRIER
    dear = order.shipping_limit is not None and offer[1] > order.shipping_limit
    return TOO_DEAR if dear else COMPLETED

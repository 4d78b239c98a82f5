"""Writes orders.jsonl: 2,000 orders, of which exactly 357 can't be fulfilled, for the reasons shops know.

Run as `python -m examples.make_orders`; a test checks that the file is what this would write. Which kinds of
orders there are, and how many, is stated below; who orders what is drawn.

How many orders fail never depends on the order in which the services see them, though *which* ones do,
does: articles and cards that run out are only in orders that nothing else can go wrong with, and each such
order takes the same share. So a demo with crashes in it still has one right answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum

from examples.contracts import Line, Order
from examples.orders import ORDERS_FILE
from examples.world import OPENED_AT, SEED, SMALL_LIMIT, VOUCHER_ARTICLE, Article, Customer, World, world

ORDERS = 2_000

MEAN_SECONDS_BETWEEN_ORDERS = 240

EXCESS_PER_RARE_ARTICLE = (13, 13, 13, 12, 13, 13, 12, 13, 13, 13)
"""How many more orders there are for a rare article than pieces: 128 in all."""

ORDERS_PER_VOUCHER = 6
"""A voucher pays for three of them; there are 16 vouchers, so 48 orders are declined."""


class Kind(StrEnum):
    """What is special about an order."""

    ORDINARY = "ordinary"
    RARE = "rare"
    VOUCHER = "voucher"
    BLOCKED = "blocked"
    EXPIRED = "expired"
    SMALL = "small"
    UNSERVED = "unserved"
    HEAVY = "heavy"
    DEAR = "dear"


ALWAYS_FAILING = {
    Kind.BLOCKED: 27,
    Kind.EXPIRED: 24,
    Kind.SMALL: 22,
    Kind.UNSERVED: 45,
    Kind.HEAVY: 43,
    Kind.DEAR: 20,
}

HEAVY_ARTICLES = ("Anvil", "Reading chair", "Fire basket", "Espresso machine")


class OrderBook:
    """Draws orders, one after the other, from one seed."""

    def __init__(self, shop: World, seed: int) -> None:
        self._shop = shop
        self._rng = random.Random(seed)
        self._now = OPENED_AT
        self._number = 0
        self._ordinary = [article for article in shop.articles if not article.is_rare]
        served = {tariff.country for tariff in shop.tariffs}
        self._by_card: dict[str, list[Customer]] = {}
        self._unserved: list[Customer] = []
        for customer in shop.customers:
            if customer.address.country in served:
                self._by_card.setdefault(customer.card.kind, []).append(customer)
            else:
                self._unserved.append(customer)

    def draw_all(self) -> list[Order]:
        """Gives all orders, in the order in which they were placed."""
        rare = [
            (Kind.RARE, article)
            for article, excess in zip(self._rare_articles(), EXCESS_PER_RARE_ARTICLE, strict=True)
            for _ in range(article.stock + excess)
        ]
        vouchers = [
            (Kind.VOUCHER, customer)
            for customer in self._by_card["voucher"]
            for _ in range(ORDERS_PER_VOUCHER)
        ]
        plan: list[tuple[Kind, Article | Customer | None]] = [*rare, *vouchers]
        plan += [(kind, None) for kind, count in ALWAYS_FAILING.items() for _ in range(count)]
        plan += [(Kind.ORDINARY, None)] * (ORDERS - len(plan))
        self._rng.shuffle(plan)
        return [self._draw(kind, about) for kind, about in plan]

    def _rare_articles(self) -> list[Article]:
        return [article for article in self._shop.articles if article.is_rare]

    def _draw(self, kind: Kind, about: Article | Customer | None) -> Order:
        match kind, about:
            case Kind.RARE, Article():
                customer = self._good_customer()
                lines = [self._line(about, quantity=1), *self._lines(customer, at_most=2, besides=about)]
            case Kind.VOUCHER, Customer():
                customer = about
                teapot = next(each for each in self._ordinary if each.name == VOUCHER_ARTICLE)
                lines = [Line(sku=teapot.sku, quantity=1, unit_price=teapot.price)]
            case Kind.HEAVY, _:
                customer = self._good_customer()
                lines = self._heavy_lines(customer)
            case Kind.UNSERVED, _:
                customer = self._rng.choice(self._unserved)
                lines = self._lines(None)
            case ((Kind.BLOCKED | Kind.EXPIRED | Kind.SMALL), _):
                customer = self._rng.choice(self._by_card[kind])
                lines = self._lines(customer)
                while _total(lines) <= SMALL_LIMIT:
                    lines = self._lines(customer)
            case _:
                customer = self._good_customer()
                lines = self._lines(customer)
        return self._order(customer, lines, too_dear=kind is Kind.DEAR)

    def _order(self, customer: Customer, lines: list[Line], *, too_dear: bool) -> Order:
        self._number += 1
        self._now += timedelta(seconds=round(self._rng.expovariate(1 / MEAN_SECONDS_BETWEEN_ORDERS)))
        offer = self._shop.cheapest(customer.address.country, self._weight(lines))
        limit = None
        if offer is not None:
            price = offer[1]
            if too_dear:
                limit = (price * Decimal("0.6")).quantize(Decimal("0.01"))
            elif self._rng.random() < 0.35:
                limit = price + self._rng.randint(0, 30)
        return Order(
            id=f"o-{self._number:05}",
            placed_at=self._now,
            customer=customer.id,
            card=customer.card.token,
            address=customer.address,
            lines=lines,
            shipping_limit=limit,
        )

    def _good_customer(self) -> Customer:
        return self._rng.choice(self._by_card["good"])

    def _lines(
        self, customer: Customer | None, *, at_most: int = 5, besides: Article | None = None
    ) -> list[Line]:
        """Draws lines that some carrier takes to the customer, together with one piece of `besides`."""
        while True:
            count = self._rng.randint(0 if besides else 1, at_most)
            chosen = self._rng.sample(self._ordinary, count)
            quantities = self._rng.choices((1, 2, 3, 4, 6), weights=(12, 5, 2, 1, 1), k=count)
            lines = [self._line(each, amount) for each, amount in zip(chosen, quantities, strict=True)]
            weight = self._weight(lines) + (besides.weight_grams if besides else 0)
            if customer is None or self._shop.cheapest(customer.address.country, weight):
                return lines

    def _heavy_lines(self, customer: Customer) -> list[Line]:
        """Draws lines that are too heavy for every carrier that goes to the customer."""
        names = self._rng.sample(HEAVY_ARTICLES, self._rng.randint(1, 3))
        articles = [each for each in self._ordinary if each.name in names]
        quantities = [self._rng.randint(1, 3) for _ in articles]
        while True:
            lines = [self._line(each, amount) for each, amount in zip(articles, quantities, strict=True)]
            if self._shop.cheapest(customer.address.country, self._weight(lines)) is None:
                return lines
            quantities[self._rng.randrange(len(quantities))] += 1

    def _line(self, article: Article, quantity: int) -> Line:
        """Gives one line; now and then there is something off the price."""
        price = article.price
        if not article.is_rare and self._rng.random() < 0.15:
            price = (price * self._rng.choice((Decimal("0.80"), Decimal("0.90")))).quantize(Decimal("0.01"))
        return Line(sku=article.sku, quantity=quantity, unit_price=price)

    def _weight(self, lines: Sequence[Line]) -> int:
        return sum(self._shop.article(line.sku).weight_grams * line.quantity for line in lines)


def _total(lines: Sequence[Line]) -> Decimal:
    return sum((line.unit_price * line.quantity for line in lines), Decimal(0))


def make_orders(seed: int = SEED) -> list[Order]:
    """Gives the orders that orders.jsonl holds, or others for another seed."""
    return OrderBook(world(), seed).draw_all()


def as_jsonl(orders: Sequence[Order]) -> str:
    """Gives the file's text: one order a line."""
    return "".join(order.model_dump_json(exclude_none=True) + "\n" for order in orders)


if __name__ == "__main__":
    ORDERS_FILE.write_text(as_jsonl(make_orders()), encoding="utf-8")

"""Proves, from four databases, that every order ended all done or all undone.

`demo.py` and the integration tests call it when all sagas have ended. It trusts nobody: what the
orchestrator says of each saga is held against what the three services wrote into their own tables.
`read_sagas` and `read_books` fetch, `audit` is pure and returns each violation as a sentence.

    python -m examples.audit     # KASAGA_, INVENTORY_, PAYMENTS_ and SHIPPING_DATABASE_URL say where
"""

from __future__ import annotations

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import LiteralString, NamedTuple, TypeVar

import psycopg
from psycopg.rows import class_row

from examples.contracts import Order
from examples.orders import load_orders

COMPLETED = "COMPLETED"
COMPENSATED = "COMPENSATED"
STUCK = "STUCK"

R = TypeVar("R")


class Saga(NamedTuple):
    """What the orchestrator says of one order's saga; the saga's id is the order's."""

    saga_id: str
    state: str
    reason: str


class Stock(NamedTuple):
    """One article on the shelf."""

    sku: str
    initial: int
    quantity: int


class ReservedLine(NamedTuple):
    """One line of a reservation, and how often the reservation was released."""

    id: int
    order_id: str
    sku: str
    quantity: int
    releases: int


class CardRow(NamedTuple):
    """One card's balance."""

    token: str
    spent: Decimal


class ChargeRow(NamedTuple):
    """One charge, and what was given back of it."""

    id: int
    order_id: str
    card: str
    amount: Decimal
    refunds: int
    refunded: Decimal


class ShipmentRow(NamedTuple):
    """One shipment, and how often it was cancelled."""

    id: int
    order_id: str
    country: str
    cancellations: int


@dataclass(slots=True)
class Books:
    """What the three services have in their databases."""

    stock: list[Stock] = field(default_factory=list[Stock])
    reserved: list[ReservedLine] = field(default_factory=list[ReservedLine])
    cards: list[CardRow] = field(default_factory=list[CardRow])
    charges: list[ChargeRow] = field(default_factory=list[ChargeRow])
    shipments: list[ShipmentRow] = field(default_factory=list[ShipmentRow])


def read_sagas(orchestrator_url: str) -> list[Saga]:
    """Reads every payment saga from the orchestrator's database."""
    query = "SELECT saga_id, state, reason FROM kasaga.saga WHERE name = 'payment'"
    return _read(orchestrator_url, Saga, query)


def read_books(inventory_url: str, payments_url: str, shipping_url: str) -> Books:
    """Reads the three services' tables."""
    return Books(
        stock=_read(inventory_url, Stock, "SELECT sku, initial, quantity FROM stock"),
        reserved=_read(
            inventory_url,
            ReservedLine,
            """SELECT r.id, r.order_id, l.sku, l.quantity,
                      (SELECT count(*) FROM release WHERE reservation_id = r.id) AS releases
               FROM reservation r JOIN reservation_line l ON l.reservation_id = r.id""",
        ),
        cards=_read(payments_url, CardRow, "SELECT token, spent FROM card"),
        charges=_read(
            payments_url,
            ChargeRow,
            """SELECT c.id, c.order_id, c.card, c.amount, count(r.id) AS refunds,
                      coalesce(sum(r.amount), 0) AS refunded
               FROM charge c LEFT JOIN refund r ON r.charge_id = c.id GROUP BY c.id""",
        ),
        shipments=_read(
            shipping_url,
            ShipmentRow,
            """SELECT s.id, s.order_id, s.country,
                      (SELECT count(*) FROM cancellation WHERE shipment_id = s.id) AS cancellations
               FROM shipment s""",
        ),
    )


def _read(url: str, row: type[R], query: LiteralString) -> list[R]:
    with psycopg.connect(url) as connection, connection.cursor(row_factory=class_row(row)) as cursor:
        return cursor.execute(query).fetchall()


def audit(orders: Sequence[Order], sagas: Sequence[Saga], books: Books) -> list[str]:
    """Returns every violation of the promise as a sentence; none is good news."""
    return list(_Audit(orders, sagas, books).violations())


class _Audit:
    """One audit: the orders, the sagas and the books, sorted by order."""

    def __init__(self, orders: Sequence[Order], sagas: Sequence[Saga], books: Books) -> None:
        self.orders = {order.id: order for order in orders}
        self.sagas = {saga.saga_id: saga for saga in sagas}
        self.sagas_listed = Counter(saga.saga_id for saga in sagas)
        self.books = books
        self.reservations: dict[str, dict[int, list[ReservedLine]]] = defaultdict(lambda: defaultdict(list))
        for line in books.reserved:
            self.reservations[line.order_id][line.id].append(line)
        self.charges = _by_order(books.charges)
        self.shipments = _by_order(books.shipments)

    def violations(self) -> Iterator[str]:
        yield from self._unknown()
        for order in self.orders.values():
            yield from self._order(order)
        yield from self._stock()
        yield from self._money()

    def _unknown(self) -> Iterator[str]:
        """Sagas without an order, listed twice, and effects without a saga."""
        for saga_id, times in self.sagas_listed.items():
            if saga_id not in self.orders:
                yield f"Saga {saga_id} belongs to no order."
            if times > 1:
                yield f"Saga {saga_id} is listed {times} times."
        effects: tuple[tuple[str, Iterable[str]], ...] = (
            ("reservation", self.reservations),
            ("charge", self.charges),
            ("shipment", self.shipments),
        )
        for what, order_ids in effects:
            for order_id in order_ids:
                if order_id not in self.sagas:
                    yield f"There is a {what} for order {order_id}, of which the orchestrator knows nothing."

    def _order(self, order: Order) -> Iterator[str]:
        saga = self.sagas.get(order.id)
        if saga is None:
            yield f"Order {order.id} has no saga."
            return
        yield from self._twice(order)
        match saga.state:
            case "COMPLETED":
                yield from self._completed(order)
            case "COMPENSATED":
                yield from self._compensated(order)
                if not saga.reason:
                    yield f"Order {order.id} was undone, and nothing says why."
            case "STUCK":
                # Stuck with a reason is the promise's third end: a person knows, and the books may be half.
                if not saga.reason:
                    yield f"Order {order.id} is stuck, and nothing says why."
            case state:
                yield f"Order {order.id} has not ended: its saga is {state}."

    def _twice(self, order: Order) -> Iterator[str]:
        """Whatever its end, no step and no compensation may have happened twice."""
        reservations = self.reservations.get(order.id, {})
        charges = self.charges.get(order.id, [])
        shipments = self.shipments.get(order.id, [])
        steps = (("reserved", reservations), ("charged", charges), ("shipped", shipments))
        for verb, done in steps:
            if len(done) > 1:
                yield f"Order {order.id} was {verb} {len(done)} times."
        releases = {number: lines[0].releases for number, lines in reservations.items()}
        undone = (
            ("Reservation", "released", releases),
            ("Charge", "refunded", {charge.id: charge.refunds for charge in charges}),
            ("Shipment", "cancelled", {shipment.id: shipment.cancellations for shipment in shipments}),
        )
        for noun, verb, counts in undone:
            for number, times in counts.items():
                if times > 1:
                    yield f"{noun} {number} of order {order.id} was {verb} {times} times."

    def _completed(self, order: Order) -> Iterator[str]:
        """All three effects must be there, and be the right ones."""
        held = [lines for lines in self.reservations.get(order.id, {}).values() if lines[0].releases == 0]
        if not held:
            yield f"Order {order.id} is completed, but nothing is reserved for it."
        wanted = Counter[str]()
        for line in order.lines:
            wanted[line.sku] += line.quantity
        for lines in held:
            reserved = Counter({line.sku: line.quantity for line in lines})
            if reserved != wanted:
                yield (
                    f"Order {order.id} is completed, but reservation {lines[0].id} holds {_goods(reserved)} "
                    f"instead of {_goods(wanted)}."
                )
        taken = [charge for charge in self.charges.get(order.id, []) if charge.refunded == 0]
        if not taken:
            yield f"Order {order.id} is completed, but it is not charged."
        for charge in taken:
            if (charge.amount, charge.card) != (order.total, order.card):
                yield (
                    f"Order {order.id} is completed, but charge {charge.id} took {charge.amount} "
                    f"from {charge.card} instead of {order.total} from {order.card}."
                )
        sent = [shipment for shipment in self.shipments.get(order.id, []) if shipment.cancellations == 0]
        if not sent:
            yield f"Order {order.id} is completed, but it is not shipped."
        for shipment in sent:
            if shipment.country != order.address.country:
                yield (
                    f"Order {order.id} is completed, but shipment {shipment.id} goes to "
                    f"{shipment.country} instead of {order.address.country}."
                )

    def _compensated(self, order: Order) -> Iterator[str]:
        """No effect may be left."""
        for number, lines in self.reservations.get(order.id, {}).items():
            if lines[0].releases == 0:
                yield f"Order {order.id} was undone, but reservation {number} still holds its goods."
        for charge in self.charges.get(order.id, []):
            if charge.refunded != charge.amount:
                yield (
                    f"Order {order.id} was undone, but of charge {charge.id} over {charge.amount} "
                    f"{charge.refunded} was given back."
                )
        for shipment in self.shipments.get(order.id, []):
            if shipment.cancellations == 0:
                yield f"Order {order.id} was undone, but shipment {shipment.id} is still on its way."

    def _stock(self) -> Iterator[str]:
        """What was there is on the shelf, or with an order that is completed (or may be)."""
        gone: Counter[str] = Counter()
        for order in self._in_state(COMPLETED):
            for line in order.lines:
                gone[line.sku] += line.quantity
        for held in self.books.reserved:
            if held.releases == 0 and not self._has_ended(held.order_id):
                gone[held.sku] += held.quantity
        for article in self.books.stock:
            if article.quantity + gone[article.sku] != article.initial:
                yield (
                    f"Of {article.sku} there were {article.initial}; {article.quantity} are on the shelf and "
                    f"{gone[article.sku]} with completed orders, "
                    f"which is {article.quantity + gone[article.sku] - article.initial:+}."
                )

    def _money(self) -> Iterator[str]:
        """What a card has spent is what its completed orders (and those that may be) cost."""
        spent: dict[str, Decimal] = defaultdict(Decimal)
        for order in self._in_state(COMPLETED):
            spent[order.card] += order.total
        for charge in self.books.charges:
            if not self._has_ended(charge.order_id):
                spent[charge.card] += charge.amount - charge.refunded
        for card in self.books.cards:
            if card.spent != spent[card.token]:
                yield (
                    f"Card {card.token} has spent {card.spent}, and its completed orders cost "
                    f"{spent[card.token]}, which is {card.spent - spent[card.token]:+}."
                )

    def _in_state(self, state: str) -> Iterator[Order]:
        return (order for order in self.orders.values() if self._state(order.id) == state)

    def _has_ended(self, order_id: str) -> bool:
        return self._state(order_id) in (COMPLETED, COMPENSATED)

    def _state(self, order_id: str) -> str:
        saga = self.sagas.get(order_id)
        return saga.state if saga else ""


Row = TypeVar("Row", ChargeRow, ShipmentRow)


def _by_order(rows: Iterable[Row]) -> dict[str, list[Row]]:
    sorted_by_order: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        sorted_by_order[row.order_id].append(row)
    return sorted_by_order


def _goods(goods: Mapping[str, int]) -> str:
    return ", ".join(f"{quantity} × {sku}" for sku, quantity in sorted(goods.items())) or "nothing"


def main() -> int:
    """Audits the databases that the environment names; the exit status says whether all is well."""
    url = os.environ.__getitem__
    sagas = read_sagas(url("KASAGA_DATABASE_URL"))
    books = read_books(
        url("INVENTORY_DATABASE_URL"), url("PAYMENTS_DATABASE_URL"), url("SHIPPING_DATABASE_URL")
    )
    started = {saga.saga_id for saga in sagas}
    violations = audit([order for order in load_orders() if order.id in started], sagas, books)
    for violation in violations:
        sys.stdout.write(f"{violation}\n")
    sys.stdout.write(f"audit: {len(sagas)} sagas, {len(violations)} violations\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())

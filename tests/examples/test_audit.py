"""Each kind of violation is planted, and the audit must find it and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import pytest

from examples.audit import Books, CardRow, ChargeRow, ReservedLine, Saga, ShipmentRow, Stock, audit
from examples.contracts import Order
from examples.orders import load_orders
from examples.world import world

ORDERS = load_orders(6)
DONE, LATER, UNDONE_EARLY, UNDONE_LATE, OTHER, STUCK = ORDERS


@dataclass
class Run:
    """A run that went well: three orders completed, one refused at once, one undone after all three steps."""

    orders: list[Order]
    sagas: list[Saga]
    books: Books

    def violations(self) -> list[str]:
        return audit(self.orders, self.sagas, self.books)


def good_run() -> Run:
    completed = (DONE, LATER, OTHER)
    run = Run([*completed, UNDONE_EARLY, UNDONE_LATE], [], Books())
    run.sagas = [Saga(order.id, "COMPLETED", "") for order in completed]
    run.sagas.append(Saga(UNDONE_EARLY.id, "COMPENSATED", "out of stock"))
    run.sagas.append(Saga(UNDONE_LATE.id, "COMPENSATED", "shipping too dear"))
    gone, spent = Counter[str](), Counter[str]()
    for number, order in enumerate(completed, start=1):
        effects(run, order, number)
        for line in order.lines:
            gone[line.sku] += line.quantity
        spent[order.card] += int(order.total * 100)
    effects(run, UNDONE_LATE, 9, undone=True)
    shop = world()
    run.books.stock = [Stock(each.sku, each.stock, each.stock - gone[each.sku]) for each in shop.articles]
    run.books.cards = [
        CardRow(each.card.token, Decimal(spent[each.card.token]) / 100) for each in shop.customers
    ]
    return run


def effects(run: Run, order: Order, number: int, *, undone: bool = False) -> None:
    """Books all three effects of an order, and their undoing."""
    times = 1 if undone else 0
    run.books.reserved += [
        ReservedLine(number, order.id, line.sku, line.quantity, times) for line in order.lines
    ]
    refunded = order.total if undone else Decimal(0)
    run.books.charges.append(ChargeRow(number, order.id, order.card, order.total, times, refunded))
    run.books.shipments.append(ShipmentRow(number, order.id, order.address.country, times))


def move_stock(run: Run, sku: str, pieces: int) -> None:
    run.books.stock = [
        each._replace(quantity=each.quantity + pieces) if each.sku == sku else each
        for each in run.books.stock
    ]


def spend(run: Run, card: str, amount: Decimal) -> None:
    run.books.cards = [
        each._replace(spent=each.spent + amount) if each.token == card else each for each in run.books.cards
    ]


def set_saga(run: Run, order: Order, state: str, reason: str = "") -> None:
    run.sagas = [Saga(order.id, state, reason) if saga.saga_id == order.id else saga for saga in run.sagas]


def drop_saga(run: Run, order: Order) -> None:
    run.sagas = [saga for saga in run.sagas if saga.saga_id != order.id]


def test_a_good_run_has_no_violations() -> None:
    assert good_run().violations() == []


# Each of these does one thing wrong to a good run.


def no_saga(run: Run) -> None:
    drop_saga(run, UNDONE_EARLY)


def saga_of_no_order(run: Run) -> None:
    run.sagas.append(Saga("o-ghost", "COMPLETED", ""))


def saga_twice(run: Run) -> None:
    run.sagas.append(run.sagas[0])


def reservation_of_nobody(run: Run) -> None:
    run.books.reserved.append(ReservedLine(77, "o-ghost", DONE.lines[0].sku, 1, 0))
    move_stock(run, DONE.lines[0].sku, -1)


def charge_of_nobody(run: Run) -> None:
    run.books.charges.append(ChargeRow(77, "o-ghost", DONE.card, Decimal("5.00"), 0, Decimal(0)))
    spend(run, DONE.card, Decimal("5.00"))


def shipment_of_nobody(run: Run) -> None:
    run.books.shipments.append(ShipmentRow(77, "o-ghost", "DE", 0))


def not_ended(run: Run) -> None:
    set_saga(run, LATER, "RUNNING")


def stuck_without_a_word(run: Run) -> None:
    set_saga(run, LATER, "STUCK")


def undone_without_a_word(run: Run) -> None:
    set_saga(run, UNDONE_EARLY, "COMPENSATED")


def nothing_reserved(run: Run) -> None:
    run.books.reserved = [line for line in run.books.reserved if line.order_id != DONE.id]


def nothing_charged(run: Run) -> None:
    run.books.charges = [charge for charge in run.books.charges if charge.order_id != DONE.id]


def nothing_shipped(run: Run) -> None:
    run.books.shipments = [shipment for shipment in run.books.shipments if shipment.order_id != DONE.id]


def completed_but_released(run: Run) -> None:
    run.books.reserved = [
        line._replace(releases=1) if line.order_id == DONE.id else line for line in run.books.reserved
    ]


def wrong_goods(run: Run) -> None:
    run.books.reserved = [
        line._replace(quantity=line.quantity + 1) if line.order_id == DONE.id else line
        for line in run.books.reserved
    ]


def wrong_amount(run: Run) -> None:
    run.books.charges = [
        charge._replace(amount=charge.amount + 1) if charge.order_id == DONE.id else charge
        for charge in run.books.charges
    ]


def wrong_card(run: Run) -> None:
    run.books.charges = [
        charge._replace(card=OTHER.card) if charge.order_id == DONE.id else charge
        for charge in run.books.charges
    ]


def wrong_country(run: Run) -> None:
    run.books.shipments = [
        shipment._replace(country="AQ") if shipment.order_id == DONE.id else shipment
        for shipment in run.books.shipments
    ]


def reserved_twice(run: Run) -> None:
    run.books.reserved += [ReservedLine(77, DONE.id, line.sku, line.quantity, 1) for line in DONE.lines]


def charged_twice(run: Run) -> None:
    run.books.charges.append(ChargeRow(77, DONE.id, DONE.card, DONE.total, 1, DONE.total))


def shipped_twice(run: Run) -> None:
    run.books.shipments.append(ShipmentRow(77, DONE.id, DONE.address.country, 1))


def released_twice(run: Run) -> None:
    run.books.reserved = [line._replace(releases=line.releases * 2) for line in run.books.reserved]


def refunded_twice(run: Run) -> None:
    """Both halves add up to the whole, and it is still once too often."""
    run.books.charges = [charge._replace(refunds=charge.refunds * 2) for charge in run.books.charges]


def cancelled_twice(run: Run) -> None:
    run.books.shipments = [
        shipment._replace(cancellations=shipment.cancellations * 2) for shipment in run.books.shipments
    ]


def still_reserved(run: Run) -> None:
    run.books.reserved = [line._replace(releases=0) for line in run.books.reserved]


def still_charged(run: Run) -> None:
    run.books.charges = [charge._replace(refunds=0, refunded=Decimal(0)) for charge in run.books.charges]


def half_refunded(run: Run) -> None:
    run.books.charges = [
        charge._replace(refunded=charge.refunded - 1) if charge.refunds else charge
        for charge in run.books.charges
    ]


def still_shipped(run: Run) -> None:
    run.books.shipments = [shipment._replace(cancellations=0) for shipment in run.books.shipments]


def stock_lost(run: Run) -> None:
    move_stock(run, DONE.lines[0].sku, -1)


def stock_out_of_nothing(run: Run) -> None:
    move_stock(run, DONE.lines[0].sku, 2)


def money_lost(run: Run) -> None:
    spend(run, DONE.card, Decimal("0.01"))


def money_out_of_nothing(run: Run) -> None:
    spend(run, DONE.card, -DONE.total)


PLANTED: list[tuple[Callable[[Run], None], str]] = [
    (no_saga, f"Order {UNDONE_EARLY.id} has no saga."),
    (saga_of_no_order, "Saga o-ghost belongs to no order."),
    (saga_twice, f"Saga {DONE.id} is listed 2 times."),
    (reservation_of_nobody, "There is a reservation for order o-ghost, of which the orchestrator knows "),
    (charge_of_nobody, "There is a charge for order o-ghost, of which the orchestrator knows nothing."),
    (shipment_of_nobody, "There is a shipment for order o-ghost, of which the orchestrator knows nothing."),
    (not_ended, f"Order {LATER.id} has not ended: its saga is RUNNING."),
    (stuck_without_a_word, f"Order {LATER.id} is stuck, and nothing says why."),
    (undone_without_a_word, f"Order {UNDONE_EARLY.id} was undone, and nothing says why."),
    (nothing_reserved, f"Order {DONE.id} is completed, but nothing is reserved for it."),
    (completed_but_released, f"Order {DONE.id} is completed, but nothing is reserved for it."),
    (nothing_charged, f"Order {DONE.id} is completed, but it is not charged."),
    (nothing_shipped, f"Order {DONE.id} is completed, but it is not shipped."),
    (wrong_goods, f"Order {DONE.id} is completed, but reservation 1 holds 2 × "),
    (wrong_amount, f"Order {DONE.id} is completed, but charge 1 took {DONE.total + 1} from {DONE.card} "),
    (wrong_card, f"Order {DONE.id} is completed, but charge 1 took {DONE.total} from {OTHER.card} instead"),
    (wrong_country, f"Order {DONE.id} is completed, but shipment 1 goes to AQ instead of ES."),
    (reserved_twice, f"Order {DONE.id} was reserved 2 times."),
    (charged_twice, f"Order {DONE.id} was charged 2 times."),
    (shipped_twice, f"Order {DONE.id} was shipped 2 times."),
    (released_twice, f"Reservation 9 of order {UNDONE_LATE.id} was released 2 times."),
    (refunded_twice, f"Charge 9 of order {UNDONE_LATE.id} was refunded 2 times."),
    (cancelled_twice, f"Shipment 9 of order {UNDONE_LATE.id} was cancelled 2 times."),
    (still_reserved, f"Order {UNDONE_LATE.id} was undone, but reservation 9 still holds its goods."),
    (still_charged, f"Order {UNDONE_LATE.id} was undone, but of charge 9 over {UNDONE_LATE.total} 0 "),
    (half_refunded, f"Order {UNDONE_LATE.id} was undone, but of charge 9 over {UNDONE_LATE.total} "),
    (still_shipped, f"Order {UNDONE_LATE.id} was undone, but shipment 9 is still on its way."),
    (stock_lost, f"Of {DONE.lines[0].sku} there were 20000; "),
    (stock_out_of_nothing, f"Of {DONE.lines[0].sku} there were 20000; "),
    (money_lost, f"Card {DONE.card} has spent {DONE.total + Decimal('0.01')}, and its "),
    (money_out_of_nothing, f"Card {DONE.card} has spent 0.00, and its completed orders cost {DONE.total}"),
]


@pytest.mark.parametrize(("plant", "sentence"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_violation_is_found_and_nothing_else(plant: Callable[[Run], None], sentence: str) -> None:
    run = good_run()
    plant(run)
    violations = run.violations()
    assert len(violations) == 1, violations
    assert violations[0].startswith(sentence)


@pytest.mark.parametrize("half_done", [True, False])
def test_a_saga_that_is_stuck_with_a_reason_is_no_violation_whatever_it_left(half_done: bool) -> None:
    run = good_run()
    run.orders.append(STUCK)
    run.sagas.append(Saga(STUCK.id, "STUCK", "inventory.release failed 5 times: connection refused"))
    if half_done:
        run.books.reserved += [ReservedLine(20, STUCK.id, line.sku, line.quantity, 0) for line in STUCK.lines]
        run.books.charges.append(ChargeRow(20, STUCK.id, STUCK.card, STUCK.total, 0, Decimal(0)))
        for line in STUCK.lines:
            move_stock(run, line.sku, -line.quantity)
        spend(run, STUCK.card, STUCK.total)
    assert run.violations() == []


def test_an_empty_run_is_fine() -> None:
    assert audit([], [], Books()) == []

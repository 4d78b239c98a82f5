"""The three services' handlers on a real Postgres, called as the SDK calls them; no Kafka, no saga."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest

from examples import inventory, payments, shipping
from examples.audit import Saga, audit, read_books
from examples.contracts import Charge, Line, Order, Parcel, Reservation, Shipment
from examples.inventory import InventoryService
from examples.orders import (
    CARD_DECLINED,
    COMPLETED,
    NO_CARRIER,
    OUT_OF_STOCK,
    TOO_DEAR,
    forecast,
    load_orders,
)
from examples.service import prepare
from examples.world import VOUCHER_PRICE, Article, Card, world
from kasaga.dev.servers import PostgresServer
from kasaga_participant import CommandInfo, Refused, SyncTx, Tx

R = TypeVar("R")

COMMAND = CommandInfo(
    id="018f-run.1",
    attempt=1,
    type="x.y",
    participant="x",
    saga_id="o-1",
    saga="payment",
    saga_version=1,
    sent=datetime(2025, 11, 3, tzinfo=UTC),
)

ORDER = next(order for order in load_orders(20) if forecast([order]) == {COMPLETED: 1})


def call(url: str, handler: Callable[[Tx], Awaitable[R]]) -> R:
    """Runs an async handler in a transaction that ends as the SDK's does."""

    async def run() -> R:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            return await handler(Tx(connection, COMMAND))

    return asyncio.run(run())


def call_sync(url: str, handler: Callable[[SyncTx], R]) -> R:
    with psycopg.connect(url) as connection:
        return handler(SyncTx(connection, COMMAND))


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def seed(url: str) -> None:
    prepare(inventory.SCHEMA, inventory.SEED, inventory.stock(), url)
    prepare(payments.SCHEMA, payments.SEED, payments.cards(), url)
    prepare(shipping.SCHEMA, shipping.SEED, shipping.tariffs(), url)


def test_a_process_that_starts_waits_for_nobody_at_work(postgres: PostgresServer, database: str) -> None:
    """As in a rollout. CREATE INDEX IF NOT EXISTS would wait for the order at hand, and new orders for it."""
    seed(database)
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE stock SET quantity = quantity - 1")
        connection.execute("INSERT INTO reservation (order_id) VALUES ('o-1')")
        connection.execute("UPDATE card SET spent = spent + 1")
        connection.execute(
            "INSERT INTO charge (order_id, card, amount) SELECT 'o-1', min(token), 1 FROM card"
        )
        impatient = f"{database}?options=-c%20lock_timeout%3D100ms"
        seed(impatient)
        connection.rollback()
    assert rows(database, "SELECT count(*) FROM prepared") == [(3,)]


@pytest.fixture(scope="module")
def seeded(postgres: PostgresServer) -> Iterator[str]:
    """One database for all: making three for each test takes longer than the tests. The tables differ."""
    name = f"shop{uuid.uuid4().hex[:10]}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def shop(seeded: str) -> str:
    """The three services' tables as they are in the beginning."""
    with psycopg.connect(seeded, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    seed(seeded)
    return seeded


def test_the_database_may_be_named_by_a_file(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Kubernetes, where secrets are files."""
    file = tmp_path / "url"
    file.write_text(f"{database}\n")
    monkeypatch.delenv("KASAGA_DATABASE_URL", raising=False)
    monkeypatch.setenv("KASAGA_DATABASE_URL_FILE", str(file))
    prepare(shipping.SCHEMA, shipping.SEED, shipping.tariffs())
    assert rows(database, "SELECT FROM tariff")


# --- inventory


@pytest.fixture
def warehouse(shop: str) -> str:
    return shop


def reserve(url: str, order: Order) -> Reservation:
    return call(url, lambda tx: InventoryService(tx).reserve(order))


def release(url: str, order: Order, reserved: Reservation | None) -> None:
    call(url, lambda tx: InventoryService(tx).release(order, reserved))


def on_shelf(url: str) -> dict[str, int]:
    return dict(rows(url, "SELECT sku, quantity FROM stock"))


def order_of(article: Article, quantity: int, **changes: Any) -> Order:
    line = Line(sku=article.sku, quantity=quantity, unit_price=article.price)
    return ORDER.model_copy(update={"lines": [line], **changes})


RARE = next(article for article in world().articles if article.is_rare)


def test_reserved_goods_leave_the_shelf(warehouse: str) -> None:
    before = on_shelf(warehouse)
    reserved = reserve(warehouse, ORDER)
    after = on_shelf(warehouse)
    assert {sku: before[sku] - after[sku] for sku in before if before[sku] != after[sku]} == {
        line.sku: line.quantity for line in ORDER.lines
    }
    assert reserved.pieces == sum(line.quantity for line in ORDER.lines)
    assert reserved.weight_grams == sum(
        world().article(line.sku).weight_grams * line.quantity for line in ORDER.lines
    )


def test_two_lines_of_one_article_count_together(warehouse: str) -> None:
    line = Line(sku=RARE.sku, quantity=RARE.stock // 2 + 1, unit_price=RARE.price)
    order = ORDER.model_copy(update={"lines": [line, line]})
    with pytest.raises(Refused, match="is out of stock"):
        reserve(warehouse, order)


def test_what_is_not_there_is_refused_with_figures(warehouse: str) -> None:
    reserve(warehouse, order_of(RARE, RARE.stock - 1))
    with pytest.raises(
        Refused, match=rf"{RARE.name} \({RARE.sku}\) is out of stock: 2 wanted, 1 left"
    ) as caught:
        reserve(warehouse, order_of(RARE, 2))
    assert caught.value.code == "OUT_OF_STOCK"
    assert caught.value.details == {"sku": RARE.sku, "wanted": 2, "left": 1}
    assert on_shelf(warehouse)[RARE.sku] == 1
    assert len(rows(warehouse, "SELECT FROM reservation")) == 1


def test_an_article_that_nobody_knows_is_refused(warehouse: str) -> None:
    order = ORDER.model_copy(update={"lines": [Line(sku="X-1", quantity=1, unit_price=Decimal(1))]})
    with pytest.raises(Refused, match="there is no article X-1"):
        reserve(warehouse, order)


def test_the_last_piece_goes_to_one_of_two_who_want_it_at_once(warehouse: str) -> None:
    """The second waits for the first one's transaction, and then sees an empty shelf."""
    reserve(warehouse, order_of(RARE, RARE.stock - 1))

    async def both() -> tuple[Reservation | BaseException, ...]:
        async def one(order_id: str) -> Reservation:
            async with await psycopg.AsyncConnection.connect(warehouse) as connection:
                reserved = await InventoryService(Tx(connection, COMMAND)).reserve(
                    order_of(RARE, 1, id=order_id)
                )
                await asyncio.sleep(0.05)
                return reserved

        return await asyncio.gather(one("o-a"), one("o-b"), return_exceptions=True)

    outcomes = asyncio.run(both())
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Refused", "Reservation"]
    assert on_shelf(warehouse)[RARE.sku] == 0


@pytest.mark.parametrize("known", [True, False])
def test_released_goods_are_back_on_the_shelf(warehouse: str, known: bool) -> None:
    """Also where the inbox can't say what reserve returned, since that is too long ago."""
    before = on_shelf(warehouse)
    reserved = reserve(warehouse, ORDER)
    other = reserve(warehouse, order_of(RARE, 1, id="o-other"))
    release(warehouse, ORDER, reserved if known else None)
    assert on_shelf(warehouse) == {**before, RARE.sku: before[RARE.sku] - 1}
    assert rows(warehouse, "SELECT reservation_id FROM release") == [(reserved.id,)]
    assert other.id != reserved.id


def test_nothing_is_released_for_an_order_without_a_reservation(warehouse: str) -> None:
    before = on_shelf(warehouse)
    release(warehouse, ORDER, None)
    assert on_shelf(warehouse) == before
    assert rows(warehouse, "SELECT FROM release") == []


def test_starting_again_leaves_the_stock_as_it_is(warehouse: str) -> None:
    reserve(warehouse, order_of(RARE, 1))
    seed(warehouse)
    assert on_shelf(warehouse)[RARE.sku] == RARE.stock - 1


# --- payments


@pytest.fixture
def bank(shop: str) -> str:
    return shop


def charge(url: str, order: Order) -> Charge:
    return call(url, lambda tx: payments.charge(order, tx))


def refund(url: str, order: Order, charged: Charge | None) -> None:
    call(url, lambda tx: payments.refund(order, charged, tx))


def spent(url: str, card: str) -> Decimal:
    balances: dict[str, Decimal] = dict(rows(url, "SELECT token, spent FROM card"))
    return balances[card]


def card(kind: str) -> Card:
    return next(each.card for each in world().customers if each.card.kind == kind)


def test_a_charge_is_the_orders_total(bank: str) -> None:
    charged = charge(bank, ORDER)
    assert charged.amount == ORDER.total == spent(bank, ORDER.card)
    assert rows(bank, "SELECT id, order_id, card, amount FROM charge") == [
        (charged.id, ORDER.id, ORDER.card, ORDER.total)
    ]


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("blocked", "CARD_BLOCKED", "is blocked"),
        ("expired", "CARD_EXPIRED", "expired on 2025-"),
        ("small", "CARD_LIMIT", "is good for another 15.00, and the order costs "),
    ],
)
def test_a_card_that_is_not_good_is_declined(bank: str, kind: str, code: str, words: str) -> None:
    order = ORDER.model_copy(update={"card": card(kind).token})
    with pytest.raises(Refused, match=words) as caught:
        charge(bank, order)
    assert caught.value.code == code
    assert spent(bank, order.card) == 0
    assert rows(bank, "SELECT FROM charge") == []


def test_a_card_that_nobody_knows_is_declined(bank: str) -> None:
    with pytest.raises(Refused, match="there is no card card-0"):
        charge(bank, ORDER.model_copy(update={"card": "card-0"}))


def test_a_voucher_is_good_for_three_orders_until_one_is_refunded(bank: str) -> None:
    line = Line(sku="K-1", quantity=1, unit_price=VOUCHER_PRICE)
    order = ORDER.model_copy(update={"card": card("voucher").token, "lines": [line]})
    charges = [charge(bank, order) for _ in range(3)]
    with pytest.raises(Refused, match=r"good for another 10\.00"):
        charge(bank, order)
    refund(bank, order, charges[1])
    assert charge(bank, order).amount == VOUCHER_PRICE


@pytest.mark.parametrize("known", [True, False])
def test_a_refund_gives_the_money_back(bank: str, known: bool) -> None:
    charged = charge(bank, ORDER)
    refund(bank, ORDER, charged if known else None)
    assert spent(bank, ORDER.card) == 0
    assert rows(bank, "SELECT charge_id, amount FROM refund") == [(charged.id, ORDER.total)]


def test_nothing_is_refunded_for_an_order_without_a_charge(bank: str) -> None:
    refund(bank, ORDER, None)
    assert rows(bank, "SELECT FROM refund") == []


# --- shipping


@pytest.fixture
def carriers(shop: str) -> str:
    return shop


def parcel(country: str = "DE", weight_grams: int = 2_300) -> Parcel:
    address = ORDER.address.model_copy(update={"country": country})
    return Parcel(order_id=ORDER.id, address=address, weight_grams=weight_grams)


def schedule(url: str, sent: Parcel) -> Shipment:
    return call_sync(url, lambda tx: shipping.schedule(sent, tx))


def cancel(url: str, sent: Parcel, scheduled: Shipment | None) -> None:
    call_sync(url, lambda tx: shipping.cancel(sent, scheduled, tx))


@pytest.mark.parametrize("weight_grams", [1, 1_000, 1_001, 12_000, 31_500, 31_501, 39_999, 77_000])
def test_the_cheapest_carrier_that_takes_the_weight_is_booked(carriers: str, weight_grams: int) -> None:
    offer = world().cheapest("DE", weight_grams)
    assert offer is not None
    scheduled = schedule(carriers, parcel("DE", weight_grams))
    assert (scheduled.carrier, scheduled.price) == (offer[0].carrier, offer[1])
    assert scheduled.tracking == f"DE{scheduled.id:09}"


def test_a_country_that_nobody_serves_is_refused(carriers: str) -> None:
    with pytest.raises(Refused, match=rf"no carrier serves {ORDER.address.city} \(AQ\)") as caught:
        schedule(carriers, parcel("AQ"))
    assert caught.value.code == "NOT_SERVED"


def test_a_parcel_that_is_too_heavy_is_refused(carriers: str) -> None:
    with pytest.raises(Refused, match=r"no carrier takes 90\.0 kg to ") as caught:
        schedule(carriers, parcel("DE", 90_001))
    assert caught.value.code == "TOO_HEAVY"
    assert rows(carriers, "SELECT FROM shipment") == []


@pytest.mark.parametrize("known", [True, False])
def test_a_booking_is_cancelled(carriers: str, known: bool) -> None:
    scheduled = schedule(carriers, parcel())
    cancel(carriers, parcel(), scheduled if known else None)
    assert rows(carriers, "SELECT shipment_id FROM cancellation") == [(scheduled.id,)]


# --- all three


def test_the_services_agree_with_the_forecast_and_the_audit_with_them(shop: str) -> None:
    """Every order through the handlers by hand, undone by hand: what the saga does, without one."""
    orders = load_orders()
    outcomes = play(shop, orders)
    sagas = [
        Saga(order.id, "COMPLETED", "") if outcome == COMPLETED else Saga(order.id, "COMPENSATED", outcome)
        for order, outcome in zip(orders, outcomes, strict=True)
    ]
    assert Counter(outcomes) == forecast(orders)
    assert audit(orders, sagas, read_books(shop, shop, shop)) == []


def play(url: str, orders: Sequence[Order]) -> list[str]:
    """Takes orders through the three services, one after the other, and gives what became of each."""

    async def run() -> list[str]:
        # One transaction is enough: whoever refuses has written nothing yet.
        async with await psycopg.AsyncConnection.connect(url) as connection:
            with psycopg.connect(url) as sync_connection:
                tx, sync_tx = Tx(connection, COMMAND), SyncTx(sync_connection, COMMAND)
                return [await through(order, tx, sync_tx) for order in orders]

    return asyncio.run(run())


async def through(order: Order, tx: Tx, sync_tx: SyncTx) -> str:
    stock = InventoryService(tx)
    try:
        reserved = await stock.reserve(order)
    except Refused:
        return OUT_OF_STOCK
    try:
        charged = await payments.charge(order, tx)
    except Refused:
        await stock.release(order, reserved)
        return CARD_DECLINED
    sent = Parcel(order_id=order.id, address=order.address, weight_grams=reserved.weight_grams)
    outcome = COMPLETED
    try:
        shipment = shipping.schedule(sent, sync_tx)
    except Refused:
        outcome = NO_CARRIER
    else:
        if order.shipping_limit is not None and shipment.price > order.shipping_limit:
            shipping.cancel(sent, shipment, sync_tx)
            outcome = TOO_DEAR
    if outcome != COMPLETED:
        await payments.refund(order, charged, tx)
        await stock.release(order, reserved)
    return outcome


WRONGS = (
    ("UPDATE reservation_line SET quantity = quantity + 1", "completed, but reservation 1 holds"),
    ("INSERT INTO release (reservation_id) VALUES (1)", "completed, but nothing is reserved"),
    ("UPDATE stock SET quantity = quantity - 1 WHERE sku = 'K-1000'", "Of K-1000 there were 20000"),
    (
        "INSERT INTO charge (order_id, card, amount) SELECT order_id, card, amount FROM charge",
        "was charged 2 times",
    ),
    ("INSERT INTO refund (charge_id, amount) SELECT id, amount FROM charge", "is not charged"),
    ("UPDATE card SET spent = 0", "has spent 0.00, and its completed orders cost"),
    ("UPDATE shipment SET country = 'AQ'", "goes to AQ instead of"),
    ("INSERT INTO cancellation (shipment_id) VALUES (1)", "completed, but it is not shipped"),
    ("UPDATE shipment SET order_id = 'o-ghost'", "There is a shipment for order o-ghost, of which"),
)


def test_the_audit_sees_what_is_wrong_in_a_database(shop: str) -> None:
    """Each rule has a test; this is about the queries that feed them. One wrong is added to another."""
    assert play(shop, [ORDER]) == [COMPLETED]
    sagas = [Saga(ORDER.id, "COMPLETED", "")]

    def violations() -> str:
        return "\n".join(audit([ORDER], sagas, read_books(shop, shop, shop)))

    assert violations() == ""
    with psycopg.connect(shop, autocommit=True) as connection:
        for wrong, sentence in WRONGS:
            assert sentence not in violations()
            connection.execute(wrong.encode())
            assert sentence in violations()

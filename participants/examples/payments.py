"""The payments service: charges cards, as far as they are good for it, and gives money back.

Written as functions: each handles one command of the contract, and gets the transaction as an argument.

    python -m examples.payments
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from examples.contracts import NAMESPACE, Charge, Order, Payments
from examples.service import prepare
from examples.world import world
from kasaga_participant import Participant, Refused, Tx

SCHEMA = """
CREATE TABLE IF NOT EXISTS card (
    token text PRIMARY KEY,
    customer text NOT NULL,
    credit_limit numeric(12, 2) NOT NULL,
    spent numeric(12, 2) NOT NULL DEFAULT 0 CHECK (spent >= 0 AND spent <= credit_limit),
    expires date NOT NULL,
    blocked boolean NOT NULL
);
CREATE TABLE IF NOT EXISTS charge (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id text NOT NULL,
    card text NOT NULL REFERENCES card,
    amount numeric(12, 2) NOT NULL CHECK (amount > 0),
    charged_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS charge_order ON charge (order_id);
CREATE TABLE IF NOT EXISTS refund (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    charge_id bigint NOT NULL REFERENCES charge,
    amount numeric(12, 2) NOT NULL CHECK (amount > 0),
    refunded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS refund_charge ON refund (charge_id);
"""

SEED = """
INSERT INTO card (token, customer, credit_limit, expires, blocked)
SELECT * FROM unnest(%s::text[], %s::text[], %s::numeric[], %s::date[], %s::boolean[])
ON CONFLICT (token) DO NOTHING
"""

LOCK_CARD = "SELECT credit_limit - spent, expires, blocked FROM card WHERE token = %s FOR UPDATE"

SPEND = "UPDATE card SET spent = spent + %s WHERE token = %s"

CHARGE = "INSERT INTO charge (order_id, card, amount) VALUES (%s, %s, %s) RETURNING id"

OPEN_CHARGES_OF = """
SELECT id, amount FROM charge
WHERE order_id = %s AND NOT EXISTS (SELECT FROM refund WHERE charge_id = charge.id)
"""

GIVE_BACK = "UPDATE card SET spent = spent - %s WHERE token = %s"

REFUND = "INSERT INTO refund (charge_id, amount) VALUES (%s, %s)"

app = Participant(namespaces=(NAMESPACE,))


@app.handle(Payments.charge)
async def charge(order: Order, tx: Tx) -> Charge:
    """Take the order's total; refused when the card is blocked, expired or at its limit."""
    cursor = await tx.connection.execute(LOCK_CARD, [order.card])
    card: tuple[Decimal, date, bool] | None = await cursor.fetchone()
    if card is None:
        raise Refused(f"there is no card {order.card}", code="UNKNOWN_CARD")
    left, expires, blocked = card
    if blocked:
        raise Refused(f"card {order.card} is blocked", code="CARD_BLOCKED")
    if expires < order.placed_at.date():
        raise Refused(f"card {order.card} expired on {expires}", code="CARD_EXPIRED")
    if order.total > left:
        raise Refused(
            f"card {order.card} is good for another {left}, and the order costs {order.total}",
            code="CARD_LIMIT",
        )
    await tx.connection.execute(SPEND, [order.total, order.card])
    cursor = await tx.connection.execute(CHARGE, [order.id, order.card, order.total])
    ((number,),) = await cursor.fetchall()
    return Charge(id=number, amount=order.total)


@app.handle(Payments.refund)
async def refund(order: Order, charged: Charge | None, tx: Tx) -> None:
    """Give the money back."""
    # The inbox hands over what charge returned; None only when that is too long ago for it to know.
    if charged is not None:
        charges = [(charged.id, charged.amount)]
    else:
        cursor = await tx.connection.execute(OPEN_CHARGES_OF, [order.id])
        charges = await cursor.fetchall()
    for number, amount in charges:
        await tx.connection.execute(GIVE_BACK, [amount, order.card])
        await tx.connection.execute(REFUND, [number, amount])


def cards() -> list[tuple[str, str, Decimal, date, bool]]:
    """Gives the rows of SEED."""
    return [
        (card.token, card.customer, card.credit_limit, card.expires, card.blocked)
        for card in (customer.card for customer in world().customers)
    ]


if __name__ == "__main__":
    prepare(SCHEMA, SEED, cards())
    app.run()

"""The shipping service: books the cheapest carrier that serves an address, and cancels bookings.

Written as plain functions, without async: they run in a thread, with an ordinary psycopg connection.

    python -m examples.shipping
"""

from __future__ import annotations

from decimal import Decimal

from examples.contracts import NAMESPACE, Parcel, Shipment, Shipping
from examples.service import prepare
from examples.world import world
from kasaga_participant import Participant, Refused, SyncTx

SCHEMA = """
CREATE TABLE IF NOT EXISTS tariff (
    carrier text NOT NULL,
    country text NOT NULL CHECK (length(country) = 2),
    max_weight_grams integer NOT NULL,
    base_price numeric(8, 2) NOT NULL,
    price_per_kg numeric(8, 2) NOT NULL,
    PRIMARY KEY (country, carrier)
);
CREATE TABLE IF NOT EXISTS shipment (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id text NOT NULL,
    carrier text NOT NULL,
    country text NOT NULL,
    weight_grams integer NOT NULL CHECK (weight_grams > 0),
    price numeric(8, 2) NOT NULL,
    scheduled_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS shipment_order ON shipment (order_id);
CREATE TABLE IF NOT EXISTS cancellation (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shipment_id bigint NOT NULL REFERENCES shipment,
    cancelled_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS cancellation_shipment ON cancellation (shipment_id);
"""

SEED = """
INSERT INTO tariff (carrier, country, max_weight_grams, base_price, price_per_kg)
SELECT * FROM unnest(%s::text[], %s::text[], %s::integer[], %s::numeric[], %s::numeric[])
ON CONFLICT (country, carrier) DO NOTHING
"""

OFFERS = """
SELECT carrier, max_weight_grams, base_price + price_per_kg * ceil(%s / 1000.0) AS price
FROM tariff
WHERE country = %s
ORDER BY price, carrier
"""

SHIP = """
INSERT INTO shipment (order_id, carrier, country, weight_grams, price)
VALUES (%s, %s, %s, %s, %s)
RETURNING id
"""

OPEN_SHIPMENTS_OF = """
SELECT id FROM shipment
WHERE order_id = %s AND NOT EXISTS (SELECT FROM cancellation WHERE shipment_id = shipment.id)
"""

CANCEL = "INSERT INTO cancellation (shipment_id) VALUES (%s)"

app = Participant(namespaces=(NAMESPACE,))


@app.handle(Shipping.schedule)
def schedule(parcel: Parcel, tx: SyncTx) -> Shipment:
    """Book the cheapest carrier; refused when none serves the address or takes the weight."""
    country, weight = parcel.address.country, parcel.weight_grams
    offers = tx.connection.execute(OFFERS, [weight, country]).fetchall()
    if not offers:
        raise Refused(f"no carrier serves {parcel.address.city} ({country})", code="NOT_SERVED")
    able = [(carrier, price) for carrier, heaviest, price in offers if weight <= heaviest]
    if not able:
        raise Refused(
            f"no carrier takes {weight / 1000:.1f} kg to {parcel.address.city} ({country})", code="TOO_HEAVY"
        )
    carrier, price = able[0]
    ((number,),) = tx.connection.execute(SHIP, [parcel.order_id, carrier, country, weight, price])
    return Shipment(id=number, carrier=carrier, tracking=f"{country}{number:09}", price=price)


@app.handle(Shipping.cancel)
def cancel(parcel: Parcel, scheduled: Shipment | None, tx: SyncTx) -> None:
    """Take the booking back."""
    # The inbox hands over what schedule returned; None only when that is too long ago for it to know.
    if scheduled is not None:
        numbers = [scheduled.id]
    else:
        rows = tx.connection.execute(OPEN_SHIPMENTS_OF, [parcel.order_id]).fetchall()
        numbers = [number for (number,) in rows]
    for number in numbers:
        tx.connection.execute(CANCEL, [number])


def tariffs() -> list[tuple[str, str, int, Decimal, Decimal]]:
    """Gives the rows of SEED."""
    return [
        (each.carrier, each.country, each.max_weight_grams, each.base_price, each.price_per_kg)
        for each in world().tariffs
    ]


if __name__ == "__main__":
    prepare(SCHEMA, SEED, tariffs())
    app.run()

"""The inventory service: keeps the stock, sets goods aside for orders, and puts them back.

Written as a service object: one is made for each command, with that command's transaction. What it writes
there, the inbox row and the reply are committed together, so nothing below has to think of duplicates.

    python -m examples.inventory
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from examples.contracts import NAMESPACE, Inventory, Order, Reservation
from examples.service import prepare
from examples.world import world
from kasaga_participant import Participant, Refused, Tx

SCHEMA = """
CREATE TABLE IF NOT EXISTS stock (
    sku text PRIMARY KEY,
    name text NOT NULL,
    weight_grams integer NOT NULL CHECK (weight_grams > 0),
    initial integer NOT NULL,
    quantity integer NOT NULL CHECK (quantity >= 0)
);
-- Nothing here keeps an order from being reserved twice: that is the inbox's business, and the audit's proof.
CREATE TABLE IF NOT EXISTS reservation (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id text NOT NULL,
    reserved_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS reservation_order ON reservation (order_id);
CREATE TABLE IF NOT EXISTS reservation_line (
    reservation_id bigint NOT NULL REFERENCES reservation,
    sku text NOT NULL REFERENCES stock,
    quantity integer NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (reservation_id, sku)
);
CREATE TABLE IF NOT EXISTS release (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reservation_id bigint NOT NULL REFERENCES reservation,
    released_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS release_reservation ON release (reservation_id);
"""

SEED = """
INSERT INTO stock (sku, name, weight_grams, initial, quantity)
SELECT sku, name, weight_grams, stock, stock
FROM unnest(%s::text[], %s::text[], %s::integer[], %s::integer[]) AS seed (sku, name, weight_grams, stock)
ON CONFLICT (sku) DO NOTHING
"""

# By number, so that two orders for the same articles wait for each other instead of deadlocking.
LOCK_STOCK = "SELECT sku, name, weight_grams, quantity FROM stock WHERE sku = ANY(%s) ORDER BY sku FOR UPDATE"

TAKE_FROM_STOCK = """
UPDATE stock SET quantity = stock.quantity - taken.quantity
FROM unnest(%s::text[], %s::integer[]) AS taken (sku, quantity)
WHERE stock.sku = taken.sku
"""

RESERVE = """
WITH made AS (INSERT INTO reservation (order_id) VALUES (%s) RETURNING id),
     lines AS (INSERT INTO reservation_line (reservation_id, sku, quantity)
               SELECT made.id, taken.sku, taken.quantity
               FROM made, unnest(%s::text[], %s::integer[]) AS taken (sku, quantity))
SELECT id FROM made
"""

OPEN_RESERVATIONS_OF = """
SELECT id FROM reservation
WHERE order_id = %s AND NOT EXISTS (SELECT FROM release WHERE reservation_id = reservation.id)
"""

LOCK_RESERVED_STOCK = """
SELECT stock.sku, line.quantity
FROM reservation_line AS line JOIN stock USING (sku)
WHERE line.reservation_id = %s
ORDER BY sku FOR UPDATE OF stock
"""

PUT_BACK = """
UPDATE stock SET quantity = stock.quantity + given.quantity
FROM unnest(%s::text[], %s::integer[]) AS given (sku, quantity)
WHERE stock.sku = given.sku
"""

RELEASE = "INSERT INTO release (reservation_id) VALUES (%s)"


class InventoryService(Inventory):
    """The handlers of the inventory's commands, for one command."""

    def __init__(self, tx: Tx) -> None:
        self.tx = tx

    async def reserve(self, order: Order) -> Reservation:
        """Set the order's goods aside; refused when one of its articles is out of stock."""
        wanted = Counter[str]()
        for line in order.lines:
            wanted[line.sku] += line.quantity
        cursor = await self.tx.connection.execute(LOCK_STOCK, [list(wanted)])
        shelf = {row[0]: row for row in await cursor.fetchall()}
        weight = 0
        for sku, pieces in wanted.items():
            if sku not in shelf:
                raise Refused(f"there is no article {sku}", code="UNKNOWN_ARTICLE")
            _, name, weight_grams, left = shelf[sku]
            if left < pieces:
                raise Refused(
                    f"{name} ({sku}) is out of stock: {pieces} wanted, {left} left",
                    code="OUT_OF_STOCK",
                    details={"sku": sku, "wanted": pieces, "left": left},
                )
            weight += weight_grams * pieces
        taken = [list(wanted.keys()), list(wanted.values())]
        await self.tx.connection.execute(TAKE_FROM_STOCK, taken)
        cursor = await self.tx.connection.execute(RESERVE, [order.id, *taken])
        ((number,),) = await cursor.fetchall()
        return Reservation(id=number, pieces=wanted.total(), weight_grams=weight)

    async def release(self, order: Order, reserved: Reservation | None) -> None:
        """Put the goods back."""
        # The inbox hands over what reserve returned; None only when that is too long ago for it to know.
        numbers: Sequence[int] = [reserved.id] if reserved else await self._reservations_of(order)
        for number in numbers:
            cursor = await self.tx.connection.execute(LOCK_RESERVED_STOCK, [number])
            lines = await cursor.fetchall()
            given = [[sku for sku, _ in lines], [quantity for _, quantity in lines]]
            await self.tx.connection.execute(PUT_BACK, given)
            await self.tx.connection.execute(RELEASE, [number])

    async def _reservations_of(self, order: Order) -> list[int]:
        cursor = await self.tx.connection.execute(OPEN_RESERVATIONS_OF, [order.id])
        return [number for (number,) in await cursor.fetchall()]


app = Participant(namespaces=(NAMESPACE,))
app.serve(Inventory, InventoryService)


def stock() -> list[tuple[str, str, int, int]]:
    """Gives the rows of SEED."""
    return [(each.sku, each.name, each.weight_grams, each.stock) for each in world().articles]


if __name__ == "__main__":
    prepare(SCHEMA, SEED, stock())
    app.run()

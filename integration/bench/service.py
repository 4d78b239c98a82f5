"""The benchmark's participants in one process; each handler does nothing but answer."""

from __future__ import annotations

import os

from bench.payment_app import Done, Inventory, Order, Payments, Shipping
from bench.work_app import Piece, Work
from kasaga_participant import Participant, Refused, Tx
from kasaga_wire.kafka import KafkaSettings


class InventoryService(Inventory):
    def __init__(self, tx: Tx) -> None:
        self.tx = tx

    async def reserve(self, order: Order) -> Done:
        return Done(order_id=order.order_id, ref="r")

    async def release(self, order: Order, done: Done | None) -> None:
        return None


class PaymentsService(Payments):
    def __init__(self, tx: Tx) -> None:
        self.tx = tx

    async def charge(self, order: Order) -> Done:
        return Done(order_id=order.order_id, ref="c")

    async def refund(self, order: Order, done: Done | None) -> None:
        return None


class ShippingService(Shipping):
    def __init__(self, tx: Tx) -> None:
        self.tx = tx

    async def ship(self, order: Order) -> Done:
        if order.sku == "unshippable":
            raise Refused("no carrier takes it")
        return Done(order_id=order.order_id, ref="s")

    async def recall(self, order: Order, done: Done | None) -> None:
        return None


class WorkService(Work):
    def __init__(self, tx: Tx) -> None:
        self.tx = tx

    async def do(self, piece: Piece) -> int:
        return piece.number


def main() -> None:
    """Serve until SIGTERM; without a database where DATABASE_URL is empty."""
    app = Participant(
        "bench",
        database_url=os.environ.get("DATABASE_URL") or None,
        kafka=KafkaSettings.from_env(),
        namespaces=("bench",),
    )
    app.serve(Inventory, InventoryService)
    app.serve(Payments, PaymentsService)
    app.serve(Shipping, ShippingService)
    app.serve(Work, WorkService)
    app.run()


if __name__ == "__main__":
    main()

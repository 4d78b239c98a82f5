"""The payment saga: runs in the orchestrator (`kasaga orchestrator examples.sagas:app`).

Normal-looking code in which every await is a checkpoint. There is nothing here about what happens when a
step is refused: what was done before it is undone by itself, last first, with the compensations that
`contracts.py` names.
"""

from __future__ import annotations

from examples.contracts import NAMESPACE, Inventory, Order, Parcel, Payments, Receipt, Shipping
from kasaga import App, SagaContext, SagaFailed, saga


@saga("payment", version=1)
async def payment(ctx: SagaContext, order: Order) -> Receipt:
    """Reserve the goods, charge the card, book the carrier; or undo what was done of it."""
    inventory, shipping = ctx.use(Inventory), ctx.use(Shipping)
    # Commands of one key are handled one after the other: two orders on one card never deadlock.
    payments = ctx.use(Payments, key=order.card)

    reserved = await inventory.reserve(order)
    charge = await payments.charge(order)
    parcel = Parcel(order_id=order.id, address=order.address, weight_grams=reserved.weight_grams)
    shipment = await shipping.schedule(parcel)

    # Not one service's business, so the saga decides it; raising SagaFailed undoes all three steps.
    if order.shipping_limit is not None and shipment.price > order.shipping_limit:
        raise SagaFailed(
            f"{shipment.carrier} wants {shipment.price} for the parcel, "
            f"and the customer pays {order.shipping_limit} at most"
        )
    return Receipt(
        order_id=order.id,
        charge_id=charge.id,
        paid=charge.amount,
        carrier=shipment.carrier,
        tracking=shipment.tracking,
    )


app = App(NAMESPACE, sagas=[payment], participants=[Inventory, Payments, Shipping])

"""What the saga and the three services share: the models on the wire, and each service's commands.

Imported by `sagas.py` (runs in the orchestrator) and by `inventory.py`, `payments.py` and `shipping.py`
(each a process of its own). The Avro schemas come from the models below; nobody writes them by hand.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from kasaga_wire import command, compensation, participant

NAMESPACE = "orders"
"""Of the sagas that the services take part in: they reply to no others."""

Money = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2)]
"""An amount in euro. Bounded, since Avro's decimal needs a precision and a scale."""


class Model(BaseModel):
    """What all models here have in common: they are values, and know all their fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Address(Model):
    """Where an order goes."""

    name: str
    street: str
    postcode: str
    city: str
    country: str
    """Two letters, ISO 3166."""


class Line(Model):
    """One article of an order, and how many of it."""

    sku: str
    quantity: Annotated[int, Field(gt=0)]
    unit_price: Money


class Order(Model):
    """What a customer sent off: the input of the saga and of most commands."""

    id: str
    placed_at: AwareDatetime
    customer: str
    card: str
    """A token that stands for the card; only the payments service knows the card."""
    address: Address
    lines: list[Line]
    shipping_limit: Money | None = None
    """The most that the customer will pay for shipping; None: whatever it costs."""

    @property
    def total(self) -> Decimal:
        """The price of the goods."""
        return sum((line.unit_price * line.quantity for line in self.lines), Decimal("0.00"))


class Reservation(Model):
    """Goods set aside for one order, out of everybody else's reach."""

    id: int
    pieces: int
    weight_grams: int


class Charge(Model):
    """Money taken from a card."""

    id: int
    amount: Money


class Parcel(Model):
    """What a carrier has to know."""

    order_id: str
    address: Address
    weight_grams: int


class Shipment(Model):
    """A parcel that a carrier has accepted."""

    id: int
    carrier: str
    tracking: str
    price: Money


class Receipt(Model):
    """What the customer gets in the end: the result of the saga."""

    order_id: str
    charge_id: int
    paid: Money
    carrier: str
    tracking: str


@participant("inventory")
class Inventory(Protocol):
    """The warehouse.

    Alone: an order locks several articles' rows, in order. Two transactions with many orders each would
    lock them in no order at all, and deadlock.
    """

    @command(alone=True)
    async def reserve(self, order: Order) -> Reservation:
        """Set the order's goods aside; refused when one of its articles is out of stock."""
        ...

    @compensation(reserve, alone=True)
    async def release(self, order: Order, reserved: Reservation | None) -> None:
        """Put the goods back."""
        ...


@participant("payments")
class Payments(Protocol):
    """The customers' cards."""

    @command
    async def charge(self, order: Order) -> Charge:
        """Take the order's total; refused when the card is blocked, expired or at its limit."""
        ...

    @compensation(charge)
    async def refund(self, order: Order, charged: Charge | None) -> None:
        """Give the money back."""
        ...


@participant("shipping")
class Shipping(Protocol):
    """The carriers."""

    @command
    async def schedule(self, parcel: Parcel) -> Shipment:
        """Book the cheapest carrier; refused when none serves the address or takes the weight."""
        ...

    @compensation(schedule)
    async def cancel(self, parcel: Parcel, scheduled: Shipment | None) -> None:
        """Take the booking back."""
        ...

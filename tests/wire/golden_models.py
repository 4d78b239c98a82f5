"""The models whose schemas and bytes are kept in golden/: everything that has a form in Avro, once."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Literal, Protocol
from uuid import UUID

import pydantic
from pydantic import AwareDatetime, BaseModel, Field

from kasaga_wire import command, compensation, participant

Money = Annotated[Decimal, Field(max_digits=12, decimal_places=2)]


class Color(enum.StrEnum):
    RED = "red"
    GREEN = "green"


class Line(BaseModel):
    sku: str
    quantity: int = 1
    price: Money = Decimal("0.00")


class Card(BaseModel):
    kind: Literal["card"] = "card"
    number: str


class Transfer(BaseModel):
    kind: Literal["transfer"] = "transfer"
    iban: str
    urgent: bool = False


class Order(BaseModel):
    id: UUID
    placed_at: AwareDatetime
    lines: list[Line]
    payment: Annotated[Card | Transfer, Field(discriminator="kind")]
    color: Color = Color.GREEN
    priority: Literal["low", "high"] = "low"
    note: str | None = None
    limit: int | None = 5
    ratio: float = 1
    due: date | None = None
    at: time = time(9, 30)
    photo: bytes = b"\xff\x00"
    labels: dict[str, str] = Field(default_factory=dict)
    path: tuple[int, ...] = (1, 2)
    ids: list[int | str] = []
    parent: Order | None = None


class Reservation(BaseModel):
    id: str
    lines: list[Line] = []


@participant("inventory")
class Inventory(Protocol):
    @command
    async def reserve(self, order: Order) -> Reservation: ...
    @compensation(reserve)
    async def release(self, order: Order, reserved: Reservation | None) -> None: ...
    @command
    async def count(self, sku: str) -> int: ...


SMALL = Order(
    id=UUID(int=1),
    placed_at=datetime(2026, 11, 23, 1, 21, tzinfo=UTC),
    lines=[],
    payment=Card(number="1"),
)
LARGE = Order(
    id=UUID("01934f3e-7a5c-7cc0-8c3f-0123456789ab"),
    placed_at=datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
    lines=[Line(sku="a", quantity=-3, price=Decimal("-12.5")), Line(sku="ü")],
    payment=Transfer(iban="DE00", urgent=True),
    color=Color.RED,
    priority="high",
    note="\U0001f600\0",
    limit=None,
    ratio=-0.5,
    due=date(1969, 12, 31),
    at=time(23, 59, 59, 999999),
    photo=b"\x00\xff",
    labels={"a": "1", "": "2"},
    path=(),
    ids=[2**63 - 1, "x"],
    parent=SMALL,
)
RESERVATION = Reservation(id="r-1", lines=[Line(sku="a")])

# name -> (annotation, namespace, value)
GOLDEN: dict[str, tuple[Any, str, Any]] = {
    "order-small": (Order, "inventory", SMALL),
    "order-large": (Order, "inventory", LARGE),
    "reservation": (Reservation, "inventory", RESERVATION),
    "nothing": (None, "kasaga", None),
    "long": (int, "inventory", -1),
    "text": (str, "inventory", "ü"),
    "boolean": (bool, "inventory", True),
    "aware": (pydantic.AwareDatetime, "inventory", datetime(2026, 1, 1, tzinfo=UTC)),
    "optional": (Line | None, "inventory", None),
    "money": (Money, "inventory", Decimal("-0.01")),
}

"""What goes over the wire: the contracts can be compiled, and every shipped order survives the journey."""

from __future__ import annotations

from examples.contracts import Inventory, Payments, Shipping
from examples.orders import load_orders
from examples.sagas import app, payment
from kasaga_wire.codec import Schemas
from kasaga_wire.contracts import contract_of


def test_each_command_has_its_compensation() -> None:
    undone_by = {
        command.type: command.compensation and command.compensation.type
        for contract in map(contract_of, (Inventory, Payments, Shipping))
        for command in contract.commands.values()
    }
    assert undone_by == {
        "inventory.reserve": "inventory.release",
        "payments.charge": "payments.refund",
        "shipping.schedule": "shipping.cancel",
    }


def test_the_app_knows_the_saga_and_the_three_services() -> None:
    assert app.latest(payment.name) == payment.version
    assert set(app.contracts) == {"inventory", "payments", "shipping"}


def test_every_order_comes_out_of_avro_as_it_went_in() -> None:
    codec = payment.input
    schemas = Schemas()
    for order in load_orders():
        assert codec.decode(codec.encode(order), schemas) == order

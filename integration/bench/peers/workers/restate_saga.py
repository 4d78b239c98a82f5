"""The payment saga on Restate, twice: steps run by the saga's own handler, and steps as services' handlers.

Served by hypercorn: `sagas`, and in a process of its own `services`.
"""

# What this imports is installed for the peers alone; typings/ has its types.
# pyright: reportMissingModuleSource=false

from __future__ import annotations

from typing import TypedDict

import restate

from bench.peers.workers.measuring import Done, Order


class Paid(TypedDict):
    """The answer to the client."""

    status: str
    charge: Done


run = restate.Service("Run")
call = restate.Service("Call")
inventory = restate.Service("Inventory")
payments = restate.Service("Payments")
shipping = restate.Service("Shipping")


async def step(order: Order, ref: str) -> Done:
    """What each step does."""
    return {"order_id": order["order_id"], "ref": ref}


@run.handler("pay")
async def pay_by_run(ctx: restate.Context, order: Order) -> Paid:
    """Run the steps here, each made durable by itself."""
    options = restate.RunOptions[Done]()
    await ctx.run_typed("reserve", step, options, order, "r")
    charge = await ctx.run_typed("charge", step, options, order, "c")
    await ctx.run_typed("ship", step, options, order, "s")
    return {"status": "completed", "charge": charge}


@inventory.handler()
async def reserve(ctx: restate.Context, order: Order) -> Done:
    """A step."""
    return await step(order, "r")


@payments.handler()
async def charge(ctx: restate.Context, order: Order) -> Done:
    """A step."""
    return await step(order, "c")


@shipping.handler()
async def ship(ctx: restate.Context, order: Order) -> Done:
    """A step."""
    return await step(order, "s")


@call.handler("pay")
async def pay_by_call(ctx: restate.Context, order: Order) -> Paid:
    """Have the services do the steps."""
    await ctx.service_call(reserve, order)
    charged = await ctx.service_call(charge, order)
    await ctx.service_call(ship, order)
    return {"status": "completed", "charge": charged}


sagas = restate.app([run, call])
services = restate.app([inventory, payments, shipping])

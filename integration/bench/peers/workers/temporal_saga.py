"""The payment saga on Temporal: three activities. `temporal_worker` serves it."""

# What this imports is installed for the peers alone; typings/ has its types.
# pyright: reportMissingModuleSource=false

from __future__ import annotations

from datetime import timedelta

from temporalio import activity, workflow

from bench.peers.workers.measuring import Done, Order

QUEUE = "payments"
STEP_TIMEOUT = timedelta(seconds=60)


@activity.defn
async def reserve(order: Order) -> Done:
    """A step."""
    return {"order_id": order["order_id"], "ref": "r"}


@activity.defn
async def charge(order: Order) -> Done:
    """A step."""
    return {"order_id": order["order_id"], "ref": "c"}


@activity.defn
async def ship(order: Order) -> Done:
    """A step."""
    return {"order_id": order["order_id"], "ref": "s"}


@workflow.defn
class Pay:
    """The saga."""

    @workflow.run
    async def run(self, order: Order) -> str:
        """Three steps, each by whichever worker takes it."""
        await workflow.execute_activity(reserve, order, start_to_close_timeout=STEP_TIMEOUT)
        await workflow.execute_activity(charge, order, start_to_close_timeout=STEP_TIMEOUT)
        await workflow.execute_activity(ship, order, start_to_close_timeout=STEP_TIMEOUT)
        return "completed"

"""The payment saga on DBOS: server, worker and client in one process, as DBOS is made.

DBOS_URL=postgresql://… python -m bench.peers.workers.dbos_saga threads|loop EXECUTOR IN_FLIGHT
"""

# What this imports is installed for the peers alone; typings/ has its types.
# pyright: reportMissingModuleSource=false

from __future__ import annotations

import os
import sys

import uvloop
from dbos import DBOS

from bench.peers.workers.measuring import Done, Order, serve, serve_threads

POOL = 20
"""Connections to Postgres: the default of DBOS."""


@DBOS.step()
def reserve(order: Order) -> Done:
    """A step."""
    return {"order_id": order["order_id"], "ref": "r"}


@DBOS.step()
def charge(order: Order) -> Done:
    """A step."""
    return {"order_id": order["order_id"], "ref": "c"}


@DBOS.step()
def ship(order: Order) -> Done:
    """A step."""
    return {"order_id": order["order_id"], "ref": "s"}


@DBOS.workflow()
def pay(order: Order) -> str:
    """Three steps on a thread."""
    reserve(order)
    charge(order)
    ship(order)
    return "completed"


@DBOS.step()
async def reserve_in_loop(order: Order) -> Done:
    """A step."""
    return {"order_id": order["order_id"], "ref": "r"}


@DBOS.step()
async def charge_in_loop(order: Order) -> Done:
    """A step."""
    return {"order_id": order["order_id"], "ref": "c"}


@DBOS.step()
async def ship_in_loop(order: Order) -> Done:
    """A step."""
    return {"order_id": order["order_id"], "ref": "s"}


@DBOS.workflow()
async def pay_in_loop(order: Order) -> str:
    """Three steps on an event loop."""
    await reserve_in_loop(order)
    await charge_in_loop(order)
    await ship_in_loop(order)
    return "completed"


def main() -> None:
    """Do what the lines of the standard input ask, until they end."""
    mode, executor, in_flight = sys.argv[1:]
    DBOS(
        config={
            "name": "payment",
            "system_database_url": os.environ["DBOS_URL"],
            "executor_id": executor,
            "application_version": "1",
            "log_level": "ERROR",
            "sys_db_pool_size": POOL,
            "max_executor_threads": max(64, int(in_flight)),
        }
    )
    DBOS.launch()
    if mode == "threads":
        serve_threads(pay)
    else:
        uvloop.run(serve(pay_in_loop))


if __name__ == "__main__":
    main()

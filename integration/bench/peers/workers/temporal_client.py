"""Starts payments on Temporal and waits for their ends: `temporal_client ADDRESS`.

Makes the default namespace first, and waits until workflows can be started in it.
"""

# What this imports is installed for the peers alone; typings/ has its types.
# pyright: reportMissingModuleSource=false

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import uuid4

import uvloop
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from bench.peers.workers.measuring import Order, serve
from bench.peers.workers.temporal_saga import QUEUE, Pay

T = TypeVar("T")

READY_SECONDS = 120.0
DAY_SECONDS = 86_400

PROBES = 20
"""Workflows that are started and ended at once: enough to hear from each of the server's history shards."""


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer, or patience ends."""
    end = time.monotonic() + READY_SECONDS
    while True:
        try:
            return await ask()
        except (RPCError, RuntimeError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.5)


async def main() -> None:
    """Do what the lines of the standard input ask."""
    client = await patiently(lambda: Client.connect(sys.argv[1]))

    async def namespace() -> None:
        try:
            await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
        except RPCError:
            request = RegisterNamespaceRequest(namespace="default")
            request.workflow_execution_retention_period.FromSeconds(DAY_SECONDS)
            await client.workflow_service.register_namespace(request)

    async def probe() -> None:
        handle = await client.start_workflow("Probe", id=uuid4().hex, task_queue="nobody")
        await handle.terminate()

    async def pay(order: Order) -> str:
        return await client.execute_workflow(Pay.run, order, id=order["order_id"], task_queue=QUEUE)

    await patiently(namespace)
    for _ in range(PROBES):
        await patiently(probe)
    await serve(pay)


if __name__ == "__main__":
    uvloop.run(main())

"""Serves the payment saga's workflow and its activities on Temporal: `temporal_worker ADDRESS`."""

# What this imports is installed for the peers alone; typings/ has its types.
# pyright: reportMissingModuleSource=false

from __future__ import annotations

import sys

import uvloop
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from bench.peers.workers.temporal_saga import QUEUE, Pay, charge, reserve, ship

AT_ONCE = 500
"""Workflow tasks, and activities; more than are ever in flight."""


async def main() -> None:
    """Serve until killed."""
    worker = Worker(
        await Client.connect(sys.argv[1]),
        task_queue=QUEUE,
        workflows=[Pay],
        activities=[reserve, charge, ship],
        max_concurrent_workflow_tasks=AT_ONCE,
        max_concurrent_activities=AT_ONCE,
        workflow_runner=UnsandboxedWorkflowRunner(),  # cheaper than the default
    )
    await worker.run()


if __name__ == "__main__":
    uvloop.run(main())

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from temporalio.client import Client

class UnsandboxedWorkflowRunner:
    def __init__(self) -> None: ...

class Worker:
    def __init__(
        self,
        client: Client,
        *,
        task_queue: str,
        workflows: Sequence[type[Any]],
        activities: Sequence[Callable[..., Awaitable[object]]],
        max_concurrent_workflow_tasks: int,
        max_concurrent_activities: int,
        workflow_runner: UnsandboxedWorkflowRunner,
    ) -> None: ...
    async def run(self) -> None: ...

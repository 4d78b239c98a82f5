from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest

A = TypeVar("A")
R = TypeVar("R")

class WorkflowService:
    async def describe_namespace(self, req: DescribeNamespaceRequest) -> object: ...
    async def register_namespace(self, req: RegisterNamespaceRequest) -> object: ...

class WorkflowHandle:
    async def terminate(self) -> None: ...

class Client:
    @classmethod
    async def connect(cls, target_host: str) -> Client: ...
    @property
    def workflow_service(self) -> WorkflowService: ...
    async def start_workflow(self, workflow: str, *, id: str, task_queue: str) -> WorkflowHandle: ...
    async def execute_workflow(
        self, workflow: Callable[[Any, A], Awaitable[R]], arg: A, *, id: str, task_queue: str
    ) -> R: ...

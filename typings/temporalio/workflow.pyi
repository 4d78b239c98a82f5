from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

A = TypeVar("A")
C = TypeVar("C", bound=type[Any])
F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")

def defn(cls: C) -> C: ...
def run(fn: F) -> F: ...
async def execute_activity(
    activity: Callable[[A], Awaitable[R]], arg: A, *, start_to_close_timeout: timedelta
) -> R: ...

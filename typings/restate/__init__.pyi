# What integration/bench/peers uses of restate-sdk 1.3: it has types, and is installed for the peers alone.
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

I = TypeVar("I")
O = TypeVar("O")
P = ParamSpec("P")
T = TypeVar("T")

class RunOptions(Generic[T]):
    def __init__(self) -> None: ...

class Context:
    def run_typed(
        self,
        name: str,
        action: Callable[P, Coroutine[Any, Any, T]],
        options: RunOptions[T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Awaitable[T]: ...
    def service_call(self, tpe: Callable[[Context, I], Awaitable[O]], arg: I) -> Awaitable[O]: ...

class Service:
    def __init__(self, name: str) -> None: ...
    def handler(
        self, name: str | None = None
    ) -> Callable[[Callable[Concatenate[Context, P], T]], Callable[Concatenate[Context, P], T]]: ...

def app(services: Iterable[Service]) -> Callable[..., Awaitable[None]]: ...

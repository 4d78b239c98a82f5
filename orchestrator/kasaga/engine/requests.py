"""What a saga's code may await: each is a request that the driver hands to `Turn`.

The context (kasaga/context.py) makes them; awaiting one suspends the saga's coroutine with the
request itself, and the outcome is sent back in.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from kasaga_wire.codec import Codec, Schemas
from kasaga_wire.contracts import CommandSpec

from ..errors import NotAwaitable
from .host import Host
from .model import Policy


class Options(NamedTuple):
    """What `ctx.use` says of all commands of one participant."""

    key: bytes
    policy: Policy
    undo_policy: Policy


class Request:
    """One await of a saga's code."""

    __slots__ = ("host",)

    def __init__(self, host: Host) -> None:
        self.host = host
        host.loose[self] = None

    def __await__(self) -> Generator[Request, Any, Any]:
        """Suspend the saga until the step has an outcome."""
        if self not in self.host.loose:
            raise NotAwaitable(f"{self.describe()} was awaited a second time; call it again to do it again")
        del self.host.loose[self]
        return (yield self)

    def describe(self) -> str:
        """Name the request as a person would."""
        raise NotImplementedError

    def read(self, payload: bytes, schemas: Schemas) -> Any:
        """Turn the recorded result into what the author receives."""
        raise NotImplementedError


class Call(Request):
    """A command to a participant."""

    __slots__ = ("options", "payload", "spec")

    def __init__(self, host: Host, spec: CommandSpec, options: Options, payload: bytes) -> None:
        super().__init__(host)
        self.spec = spec
        self.options = options
        self.payload = payload

    def describe(self) -> str:
        """Name the command."""
        return self.spec.type

    def read(self, payload: bytes, schemas: Schemas) -> Any:
        """Decode the participant's result."""
        return self.spec.result.decode(payload, schemas)


class Pause(Request):
    """A durable sleep, up to a time."""

    __slots__ = ("due_at",)

    def __init__(self, host: Host, due_at: int) -> None:
        super().__init__(host)
        self.due_at = due_at

    def describe(self) -> str:
        """Name the sleep."""
        return "sleep"

    def read(self, payload: bytes, schemas: Schemas) -> None:
        """A sleep has no result."""


class LocalCall(Request):
    """A function of the orchestrator's own, run off the shard's loop and checkpointed."""

    __slots__ = ("function", "name", "policy", "result", "undo", "undo_policy")

    def __init__(
        self,
        host: Host,
        *,
        name: str,
        function: Callable[[], Any],
        result: Codec[Any],
        undo: str,
        policy: Policy,
        undo_policy: Policy,
    ) -> None:
        super().__init__(host)
        self.name = name
        self.function = function
        self.result = result
        self.undo = undo
        self.policy = policy
        self.undo_policy = undo_policy

    def describe(self) -> str:
        """Name the function."""
        return f"run {self.name}"

    def read(self, payload: bytes, schemas: Schemas) -> Any:
        """Decode the function's recorded result."""
        return self.result.decode(payload, schemas)

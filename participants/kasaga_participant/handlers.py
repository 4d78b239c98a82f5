"""Which function runs for which command, and what is known of how it behaves.

Station: filled by `Participant.serve` and `.handle`; read by the intake (which handler?), the dispatcher (how
long, how risky?) and the worker (call it).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from kasaga_wire.contracts import CommandSpec, CompensationSpec, Contract

from .errors import RegistrationError
from .tx import SyncTx, Tx

Spec = CommandSpec | CompensationSpec

WEIGHT = 1 / 16
"""How much one run counts in the averages."""
FIRST_SECONDS = 0.01
"""What an unknown handler is taken to need: the first batches are small until it is known better."""


@dataclass(slots=True)
class Behaviour:
    """What is known of a handler, for filling batches: exponential averages of its runs."""

    seconds: float = FIRST_SECONDS
    risk: float = 0.0

    def ran(self, seconds: float, *, failed: bool) -> None:
        """Count one run. `failed`: it raised, so that what it did was rolled back."""
        self.seconds += (seconds - self.seconds) * WEIGHT
        self.risk += ((1.0 if failed else 0.0) - self.risk) * WEIGHT


@dataclass(slots=True)
class Handler:
    """One command's or compensation's function.

    Exactly one of `call` and `call_sync` is there. Both take the input, for a compensation the result, and
    the Tx.
    """

    spec: Spec
    undoes: CommandSpec | None
    call: Callable[..., Awaitable[object]] | None
    call_sync: Callable[..., object] | None
    behaviour: Behaviour = field(default_factory=Behaviour)

    @property
    def alone(self) -> bool:
        """Whether it shares its transaction with no other command."""
        return self.spec.alone

    @property
    def is_sync(self) -> bool:
        """Whether it is a plain function, to be run in a thread."""
        return self.call is None


class Registry:
    """The handlers of one contract."""

    def __init__(self, contract: Contract) -> None:
        """Start empty."""
        self.contract = contract
        self.handlers: dict[str, Handler] = {}

    def add_service(self, service: Callable[[Tx], Any]) -> None:
        """Handle every command with a method of what `service` makes. Raises RegistrationError."""
        if isinstance(service, type):
            self._check_class(service)
        for spec in self.contract.by_type.values():
            self._add(spec, _method(self.contract.cls, service, spec.name), None)

    def add_function(self, spec: Spec, function: Callable[..., Any]) -> None:
        """Handle one command with a function, async or plain. Raises RegistrationError."""
        wanted = 2 if isinstance(spec, CommandSpec) else 3
        try:
            inspect.signature(function).bind(*range(wanted))
        except TypeError:
            what = "the input and tx" if wanted == 2 else "the input, the result or None, and tx"
            raise RegistrationError(
                f"{_name(function)} can't handle {spec.type}", remedy=f"let it take {what}, in this order"
            ) from None
        if inspect.iscoroutinefunction(function):
            self._add(spec, function, None)
        else:
            self._add(spec, None, function)

    def check_complete(self) -> None:
        """Raise RegistrationError unless every command has a handler."""
        missing = [spec.type for spec in self.contract.by_type.values() if spec.type not in self.handlers]
        if missing:
            raise RegistrationError(
                f"no handler for {', '.join(missing)}",
                remedy="@app.handle(Contract.command) for each of them",
            )

    def _add(
        self,
        spec: Spec,
        call: Callable[..., Awaitable[object]] | None,
        call_sync: Callable[..., object] | None,
    ) -> None:
        if spec.type in self.handlers:
            raise RegistrationError(f"{spec.type} has a handler already", remedy="remove one of the two")
        undoes = self.contract.commands[spec.undoes] if isinstance(spec, CompensationSpec) else None
        self.handlers[spec.type] = Handler(spec, undoes, call, call_sync)

    def _check_class(self, service: type) -> None:
        """At run time a method that is missing is the contract's own, whose body is `...` and gives None."""
        names = [spec.name for spec in self.contract.by_type.values()]
        own: dict[str, object] = {name: getattr(self.contract.cls, name) for name in names}
        found: dict[str, object] = {name: getattr(cast("object", service), name, None) for name in names}
        own_code = [name for name in names if found[name] not in (None, own[name])]
        if plain := [name for name in own_code if not inspect.iscoroutinefunction(found[name])]:
            raise RegistrationError(
                f"{service.__qualname__}.{', '.join(plain)} is no async def",
                remedy="make it async, or register plain functions with @app.handle",
            )
        if missing := [name for name in names if name not in own_code]:
            raise RegistrationError(
                f"{service.__qualname__} doesn't implement {', '.join(missing)}",
                remedy=f"write what {self.contract.cls.__qualname__} declares",
            )


def _method(contract: type, service: Callable[[Tx], Any], name: str) -> Callable[..., Awaitable[object]]:
    own = getattr(contract, name)

    async def call(*arguments: Any) -> object:
        *rest, tx = arguments
        made: object = service(tx)
        kind: type[object] = type(made)
        if getattr(kind, name, None) is own:  # what a factory makes is only seen here
            raise RegistrationError(f"{kind.__qualname__} doesn't implement {name}")
        return await cast("Awaitable[object]", getattr(made, name)(*rest))

    return call


def _name(function: object) -> str:
    return getattr(function, "__qualname__", repr(function))


def tx_type(handler: Handler) -> type[Tx] | type[SyncTx]:
    """What the handler gets as `tx`."""
    return SyncTx if handler.is_sync else Tx

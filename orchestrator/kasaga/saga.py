"""What authors write: `@saga` on an async function, and the App that lists sagas and contracts."""

from __future__ import annotations

import hashlib
import inspect
import math
import os
import re
import sys
import typing
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, overload

from kasaga_wire import __version__
from kasaga_wire.attributes import AttributeValue
from kasaga_wire.codec import Codec, Schemas, codec_for
from kasaga_wire.contracts import Contract, contract_of
from kasaga_wire.errors import ContractError
from kasaga_wire.topics import Topics

from .context import SagaContext
from .engine.driver import Definition
from .engine.requests import Host
from .engine.run import Definitions
from .events import ALL_EVENTS, PROBLEMS
from .listening import Event, check_awaits, check_names, check_signals, check_start
from .locking import locked
from .messages import NAME as MESSAGE_NAME
from .messages import message_codec
from .policy import Seconds, micros
from .schedules.declare import Schedule, by_name

A = TypeVar("A")
B = TypeVar("B")
R = TypeVar("R")

Period: TypeAlias = "timedelta | float | Literal['default'] | None"
"""For how long: a timedelta, or days; None: for ever."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")


@dataclass(frozen=True)
class Saga(Generic[A, R]):
    """A saga as declared: what `@saga` makes of a function. Call it only through a client."""

    name: str
    version: int
    function: Callable[[SagaContext, A], Coroutine[Any, Any, R]]
    timeout: Seconds | None
    fails_on: tuple[type[Exception], ...]
    signals: Mapping[str, Any] | None = None
    """The types of the signals that it takes, or their Events, by name; None where it doesn't say."""
    on: tuple[Event[Any], ...] = ()
    """The records that begin it."""
    awaits: tuple[Event[Any], ...] = ()
    """The events that it awaits by a key."""
    attributes: Callable[[A], Mapping[str, AttributeValue]] | None = None
    """Makes search attributes of the input."""
    retention: Period = "default"
    """For how long it is kept when it has ended."""
    locks: Callable[[A], Iterable[str]] | None = None
    """Makes of the input the keys that it holds from its beginning to its end."""
    scope: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)
    """The names of the function around the saga, if there is one: its annotations may need them."""

    @property
    def input(self) -> Codec[A]:
        """The codec of the saga's one argument; raises ContractError."""
        return self._codecs[0]

    @property
    def result(self) -> Codec[R]:
        """The codec of what the saga returns; raises ContractError."""
        return self._codecs[1]

    @cached_property
    def signal_codecs(self) -> Mapping[str, Codec[Any]] | None:
        """The codecs of the declared signals; raises ContractError."""
        if self.signals is None:
            return None
        kinds = {name: kind.type if isinstance(kind, Event) else kind for name, kind in self.signals.items()}
        return {name: message_codec(kind, "signal", name) for name, kind in kinds.items()}

    @cached_property
    def awaited_codecs(self) -> Mapping[str, Codec[Any]]:
        """The codecs of the events that it awaits, by name; raises ContractError."""
        return {event.name: message_codec(event.type, "event", event.name) for event in self.awaits}

    @property
    def heard(self) -> dict[str, Event[Any]]:
        """The signals that records of Kafka make."""
        return {name: kind for name, kind in (self.signals or {}).items() if isinstance(kind, Event)}

    @cached_property
    def _codecs(self) -> tuple[Codec[A], Codec[R]]:
        """Annotations are resolved at first use, not at import, so that forward references work."""
        function = self.function
        try:
            hints = typing.get_type_hints(function, localns={**self.scope}, include_extras=True)
        except NameError as error:
            raise ContractError(
                f"saga {self.name!r}: {error}",
                remedy="Define or import the name in the module that declares the saga.",
            ) from None
        argument = list(inspect.signature(function).parameters)[1]
        for name in (argument, "return"):
            if name not in hints:
                raise ContractError(f"saga {self.name!r}: {name!r} has no annotation", remedy="Annotate it.")
        return (
            codec_for(hints[argument], name=f"{self.name}.input", where=f"{self.name}.{argument}"),
            codec_for(hints["return"], name=f"{self.name}.result", where=f"{self.name}.return"),
        )


class _Decorator(Protocol):
    def __call__(self, function: Callable[[SagaContext, A], Coroutine[Any, Any, R]]) -> Saga[A, R]: ...


class _Listening(Protocol[B]):
    """Takes only a function whose argument is what its Events give."""

    def __call__(self, function: Callable[[SagaContext, B], Coroutine[Any, Any, R]]) -> Saga[B, R]: ...


@overload
def saga(
    name: str,
    *,
    version: int = 1,
    timeout: Seconds | None = None,
    fails_on: Sequence[type[Exception]] = (),
    signals: Mapping[str, Any] | None = None,
    awaits: Sequence[Event[Any]] = (),
    attributes: Callable[[Any], Mapping[str, AttributeValue]] | None = None,
    retention: Period = "default",
    locks: Callable[[Any], Iterable[str]] | None = None,
) -> _Decorator: ...
@overload
def saga(
    name: str,
    *,
    on: Event[B] | Sequence[Event[B]],
    version: int = 1,
    timeout: Seconds | None = None,
    fails_on: Sequence[type[Exception]] = (),
    signals: Mapping[str, Any] | None = None,
    awaits: Sequence[Event[Any]] = (),
    attributes: Callable[[B], Mapping[str, AttributeValue]] | None = None,
    retention: Period = "default",
    locks: Callable[[B], Iterable[str]] | None = None,
) -> _Listening[B]: ...
def saga(
    name: str,
    *,
    on: Event[Any] | Sequence[Event[Any]] = (),
    version: int = 1,
    timeout: Seconds | None = None,
    fails_on: Sequence[type[Exception]] = (),
    signals: Mapping[str, Any] | None = None,
    awaits: Sequence[Event[Any]] = (),
    attributes: Callable[[Any], Mapping[str, AttributeValue]] | None = None,
    retention: Period = "default",
    locks: Callable[[Any], Iterable[str]] | None = None,
) -> Any:
    """Declare an async function as a saga.

    Args:
        name: its name on the wire; letters, digits, `_` and `-`.
        on: the records of Kafka topics that begin it; of several the first that a record fits counts.
        version: running sagas stay on the version they began with.
        timeout: deadline of the whole saga in seconds; then it is cancelled, which undoes it. One that goes
            on as a new run has it for each of its runs.
        fails_on: exceptions of yours that mean "undo"; any other that is not a step's outcome or
            SagaFailed is a bug, which makes the saga STUCK instead of undoing it.
        signals: the types of the signals that it awaits, by name, or the Event whose records are this
            signal. Then whoever sends another name or type is told so at once; without it any signal is
            kept, and one that can't be read is set aside when it is awaited.
        awaits: the Events, each with a key, that it awaits: `await ctx.event(settled, key=order.id)`.
        attributes: makes the saga's first search attributes of its input, such as
            `lambda order: {"customer": order.customer}`; what came with the start wins. It is called before
            the saga's code, as a part of it: what it raises makes the saga STUCK.
        retention: a timedelta, or days: so long after its end a saga is deleted; None: never. By default what
            KASAGA_RETENTION_DAYS says. The newest version's counts, also for those that have ended already.
        locks: makes of the input the keys that it waits for before its first line and holds to its end, as
            `ctx.lock` does, such as `lambda order: [f"order:{order.id}"]`.

    Raises:
        ContractError: the function isn't `async def f(ctx, argument)`, or name or version is off.
    """

    def declare(function: Callable[[SagaContext, A], Coroutine[Any, Any, R]]) -> Saga[A, R]:
        if not inspect.iscoroutinefunction(function):
            raise ContractError(f"saga {name!r}: {function.__qualname__} must be an async def")
        if len(inspect.signature(function).parameters) != 2:
            raise ContractError(
                f"saga {name!r}: {function.__qualname__} must take the context and one argument",
                remedy="Put several arguments into one pydantic model.",
            )
        if not _NAME.fullmatch(name):
            raise ContractError(f"saga name {name!r}: use up to 63 letters (a-z, A-Z), digits, '_' and '-'")
        if version < 1:
            raise ContractError(f"saga {name!r}: version is {version}, must be 1 or more")
        if timeout is not None and micros(timeout) <= 0:
            raise ContractError(f"saga {name!r}: timeout is {timeout}, must be more than 0 seconds")
        retention_seconds(name, retention)
        for signal in signals or ():
            if not MESSAGE_NAME.fullmatch(signal):
                raise ContractError(f"saga {name!r}: {signal!r} can't be the name of a signal")
        events = (on,) if isinstance(on, Event) else tuple(on)
        check_signals(name, signals or {})
        check_awaits(name, awaits)
        frame = inspect.currentframe()
        outer = frame.f_back if frame is not None else None
        scope = dict(outer.f_locals) if outer is not None and outer.f_code.co_name != "<module>" else {}
        fails = tuple(fails_on)
        given = name, version, function, timeout, fails, signals, events, tuple(awaits), attributes
        return Saga(*given, retention, locks, scope)

    return declare


def retention_seconds(name: str, period: Period) -> float | None:
    """Return a saga's period in seconds, infinity for ever; None where it is the default.

    Raises ContractError for what is no length of time.
    """
    if period is None:
        return math.inf
    if period == "default":
        return None
    length = period if isinstance(period, timedelta) else _days(period)
    if length is None or length <= timedelta(0):
        raise ContractError(
            f"saga {name!r}: retention is {period!r}, must be a timedelta, or days, more than 0",
            remedy="None keeps finished sagas for ever; without it KASAGA_RETENTION_DAYS counts.",
        )
    return length.total_seconds()


def _days(days: object) -> timedelta | None:
    if isinstance(days, bool) or not isinstance(days, int | float):
        return None
    try:
        return timedelta(days=days)
    except (OverflowError, ValueError):
        return None


class App:
    """One namespace: its sagas and the contracts that they use. One orchestrator image runs one App."""

    def __init__(
        self,
        namespace: str,
        *,
        sagas: Iterable[Saga[Any, Any]],
        participants: Iterable[Callable[..., Any]] = (),
        events: Iterable[str] = PROBLEMS,
        schedules: Iterable[Schedule[Any]] = (),
    ) -> None:
        """List what belongs to the namespace.

        `events`: the states that are published on `<namespace>.events` when a saga gets there, by default
        STUCK, PAUSED, COMPENSATED and TERMINATED; `kasaga.events.ALL_EVENTS` for each.

        Raises:
            ContractError: a contract, a saga, a schedule or the namespace isn't declared right, or named
            twice.
        """
        self.namespace = namespace
        self.events = frozenset(events)
        if unknown := self.events - ALL_EVENTS:
            states = ", ".join(sorted(ALL_EVENTS))
            raise ContractError(f"events of {sorted(unknown)} can't be told", remedy=f"Choose from {states}.")
        self._fingerprint = ""
        Topics(namespace)
        self.sagas: dict[tuple[str, int], Saga[Any, Any]] = {}
        for declared in sagas:
            key = (declared.name, declared.version)
            if key in self.sagas:
                raise ContractError(f"saga {declared.name!r} version {declared.version} is listed twice")
            self.sagas[key] = declared
        check_names((each.name, each.awaits) for each in self.sagas.values())
        self.contracts: dict[str, Contract] = {}
        for cls in participants:
            contract = contract_of(cls)
            if contract.name in self.contracts:
                raise ContractError(f"participant {contract.name!r} is listed twice")
            self.contracts[contract.name] = contract
        self.schedules = by_name(schedules, (name for name, _ in self.sagas))

    def latest(self, name: str) -> int:
        """Return the highest version of a saga, 0 where there is none."""
        return max((version for known, version in self.sagas if known == name), default=0)

    def retention(self) -> dict[str, float | None]:
        """Return for how many seconds finished sagas are kept, by name, as their newest version says it.

        Infinity: for ever; None: it doesn't say.
        """
        newest = {name: self.sagas[name, self.latest(name)] for name, _ in self.sagas}
        return {name: retention_seconds(name, saga.retention) for name, saga in newest.items()}

    def definitions(self, schemas: Schemas, *, max_payload: int) -> Definitions:
        """Give the engine what it needs; declares every schema. Raises ContractError."""
        contracts: Mapping[str, Contract] = self.contracts
        sagas = {key: self._definition(declared) for key, declared in self.sagas.items()}
        for declared in self.sagas.values():
            for event in declared.on:
                check_start(declared.name, declared.input.annotation, event)
        for definition in sagas.values():
            schemas.add(definition.input.schema)
            schemas.add(definition.result.schema)
            for codec in (*(definition.signals or {}).values(), *definition.awaits.values()):
                schemas.add(codec.schema)
        for contract in contracts.values():
            for schema in contract.schemas():
                schemas.add(schema)
        return Definitions(sagas, contracts, schemas, self.fingerprint(), max_payload, self.events)

    def _definition(self, declared: Saga[Any, Any]) -> Definition:
        contracts, signals, taken = self.contracts, declared.signal_codecs, declared.input
        awaits = declared.awaited_codecs

        def open_context(host: Host) -> SagaContext:
            return SagaContext(host, contracts, signals, taken, awaits)

        return Definition(
            declared.name,
            declared.version,
            declared.function if declared.locks is None else locked(declared.function, declared.locks),
            declared.input,
            declared.result,
            micros(declared.timeout) if declared.timeout is not None else 0,
            declared.fails_on,
            open_context,
            signals,
            declared.attributes,
            awaits,
        )

    def fingerprint(self) -> str:
        """Return a hash that changes when the sagas' code does.

        It covers every loaded source file beside, or below the folder of, a file that declares a
        saga or a contract: a helper's or a model's change must wake a parked saga as well; and the
        release of Kasaga. And which sagas are listed: one that is taken in may be what another waits for.
        """
        if not self._fingerprint:
            declared = [inspect.unwrap(each.function) for each in self.sagas.values()]
            contracts = [contract.cls for contract in self.contracts.values()]
            listed = sorted(f"{name}/{version}" for name, version in self.sagas)
            modules = {each.__module__ for each in (*declared, *contracts)}
            self._fingerprint = _hash_of_sources(modules, "\n".join((__version__, *listed)))
        return self._fingerprint


def _hash_of_sources(modules: set[str], besides: str) -> str:
    """Hash what is loaded from the folders of these modules and from below them, and what is said besides."""
    files = [path for path in map(_source, list(sys.modules.values())) if path]
    own = {os.path.dirname(path) + os.sep for name in modules if (path := _source(sys.modules.get(name)))}
    folders = tuple(sorted(own))
    digest = hashlib.sha256(besides.encode())
    for path in sorted({path for path in files if path.startswith(folders)} if folders else ()):
        folder = next(folder for folder in folders if path.startswith(folder))
        digest.update(path.removeprefix(folder).encode() + b"\0" + Path(path).read_bytes())
    return digest.hexdigest()[:16]


def _source(module: object) -> str:
    path = getattr(module, "__file__", None)
    return path if isinstance(path, str) and path.endswith(".py") else ""

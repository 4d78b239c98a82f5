"""What a saga's code sees: its context.

Everything here is deterministic: the same history gives the same `now`, `uuid()` and `random`.
"""

from __future__ import annotations

import hashlib
import inspect
import random
import typing
import uuid
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from kasaga_wire.codec import Codec, codec_for
from kasaga_wire.contracts import CommandSpec, Contract, contract_of
from kasaga_wire.errors import KasagaError

from .awaiting import Awaiting
from .children import Parenting
from .engine.requests import Call, Host, LocalCall, Options, Pause, PivotCall
from .errors import NotAwaitable, PayloadTooLarge, SagaCodeError, UnknownContract
from .events import Emitting
from .locking import Locking
from .messages import Messaging
from .naming import Naming
from .parallel import Branching
from .patching import Patching
from .policy import (
    DEFAULT_RETRY,
    DEFAULT_UNDO_RETRY,
    MAX_KEY,
    MAX_SECONDS,
    RUN_TIMEOUT,
    SCHEDULE_TO_CLOSE,
    STEP_TIMEOUT,
    RetryPolicy,
    Seconds,
    local_policies,
    micros,
    policies,
)
from .renewal import Renewing

C = TypeVar("C")
R = TypeVar("R")


class SagaContext(Branching, Messaging, Awaiting, Emitting, Parenting, Naming, Patching, Renewing, Locking):
    """The one door of a saga to the world. Every await on it is a checkpoint."""

    __slots__ = ("_awaits", "_contracts", "_host", "_random", "_seed", "_signals", "_taken", "_uuids")

    def __init__(
        self,
        host: Host,
        contracts: typing.Mapping[str, Contract],
        signals: typing.Mapping[str, Codec[Any]] | None = None,
        taken: Codec[Any] | None = None,
        awaits: typing.Mapping[str, Codec[Any]] | None = None,
    ) -> None:
        """`taken`: the codec of the saga's argument."""
        self._host = host
        self._taken = taken
        self._contracts = contracts
        self._signals = signals
        self._awaits = awaits or {}
        self._uuids = 0
        self._random: random.Random | None = None
        self._seed = ""

    def _live(self) -> Host:
        """Refuse any use by a coroutine that is being closed."""
        self._host.live()
        return self._host

    def _declared(self) -> typing.Mapping[str, Codec[Any]] | None:
        return self._signals

    def _awaited(self) -> typing.Mapping[str, Codec[Any]]:
        return self._awaits

    def _input_codec(self) -> Codec[Any] | None:
        return self._taken

    @property
    def saga_id(self) -> str:
        """The id that the saga was started with."""
        return self._host.saga_id

    @property
    def run_id(self) -> str:
        """The id that command ids begin with; the same in all runs of the saga."""
        return self._host.run_id

    @property
    def now(self) -> datetime:
        """The recorded time of the event being processed: aware, UTC, the same between two awaits."""
        return datetime.fromtimestamp(self._live().now / 1_000_000, UTC)

    def uuid(self) -> uuid.UUID:
        """Return a new UUID, the same one in each replay."""
        host = self._live()
        self._uuids += 1
        digest = hashlib.sha256(f"{host.seed}/uuid/{self._uuids}".encode()).digest()
        return uuid.UUID(bytes=digest[:16], version=4)

    @property
    def random(self) -> random.Random:
        """A generator of random numbers seeded by the run, the same in each replay. Not for secrets."""
        host = self._live()
        if self._random is None or self._seed != host.seed:
            self._random, self._seed = random.Random(host.seed), host.seed
        return self._random

    def use(
        self,
        contract: Callable[..., C],
        *,
        timeout: Seconds = STEP_TIMEOUT,
        schedule_to_close: Seconds | None = SCHEDULE_TO_CLOSE,
        retry: RetryPolicy = DEFAULT_RETRY,
        undo_retry: RetryPolicy = DEFAULT_UNDO_RETRY,
        key: str | None = None,
    ) -> C:
        """Return a participant's commands, each to be awaited.

        Args:
            contract: a class declared with `@participant` and listed in the App.
            timeout: seconds for one attempt, from sent to answered.
            schedule_to_close: seconds for all attempts together; None for no limit.
            retry: when and how often a failed or unanswered attempt is tried again.
            undo_retry: the same for compensations; `maximum_attempts` is the number after which the
                saga is STUCK while they go on.
            key: orders commands across sagas: those of one key run one after the other at the
                participant. The saga's id by default.

        Raises:
            UnknownContract: the App doesn't list it.
            ContractError: it isn't declared right; names the command and the field.
        """
        host = self._live()
        described = contract_of(contract)
        if described.name not in self._contracts:
            raise UnknownContract(f"the saga uses participant {described.name!r}, which its App doesn't list")
        sent_as = (key if key is not None else host.saga_id).encode()
        if not 0 < len(sent_as) <= MAX_KEY:
            size = f"the key for {described.name} has {len(sent_as)} bytes"
            raise SagaCodeError(size, remedy=f"Use 1 to {MAX_KEY} bytes.")
        options = Options(sent_as, *policies(retry, undo_retry, timeout, schedule_to_close))
        return typing.cast("C", _Commands(host, described, options))

    def sleep(self, seconds: Seconds) -> Coroutine[object, None, None]:
        """Wait durably: the time passes also while no orchestrator runs. Costs no thread.

        It is typed as a coroutine, as commands and `run` are, so that checkers report a forgotten await.
        """
        host = self._live()
        length = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if not 0 <= length <= MAX_SECONDS:
            raise SagaCodeError(f"ctx.sleep({seconds!r})", remedy="Sleep from 0 seconds to ten years.")
        return typing.cast("Coroutine[object, None, None]", Pause(host, host.now + micros(length)))

    def pivot(self) -> Coroutine[object, None, None]:
        """Pass the point of no return: from here on the saga only goes forward.

        Nothing that was done before is undone any more. A step that comes after isn't given up: when its
        attempts are used up the saga is STUCK at it, visibly, while the attempts go on. A refusal that the
        saga's code lets out, or SagaFailed, makes it STUCK until code is deployed that catches it. It can't
        be cancelled, and its own deadline ends. The second call does nothing.

        Raises:
            EarlyPivot: other branches run, or this is one.
        """
        return typing.cast("Coroutine[object, None, None]", PivotCall(self._live()))

    @typing.overload
    def run(
        self,
        function: Callable[..., Coroutine[Any, Any, R]],
        *arguments: Any,
        undo: Callable[[R | None], object] | None = None,
        timeout: Seconds | None = RUN_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
        undo_retry: RetryPolicy = DEFAULT_UNDO_RETRY,
    ) -> Coroutine[object, None, R]: ...
    @typing.overload
    def run(
        self,
        function: Callable[..., R],
        *arguments: Any,
        undo: Callable[[R | None], object] | None = None,
        timeout: Seconds | None = RUN_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
        undo_retry: RetryPolicy = DEFAULT_UNDO_RETRY,
    ) -> Coroutine[object, None, R]: ...
    def run(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        undo: Callable[[Any], object] | None = None,
        timeout: Seconds | None = RUN_TIMEOUT,
        retry: RetryPolicy = DEFAULT_RETRY,
        undo_retry: RetryPolicy = DEFAULT_UNDO_RETRY,
    ) -> Coroutine[object, None, Any]:
        """Run a function of your own, off the shard's loop, and keep its result.

        It runs at least once: after a crash in the middle it runs again. Use it for reads and for
        pure work; one that writes names its `undo`, a function at the top level of a module, which
        gets the result, or None where it isn't known whether the function ran.

        The return annotation says how the result is kept; a function without one can return only
        what its caller doesn't need (None).

        Args:
            function: called in a thread; what an async one returns is awaited there.
            *arguments: what it is called with.
            undo: called with the result when the saga is undone.
            timeout: seconds for one attempt of the function or its undo, from begun to ended; None for
                no limit. An async function is cancelled then. One in a thread goes on, what it returns
                is ignored, and the next attempt, or the undo, may run beside it.
            retry: when and how often an attempt that failed or timed out is made again.
            undo_retry: the same for the undo; `maximum_attempts` is the number after which the saga is
                STUCK while they go on.

        Raises:
            StepTimeout: the last attempt took too long. StepFailed, its base: it failed.
            ValueError: `timeout` isn't a length of time.
            NotAwaitable: `undo` isn't a function at the top level of a module.
        """
        host = self._live()
        policy, undo_policy = local_policies(retry, undo_retry, timeout)
        made = LocalCall(
            host,
            name=getattr(function, "__qualname__", repr(function)),
            function=lambda: function(*arguments),
            result=codec_for(_returns(function), name="result"),
            undo=_importable(undo) if undo is not None else "",
            policy=policy,
            undo_policy=undo_policy,
        )
        return typing.cast("Coroutine[object, None, Any]", made)


class _Commands:
    """The commands of one contract, as `ctx.use` hands them out."""

    __slots__ = ("_contract", "_host", "_options")

    def __init__(self, host: Host, contract: Contract, options: Options) -> None:
        self._host = host
        self._contract = contract
        self._options = options

    def __getattr__(self, name: str) -> Callable[..., Call]:
        spec = self._contract.commands.get(name)
        if spec is None:
            if name in self._contract.compensations:
                raise SagaCodeError(
                    f"{self._contract.name}.{name} is a compensation: the engine sends it",
                    remedy="Raise SagaFailed to undo the saga, or declare a @command to do it on purpose.",
                )
            raise AttributeError(f"participant {self._contract.name!r} has no command {name!r}")
        return _Command(self._host, spec, self._options)


class _Command:
    """One command: calling it encodes the input, awaiting the call sends it."""

    __slots__ = ("_host", "_options", "_spec")

    def __init__(self, host: Host, spec: CommandSpec, options: Options) -> None:
        self._host = host
        self._spec = spec
        self._options = options

    def __call__(self, *arguments: Any, **named: Any) -> Call:
        host, spec = self._host, self._spec
        host.live()
        if named:
            arguments += tuple(named.values())
        if len(arguments) != 1:
            raise SagaCodeError(
                f"{spec.type} takes one argument, got {len(arguments)}", remedy="Put them into one model."
            )
        try:
            payload = spec.input.encode(arguments[0])
        except KasagaError as error:
            raise SagaCodeError(f"the input of {spec.type}: {error.message}", remedy=error.remedy) from error
        if len(payload) > host.max_payload:
            size = f"{len(payload)} bytes, over {host.max_payload}"
            raise PayloadTooLarge(f"the input of {spec.type} has {size}")
        return Call(host, spec, self._options, payload)


def _returns(function: Callable[..., Any]) -> object:
    """The annotation of what a function returns; None where there is none."""
    target = function if inspect.isroutine(function) else type(function).__call__
    hints = typing.get_type_hints(target, include_extras=True)
    return hints.get("return", type(None))


def _importable(function: Callable[..., object]) -> str:
    """Name a function so that any process can find it."""
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    if not module or not name or "<" in name:
        raise NotAwaitable(
            f"undo={name or function!r} of ctx.run is not a function at the top level of a module",
            remedy="Undoing works from history alone, on any machine: give it a named top-level function.",
        )
    return f"{module}:{name}"

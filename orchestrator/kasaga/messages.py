"""What reaches a running saga from outside, as authors write it: signals, queries and updates.

A signal is awaited; a query and an update are declared, and answered between two awaits (engine/signals.py).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, Generic, TypeVar, cast, overload

from pydantic_core import to_json

from kasaga_wire.codec import Codec, Schemas, codec_for
from kasaga_wire.errors import KasagaError

from .engine.mail import JSON
from .engine.requests import Expect, Host, fit
from .engine.step import Step
from .errors import PayloadTooLarge, SagaCodeError, Unreadable
from .policy import MAX_SECONDS, Seconds, micros

S = TypeVar("S")
V = TypeVar("V")

NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
"""Of a signal, a query or an update."""


def message_codec(expected: object, kind: str, name: str) -> Codec[Any]:
    """The codec of what is sent under a name, the same at both ends. Raises ContractError."""
    return codec_for(expected, name=f"kasaga.{kind}", where=f"{kind} {name}")


class Messaging:
    """The part of the context that is about what comes from outside."""

    __slots__ = ()

    def _live(self) -> Host:
        raise NotImplementedError

    def _declared(self) -> Mapping[str, Codec[Any]] | None:
        """The signals that the saga declares, None where it declares none."""
        raise NotImplementedError

    @overload
    def signal(
        self, name: str, expected: type[S], *, timeout: Seconds | None = None
    ) -> Coroutine[object, None, S]: ...
    @overload
    def signal(self, name: str, *, timeout: Seconds | None = None) -> Coroutine[object, None, None]: ...
    def signal(
        self, name: str, expected: Any = None, *, timeout: Seconds | None = None
    ) -> Coroutine[object, None, Any]:
        """Wait for a signal and return its value.

        Signals of one name are taken in the order in which they came, each once; those that came before
        they were awaited are kept. May stand wherever a step may: in a gather, a race, a `ctx.timeout`.

        Args:
            name: of the signal; letters, digits, `_` and `-`.
            expected: the type of its value; None, the default, for a signal without one.
            timeout: seconds to wait, durable as a sleep; None for no limit.

        Raises:
            SignalTimeout: none came in time. Uncaught, the saga is undone.
            SagaCodeError: the name, the type or the time can't be used.
        """
        host = self._live()
        _check_name("signal", name)
        try:
            codec = message_codec(expected, "signal", name)
        except KasagaError as error:
            raise SagaCodeError(f"ctx.signal({name!r}): {error.message}", remedy=error.remedy) from error
        declared = self._declared()
        if declared is not None and (name not in declared or declared[name].annotation != codec.annotation):
            raise SagaCodeError(
                f"ctx.signal({name!r}) isn't what @saga(signals=...) declares",
                remedy="Declare each signal that is awaited, with the same type.",
            )
        length = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        if length is not None and not 0 < length <= MAX_SECONDS:
            raise SagaCodeError(
                f"ctx.signal({name!r}, timeout={timeout!r})",
                remedy="Use more than 0 seconds, up to ten years.",
            )
        due_at = host.now + micros(length) if length is not None else 0
        return cast("Coroutine[object, None, Any]", Expect(host, name, codec, due_at))

    def query(self, name: str, function: Callable[[], object]) -> None:
        """Let a question be asked of the saga: `ctx.query("status", lambda: state.status)`.

        The function is called whenever somebody asks, between two awaits, also after the saga's end. It
        reads the saga's own variables and returns what can be JSON; it can't use the context and must
        change nothing. What it returns is in no history.

        Raises:
            SagaCodeError: the name can't be used, or the function is an `async def`.
        """
        host = self._live()
        _check_function("query", name, function)

        def answer() -> bytes:
            return to_json(function())

        host.queries = {**(host.queries or {}), name: answer}

    def update(
        self,
        name: str,
        expected: type[V],
        handler: Callable[[V], object],
        *,
        validate: Callable[[V], object] | None = None,
    ) -> None:
        """Let a value be sent into the saga, and be answered.

        The handler is called between two awaits, once for each update and again in a replay; it may change
        the saga's variables and use the context (`ctx.spawn` begins steps), and what it returns, which can
        be JSON, is the answer.

        Args:
            name: of the update; letters, digits, `_` and `-`.
            expected: the type of the value.
            handler: is given the value. It may raise UpdateRefused; the update stands in the history.
            validate: is given the value before anything is recorded, and raises what is wrong with it. It
                can't use the context and must change nothing.

        Raises:
            SagaCodeError: name or type can't be used, or a function is an `async def`.
        """
        host = self._live()
        _check_function("update", name, handler)
        if validate is not None:
            _check_function("update", name, validate)
        try:
            codec = message_codec(expected, "update", name)
        except KasagaError as error:
            raise SagaCodeError(f"ctx.update({name!r}): {error.message}", remedy=error.remedy) from error
        made = _Handler(codec, handler, validate, host.max_payload)
        host.handlers = {**(host.handlers or {}), name: made}


class _Handler(Generic[V]):
    """What the engine calls for updates of one name."""

    __slots__ = ("_codec", "_function", "_max_payload", "_validate")

    def __init__(
        self,
        codec: Codec[V],
        function: Callable[[V], object],
        validate: Callable[[V], object] | None,
        max_payload: int,
    ) -> None:
        self._codec = codec
        self._function = function
        self._validate = validate
        self._max_payload = max_payload

    def check(self, payload: bytes, *, json: bool, schemas: Schemas) -> None:
        """See `Handler.check`."""
        value = self._read(payload, json=json, schemas=schemas)
        if self._validate is not None:
            self._validate(value)

    def handle(self, step: Step, schemas: Schemas) -> bytes:
        """See `Handler.handle`."""
        try:
            value = self._read(step.payload, json=step.details == JSON, schemas=schemas)
        except KasagaError as error:
            raise Unreadable(f"the value of update {step.type}: {error.message}") from error
        answer = to_json(self._function(value))
        if len(answer) > self._max_payload:
            raise PayloadTooLarge(f"the answer of update {step.type} has {len(answer)} bytes")
        return answer

    def _read(self, payload: bytes, *, json: bool, schemas: Schemas) -> V:
        """The value as decoded bytes, also of JSON: a replay must not see another one."""
        avro = fit(self._codec, payload, json=True, schemas=schemas) if json else payload
        return self._codec.decode(avro, schemas)


def _check_name(kind: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise SagaCodeError(
            f"ctx.{kind}({name!r})", remedy="Use up to 63 letters (a-z, A-Z), digits, '_' and '-'."
        )


def _check_function(kind: str, name: str, function: Callable[..., object]) -> None:
    _check_name(kind, name)
    if inspect.iscoroutinefunction(function):
        raise SagaCodeError(
            f"ctx.{kind}({name!r}): {function.__qualname__} is an async def",
            remedy="Use a plain function; what has to wait belongs into a ctx.spawn of an update's handler.",
        )

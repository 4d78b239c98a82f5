"""Steps one saga's coroutine by hand.

The driver knows the author's code and nothing of history, rows or retries: it is started, fed one
outcome after the other, and says what the code wants next. `Turn` does so live, `replay` from
history; both go through the same two methods.
"""

from __future__ import annotations

import contextvars
import inspect
import os
from collections.abc import Callable, Coroutine
from functools import partial
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from kasaga_wire.codec import Codec, Schemas
from kasaga_wire.errors import KasagaError

from ..errors import (
    BugInSaga,
    CancelInterrupt,
    Evicted,
    ForgottenAwait,
    Interrupt,
    NotAwaitable,
    PayloadTooLarge,
    SagaCodeError,
    SagaFailed,
    SagaHangs,
    SagaOutcome,
    StepError,
    StepFailed,
    StepRefused,
    StepTimeout,
    Unreadable,
)
from .host import MAX_SWALLOWS, Host
from .model import DONE, REFUSED
from .requests import Request
from .state import Step

__all__ = [
    "GRAVEYARD",
    "TIMED_OUT",
    "Broken",
    "Definition",
    "Driver",
    "Guard",
    "HangInterrupt",
    "Host",
    "Progress",
    "Raised",
    "Returned",
    "Wants",
    "failure",
    "place",
    "unguarded",
]

TIMED_OUT = "kasaga.Timeout"
"""Error type of a step that was settled because no answer came."""


class HangInterrupt(Interrupt):
    """Raised into a saga's code by the watchdog."""


class Definition(NamedTuple):
    """A saga as its author declared it."""

    name: str
    version: int
    function: Callable[[Any, Any], Coroutine[Any, Any, Any]]
    input: Codec[Any]
    result: Codec[Any]
    timeout: int
    """Of the whole saga, microseconds; 0 for none."""
    fails_on: tuple[type[Exception], ...]
    open_context: Callable[[Host], Any]


class Wants(NamedTuple):
    """The code awaits a request."""

    request: Request


class Returned(NamedTuple):
    """The code returned; the result is encoded."""

    result: bytes


class Raised(NamedTuple):
    """The code let a business outcome pass: the saga is to be undone."""

    code: str
    reason: str
    step: str


class Broken(NamedTuple):
    """The code can't go on: a bug, a hang, something unreadable. The driver is of no more use."""

    error: SagaCodeError


Progress = Wants | Returned | Raised | Broken

Guard = Callable[[Callable[[Any], Any], Any], Any]
"""Calls a function with one argument; the shell's puts a watchdog around it."""


def unguarded(function: Callable[[Any], Any], argument: Any) -> Any:
    """Call without a watchdog."""
    return function(argument)


class Driver:
    """One live coroutine. Not thread-safe: only the thread that made it may use it."""

    __slots__ = ("_coroutine", "_run", "_schemas", "definition", "guard", "host", "waiting")

    def __init__(
        self, definition: Definition, host: Host, schemas: Schemas, guard: Guard = unguarded
    ) -> None:
        self.definition = definition
        self.host = host
        self.guard = guard
        self.waiting: Request | None = None
        """What the code awaits."""
        self._schemas = schemas
        self._run: Callable[..., Any] = contextvars.Context().run
        self._coroutine: Coroutine[Any, Any, Any] | None = None

    def start(self, payload: bytes) -> Progress:
        """Decode the input and run the code to its first await."""
        definition = self.definition
        try:
            value = definition.input.decode(payload, self._schemas)
        except KasagaError as error:
            return Broken(Unreadable(f"the input of saga {definition.name}: {error.message}"))
        try:
            coroutine = self._run(definition.function, definition.open_context(self.host), value)
        except BaseException as error:  # noqa: BLE001 - author's code (a decorator's wrapper)
            return Broken(self._bug(error))
        self._coroutine = coroutine
        return self._step(coroutine.send, None)

    def resume(self, step: Step) -> Progress:
        """Feed the outcome of the step that the code waits for, and run to the next await."""
        request, coroutine = self.waiting, self._coroutine
        assert request is not None
        assert coroutine is not None
        if step.outcome != DONE:
            return self._step(coroutine.throw, failure(step))
        try:
            value = request.read(step.result, self._schemas)
        except KasagaError as error:
            what = f"the result of step {step.path} ({request.describe()})"
            return Broken(Unreadable(f"{what}: {error.message}"))
        return self._step(coroutine.send, value)

    def cancel(self) -> None:
        """Unwind the code with CancelInterrupt; whatever it answers is ignored."""
        self._close(CancelInterrupt("the saga is cancelled"))

    def evict(self) -> None:
        """Close the coroutine; the saga goes on from its history elsewhere."""
        self._close(Evicted("this coroutine is closed; the saga goes on from its history"))

    def _close(self, interrupt: Interrupt) -> None:
        """Throw until the coroutine ends, with the context detached: no `ctx` use does anything."""
        coroutine, self._coroutine, self.waiting = self._coroutine, None, None
        self.host.attached = False
        if coroutine is None:
            return
        for _ in range(MAX_SWALLOWS):
            try:
                self.guard(partial(self._run, coroutine.throw), interrupt)
            except BaseException:  # noqa: BLE001 - the author's code ends as it likes; nothing of it counts
                return
        GRAVEYARD.append(coroutine)

    def _step(self, run: Callable[[Any], Any], argument: Any) -> Progress:
        self.waiting = None
        try:
            wanted = self.guard(partial(self._run, run), argument)
        except StopIteration as stop:
            self._coroutine = None
            return self._ended(stop.value)
        except BaseException as error:  # noqa: BLE001 - a saga's bug must not end the loop
            self._coroutine = None
            return self._threw(error)
        if isinstance(wanted, Request) and wanted.host is self.host:
            self.waiting = wanted
            return Wants(wanted)
        where = self.line()
        self.evict()
        return Broken(NotAwaitable(f"the saga awaits {_kind_of(wanted)} at {where}"))

    def _ended(self, value: Any) -> Progress:
        if self.host.loose:
            names = ", ".join(request.describe() for request in self.host.loose)
            return Broken(ForgottenAwait(f"the saga returned and never awaited what it called: {names}"))
        try:
            result = self.definition.result.encode(value)
        except KasagaError as error:
            return Broken(BugInSaga(f"the saga's return value: {error.message}"))
        if len(result) > self.host.max_payload:
            size = f"{len(result)} bytes, over {self.host.max_payload}"
            return Broken(PayloadTooLarge(f"the saga's return value has {size}"))
        return Returned(result)

    def _threw(self, error: BaseException) -> Progress:
        """Tell a business outcome from a bug."""
        if isinstance(error, SagaOutcome):
            return Raised(error.code, error.message, error.step if isinstance(error, StepError) else "")
        if isinstance(error, HangInterrupt):
            return Broken(SagaHangs(f"no await for too long, at {self._where(error)}"))
        if isinstance(error, SagaCodeError):
            return Broken(type(error)(f"{error.message} (at {self._where(error)})", remedy=error.remedy))
        if isinstance(error, self.definition.fails_on):
            return Raised(SagaFailed.code, f"{type(error).__name__}: {error}", "")
        return Broken(self._bug(error))

    def _bug(self, error: BaseException) -> SagaCodeError:
        where = self._where(error)
        if isinstance(error, RuntimeError) and "event loop" in str(error):
            return NotAwaitable(f"the saga uses asyncio at {where}: {error}")
        return BugInSaga(f"{type(error).__name__}: {error} (at {where})")

    def _where(self, error: BaseException) -> str:
        code = getattr(inspect.unwrap(self.definition.function), "__code__", None)
        return line_of(error.__traceback__, code.co_filename if code else "")

    def line(self) -> str:
        """Say at which line of the author's code the coroutine is suspended."""
        frame: FrameType | None = None
        inner: Any = self._coroutine
        while inner is not None and getattr(inner, "cr_frame", None) is not None:
            frame = inner.cr_frame
            inner = inner.cr_await
        return place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name) if frame else "its end"


GRAVEYARD: list[Coroutine[Any, Any, Any]] = []
"""Coroutines that refuse to close: kept, so that the collector never runs their code. Count them."""


def failure(step: Step) -> StepError:
    """Build the exception that the author's code gets for a step that did not end well."""
    kind: type[StepError]
    if step.outcome == REFUSED:
        kind, what = StepRefused, "refused"
    elif step.error_type == TIMED_OUT:
        kind, what = StepTimeout, "timed out"
    else:
        kind, what = StepFailed, "failed"
    message = f"{step.type} {what}: {step.error}" if step.error else f"{step.type} {what}"
    return kind(message, step=step.path, command=step.type, type=step.error_type, details=step.details)


def place(filename: str, line: int, function: str) -> str:
    """Name a line of code without the machine's folders."""
    return f"{os.path.basename(filename)}:{line} in {function}"


def line_of(traceback: TracebackType | None, filename: str) -> str:
    """Name the deepest line of the author's file in a traceback, or else the deepest of all."""
    own = last = None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        last = place(code.co_filename, traceback.tb_lineno, code.co_name)
        if code.co_filename == filename:
            own = last
        traceback = traceback.tb_next
    return own or last or "an unknown line"


def _kind_of(wanted: object) -> str:
    if isinstance(wanted, Request):
        return f"a step of another saga ({wanted.describe()})"
    kind = type(wanted)
    return "nothing (a bare yield)" if wanted is None else f"{kind.__module__}.{kind.__qualname__}"

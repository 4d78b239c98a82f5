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
from .model import DONE, REFUSED
from .requests import MAX_SWALLOWS, Host, Request
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
    "words",
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
        return self._step(self._begin, payload)

    def _begin(self, payload: bytes) -> Any:
        definition = self.definition
        try:
            value = definition.input.decode(payload, self._schemas)
        except KasagaError as error:
            raise Unreadable(f"the input of saga {definition.name}: {error.message}") from error
        self._coroutine = definition.function(definition.open_context(self.host), value)
        return self._coroutine.send(None)

    def resume(self, step: Step) -> Progress:
        """Feed the outcome of the step that the code waits for, and run to the next await."""
        if step.outcome == DONE:
            return self._step(self._feed, step)
        assert self._coroutine is not None
        self.waiting = None
        return self._step(self._coroutine.throw, failure(step))

    def _feed(self, step: Step) -> Any:
        request, coroutine = self.waiting, self._coroutine
        assert request is not None
        assert coroutine is not None
        try:
            value = request.read(step.result, self._schemas)
        except KasagaError as error:
            what = f"the result of step {step.path} ({request.describe()})"
            raise Unreadable(f"{what}: {error.message}") from error
        self.waiting = None
        return coroutine.send(value)

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
        """Run the code; whatever it raises, this doesn't. What decodes and encodes is its code too."""
        try:
            wanted = self.guard(partial(self._run, run), argument)
        except StopIteration as stop:
            self._coroutine = None
            return self._ended(stop.value)
        except BaseException as error:  # noqa: BLE001 - a saga's bug must not end the loop
            return self._threw(error)
        if isinstance(wanted, Request) and wanted.host is self.host:
            self.waiting = wanted
            return Wants(wanted)
        return Broken(NotAwaitable(f"the saga awaits {_kind_of(wanted)} at {self.line()}"))

    def _ended(self, value: Any) -> Progress:
        if self.host.loose:
            names = ", ".join(request.describe() for request in self.host.loose)
            return Broken(ForgottenAwait(f"the saga returned and never awaited what it called: {names}"))
        try:
            result: bytes = self.guard(partial(self._run, self.definition.result.encode), value)
        except KasagaError as error:
            return Broken(BugInSaga(f"the saga's return value: {error.message}"))
        except BaseException as error:  # noqa: BLE001 - the author's model
            return self._threw(error)
        if len(result) > self.host.max_payload:
            size = f"{len(result)} bytes, over {self.host.max_payload}"
            return Broken(PayloadTooLarge(f"the saga's return value has {size}"))
        return Returned(result)

    def _threw(self, error: BaseException) -> Progress:
        """Tell a business outcome from a bug."""
        if isinstance(error, SagaOutcome):
            code: object = getattr(error, "code", None)  # an author's subclass may have made it anything
            code = code if isinstance(code, str) else SagaFailed.code
            return Raised(code, words(error), str(error.step) if isinstance(error, StepError) else "")
        if isinstance(error, HangInterrupt):
            return Broken(SagaHangs(f"no await for too long, at {self._where(error)}"))
        if isinstance(error, Unreadable):
            return Broken(error)
        if isinstance(error, SagaCodeError) and type(error).__module__ == SagaCodeError.__module__:
            return Broken(type(error)(f"{words(error)} (at {self._where(error)})", remedy=error.remedy))
        said = f"{type(error).__name__}: {words(error)}"
        if isinstance(error, self.definition.fails_on):
            return Raised(SagaFailed.code, said, "")
        where = self._where(error)
        if isinstance(error, RuntimeError) and "event loop" in said:
            return Broken(NotAwaitable(f"the saga uses asyncio at {where}: {said}"))
        return Broken(BugInSaga(f"{said} (at {where})"))

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


def words(error: BaseException) -> str:
    """What an author's exception says, without code and remedy; never fails."""
    try:
        message = getattr(error, "message", None) if isinstance(error, KasagaError) else None
        return message if isinstance(message, str) else str(error)
    except BaseException:  # noqa: BLE001 - an author's __str__
        return "(its text can't be told)"


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

"""What a saga's code raises and where it stands, in words; and the exceptions that it is given."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import Any

from kasaga_wire.errors import KasagaError

from ..deadlocks import Deadlock, LockRefused
from ..errors import SagaOutcome, SignalTimeout, StepFailed, StepRefused, StepTimeout
from .awaited import said
from .keylocks import LOCK
from .model import REFUSED, SIGNAL
from .requests import Request
from .step import Step

TIMED_OUT = "kasaga.Timeout"
"""Error type of a step that was settled because no answer came."""


def failure(step: Step) -> SagaOutcome:
    """Build the exception that the author's code gets for a step that did not end well."""
    if step.kind == SIGNAL:
        return SignalTimeout(f"no {said(step.type)} came in time (step {step.path})")
    if step.kind == LOCK:
        barred = Deadlock if step.error_type == Deadlock.code else LockRefused
        return barred(step.error, step=step.path, command=f"lock {step.type}", type=step.error_type)
    kind: type[StepFailed | StepRefused]
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


def suspended_at(coroutine: Coroutine[Any, Any, Any] | None) -> str:
    """Say at which line of the author's code a coroutine is suspended."""
    frame: FrameType | None = None
    inner: Any = coroutine
    while inner is not None and getattr(inner, "cr_frame", None) is not None:
        frame = inner.cr_frame
        inner = inner.cr_await
    return place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name) if frame else "its end"


def kind_of(wanted: object) -> str:
    """Name what a saga's code must not await."""
    if isinstance(wanted, Request):
        return f"a step of another saga ({wanted.describe()})"
    kind = type(wanted)
    return "nothing (a bare yield)" if wanted is None else f"{kind.__module__}.{kind.__qualname__}"

"""Rebuilds a saga's coroutine from its state, and notices when the code asks for something else.

The code is given the recorded outcomes in the recorded order, each at its recorded time: after the
start it must ask for the first step, after the first outcome for the second, and so on. What it
asks for is compared with what was decided then: kind, command, participant, key; and the input as
today's model reads the recorded bytes, so that a compatible change of a model is no difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ..errors import Nondeterminism, SagaCodeError, Unreadable
from . import renewing
from .attributes import SetAttributes
from .branches import Timer
from .driver import Broken, Left, Progress, Renewed, Returned, Waits, words
from .keylocks import LOCK
from .locks import keys_of
from .model import LOCAL, SCOPE, SIGNAL, SLEEP, Emit, Pivot
from .requests import Call, ChildCall, Expect, LocalCall, LockCall, Pause, Request
from .resets import RESET
from .scopes import Scope
from .versions import Patch

if TYPE_CHECKING:
    from kasaga_wire.codec import Schemas

    from .driver import Driver
    from .state import State, Step


def replay(driver: Driver, state: State, schemas: Schemas) -> None:
    """Bring a new driver to where the history ends; raises SagaCodeError."""
    host = driver.host
    host.now, host.length = state.begun_at, renewing.length(state, state.begun_seq)
    host.long = renewing.warned(state, 0)
    driver.replayed = state.patches
    compared = _Compared(driver, state, schemas)
    progress = driver.start(state.input)
    jumps = state.jumps or {}
    for place, step in enumerate(state.fed, 1):
        compared.turn(progress, step.asked)
        if place - 1 in jumps:
            driver.jump(jumps[place - 1])
        host.now, host.length = step.fed_at, renewing.length(state, step.fed_seq)
        host.long = renewing.warned(state, place)
        progress = driver.resume(step)
    compared.turn(progress, len(state.order))
    compared.end(progress)
    if len(state.fed) in jumps:
        driver.jump(jumps[len(state.fed)])
    driver.replayed = None


class _Compared:
    """Goes along the history, and raises where the code does something else now than it did then."""

    def __init__(self, driver: Driver, state: State, schemas: Schemas) -> None:
        self._driver, self._state, self._schemas = driver, state, schemas
        self._steps = self._turns = self._leaves = self._emits = 0
        """How many of the recorded are compared."""
        self._order, self._counts = state.order, list[int]()
        if state.jumps:  # what came after a step that the saga was set back to isn't asked for
            kept = [step.left != RESET for step in state.order]
            self._order = [step for step in state.order if step.left != RESET]
            self._counts = list(accumulate(kept, initial=0))

    def _upto(self, index: int) -> int:
        """How many of the first steps of the history, those that are compared, are before an index."""
        return self._counts[index] if self._counts else index

    def turn(self, progress: Progress, until: int) -> None:
        """Compare what the code asked for with the recorded steps up to index `until`."""
        order, until = self._order, self._upto(until)
        if isinstance(progress, Broken):
            self._raise(order[self._steps] if self._steps < until else None, progress, None)
        for effect in self._driver.effects:
            if isinstance(effect, Left):
                self._left(effect)
                continue
            if isinstance(effect, Pivot):
                self._pivot()
                continue
            if isinstance(effect, Emit):
                self._emitted(effect)
                continue
            if isinstance(effect, SetAttributes):
                continue  # what is set then is in the history, and tells nobody to do anything
            assert not isinstance(effect, Patch), "a replay records none"
            recorded = order[self._steps] if self._steps < until else None
            self._steps += 1
            if recorded is None:
                self._raise(None, progress, effect)
            else:
                self._asked(progress, effect, recorded)
        if self._steps < until:
            self._raise(order[self._steps], progress, None)
        self._turns += 1
        leaves = self._state.leaves or ()
        if self._leaves < len(leaves) and leaves[self._leaves][0] < self._turns:
            path = leaves[self._leaves][1].steps[0]
            self._raise(self._state.steps[path], progress, None, f"{_name(self._state, path)} being given up")
        pivot = self._state.pivot
        if pivot is not None and pivot[0] < self._turns and not self._driver.pivoted:
            self._raise(None, progress, None, "the pivot")
        emitted = self._state.emitted or ()
        if self._emits < len(emitted) and emitted[self._emits][0] < self._turns:
            _, topic, kind = emitted[self._emits]
            self._raise(None, progress, None, f"the event {kind}, emitted to {topic}")

    def end(self, progress: Progress) -> None:
        """Compare where the code stands with the end of the history."""
        state = self._state
        ended = state.raised
        if isinstance(progress, Returned | Renewed):
            ended = state.returned is not None and state.renews == isinstance(progress, Renewed)
        if isinstance(progress, Waits):
            ended = state.returned is None and not state.raised
        if not ended:
            self._raise(None, progress, None)

    def _asked(self, progress: Progress, request: Request, recorded: Step) -> None:
        try:
            difference = _differs(request, recorded, self._schemas)
        except SagaCodeError as error:
            self._place(error, recorded, request)
            raise
        if request.path != recorded.path and not difference:
            difference = f"as step {request.path}"
        if difference:
            self._raise(recorded, progress, request, difference=difference)

    def _left(self, effect: Left) -> None:
        """Compare what the code gives up; what was never sent isn't recorded."""
        state = self._state
        steps = tuple(path for path in effect.steps if path in state.steps)
        if not steps:
            return
        leaves = state.leaves or ()
        here, now = leaves[self._leaves : self._leaves + 1], (self._turns, steps, effect.why)
        if any((turn, recorded.steps, recorded.why) == now for turn, recorded in here):
            self._leaves += 1
            return
        saga, asks = self._saga(), f"gives up {_name(state, steps[0])}"
        error = Nondeterminism(f"{saga} now {asks}, where its history goes on with it")
        self._place(error, state.steps[steps[0]], self._driver.waiting)
        raise error

    def _pivot(self) -> None:
        state = self._state
        pivot = state.pivot
        if pivot is not None and (pivot[0], self._upto(pivot[1])) == (self._turns, self._steps):
            return
        saga, line = self._saga(), self._driver.line()
        error = Nondeterminism(f"{saga} now passes its pivot before {line}, where its history doesn't")
        self._place(error, None, self._driver.waiting)
        raise error

    def _emitted(self, event: Emit) -> None:
        """Compare an event by topic and type; its content may change, since nobody is sent it again."""
        emitted = self._state.emitted or ()
        if self._emits < len(emitted) and emitted[self._emits] == (self._turns, event.topic, event.type):
            self._emits += 1
            return
        saga, line = self._saga(), self._driver.line()
        what = f"emits {event.type} to {event.topic} before {line}, where its history doesn't"
        error = Nondeterminism(f"{saga} now {what}")
        self._place(error, None, self._driver.waiting)
        raise error

    def _raise(
        self,
        recorded: Step | None,
        progress: Progress,
        request: Request | None,
        then: str = "",
        *,
        difference: str = "something else",
    ) -> None:
        """Say what the code does now, and what it did then."""
        state, driver = self._state, self._driver
        if isinstance(progress, Broken):
            error = progress.error
        else:
            if request is not None:
                does = f"asks for {request.describe()} at {driver.line(request)}"
            elif isinstance(progress, Waits):
                does = f"waits for {_waits_for(driver)} at {driver.line(driver.waiting)}"
            elif isinstance(progress, Returned):
                does = "returns"
            elif isinstance(progress, Renewed):
                does = "goes on as a new run"
            else:
                does = f"asks to be undone ({progress.reason})"
            what = f" ({difference})" if difference != "something else" else ""
            error = Nondeterminism(
                f"{self._saga()} now {does}{what}, where its history has {then or _then(state, recorded)}"
            )
        self._place(error, recorded, request or driver.waiting)
        raise error

    def _saga(self) -> str:
        """The code that is compared: of another version than the saga's where it is to be moved."""
        definition = self._driver.definition
        return f"saga {definition.name} version {definition.version}"

    def _place(self, error: SagaCodeError, recorded: Step | None, request: Request | None) -> None:
        """Let an error know where it was met."""
        error.step = recorded.path if recorded is not None else ""
        error.line = self._driver.line(request) if request is not None else ""


def _waits_for(driver: Driver) -> str:
    waiting = driver.waiting
    return waiting.describe() if waiting is not None else "nothing"


def _name(state: State, path: str) -> str:
    return f"{_what(state.steps[path])} (step {path})"


def _what(step: Step) -> str:
    if step.kind in (SIGNAL, SCOPE, LOCK):
        return f"{step.kind} {step.type}".rstrip()
    return step.type or step.kind


def _differs(request: Request, recorded: Step, schemas: Schemas) -> str:
    """Say what differs, or return an empty text."""
    if isinstance(request, Call):
        if (request.spec.type, request.spec.participant) != (recorded.type, recorded.participant):
            return "something else"
        key = request.options.key
        if isinstance(request, ChildCall):
            if request.child != recorded.child:
                return "something else"
            key = request.given.encode() or recorded.key
        if key != recorded.key:
            return f"with key {_text(key)} instead of {_text(recorded.key)}"
        return "" if request.payload == recorded.payload else _other_input(request, recorded, schemas)
    if isinstance(request, Pause | Timer):
        name = "timeout" if isinstance(request, Timer) else ""
        return "" if (recorded.kind, recorded.type) == (SLEEP, name) else "something else"
    if isinstance(request, Scope):
        return "" if recorded.kind == SCOPE else "something else"
    if isinstance(request, Expect):
        return "" if (recorded.kind, recorded.type) == (SIGNAL, request.name) else "something else"
    if isinstance(request, LockCall):
        same = recorded.kind == LOCK and keys_of(recorded) == request.keys
        return "" if same else "something else"
    same = isinstance(request, LocalCall) and recorded.kind == LOCAL and recorded.type == request.name
    return "" if same else "something else"


def _other_input(request: Call, recorded: Step, schemas: Schemas) -> str:
    before: Any
    after: Any
    try:
        before = request.spec.input.decode(recorded.payload, schemas)
        after = request.spec.input.decode(request.payload, schemas)
        if before == after:
            return ""
        names: Iterable[str] = getattr(after.__class__, "model_fields", ())
        fields = ", ".join(name for name in names if getattr(before, name) != getattr(after, name))
    except Exception as error:
        said = f"the input of step {recorded.path} ({recorded.type}): {words(error)}"
        raise Unreadable(said) from error
    return f"with another input: {fields}" if fields else "with another input"


def _then(state: State, recorded: Step | None) -> str:
    if recorded is not None:
        return f"{_what(recorded)} as step {recorded.path}"
    if state.returned is not None:
        return "a new run" if state.renews else "its return"
    return "its undoing" if state.raised else "no step"


def _text(key: bytes) -> str:
    return repr(key.decode("utf-8", "replace"))

"""Steps one saga's code by hand.

The driver knows the author's code and nothing of history, rows or retries: it is started, fed one
outcome after the other, and says what the code wants next. `Turn` does so live, `replay` from
history; both go through the same two methods. How the branches of one saga take turns is in
`scheduling.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

from kasaga_wire.attributes import AttributeValue, to_text
from kasaga_wire.codec import Codec, Schemas
from kasaga_wire.errors import BadAttribute, KasagaError

from ..errors import (
    BranchesWait,
    BugInSaga,
    CancelInterrupt,
    Evicted,
    ForgottenAwait,
    Interrupt,
    Nondeterminism,
    NotAwaitable,
    PayloadTooLarge,
    PivotPassed,
    SagaCodeError,
    SagaFailed,
    SagaHangs,
    SagaOutcome,
    StepError,
    Unreadable,
    UpdateRefused,
    WrongAttributes,
)
from .branches import Branch, Join, Timer
from .ending import GRAVEYARD, Broken, Guard, Left, Raised, Renewed, Returned, unguarded
from .failures import TIMED_OUT, failure, line_of, place, suspended_at, words
from .model import DONE, UPDATE, Signalled
from .requests import Expect, Handler, Host, Request
from .scheduling import Scheduling
from .scopes import Scope
from .state import Step

__all__ = [
    "GRAVEYARD",
    "TIMED_OUT",
    "WAITS",
    "Broken",
    "Definition",
    "Driver",
    "Guard",
    "HangInterrupt",
    "Host",
    "Left",
    "Progress",
    "Raised",
    "Renewed",
    "Returned",
    "Waits",
    "failure",
    "place",
    "unguarded",
    "words",
]


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
    signals: Mapping[str, Codec[Any]] | None = None
    """Those that the saga declares, by name; None where it declares none, and any is kept."""
    attributes: Callable[[Any], Mapping[str, AttributeValue]] | None = None
    """Makes search attributes of the input, before the code begins."""
    awaits: Mapping[str, Codec[Any]] = {}
    """Events that the saga awaits by a key, by name."""


class Waits(NamedTuple):
    """The code waits for outcomes."""


WAITS = Waits()

Progress = Waits | Returned | Renewed | Raised | Broken
"""What became of the code; what it asked for on the way is in `Driver.effects`."""


class Driver(Scheduling):
    """One saga's live code. Not thread-safe: only the thread that made it may use it."""

    __slots__ = ("_schemas", "answer", "definition")

    def __init__(
        self,
        definition: Definition,
        host: Host,
        schemas: Schemas,
        guard: Guard = unguarded,
        *,
        offset: int = 0,
    ) -> None:
        """`offset`: the last number of a step before this run."""
        super().__init__(host, guard)
        self.root.steps = offset
        self.definition = definition
        self._schemas = schemas
        self.answer: tuple[bytes, str] = b"", ""
        """What the handler made of the update that was fed last: its result, and why it refused it."""

    def jump(self, last: int) -> None:
        """Number what is asked for from now on behind `last`, and let chance be another one."""
        self.root.steps = max(self.root.steps, last)
        self.host.seed = f"{self.host.seed.partition('/steps-')[0]}/steps-{last}"

    @property
    def waiting(self) -> Request | None:
        """The step whose outcome the code awaits; of several, the one that it asked for first."""
        return next(iter(self.requests.values()), None)

    def start(self, payload: bytes) -> Progress:
        """Decode the input and run the code until nothing is ready."""
        self._run(self.root, self._begin, payload)
        return self._progress()

    def _begin(self, payload: bytes) -> Any:
        definition = self.definition
        try:
            value = definition.input.decode(payload, self._schemas)
        except KasagaError as error:
            raise Unreadable(f"the input of saga {definition.name}: {error.message}") from error
        if definition.attributes is not None:
            self._name(definition.attributes(value))
        coroutine = self.root.coroutine = definition.function(definition.open_context(self.host), value)
        return coroutine.send(None)

    def _name(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set what the saga makes of its input, but for what came with the start."""
        given = self.host.given
        try:
            changes = to_text({name: value for name, value in attributes.items() if name not in given})
        except BadAttribute as error:
            raise WrongAttributes(error.message, remedy=error.remedy) from None
        if changes:
            self.set_attributes(changes)

    def resume(self, step: Step) -> Progress:
        """Feed the outcome of a step that the code waits for, and run until nothing is ready."""
        self.effects = []
        self._turn += 1
        if step.kind == UPDATE:
            return self._update(step)
        request = self.requests.pop(step.path)
        waiter = request.waiter
        if request.index < 0:
            self._drained(request)
        elif isinstance(request, Scope):
            self._scope_undone(request)
        elif isinstance(waiter, Branch):
            coroutine = waiter.coroutine
            assert coroutine is not None
            if step.outcome == DONE:
                self._run(waiter, self._feed, (coroutine.send, request, step))
            else:
                self._run(waiter, coroutine.throw, failure(step))
        elif isinstance(waiter, Join):
            self._feed_join(waiter, request, step)
        else:
            assert isinstance(request, Timer)
            self._time_is_over(request)
        return self._progress()

    def fit(self, path: str, signal: Signalled) -> bytes:
        """Try to read a signal for the step that waits for it; returns it in Avro if it is JSON.

        Raises what the author's model raises, KasagaError if the signal is wrong.
        """
        request = self.requests[path]
        assert isinstance(request, Expect)

        def read(sent: Signalled) -> bytes:
            return request.fit(sent, self._schemas)

        return cast("bytes", self.guard(partial(self.root.run, read), signal))

    def broken(self, error: BaseException) -> SagaCodeError:
        """Say why the code can't go on after what reading a value raised, which isn't of the value."""
        judged = self._judge(self.root, error)
        return judged.error if judged is not None else BugInSaga(_said(error))

    def _update(self, step: Step) -> Progress:
        """Let the author's handler deal with an update, between two awaits of the code."""
        found = (self.host.handlers or {}).get(step.type)
        if found is None:
            return Broken(Nondeterminism(f"the saga handles no update {step.type} any more"))
        handler: Handler = found

        def handle(of: Step) -> bytes:
            return handler.handle(of, self._schemas)

        self.host.current, self.between = self.root, True
        try:
            self.answer = self.guard(partial(self.root.run, handle), step), ""
        except UpdateRefused as error:
            self.answer = b"", words(error)
        except BaseException as error:  # noqa: BLE001 - the author's handler
            self._end = self._judge(self.root, error) or Broken(
                BugInSaga(f"the handler of update {step.type} raised {_said(error)}")
            )
        finally:
            self.between = False
        return self._progress()

    def _feed(self, fed: tuple[Callable[[Any], Any], Request, Step]) -> Any:
        """Read a step's result, and give it to somebody."""
        give, request, step = fed
        try:
            value = request.read(step.result, self._schemas)
        except KasagaError as error:
            what = f"the result of step {step.path} ({request.describe()})"
            raise Unreadable(f"{what}: {error.message}") from error
        return give(value)

    def _feed_join(self, join: Join, request: Request, step: Step) -> None:
        """A child of a gather or a race that is a mere step."""
        if step.outcome != DONE:
            self._child_ended(join, request.index, None, failure(step))
            return
        branch = join.branch
        assert branch is not None
        try:
            value = self.guard(partial(branch.run, self._feed), (_as_it_is, request, step))
        except BaseException as error:  # noqa: BLE001 - the author's model
            self._end = self._judge(branch, error) or Broken(
                BugInSaga(f"the result of step {step.path}: {words(error)}")
            )
        else:
            self._child_ended(join, request.index, value, None)

    def _progress(self) -> Progress:
        if self._ready:
            self._run_ready()
        if self._end is not None:
            self.host.part()
            return self._end
        if not self.requests:
            lines = ", ".join(suspended_at(branch.coroutine) for branch in (self.root, *self._live))
            return Broken(BranchesWait(f"branches of the saga wait for each other, at {lines}"))
        return WAITS

    def cancel(self) -> None:
        """Unwind the code with CancelInterrupt; whatever it answers is ignored."""
        self.close(CancelInterrupt("the saga is cancelled"))

    def evict(self) -> None:
        """Close the coroutines; the saga goes on from its history elsewhere."""
        self.close(Evicted("this coroutine is closed; the saga goes on from its history"))

    # --- what its end means ---

    def _conclude(self) -> Returned | Raised | Broken:
        error = self.root.error
        return self._returned(self.root.value) if error is None else self._raised(error)

    def _raised(self, error: BaseException) -> Raised | Broken:
        if self.pivoted:
            said = f"{_said(error)} (at {self._where(self.root, error)})"
            return Broken(PivotPassed(f"the saga asks to be undone after its pivot: {said}"))
        if isinstance(error, SagaOutcome):
            code: object = getattr(error, "code", None)  # an author's subclass may have made it anything
            code = code if isinstance(code, str) else SagaFailed.code
            return Raised(code, words(error), str(error.step) if isinstance(error, StepError) else "")
        return Raised(SagaFailed.code, _said(error), "")

    def _returned(self, value: Any) -> Returned | Raised | Broken:
        if self.host.loose:
            names = ", ".join(request.describe() for request in self.host.loose)
            return Broken(ForgottenAwait(f"the saga returned and never awaited what it called: {names}"))
        try:
            result: bytes = self.guard(partial(self.root.run, self.definition.result.encode), value)
        except KasagaError as error:
            return Broken(BugInSaga(f"the saga's return value: {error.message}"))
        except BaseException as error:  # noqa: BLE001 - the author's model
            return self._judge(self.root, error) or self._raised(error)
        if len(result) > self.host.max_payload:
            size = f"{len(result)} bytes, over {self.host.max_payload}"
            return Broken(PayloadTooLarge(f"the saga's return value has {size}"))
        return Returned(result)

    def _judge(self, branch: Branch, error: BaseException) -> Broken | None:
        """Tell a bug from a business outcome, which is None: only that may leave a branch."""
        if isinstance(error, SagaOutcome):
            return None
        if isinstance(error, HangInterrupt):
            return Broken(SagaHangs(f"no await for too long, at {self._where(branch, error)}"))
        if isinstance(error, Unreadable):
            return Broken(error)
        if isinstance(error, SagaCodeError) and type(error).__module__ == SagaCodeError.__module__:
            said = f"{words(error)} (at {self._where(branch, error)})"
            return Broken(type(error)(said, remedy=error.remedy))
        if isinstance(error, self.definition.fails_on):
            return None
        where, said = self._where(branch, error), _said(error)
        if isinstance(error, RuntimeError) and "event loop" in said:
            return Broken(NotAwaitable(f"the saga uses asyncio at {where}: {said}"))
        return Broken(BugInSaga(f"{said} (at {where})"))

    # --- lines ---

    def _where(self, branch: Branch, error: BaseException) -> str:
        code = getattr(inspect.unwrap(self.definition.function), "__code__", None)
        where = line_of(error.__traceback__, code.co_filename if code else "")
        return f"{where}, branch {branch.path}" if branch.path else where

    def line(self, request: Request | None = None) -> str:
        """Say at which line of the author's code the saga, or the branch of a request, is suspended."""
        branch = self.root
        if request is not None:
            waiter = request.branch if isinstance(request, Timer) else request.waiter
            found = waiter if isinstance(waiter, Branch) or waiter is None else waiter.branch
            branch = found if found is not None else branch
        where = suspended_at(branch.coroutine)
        return f"{where}, branch {branch.path}" if branch.path else where


def _as_it_is(value: Any) -> Any:
    return value


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {words(error)}"

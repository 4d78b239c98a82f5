"""What one saga's live code may know of the world, and the steps that it may await.

The context (kasaga/context.py) makes requests; awaiting one suspends the coroutine with the request
itself, and the outcome is sent back in. What is awaited and is no step is in branches.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kasaga_wire.codec import Codec, Schemas
from kasaga_wire.contracts import CommandSpec
from kasaga_wire.errors import DecodeError

from ..errors import Evicted, NotAwaitable
from .awaited import said
from .kinship import AWAIT, CHILDREN, child_id
from .model import Emit, Policy, Signalled

if TYPE_CHECKING:
    from .branches import Branch, Join, Timer
    from .scopes import Scope
    from .step import Step

MAX_SWALLOWS = 10
"""How often a saga's code may swallow an interrupt before it is left alone."""


class Scheduler(Protocol):
    """What a saga's code asks of its driver without awaiting anything."""

    def spawn(self, branch: Branch) -> None:
        """Begin a branch, as soon as the running one awaits something."""
        ...

    def enter(self, timer: Timer) -> None:
        """Begin a block with a time-out."""
        ...

    def leave(self, timer: Timer) -> None:
        """End it in time."""
        ...

    def enter_scope(self, scope: Scope) -> None:
        """Begin a scope."""
        ...

    def leave_scope(self, scope: Scope, error: BaseException | None) -> bool:
        """End it; says whether nothing is to be waited for."""
        ...

    def pivot(self) -> None:
        """Pass the point of no return. Raises EarlyPivot."""
        ...

    def emit(self, event: Emit) -> None:
        """Publish an event."""
        ...

    def set_attributes(self, changes: bytes) -> None:
        """Set search attributes, given as JSON text."""
        ...

    def patched(self, patch: str) -> bool:
        """Say which branch of a patch the code is on."""
        ...

    def deprecate(self, patch: str) -> None:
        """Have the new branch alone. Raises Nondeterminism."""
        ...

    def may_renew(self) -> None:
        """Look whether the saga may go on as a new run here. Raises OpenEnds."""
        ...


class Host:
    """One for each driver; `now` is the time of the event being processed, in microseconds."""

    __slots__ = (
        "_refused",
        "attached",
        "current",
        "given",
        "handlers",
        "length",
        "long",
        "loose",
        "max_payload",
        "now",
        "number",
        "queries",
        "run_id",
        "saga_id",
        "scheduler",
        "seed",
    )

    def __init__(self, run_id: str, saga_id: str, max_payload: int, number: int = 1) -> None:
        self.run_id = run_id
        self.number = number
        """Which of the saga's runs it is, from 1."""
        self.seed = run_id if number == 1 else f"{run_id}/{number}"
        """What chance is made of: another one in each run."""
        self.length, self.long = 0, False
        """Records of the run's history, and whether it is known to be long; as of the event at hand."""
        self.saga_id = saga_id
        self.max_payload = max_payload
        self.now = 0
        self.attached = True
        """False while the coroutine, or one branch of it, is being closed."""
        self.current: Branch | None = None
        """The branch whose code runs."""
        self.given: Collection[str] = ()
        """Names of the search attributes that came with the start."""
        self.scheduler: Scheduler | None = None
        self.loose: dict[Request | Join, Branch | None] = {}
        """What was made and isn't awaited yet, and by which branch."""
        self.handlers: dict[str, Handler] | None = None
        """Of updates, by name; most sagas declare none."""
        self.queries: dict[str, Callable[[], bytes]] | None = None
        """By name; each returns JSON text."""
        self._refused = 0

    def detach(self, branch: Branch) -> bool:
        """Let `live` refuse what a branch does; says whether it did so before."""
        before, self.attached = self.attached, False
        self.current, self._refused = branch, 0
        return not before

    def part(self) -> None:
        """Forget the driver at its end: a circle would be left to the collector, at a price for each saga."""
        self.scheduler = self.current = None

    def live(self) -> None:
        """Refuse any use by a coroutine that is being closed.

        Code that swallows even that must reach an await all the same, where the driver gets hold of
        it: a loop that is refused for ever would never end. So it is refused only so often.
        """
        if not self.attached and self._refused < MAX_SWALLOWS:
            self._refused += 1
            raise Evicted("this coroutine is closed; the saga goes on from its history")


class Handler(Protocol):
    """What a saga does with updates of one name."""

    def check(self, payload: bytes, *, json: bool, schemas: Schemas) -> None:
        """Let the author's validator look at a value; what it raises is why it is refused."""
        ...

    def handle(self, step: Step, schemas: Schemas) -> bytes:
        """Give the author's handler the value, and return its result as JSON text."""
        ...


class Options(NamedTuple):
    """What `ctx.use` says of all commands of one participant."""

    key: bytes
    policy: Policy
    undo_policy: Policy


class Request:
    """One step that a saga's code asks for."""

    __slots__ = ("host", "index", "path", "turn", "waiter")

    def __init__(self, host: Host) -> None:
        self.host = host
        host.loose[self] = host.current
        self.path = ""
        """The step's; empty before it is asked for."""
        self.turn = self.index = 0
        """In which turn of the driver it was asked for; its place in a gather or race."""
        self.waiter: Branch | Join | Scope | None = None
        """Who is given the outcome."""

    def hand_over(self) -> None:
        """It is awaited now, by itself or by what it was given to. Raises NotAwaitable the second time."""
        if self not in self.host.loose:
            raise NotAwaitable(f"{self.describe()} was awaited a second time; call it again to do it again")
        del self.host.loose[self]

    def __await__(self) -> Generator[Request, Any, Any]:
        """Suspend the saga until the step has an outcome."""
        if self not in self.host.loose:
            self.hand_over()
        del self.host.loose[self]
        return (yield self)

    def describe(self) -> str:
        """Name the request as a person would."""
        raise NotImplementedError  # pragma: no cover - every kind of request has its own

    def read(self, payload: bytes, schemas: Schemas) -> Any:
        """Turn the recorded result into what the author receives."""
        raise NotImplementedError  # pragma: no cover - every kind of request has its own


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


class ChildCall(Call):
    """A saga as a step of this one."""

    __slots__ = ("child", "given", "undo", "version")

    def __init__(
        self,
        host: Host,
        *,
        saga: str,
        version: int,
        given: str,
        child: str,
        undo: str,
        codecs: tuple[Codec[Any], Codec[Any]],
        policies: tuple[Policy, Policy],
        payload: bytes,
    ) -> None:
        """`given`: the child's id, or empty for one of its own; `child`: AWAIT or LEAVE."""
        spec = CommandSpec(saga, f"child.{saga}", CHILDREN, *codecs, None, alone=False)
        super().__init__(host, spec, Options(b"", *policies), payload)
        self.given, self.child, self.undo, self.version = given, child, undo, version

    @property
    def id(self) -> str:
        """The child's saga id; known once it is asked for."""
        return self.given or child_id(self.host.saga_id, self.path)

    def read(self, payload: bytes, schemas: Schemas) -> Any:
        """Decode the child's result, or name the child."""
        return self.spec.result.decode(payload, schemas) if self.child == AWAIT else self.id


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


class PivotCall(Request):
    """The point of no return: no step, and awaiting it doesn't suspend the saga."""

    __slots__ = ()

    def __await__(self) -> Generator[Request, Any, None]:
        """Pass it, and go on. Raises EarlyPivot."""
        self.hand_over()
        scheduler = self.host.scheduler
        assert scheduler is not None
        scheduler.pivot()
        yield from ()

    def describe(self) -> str:
        """Name it."""
        return "ctx.pivot"


class EmitCall(Request):
    """An event to be published: no step, and awaiting it doesn't suspend the saga."""

    __slots__ = ("event",)

    def __init__(self, host: Host, event: Emit) -> None:
        super().__init__(host)
        self.event = event

    def __await__(self) -> Generator[Request, Any, None]:
        """Publish it, and go on."""
        self.hand_over()
        scheduler = self.host.scheduler
        assert scheduler is not None
        scheduler.emit(self.event)
        yield from ()

    def describe(self) -> str:
        """Name it."""
        return f"ctx.emit of {self.event.type}"


class ContinueCall(Request):
    """The end of this run and the beginning of the next: no step, and awaiting it never ends."""

    __slots__ = ("payload",)

    def __init__(self, host: Host, payload: bytes) -> None:
        super().__init__(host)
        self.payload = payload

    def __await__(self) -> Generator[Any, Any, Any]:
        """Suspend the code for good. Raises OpenEnds."""
        self.hand_over()
        scheduler = self.host.scheduler
        assert scheduler is not None
        scheduler.may_renew()
        yield Renewal(self.payload)
        raise NotAwaitable("a run that has ended was gone on with")  # pragma: no cover - nobody does

    def describe(self) -> str:
        """Name it."""
        return "ctx.continue_as_new"


class Renewal:
    """What `ctx.continue_as_new` suspends the code with."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


class AttributesCall(Request):
    """Search attributes to be set: no step, and awaiting it doesn't suspend the saga."""

    __slots__ = ("changes",)

    def __init__(self, host: Host, changes: bytes) -> None:
        super().__init__(host)
        self.changes = changes

    def __await__(self) -> Generator[Request, Any, None]:
        """Set them, and go on."""
        self.hand_over()
        scheduler = self.host.scheduler
        assert scheduler is not None
        scheduler.set_attributes(self.changes)
        yield from ()

    def describe(self) -> str:
        """Name it."""
        return "ctx.set_attributes"


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


class LockCall(Request):
    """A wait for keys that no other saga holds."""

    __slots__ = ("keys", "wait")

    def __init__(self, host: Host, keys: tuple[str, ...], *, wait: bool) -> None:
        super().__init__(host)
        self.keys, self.wait = keys, wait

    def describe(self) -> str:
        """Name the keys."""
        return f"lock {', '.join(self.keys)}"

    def read(self, payload: bytes, schemas: Schemas) -> None:
        """A lock has no result."""


class Expect(Request):
    """A wait for a signal."""

    __slots__ = ("codec", "due_at", "name")

    def __init__(self, host: Host, name: str, codec: Codec[Any], due_at: int) -> None:
        super().__init__(host)
        self.name = name
        self.codec = codec
        self.due_at = due_at
        """When the wait is over; 0 for never."""

    def describe(self) -> str:
        """Name the signal."""
        return said(self.name)

    def read(self, payload: bytes, schemas: Schemas) -> Any:
        """Decode the signal's value."""
        return self.codec.decode(payload, schemas)

    def fit(self, signal: Signalled, schemas: Schemas) -> bytes:
        """Try to read a signal; returns its value in Avro where it came as JSON. Raises KasagaError."""
        return fit(self.codec, signal.payload, json=signal.json, schemas=schemas)


def fit(codec: Codec[Any], payload: bytes, *, json: bool, schemas: Schemas) -> bytes:
    """Try to read a value that was sent; returns it in Avro where it came as JSON. Raises KasagaError."""
    if json:
        try:
            text = payload.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"JSON that isn't UTF-8: {error}") from None
        avro = codec.encode(codec.from_json(text))
        schemas.add(codec.schema)
        return avro
    codec.decode(payload, schemas)
    return b""

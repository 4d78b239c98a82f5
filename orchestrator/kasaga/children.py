"""Child sagas, as authors use them: `await ctx.child(…)` and `await ctx.start_child(…)`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from kasaga_wire.errors import KasagaError
from kasaga_wire.headers import MAX_SAGA_ID_CHARACTERS

from .engine.kinship import AWAIT, LEAVE
from .engine.model import Policy
from .engine.requests import ChildCall, Host
from .errors import PayloadTooLarge, SagaCodeError
from .policy import RetryPolicy, policy

if TYPE_CHECKING:
    from .saga import Saga

A = TypeVar("A")
R = TypeVar("R")

OnUndo = Literal["compensate", "abandon"]
"""What becomes of a child when its parent undoes the step: it is undone too, or left alone."""

START_RETRY = RetryPolicy(maximum_attempts=0)
START_TIMEOUT = 60.0
UNDO_RETRY = RetryPolicy(initial_interval=60.0, maximum_interval=3600.0, maximum_attempts=0)
"""A child's owner answers when it has read: another attempt is for what was lost. An undo takes as long as
the child's own compensations do."""

_POLICIES: tuple[Policy, Policy] = (
    policy(START_RETRY, START_TIMEOUT, None),
    policy(UNDO_RETRY, START_TIMEOUT, None),
)


class Parenting:
    """The part of the context that begins other sagas."""

    __slots__ = ()

    def _live(self) -> Host:
        raise NotImplementedError

    def child(
        self,
        saga: Saga[A, R],
        value: A,
        *,
        id: str | None = None,  # noqa: A002 (what everybody calls it)
        on_undo: OnUndo = "compensate",
    ) -> Coroutine[object, None, R]:
        """Run another saga as a step of this one, and wait for its result.

        A child that ends undone is a refusal of the step. A child that is done is undone by its own
        compensations when this saga is undone.

        Args:
            saga: the child, listed in the App; its newest version begins.
            value: its input.
            id: its saga id; by default this saga's, a dot, and the step's number.
            on_undo: `compensate` undoes the child with this step, also while it runs; `abandon` leaves it
                alone as soon as it has begun.

        Raises:
            StepRefused: the child ended undone, or its id belongs to another saga, or it would be too deep.
            StepFailed: the child was terminated.
            SagaCodeError: the input, the id or `on_undo` can't be used.
            PayloadTooLarge: the input is over the size that one value may have.
        """
        made = self._child(saga, value, id, on_undo, AWAIT)
        return cast("Coroutine[object, None, R]", made)

    def start_child(
        self,
        saga: Saga[A, Any],
        value: A,
        *,
        id: str | None = None,  # noqa: A002 (what everybody calls it)
        on_undo: OnUndo = "compensate",
    ) -> Coroutine[object, None, str]:
        """Begin another saga and go on; returns its id when it has begun.

        How it ends is nothing to this saga. With `compensate` it is undone with this step, whether it has
        ended or not; with `abandon` it is left alone. Arguments and errors are those of `child`.
        """
        made = self._child(saga, value, id, on_undo, LEAVE)
        return cast("Coroutine[object, None, str]", made)

    def _child(
        self, saga: Saga[Any, Any], value: object, id_: str | None, on_undo: str, how: str
    ) -> ChildCall:
        host = self._live()
        if on_undo not in ("compensate", "abandon"):
            raise SagaCodeError(f"on_undo={on_undo!r}", remedy="Use 'compensate' or 'abandon'.")
        if id_ is not None and not (0 < len(id_) <= MAX_SAGA_ID_CHARACTERS and id_.isprintable()):
            most = f"Use 1 to {MAX_SAGA_ID_CHARACTERS} printable characters."
            raise SagaCodeError(f"the id of a child {saga.name}", remedy=most)
        try:
            payload = saga.input.encode(value)
        except KasagaError as error:
            said = f"the input of child {saga.name}: {error.message}"
            raise SagaCodeError(said, remedy=error.remedy) from error
        if len(payload) > host.max_payload:
            size = f"{len(payload)} bytes, over {host.max_payload}"
            raise PayloadTooLarge(f"the input of child {saga.name} has {size}")
        return ChildCall(
            host,
            saga=saga.name,
            version=0,
            given=id_ or "",
            child=how,
            undo=f"child.{saga.name}.undo" if on_undo == "compensate" else "",
            codecs=(saga.input, saga.result),
            policies=_POLICIES,
            payload=payload,
        )

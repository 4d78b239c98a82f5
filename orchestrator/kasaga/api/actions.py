"""Acting on a saga: cancel, pause, resume, terminate, retry, skip, resolve, move, reset.

Each is a record to the saga's owner, who answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID, uuid4, uuid5

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from ..client.acting import Action
from ..client.errors import NoAnswer
from .access import require_token
from .answers import BackendOf, answer, refusals
from .backend import Backend
from .bulk_models import MoveRequest, ResetRequest
from .models import (
    ActionQuery,
    ActionResult,
    CancelRequest,
    PauseRequest,
    ResolveRequest,
    ResumeRequest,
    RetryRequest,
    SkipRequest,
    TerminateRequest,
)
from .paths import SagaId
from .waiting import check_wait, unless_gone

BY = "http-api"
"""Who acts where the request doesn't say."""

_KEYS = UUID("6b617361-6761-5a70-a100-000000000000")
"""The name space of the ids that are made from callers' keys."""

router = APIRouter(prefix="/api/v1", tags=["actions"], dependencies=[Depends(require_token)])

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[ -~]+$",
        description="Printable ASCII. What it names is carried out once: send it again with the same one.",
        examples=["5f0c1a52-6d0e-4c1c-a7e0-0b4d3c1f7a11"],
    ),
]


def action_id_of(action: Action, saga_id: str, key: str) -> str:
    """The id of an action by its caller's key: with another action or saga it is another one."""
    return str(uuid5(_KEYS, f"{action}\n{saga_id}\n{key}"))


@dataclass(frozen=True)
class Acting:
    """One request to act, without its body."""

    saga_id: str
    request: Request
    backend: Backend
    wait: float
    key: str

    async def act(
        self, action: Action, *, reason: str, by: str, step: str = "", value: object = None
    ) -> Response:
        """Do it and answer: 200 when the owner has, 202 when only Kafka has."""
        backend = self.backend
        check_wait(backend, self.wait)
        action_id = action_id_of(action, self.saga_id, self.key)
        made: dict[str, object] = {"saga_id": self.saga_id, "action": action, "action_id": self.key}
        work = backend.act(
            action,
            self.saga_id,
            reason=reason,
            by=by or BY,
            step=step,
            value=value,
            timeout=self.wait,
            action_id=action_id,
        )
        try:
            status = await unless_gone(self.request, work)
        except NoAnswer as error:
            if not error.sent:
                remedy = f"Send it again with Idempotency-Key: {self.key}; it is carried out once per key"
                raise NoAnswer(error.message, sent=False, remedy=remedy) from None
            return answer({**made, "outcome": "sent", "state": None, "run_id": None}, 202)
        applied = {"outcome": "applied", "state": status.state or None, "run_id": status.run_id or None}
        left = {"reason": status.reason} if action == "terminate" else {}
        return answer({**made, **applied, **left})


async def _acting(
    saga_id: SagaId,
    request: Request,
    backend: BackendOf,
    query: Annotated[ActionQuery, Query()],
    key: Key = None,
) -> Acting:
    return Acting(saga_id, request, backend, query.wait, key or str(uuid4()))


ActingOf = Annotated[Acting, Depends(_acting)]

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The owner has done it."},
    202: {
        "description": "Kafka has it, and it will be done once; nobody has answered yet.",
        "model": ActionResult,
    },
    **refusals(400, 403, 404, 409, 413, 415),
}


@router.post(
    "/sagas/{saga_id:saga}/retry",
    operation_id="retry_saga",
    summary="Let a STUCK saga try again, now",
    response_model=ActionResult,
    responses=RESPONSES,
)
async def retry(asked: RetryRequest, acting: ActingOf) -> Response:
    """Send the undo or the step again, or step the saga's code again."""
    return await acting.act("retry", reason=asked.reason, by=asked.by, step=asked.step)


@router.post(
    "/sagas/{saga_id:saga}/skip",
    operation_id="skip_step",
    summary="Leave the step that a saga is stuck at undoing as it is, and go on",
    response_model=ActionResult,
    responses=RESPONSES,
)
async def skip(asked: SkipRequest, acting: ActingOf) -> Response:
    """Go on without the undo; the saga's end is then COMPENSATED with exceptions."""
    return await acting.act("skip", reason=asked.reason, by=asked.by, step=asked.step)


@router.post(
    "/sagas/{saga_id:saga}/resolve",
    operation_id="resolve_step",
    summary="Say what became of the step that a saga is stuck at",
    response_model=ActionResult,
    responses=RESPONSES,
)
async def resolve(asked: ResolveRequest, acting: ActingOf) -> Response:
    """Go on with the value as the step's result; or, where an undo is stuck, as if it had been undone."""
    return await acting.act("resolve", reason=asked.reason, by=asked.by, step=asked.step, value=asked.value)


@router.post(
    "/sagas/{saga_id:saga}/cancel",
    operation_id="cancel_saga",
    summary="Undo what a saga has done, and end it",
    response_model=ActionResult,
    responses=RESPONSES,
)
async def cancel(asked: CancelRequest, acting: ActingOf) -> Response:
    """Answered when it is decided, not when it is done."""
    return await acting.act("cancel", reason=asked.reason, by=asked.by)


@router.post(
    "/sagas/{saga_id:saga}/pause",
    operation_id="pause_saga",
    summary="Let no step, retry or undo of a saga go out until it is resumed",
    response_model=ActionResult,
    responses=RESPONSES,
)
async def pause(asked: PauseRequest, acting: ActingOf) -> Response:
    """Answers, signals and timers still get in, and are decided when it is resumed."""
    return await acting.act("pause", reason=asked.reason, by=asked.by)


@router.post(
    "/sagas/{saga_id:saga}/resume",
    operation_id="resume_saga",
    summary="Let a PAUSED saga go on where it was",
    response_model=ActionResult,
    responses=RESPONSES,
)
async def resume(asked: ResumeRequest, acting: ActingOf) -> Response:
    """What came while it was paused is decided first."""
    return await acting.act("resume", reason=asked.reason, by=asked.by)


@router.post(
    "/sagas/{saga_id:saga}/terminate",
    operation_id="terminate_saga",
    summary="Last resort: end a saga as it is, without undoing",
    response_model=ActionResult,
    responses=RESPONSES,
)
async def terminate(asked: TerminateRequest, acting: ActingOf) -> Response:
    """The answer's reason says what it leaves behind."""
    return await acting.act("terminate", reason=asked.reason, by=asked.by)


@router.post(
    "/sagas/{saga_id:saga}/move",
    operation_id="move_saga",
    summary="Let a saga go on in another version of its code",
    response_model=ActionResult,
    responses=RESPONSES,
)
async def move(asked: MoveRequest, acting: ActingOf) -> Response:
    """Its owner replays the saga's history in that version first, and refuses where the code differs."""
    return await acting.act("move", reason=asked.reason, by=asked.by, value=asked.to)


@router.post(
    "/sagas/{saga_id:saga}/reset",
    operation_id="reset_saga",
    summary="Undo what came after a step, and run the saga's code anew from there",
    response_model=ActionResult,
    responses=RESPONSES,
)
async def reset(asked: ResetRequest, acting: ActingOf) -> Response:
    """Its owner refuses where what came after the step can't be undone and done again."""
    return await acting.act("reset", reason=asked.reason, by=asked.by, step=asked.after)

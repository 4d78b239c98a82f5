"""Sending into a saga, and asking it: signals, updates and queries. Its owner answers."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from uuid import uuid4

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from kasaga_wire.errors import KasagaError

from ..client.errors import NoAnswer
from .access import require_token
from .actions import Key
from .answers import BackendOf, answer, refusals
from .backend import Backend
from .models import ActionQuery, Answered, SignalRequest, SignalResult, UpdateRequest
from .paths import SagaId
from .waiting import check_wait, unless_gone

T = TypeVar("T")

router = APIRouter(prefix="/api/v1", tags=["messages"], dependencies=[Depends(require_token)])

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,63}$", description="As the saga's code calls it.")]


@dataclass(frozen=True)
class Sending:
    """One request to send or ask something, without its body."""

    saga_id: str
    name: str
    request: Request
    backend: Backend
    wait: float
    key: str

    @property
    def told(self) -> dict[str, object]:
        """What the sender is told of it, whatever becomes of it."""
        return {"saga_id": self.saga_id, "name": self.name, "key": self.key}

    async def sent(self, what: str, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the owner's answer, and count what became of it."""
        outcome = "failed"
        try:
            with self.backend.ends.place():
                told = await unless_gone(self.request, work)
            outcome = "confirmed"
        except NoAnswer as error:
            outcome = "confirmed" if error.sent else "failed"
            raise
        except KasagaError:
            outcome = "confirmed"
            raise
        finally:
            self.backend.metrics.sent(what, outcome)
        return told


async def _sending(
    saga_id: SagaId,
    name: Name,
    request: Request,
    backend: BackendOf,
    query: Annotated[ActionQuery, Query()],
    key: Key = None,
) -> Sending:
    check_wait(backend, query.wait)
    return Sending(saga_id, name, request, backend, query.wait, key or str(uuid4()))


SendingOf = Annotated[Sending, Depends(_sending)]


@router.post(
    "/sagas/{saga_id:saga}/signals/{name}",
    operation_id="signal_saga",
    summary="Send a signal to a saga",
    response_model=SignalResult,
    responses={
        200: {"description": "The owner has written it down."},
        202: {"description": "Kafka has it; nobody has answered yet.", "model": SignalResult},
        **refusals(400, 403, 404, 409, 413, 415),
    },
)
async def signal(asked: SignalRequest, sending: SendingOf) -> Response:
    """Kept, in order, until the saga's code waits for it. The same Idempotency-Key twice is one signal."""
    work = sending.backend.client.signal_json(
        sending.saga_id,
        sending.name,
        json.dumps(asked.value),
        key=sending.key,
        keep=asked.keep,
        timeout=sending.wait,
    )
    try:
        await sending.sent("signal", work)
    except NoAnswer as error:
        if not error.sent:
            raise
        return answer({**sending.told, "outcome": "sent"}, 202)
    return answer({**sending.told, "outcome": "accepted"})


@router.post(
    "/sagas/{saga_id:saga}/updates/{name}",
    operation_id="update_saga",
    summary="Send a value into a saga, and be answered",
    response_model=Answered,
    responses={
        200: {"description": "What the saga's handler answers."},
        202: {"description": "Kafka has it; nobody has answered yet.", "model": SignalResult},
        **refusals(400, 403, 404, 409, 413, 415),
    },
)
async def update(asked: UpdateRequest, sending: SendingOf) -> Response:
    """Looked at by the saga's validator first. The same Idempotency-Key twice is handled once: ask again."""
    work = sending.backend.client.update_json(
        sending.saga_id, sending.name, json.dumps(asked.value), key=sending.key, timeout=sending.wait
    )
    try:
        result: Any = await sending.sent("update", work)
    except NoAnswer as error:
        if not error.sent:
            raise
        return answer({**sending.told, "outcome": "sent"}, 202)
    return answer({"saga_id": sending.saga_id, "name": sending.name, "result": result})


@router.get(
    "/sagas/{saga_id:saga}/queries/{name}",
    operation_id="query_saga",
    summary="Ask a saga's code something, also after its end",
    response_model=Answered,
    responses={200: {"description": "What the saga answers."}, **refusals(404, 409)},
)
async def query(sending: SendingOf) -> Response:
    """Nothing is recorded, and the saga isn't changed."""
    work = sending.backend.client.query(sending.saga_id, sending.name, timeout=sending.wait)
    result: Any = await sending.sent("query", work)
    return answer({"saga_id": sending.saga_id, "name": sending.name, "result": result})

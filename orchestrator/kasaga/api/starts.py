"""Starting a saga, and waiting for its end."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response

from kasaga_wire.attributes import from_json, merged
from kasaga_wire.codec import Schema
from kasaga_wire.errors import KasagaError

from ..client.errors import RejectedStart, ResultForgotten
from ..client.headers import check_id
from ..lookup import find
from ..store.base import FINAL_STATES, DefinitionRow, SagaRow, SagaState, Store
from .access import require_token
from .answers import BackendOf, answer, refusals
from .backend import Backend
from .ends import over
from .models import SagaResult, StartRequest, WaitQuery
from .paths import SagaId
from .waiting import check_wait, unless_gone

ACCEPTED = "ACCEPTED"
"""The state of a saga whose start Kafka has, and that nobody has seen in Postgres yet."""

router = APIRouter(prefix="/api/v1", tags=["sagas"], dependencies=[Depends(require_token)])


@router.post(
    "/sagas",
    operation_id="start_saga",
    summary="Start a saga; the same id, name and input again is the same saga",
    response_model=SagaResult,
    responses={
        200: {"description": "It has ended."},
        202: {"description": "It will run, runs, or needs a person.", "model": SagaResult},
        **refusals(400, 403, 409, 413, 415),
    },
)
async def start(
    asked: StartRequest, request: Request, backend: BackendOf, query: Annotated[WaitQuery, Query()]
) -> Response:
    """Send a start, once Postgres has shown that the id is free. Safe to repeat, whatever the answer was."""
    wait = query.wait
    check_id(asked.saga_id)
    check_wait(backend, wait)
    request.scope["kasaga.saga_id"] = asked.saga_id
    with backend.ends.place() if wait else nullcontext():
        known = await backend.read(lambda store: _prepare(backend, store, asked))
        if isinstance(known, SagaRow):
            if over(known) or not wait:
                return await _told(backend, known)
            run_id, version, digest = str(known.run_id), known.version, known.input_hash
        else:
            definition, payload, schema = known
            run_id = await _send(backend, asked, definition, payload, schema)
            version, digest = definition.version, hashlib.sha256(payload).digest()
        row = None
        if wait:
            row = await unless_gone(request, backend.ends.wait(asked.saga_id, wait))
    if row is None:
        return _accepted(asked, run_id, version)
    if (row.name, row.input_hash) != (asked.name, digest):
        raise _rejected(row)  # another start with this id came first
    return await _told(backend, row)


def _prepare(
    backend: Backend, store: Store, asked: StartRequest
) -> SagaRow | tuple[DefinitionRow, bytes, Schema]:
    """Return the saga that this start is of, or what to send. Raises RejectedStart where the id is taken."""
    row = store.saga(asked.saga_id)
    if row is not None and row.name == asked.name and backend.payloads.same_input(store, row, asked.input):
        return row
    if row is not None and row.name != asked.name:
        raise _rejected(row)
    definition = backend.payloads.definition(store, asked.name, asked.version)
    payload, schema = backend.payloads.encode(store, definition, asked.input)
    if row is None:
        return definition, payload, schema
    if row.input_hash == hashlib.sha256(payload).digest():
        return row  # purged: what is left of it is the hash
    raise _rejected(row)


async def _send(
    backend: Backend, asked: StartRequest, definition: DefinitionRow, payload: bytes, schema: Schema
) -> str:
    attributes = merged({}, from_json(asked.model_dump(include={"attributes"})["attributes"]))
    try:
        handle = await backend.client.start_encoded(
            asked.name,
            payload,
            schema,
            id=asked.saga_id,
            version=definition.version,
            attributes=attributes,
            timeout=backend.settings.confirm_seconds,
        )
    except KasagaError:
        backend.metrics.sent("start", "failed")
        raise
    backend.metrics.sent("start", "confirmed")
    return handle.run_id or ""


@router.get(
    "/sagas/{saga_id:saga}/result",
    operation_id="saga_result",
    summary="How a saga has ended, or how far it is",
    response_model=SagaResult,
    responses={
        200: {"description": "It has ended."},
        202: {"description": "It runs, or needs a person.", "model": SagaResult},
        **refusals(404, 410),
    },
)
async def result(
    saga_id: SagaId, request: Request, backend: BackendOf, query: Annotated[WaitQuery, Query()]
) -> Response:
    """Tell the result, after waiting for it if that is wanted; also for a saga that isn't there yet."""
    wait = query.wait
    check_wait(backend, wait)
    row = await backend.read(lambda store: store.saga(saga_id))
    if wait and (row is None or not over(row)):
        with backend.ends.place():
            row = await unless_gone(request, backend.ends.wait(saga_id, wait)) or row
    if row is None:
        row = await backend.read(lambda store: find(store, saga_id))
    return await _told(backend, row)


def _rejected(row: SagaRow) -> RejectedStart:
    return RejectedStart(f"the id {row.saga_id} belongs to a saga {row.name!r} with another name or input")


def _accepted(asked: StartRequest, run_id: str, version: int) -> Response:
    told: dict[str, Any] = {
        "saga_id": asked.saga_id,
        "run_id": run_id,
        "name": asked.name,
        "version": version,
        "state": ACCEPTED,
        **dict.fromkeys(("result", "code", "reason", "remedy", "step")),
        "with_exceptions": False,
    }
    return _placed(answer(told, 202), asked.saga_id)


async def _told(backend: Backend, row: SagaRow) -> Response:
    """Answer with a saga's end, or with how far it is."""
    if row.state is SagaState.COMPLETED and row.result is None:
        raise ResultForgotten(f"saga {row.saga_id} was completed so long ago that its result is forgotten")

    def ask(store: Store) -> Response:
        told: dict[str, Any] = {
            "saga_id": row.saga_id,
            "run_id": str(row.run_id),
            "name": row.name,
            "version": row.version,
            "state": row.state.value,
            "result": backend.payloads.decoder(store)(row.result) if row.result else None,
            **{key: getattr(row, key) or None for key in ("code", "reason", "remedy", "step")},
            "with_exceptions": row.with_exceptions,
        }
        return answer(told, 200 if row.state in FINAL_STATES else 202)

    return _placed(await backend.read(ask), row.saga_id)


def _placed(made: Response, saga_id: str) -> Response:
    made.headers["Location"] = f"/api/v1/sagas/{quote(saga_id, safe='')}"
    return made

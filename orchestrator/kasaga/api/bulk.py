"""Acting on all sagas that a filter chooses, a page at a time; or saying what that would do.

Each saga is asked by a record of its own, with an id made from the caller's key: so the same page can be sent
again, and a bulk that was broken off goes on from its last cursor.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, Query, Request, Response

from kasaga_wire.errors import KasagaError

from ..client.acting import Action
from ..client.errors import NoAnswer, UnknownSaga
from ..errors import NotApplicable
from ..foresight import USUAL, Intent, as_json, foresee_all
from ..search import names_state
from ..store.base import SagaRow, Store
from .access import require_token
from .actions import BY, Key, action_id_of
from .answers import BackendOf, answer, refusals
from .backend import Backend
from .bulk_models import BulkAction, BulkQuery, BulkRequest, BulkResult
from .cursors import after_saga, read_after_saga
from .sagas import filter_of
from .waiting import check_wait, unless_gone

AT_ONCE = 16
"""Sagas of one request that are asked at a time: others wait for answers as well."""

router = APIRouter(prefix="/api/v1", tags=["actions"], dependencies=[Depends(require_token)])


@router.post(
    "/bulk/{action}",
    operation_id="act_on_many",
    summary="Act on the sagas that a filter chooses, or say what that would do",
    response_model=BulkResult,
    responses=refusals(400, 403, 413, 415),
)
async def act_on_many(
    action: BulkAction,
    asked: BulkRequest,
    request: Request,
    backend: BackendOf,
    query: Annotated[BulkQuery, Query()],
    key: Key = None,
) -> Response:
    """One page of sagas, newest first. What an owner refuses is told with its code, and fails no other."""
    check_wait(backend, query.wait)
    after = read_after_saga(query.cursor)
    where = filter_of(asked.filter, backend.now())
    if not where.states and not names_state(where.where):
        where.states = USUAL[action]
    rows = await backend.read(lambda store: store.list_sagas(where, after=after, limit=query.limit + 1))
    shown = rows[: query.limit]
    made: dict[str, Any] = {"action": action, "action_id": key or str(uuid4()), "dry_run": asked.dry_run}
    if asked.dry_run:
        results = await backend.read(lambda store: _foreseen(store, backend, action, asked, shown))
        made["fits"] = sum(each["fits"] for each in results)
    else:
        work = _all(backend, action, asked, shown, made["action_id"], query.wait)
        results = await unless_gone(request, work)
        made["fits"] = sum(each["outcome"] in ("applied", "sent") for each in results)
    made["results"] = results
    made["next_cursor"] = after_saga(shown[-1].run_id) if len(rows) > query.limit else None
    return answer(made)


def _foreseen(
    store: Store, backend: Backend, action: Action, asked: BulkRequest, rows: Sequence[SagaRow]
) -> list[dict[str, Any]]:
    value = json.dumps(asked.value) if asked.value is not None else ""
    intent = Intent(action, asked.reason, asked.by or BY, asked.step, value)
    names = ("saga_id", "run_id", "state", "outcome", "fits", "would", "refused", "leaves")
    told = (as_json(seen, action) for seen in foresee_all(store, intent, rows, backend.now()))
    return [{name: each[name] for name in names} for each in told]


async def _all(
    backend: Backend, action: Action, asked: BulkRequest, rows: Sequence[SagaRow], key: str, wait: float
) -> list[dict[str, Any]]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(row: SagaRow) -> dict[str, Any]:
        async with places:
            return await _one(backend, action, asked, row, key, wait)

    return list(await asyncio.gather(*map(one, rows)))


async def _one(
    backend: Backend, action: Action, asked: BulkRequest, row: SagaRow, key: str, wait: float
) -> dict[str, Any]:
    made: dict[str, Any] = {"saga_id": row.saga_id, "run_id": str(row.run_id), "state": row.state.value}
    try:
        status = await backend.act(
            action,
            row.saga_id,
            reason=asked.reason,
            by=asked.by or BY,
            step=asked.step,
            value=asked.value,
            timeout=wait,
            action_id=action_id_of(action, row.saga_id, key),
        )
    except NoAnswer as error:
        return {**made, "outcome": "sent" if error.sent else "not_sent", **_why(error)}
    except UnknownSaga as error:
        return {**made, "outcome": "unknown", **_why(error)}
    except NotApplicable as error:
        return {**made, "outcome": "not_applicable", **_why(error)}
    except KasagaError as error:
        return {**made, "outcome": "not_sent", **_why(error)}
    left = {"left": status.reason} if action == "terminate" else {}
    return {**made, "state": status.state or row.state.value, "outcome": "applied", **left}


def _why(error: KasagaError) -> dict[str, str]:
    return {"code": error.code, "reason": error.message, "remedy": error.remedy}

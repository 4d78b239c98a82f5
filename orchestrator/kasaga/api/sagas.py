"""Reading sagas: lists, counts, where one stands, what happened to it, what can be started."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from ..explain import as_json, row_json
from ..lookup import find, look, read_records
from ..search import parse
from ..store.base import SagaFilter, SagaState, Store
from ..timeline import timeline
from ..timeline_data import as_json as timeline_json
from ..timeline_entries import Entry
from .access import require_token
from .answers import BackendOf, answer, refusals
from .backend import Backend
from .cursors import after_entry, after_saga, read_after_entry, read_after_saga
from .errors import UndeclaredSaga
from .models import (
    DefinitionList,
    Filter,
    HistoryQuery,
    ListQuery,
    SagaCounts,
    SagaDetail,
    SagaHistory,
    SagaPage,
)
from .paths import SagaId

MAX_PAYLOADS_BYTES = 8 * 1024 * 1024
"""Of one page of a history; a page whose payloads are larger ends earlier."""

router = APIRouter(prefix="/api/v1", tags=["sagas"], dependencies=[Depends(require_token)])


@router.get(
    "/sagas",
    operation_id="list_sagas",
    summary="Sagas, newest first",
    response_model=SagaPage,
    responses=refusals(),
)
async def list_sagas(query: Annotated[ListQuery, Query()], backend: BackendOf) -> Response:
    """List what a filter chooses, by pages."""
    after = read_after_saga(query.cursor)
    where = filter_of(query, backend.now())

    def ask(store: Store) -> Response:
        rows = store.list_sagas(where, after=after, limit=query.limit + 1)
        shown = rows[: query.limit]
        cursor = after_saga(shown[-1].run_id) if len(rows) > query.limit else None
        return answer({"sagas": [row_json(row) for row in shown], "next_cursor": cursor})

    return await backend.read(ask)


@router.get(
    "/counts",
    operation_id="count_sagas",
    summary="How many sagas there are, by state",
    response_model=SagaCounts,
    responses=refusals(),
)
async def count(query: Annotated[Filter, Query()], backend: BackendOf) -> Response:
    """Count what a filter chooses. Reads every saga that no index leads past."""
    where = filter_of(query, backend.now())

    def ask(store: Store) -> Response:
        tally = store.tally(where)
        known = {state.value: 0 for state in SagaState}
        sagas: dict[str, dict[str, int]] = {}
        for (name, state), number in sorted(tally.items()):
            known[state.value] += number
            sagas.setdefault(name, {})[state.value] = number
        return answer({"counts": known, "total": sum(known.values()), "sagas": sagas})

    return await backend.read(ask)


@router.get(
    "/sagas/{saga_id:saga}",
    operation_id="describe_saga",
    summary="Where a saga stands, why, what it waits for, and what can be done",
    response_model=SagaDetail,
    responses=refusals(404),
)
async def describe(saga_id: SagaId, backend: BackendOf) -> Response:
    """Read and explain one saga."""

    def ask(store: Store) -> Response:
        told, _ = look(store, saga_id, backend.now())
        return answer(as_json(told, backend.payloads.decoder(store)))

    return await backend.read(ask)


@router.get(
    "/sagas/{saga_id:saga}/history",
    operation_id="saga_history",
    summary="What happened to a saga, oldest first, with decoded payloads",
    response_model=SagaHistory,
    responses=refusals(404),
)
async def history(saga_id: SagaId, query: Annotated[HistoryQuery, Query()], backend: BackendOf) -> Response:
    """Tell a part of a history; an entry stays where it is, also when its outcome comes later."""

    def ask(store: Store) -> Response:
        row = find(store, saga_id)
        begin = read_after_entry(query.cursor, row.run_id)
        entries = timeline(read_records(store, row, since=0 if query.all_runs else row.base))
        page = _page(entries, begin, query.limit) if query.payloads else entries[begin : begin + query.limit]
        end = begin + len(page)
        decode = backend.payloads.decoder(store) if query.payloads else _nothing
        told: dict[str, Any] = {**row_json(row), "history": timeline_json(page, decode)}
        told["next_cursor"] = after_entry(row.run_id, end) if end < len(entries) else None
        return answer(told)

    return await backend.read(ask)


@router.get(
    "/definitions",
    operation_id="list_definitions",
    summary="The sagas that can be started, and what they take",
    response_model=DefinitionList,
    responses=refusals(),
)
async def definitions(backend: BackendOf) -> Response:
    """List what the orchestrators announce."""
    namespace = await backend.namespace()

    def ask(store: Store) -> Response:
        known = backend.payloads.definitions(store)
        newest = {each.name: each.version for each in known}
        told = [
            {
                "name": each.name,
                "version": each.version,
                "newest": newest[each.name] == each.version,
                "input": json.loads(each.form) if each.form else None,
                "input_schema": _avro(backend, store, each.input),
            }
            for each in known
        ]
        return answer({"namespace": namespace, "definitions": told})

    return await backend.read(ask)


def _avro(backend: Backend, store: Store, digest: bytes) -> Any:
    """The schema with a hash; None where somebody has deleted it."""
    try:
        return json.loads(backend.payloads.schema(store, digest).json)
    except UndeclaredSaga:
        return None


def filter_of(query: Filter, now: datetime) -> SagaFilter:
    """What a filter chooses; raises BadQuery."""
    return SagaFilter(
        where=parse(query.where, now) if query.where else None,
        states=tuple(query.state),
        name=query.name,
        saga_id=query.saga_id,
        saga_id_prefix=query.id_prefix,
        code=query.code.upper(),
        started_after=query.started_after,
        started_before=query.started_before,
        updated_after=query.updated_after,
        updated_before=query.updated_before,
    )


def _page(entries: list[Entry], begin: int, limit: int) -> list[Entry]:
    """Return at most `limit` entries whose payloads stay within their bound, one at least."""
    size, end = 0, begin
    for entry in entries[begin : begin + limit]:
        size += len(entry.value) + len(entry.result)
        if size > MAX_PAYLOADS_BYTES and end > begin:
            break
        end += 1
    return entries[begin:end]


def _nothing(data: bytes) -> object:
    """Show no payload."""
    return None

"""Reading sagas: where one stands."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from ..explain import as_json
from ..lookup import look, stored_decoder
from ..store.base import Store
from .access import require_token
from .answers import BackendOf, answer, refusals
from .models import SagaDetail
from .paths import SagaId

router = APIRouter(prefix="/api/v1", tags=["sagas"], dependencies=[Depends(require_token)])


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
        return answer(as_json(told, stored_decoder(store)))

    return await backend.read(ask)

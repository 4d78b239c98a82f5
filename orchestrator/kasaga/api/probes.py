"""`/live` and `/ready` on the API's own port, without a token: whoever balances load asks without one."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from .backend import Backend

router = APIRouter(include_in_schema=False)


@router.get("/live")
async def live() -> JSONResponse:
    """Say that the event loop turns."""
    return JSONResponse({})


@router.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """Say whether Postgres answers, and Kafka has been reached."""
    backend: Backend = request.app.state.backend
    well, about = await backend.ready()
    return JSONResponse(about, 200 if well else 503)

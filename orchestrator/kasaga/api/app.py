"""The application: routers, errors, and the backend for as long as it serves.

Station: `serve` runs it under uvicorn; tests call it without a server. `app.state` holds what routers and
pages share: `settings`, `backend`, `access`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from kasaga_wire import __version__

from ..ui import pages
from . import actions, bulk, messages, problems, sagas, starts
from .access import Access
from .backend import Backend
from .document import document
from .guard import Guard
from .probes import router as probes
from .settings import ApiSettings
from .waiting import ClientGone, client_gone

ABOUT = (
    "Starts sagas, shows where they stand, and acts on them. Everything that changes a saga is a record to "
    "the orchestrator that owns it; this API writes no saga itself. Errors are problem documents (RFC 9457) "
    "with Kasaga's own code."
)


def create_app(settings: ApiSettings, *, backend: Backend | None = None) -> FastAPI:
    """Return the application. Nothing is opened until it serves.

    Args:
        settings: of the process.
        backend: another way to Postgres and Kafka, for tests.
    """
    behind = backend or Backend(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        await behind.open()
        try:
            yield
        finally:
            await behind.close()

    app = FastAPI(
        title="Kasaga",
        version=__version__,
        description=ABOUT,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.settings, app.state.backend, app.state.access = settings, behind, Access(settings)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    problems.install(app)
    app.add_exception_handler(ClientGone, client_gone)
    app.add_middleware(Guard, settings=settings, metrics=behind.metrics)
    for router in (probes, sagas.router, starts.router, actions.router, bulk.router, messages.router):
        app.include_router(router)
    app.router.routes.extend(pages.routes(behind, app.state.access, problems.status_of))
    return app

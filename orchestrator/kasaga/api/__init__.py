"""The HTTP API: starts sagas, shows them and acts on them, for programs without a Kafka client.

    create_app(settings) -> FastAPI        what uvicorn serves, and what tests call
    serve.run(settings)                    `kasaga api`

It sends records and reads Postgres; it never writes a saga. Needs `pip install 'kasaga[api]'`.
"""

from __future__ import annotations

from .app import create_app
from .settings import ApiSettings

__all__ = ["ApiSettings", "create_app"]

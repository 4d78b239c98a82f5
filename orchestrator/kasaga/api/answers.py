"""What routes share: the backend of a request, the problems that they name, JSON made in a thread."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Depends, Request, Response

from .backend import Backend
from .models import Problem
from .problems import MEDIA_TYPE


async def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


BackendOf = Annotated[Backend, Depends(_backend)]


def answer(value: object, status: int = 200) -> Response:
    """Return JSON. Called in the thread that has read the value: a large one takes its time."""
    return Response(json.dumps(value, ensure_ascii=False), status, media_type="application/json")


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the problems of a route for the OpenAPI document; those that every route has come with them."""
    schema = {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}
    return {
        status: {"description": DESCRIPTIONS[status], "content": {MEDIA_TYPE: schema}}
        for status in sorted({*EVERYWHERE, *statuses})
    }


EVERYWHERE = (401, 421, 422, 500, 503)
DESCRIPTIONS = {
    400: "The body is not JSON.",
    401: "The bearer token is missing or wrong.",
    403: "A page of another origin has sent it.",
    404: "There is no such saga.",
    409: "It doesn't fit: the id is another saga's, or the action isn't possible in the saga's state.",
    410: "The saga was completed so long ago that its result is forgotten.",
    413: "The body or the input is too large.",
    415: "The body isn't declared as JSON.",
    421: "The Host is none of this API's names.",
    422: "A field or parameter is not what it must be.",
    500: "A bug.",
    503: "Postgres or Kafka is away, or the process is busy; Retry-After says when to try again.",
}

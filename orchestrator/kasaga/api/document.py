"""The OpenAPI document, as a file says it and `/api/v1/openapi.json` serves it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from .models import ActionResult, Problem, SagaResult, SagaSummary, StartRequest

WITH_EXAMPLES = (ActionResult, Problem, SagaResult, SagaSummary, StartRequest)

TAGS = [
    {"name": "sagas", "description": "Starting sagas, and seeing what becomes of them."},
    {"name": "actions", "description": "What people do with sagas; most of it where one is STUCK."},
]


def document(app: FastAPI) -> dict[str, Any]:
    """Return the document of an application, made once."""
    if app.openapi_schema is None:
        made: dict[str, Any] = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=TAGS,
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        )
        # Problems have a media type of their own, for which FastAPI takes no model.
        _, problems = models_json_schema(
            [(Problem, "serialization")], ref_template="#/components/schemas/{model}"
        )
        schemas = made["components"]["schemas"]
        schemas |= problems["$defs"]
        for model in WITH_EXAMPLES:  # FastAPI takes what is null out of them
            schemas[model.__name__]["examples"] = model.model_json_schema()["examples"]
        app.openapi_schema = made
    return app.openapi_schema

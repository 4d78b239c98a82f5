"""What the App's sagas take, for whoever starts one without the author's code: the HTTP API above all.

Station: each process announces it when it starts, before it reads anything. The newest image has the last
word: what only an older one has can't be started by name any more, and runs on.
"""

from __future__ import annotations

import json
import logging

import pydantic

from ..saga import App, Saga
from ..store.base import DefinitionRow, Store

log = logging.getLogger("kasaga.orchestrator")

MAX_FORM_BYTES = 256 * 1024
"""A larger form isn't kept: the schema alone is then what an input is checked by."""


def announce(store: Store, app: App) -> None:
    """Keep the App's definitions and their schemas in the store; raises StoreUnavailable."""
    sagas = list(app.sagas.values())
    store.put_schemas(
        {codec.schema.hash: codec.schema.json for each in sagas for codec in (each.input, each.result)}
    )
    store.announce([definition_of(each) for each in sagas])


def definition_of(saga: Saga[object, object]) -> DefinitionRow:
    """Return what is announced of one saga."""
    return DefinitionRow(
        saga.name, saga.version, saga.input.schema.hash, saga.result.schema.hash, _form(saga)
    )


def _form(saga: Saga[object, object]) -> str:
    """The input as a JSON Schema; empty where pydantic has none, as for some validators of authors."""
    try:
        made = pydantic.TypeAdapter[object](saga.input.annotation).json_schema(by_alias=False)
    except (pydantic.errors.PydanticInvalidForJsonSchema, pydantic.errors.PydanticUserError) as error:
        log.warning("a saga's input has no JSON Schema", extra={"saga": saga.name, "error": str(error)[:200]})
        return ""
    text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
    return text if len(text.encode()) <= MAX_FORM_BYTES else ""

"""What the App's sagas take, for whoever starts one without the author's code: the HTTP API above all.

Station: each process announces it when it starts, before it reads anything, and the owner of shard 0 once a
minute: in the middle of a roll-out an old process may be started again and have the last word, for as long
as it lives. What only another image has can't be started by name any more, and runs on.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable

import pydantic
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema

from kasaga_wire.errors import KasagaError

from ..saga import App, Saga
from ..store.base import DefinitionRow, Store

log = logging.getLogger("kasaga.orchestrator")

MAX_FORM_BYTES = 256 * 1024
"""A larger form isn't kept: the schema alone is then what an input is checked by."""

ROUND_SECONDS = 60.0


def announce(store: Store, app: App) -> None:
    """Keep the App's definitions and their schemas in the store; raises StoreUnavailable."""
    sagas = list(app.sagas.values())
    schemas = [codec.schema for each in sagas for codec in (each.input, each.result)]
    store.put_schemas({schema.hash: schema.json for schema in schemas})
    store.announce([definition_of(each) for each in sagas])
    store.retain(app.retention())


def definition_of(saga: Saga[object, object]) -> DefinitionRow:
    """Return what is announced of one saga."""
    return DefinitionRow(
        saga.name, saga.version, saga.input.schema.hash, saga.result.schema.hash, _form(saga)
    )


class Form(GenerateJsonSchema):
    """A default that JSON doesn't know is left out without a word: the schema has it."""

    ignored_warning_kinds = {"non-serializable-default", "skipped-choice"}  # noqa: RUF012


def _form(saga: Saga[object, object]) -> str:
    """The input as a JSON Schema; empty where pydantic has none, as for some validators of authors."""
    adapter = pydantic.TypeAdapter[object](saga.input.annotation)
    try:
        made = adapter.json_schema(by_alias=False, schema_generator=Form)
    except (PydanticInvalidForJsonSchema, PydanticUserError) as error:
        extra = {"saga": saga.name, "error": str(error)[:200]}
        log.warning("a saga's input has no JSON Schema: its bounds are not checked at a start", extra=extra)
        return ""
    text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
    return text if len(text.encode()) <= MAX_FORM_BYTES else ""


class Announcer:
    """A thread that announces again while `on_duty` says so."""

    def __init__(
        self, store: Store, app: App, on_duty: Callable[[], bool], *, interval: float = ROUND_SECONDS
    ) -> None:
        self._store, self._on_duty, self._interval = store, on_duty, interval
        self._definitions = [definition_of(each) for each in app.sagas.values()]
        self._retention = app.retention()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kasaga-announce", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                if self._on_duty():
                    self._store.announce(self._definitions)
                    self._store.retain(self._retention)
            except KasagaError as error:
                log.debug("what can be started is not announced now", extra={"error": str(error)})

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

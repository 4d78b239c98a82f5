"""Sagas into the archive, object by object, each durable before whoever asked may delete what is in it.

Station: `orchestrator.retention` calls it, in its thread. Whoever dies between an object and the deletion
writes these sagas again: under the same name where they are the same ones, else beside it, and readers tell
each run once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from kasaga_wire.codec import Schemas
from kasaga_wire.errors import ObjectsUnavailable
from kasaga_wire.objects import Objects

from ..lookup import stored_schemas
from ..store.base import HistoryRow, SagaRow, Store
from ..store.purging import EarlierRuns
from .sheet import Sheet


class Counted(Protocol):
    """Who is told of it: the process's metrics."""

    def archiving(self) -> None:
        """An object is to be written: until `archived`, the archive holds deletion back."""
        ...

    def archived(self, sagas: int, size: int) -> None:
        """It has been, with so many sagas and bytes."""
        ...

    def not_archived(self) -> None:
        """It can't be."""
        ...


class Archiver:
    """Writes one namespace's finished sagas."""

    def __init__(self, objects: Objects, store: Store, namespace: str, counted: Counted) -> None:
        """Nothing is asked of anybody yet."""
        self._objects, self._store = objects, store
        self._namespace, self._counted = namespace, counted

    def written(self, rows: Sequence[SagaRow]) -> Iterator[list[SagaRow]]:
        """Write these sagas, and give out those of each object once it is durable. `rows` by their run ids.

        Left out are those that are gone. Raises ObjectsUnavailable, which the store is told of.
        """
        schemas = stored_schemas(self._store) if rows else Schemas()
        sheet = Sheet(schemas)
        for row in rows:
            if not sheet.takes(row):
                yield self._write(sheet)
                sheet = Sheet(schemas)
            entries = self._store.kept(row.shard, row.run_id)
            if entries:
                sheet.add(row, entries)
        if sheet.sagas:
            yield self._write(sheet)

    def write_earlier(self, runs: EarlierRuns) -> bool:
        """Write earlier runs of a saga that lives on; False if it is gone. Raises ObjectsUnavailable."""
        row = self._store.standing([(runs.shard, runs.run_id)]).get(runs.run_id)
        entries: list[HistoryRow] = []
        if row is not None:
            entries = self._store.kept(runs.shard, runs.run_id, before=runs.first)
        if row is None or not entries:
            return False
        sheet = Sheet(stored_schemas(self._store), earlier=True)
        sheet.add(row, entries)
        self._write(sheet)
        return True

    def _write(self, sheet: Sheet) -> list[SagaRow]:
        name, data = sheet.finish()
        self._counted.archiving()
        try:
            self._objects.write(f"{self._namespace}/{name}", data)
        except ObjectsUnavailable as error:
            self._counted.not_archived()
            self._store.note_archive_failed(self._objects.url, error.message)
            raise
        self._counted.archived(len(sheet.sagas), len(data))
        self._store.note_archived(self._objects.url, sagas=len(sheet.sagas), size=len(data))
        return sheet.sagas

"""Cursors of pages: opaque to callers, so that they may become something else."""

from __future__ import annotations

import base64
import binascii
import struct
from uuid import UUID

from .errors import InvalidRequest

_SAGAS, _HISTORY = 1, 2
_PLACE = struct.Struct(">B16sI")


def after_saga(run_id: UUID) -> str:
    """Return the cursor of a list's next page: sagas older than this one."""
    return _text(_SAGAS, run_id, 0)


def read_after_saga(cursor: str) -> UUID | None:
    """Return the run id in a list's cursor; None where there is none. Raises InvalidRequest."""
    return _read(_SAGAS, cursor)[0] if cursor else None


def after_entry(run_id: UUID, number: int) -> str:
    """Return the cursor of a history's next page: so many entries were shown."""
    return _text(_HISTORY, run_id, number)


def read_after_entry(cursor: str, run_id: UUID) -> int:
    """Return how many entries of this run were shown. Raises InvalidRequest."""
    if not cursor:
        return 0
    run, number = _read(_HISTORY, cursor)
    if run != run_id:
        raise _refused("the cursor is of another run of the saga")
    return number


def _text(kind: int, run_id: UUID, number: int) -> str:
    return base64.urlsafe_b64encode(_PLACE.pack(kind, run_id.bytes, number)).decode().rstrip("=")


def _read(kind: int, cursor: str) -> tuple[UUID, int]:
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found, run, number = _PLACE.unpack(data)
    except (ValueError, binascii.Error, struct.error):
        raise _refused("no cursor of this API") from None
    if found != kind:
        raise _refused("a cursor of another list")
    return UUID(bytes=run), number


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"query.cursor: {reason}",
        remedy="Send the next_cursor of the page before as it is, or none for the first page",
        fields=(("query.cursor", reason),),
    )

"""Saga ids in paths. An id may hold any printable character, a slash too, which callers write as `%2F`.

Station: `guard` keeps such slashes apart from the path's own before anything is routed; routes write
`{saga_id:saga}` and get the id as it is.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, unquote, unquote_to_bytes

from fastapi import Path
from starlette.convertors import Convertor, register_url_convertor

from kasaga_wire.headers import MAX_SAGA_ID_CHARACTERS


class SagaIdConvertor(Convertor[str]):
    """One segment of a path, with encoded slashes in it."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        """Return the id behind a segment that `routed` has made."""
        return unquote(value)

    def to_string(self, value: str) -> str:
        """Return the segment of an id, for links."""
        return quote(value, safe="")


register_url_convertor("saga", SagaIdConvertor())

SagaId = Annotated[
    str,
    Path(
        description="The saga's id; a slash in it is written as %2F.",
        min_length=1,
        max_length=MAX_SAGA_ID_CHARACTERS,
        examples=["order-42"],
    ),
]


def routed(raw: bytes) -> str | None:
    """Return the path to route by: decoded, except for slashes and percent signs inside of a segment.

    None where the bytes are no UTF-8.
    """
    try:
        parts = [unquote_to_bytes(part).decode() for part in raw.split(b"/")]
    except UnicodeDecodeError:
        return None
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)

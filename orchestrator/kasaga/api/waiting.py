"""What requests that wait have in common: a limit, and a caller who may hang up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response

from .backend import Backend
from .errors import InvalidRequest

T = TypeVar("T")

GONE = 499
"""The status of a request whose caller has hung up; nobody reads it but the metrics."""


def check_wait(backend: Backend, wait: float) -> None:
    """Refuse a wait beyond the process's limit, as InvalidRequest."""
    most = backend.settings.max_wait_seconds
    if not wait <= most:
        reason = f"is longer than {most:g} seconds"
        raise InvalidRequest(
            f"query.wait {reason}", remedy="Wait less, and ask again", fields=(("query.wait", reason),)
        )


class ClientGone(Exception):
    """Whoever asked has hung up: nobody waits for the answer."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do something for a caller for as long as it listens; raises ClientGone."""
    working = asyncio.create_task(work)
    listening = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((working, listening), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        listening.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def client_gone(request: Request, error: Exception) -> Response:
    """Answer nobody."""
    return Response(status_code=GONE)

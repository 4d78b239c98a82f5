"""What stands before every request: its Host and Origin, the size of its body, how many are at hand.

Station: the outermost piece of the application. On a loopback address no token is asked for, so that a web
page which the machine's user has open could send requests in that user's name. Two things keep it out: the
Host must be one of ours (a foreign name that was bound to 127.0.0.1 isn't), and what changes something must
be JSON, which a foreign page can't send without being asked, and come from no other origin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from opentelemetry import context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kasaga_wire.errors import KasagaError

from .errors import BodyTooLarge, Busy, ForeignPage, InvalidRequest, Misdirected
from .paths import routed
from .problems import problem
from .settings import ApiSettings

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
API = "/api/"

BODY_SECONDS = 30.0
"""How long a body may take to come."""

_TRACE = TraceContextTextMapPropagator()


class Guard:
    """Refuses what must not reach a route; the rest goes on with its body read and its trace bound."""

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._settings = settings
        self._hosts = {host.lower() for host in settings.allowed_hosts}
        if settings.loopback:
            self._hosts |= {*LOOPBACK, settings.host.lower()}
        self._at_hand = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        self._at_hand += 1
        token = context.attach(_TRACE.extract(dict(headers)))
        try:
            try:
                passed = await self._pass(scope, headers, receive)
            except KasagaError as error:
                await problem(error)(scope, receive, send)
                return
            await self._app(scope, passed, send)
        finally:
            context.detach(token)
            self._at_hand -= 1

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        if self._at_hand > self._settings.max_requests:
            raise Busy(f"{self._settings.max_requests} requests are at hand already")
        self._check_host(headers)
        path = routed(scope.get("raw_path") or scope["path"].encode())
        if path is None:
            raise InvalidRequest("the path is no UTF-8", status=400)
        scope["path"] = path
        if scope["method"] not in SAFE:
            self._check_origin(path, headers)
        return await self._body(headers, receive)

    def _check_host(self, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "").lower()
        name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
        if self._hosts and name not in self._hosts:
            raise Misdirected("this API isn't reached by the host that the request names")

    def _check_origin(self, path: str, headers: Mapping[str, str]) -> None:
        """A browser says where a request comes from; a program needn't, if it sends JSON."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site not in (None, "same-origin", "none"):
            raise ForeignPage("a page of another origin has sent this request")
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            raise ForeignPage("the Origin isn't this host")
        if path.startswith(API):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise InvalidRequest(
                    "the Content-Type must be application/json",
                    remedy="Send the header Content-Type: application/json, also with an empty object {}",
                    status=415,
                )
        elif origin is None:
            raise ForeignPage("a form must come from a page of this host, and say so with its Origin")

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> Receive:
        """Read the body, as far as it is allowed to go, and hand it on."""
        most = self._settings.max_body_bytes
        too_large = BodyTooLarge(f"the body is larger than {most} bytes")
        said = headers.get("content-length", "")
        if said.isdigit() and int(said[:20]) > most:
            raise too_large
        parts: list[bytes] = []
        size, more = 0, "content-length" in headers or "transfer-encoding" in headers
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        break  # gone: whoever answers will notice
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
                    more = bool(message.get("more_body"))
        except TimeoutError:
            raise InvalidRequest(f"the body didn't come within {BODY_SECONDS:g} s", status=408) from None
        whole: Message | None = {"type": "http.request", "body": b"".join(parts), "more_body": False}

        async def again() -> Message:
            nonlocal whole
            if whole is not None:
                message, whole = whole, None
                return message
            return await receive()

        return again

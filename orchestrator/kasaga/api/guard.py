"""What stands before every request: its Host and Origin, the size of its body, how many are at hand.

Station: the outermost piece of the application. On a loopback address no token is asked for, so that a web
page which the machine's user has open could send requests in that user's name. Two things keep it out: the
Host must be one of ours (a foreign name that was bound to 127.0.0.1 isn't), and what changes something must
be JSON, which a foreign page can't send without being asked, and come from no other origin.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from opentelemetry import context
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kasaga_wire.errors import KasagaError
from kasaga_wire.logs import bind, unbind

from .errors import BodyTooLarge, Busy, ForeignPage, InvalidRequest, Misdirected
from .metrics import ApiMetrics
from .paths import routed
from .problems import problem, unexpected
from .settings import ApiSettings

log = logging.getLogger("kasaga.api")

OTHER = "other"
"""Stands for paths and methods that there aren't: whoever asks could make up any number."""

PROBES = ("/live", "/ready")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
WRITES = "POST"
"""The one method that changes anything here. The others have no route, and are told so (405)."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
API = "/api/"

BODY_SECONDS = 30.0
"""How long a body may take to come."""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^][:/@#?%\s]+)(?::[0-9]*)?")
"""A name or an address, and a port."""

_TRACE = TraceContextTextMapPropagator()


class Guard:
    """Refuses what must not reach a route; the rest goes on with its body read and its trace bound."""

    def __init__(self, app: ASGIApp, settings: ApiSettings, metrics: ApiMetrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        hosts = {*settings.allowed_hosts, *((*LOOPBACK, settings.host) if settings.loopback else ())}
        self._hosts = {f"[{host}]" if ":" in host and "[" not in host else host.lower() for host in hosts}
        self._at_hand = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                said = {name for name, _ in message["headers"]}
                more = [header for header in _headers(scope) if header[0] not in said]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        self._count(+1)
        headers = Headers(scope=scope)
        trace, bound = context.attach(_traced(headers)), bind(lambda: _about(scope))
        try:
            try:
                await self._app(scope, await self._pass(scope, headers, receive), tell)
            except KasagaError as error:
                await problem(error)(scope, receive, tell)
            except Exception:
                log.exception("a request failed")
                if not status:
                    await unexpected()(scope, receive, tell)
        finally:
            self._count(-1)
            self._note(scope, status, time.perf_counter() - began)
            unbind(bound)
            context.detach(trace)

    def _count(self, more: int) -> None:
        self._at_hand += more
        self._metrics.at_hand(self._at_hand)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request and log a line about it, without its query: filters are other people's data."""
        route = _route(scope)
        self._metrics.answered(_method(scope), route, status, seconds)
        level = logging.WARNING if status >= 500 else logging.DEBUG if route in PROBES else logging.INFO
        about = {"method": _method(scope), "route": route, "status": status, "seconds": round(seconds, 4)}
        log.log(level, "request", extra=about)

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        if self._at_hand > self._settings.max_requests and scope["path"] not in PROBES:
            raise Busy(f"{self._settings.max_requests} requests are at hand already")
        self._check_host(headers)
        path = routed(scope.get("raw_path") or scope["path"].encode())
        if path is None:
            raise InvalidRequest("the path is no UTF-8", status=400)
        scope["path"] = path
        if scope["method"] not in SAFE:
            self._check_origin(path, scope["method"], headers)
        return await self._body(headers, receive)

    def _check_host(self, headers: Mapping[str, str]) -> None:
        host = _HOST.fullmatch(headers.get("host", "").lower())
        if host is None or (self._hosts and host[1] not in self._hosts):
            raise Misdirected("this API isn't reached by the host that the request names")

    def _check_origin(self, path: str, method: str, headers: Mapping[str, str]) -> None:
        """A browser says where a request comes from; a program needn't, if it sends JSON."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site not in (None, "same-origin", "none"):
            raise ForeignPage("a page of another origin has sent this request")
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            raise ForeignPage("the Origin isn't this host")
        if path.startswith(API):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json" and method == WRITES:
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


def _traced(headers: Mapping[str, str]) -> context.Context:
    """The caller's trace, unless whoever instruments this process has gone on with it already."""
    current = context.get_current()
    if get_current_span(current).get_span_context().is_valid:
        return current
    return _TRACE.extract(dict(headers), current)


def _route(scope: Scope) -> str:
    """The pattern of the path that was asked for: there are few of them."""
    found: object = getattr(scope.get("route"), "path_format", None)
    return found if isinstance(found, str) else OTHER


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in METHODS else OTHER


def _about(scope: Scope) -> dict[str, object]:
    """What log lines of a request are about."""
    saga_id = scope.get("kasaga.saga_id") or scope.get("path_params", {}).get("saga_id")
    return {"saga_id": saga_id} if saga_id else {}


def _headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """What every answer says: it is what it says it is, and sagas are nothing to keep a copy of."""
    made = [(b"x-content-type-options", b"nosniff")]
    return [*made, (b"cache-control", b"no-store")] if scope["path"].startswith(API) else made

"""Errors as problem documents (RFC 9457): the KSG code, what happened, the fields, and what to do about it.

Station: `app` installs the handlers; `guard` answers with `problem` before any handler is reached.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from kasaga_wire.errors import (
    BadAttribute,
    CodecError,
    DeliveryError,
    KafkaFailure,
    KasagaError,
    UnknownSchema,
)
from kasaga_wire.redaction import redact

from ..client.errors import (
    BadRequest,
    NoAnswer,
    NoTopics,
    RejectedStart,
    ResultForgotten,
    StartUnconfirmed,
    UnknownSaga,
)
from ..errors import BadQuery, NotApplicable, PayloadTooLarge, SearchTooSlow
from ..store.errors import StoreError, StoreUnavailable
from .errors import (
    BodyTooLarge,
    Busy,
    ForeignPage,
    InvalidRequest,
    Misdirected,
    NoSuchPath,
    Unauthorized,
    UndeclaredSaga,
)

log = logging.getLogger("kasaga.api")

MEDIA_TYPE = "application/problem+json"

RETRY_SECONDS = 2
"""When a caller may try again what failed since a server is away."""

AWAY = "Postgres can't be reached, or asks to try again; the API's log has its words"
"""What callers are told: libpq's own words name hosts and users."""

FIELDS_SHOWN = 20
"""Refused fields named in one answer."""

MEND = "Mend the field that is named"
UNEXPECTED = "KSG-599"

STATUSES: tuple[tuple[type[KasagaError], int], ...] = (
    (Unauthorized, 401),
    (ForeignPage, 403),
    (UnknownSaga, 404),
    (NotApplicable, 409),
    (RejectedStart, 409),
    (ResultForgotten, 410),
    (BodyTooLarge, 413),
    (PayloadTooLarge, 413),
    (Misdirected, 421),
    (UnknownSchema, 503),
    (CodecError, 422),
    (BadRequest, 422),
    (UndeclaredSaga, 422),
    (BadAttribute, 422),
    (BadQuery, 422),
    (SearchTooSlow, 422),
    (Busy, 503),
    (StartUnconfirmed, 503),
    (NoAnswer, 503),
    (NoTopics, 503),
    (KafkaFailure, 503),
    (StoreError, 503),
)
"""The status of each error, the first that fits; any other is a fault of ours."""


def status_of(error: KasagaError) -> int:
    """Return the status that an error is answered with."""
    if isinstance(error, InvalidRequest | NoSuchPath):
        return error.status
    if isinstance(error, DeliveryError) and error.permanent:
        return 422 if error.name == "MSG_SIZE_TOO_LARGE" else 500
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def problem(error: KasagaError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer to an error."""
    status = status_of(error)
    more = dict(headers or {})
    if status == 401:
        more["WWW-Authenticate"] = 'Bearer realm="kasaga"'
    if status == 503:
        more["Retry-After"] = str(RETRY_SECONDS)
    fields = error.fields if isinstance(error, InvalidRequest) else ()
    path = getattr(error, "path", "")
    return document(
        status,
        error.code,
        AWAY if isinstance(error, StoreUnavailable) else error.message,
        error.remedy or (MEND if status == 422 else ""),
        fields=fields or (((path, error.message),) if path else ()),
        headers=more,
    )


def document(
    status: int,
    code: str,
    detail: str,
    remedy: str = "",
    *,
    fields: tuple[tuple[str, str], ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem document; `fields` are (field, reason)."""
    made: dict[str, Any] = {
        "type": f"urn:kasaga:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": redact(detail),
    }
    if remedy:
        made["remedy"] = redact(remedy)
    if fields:
        made["fields"] = [
            {"field": field, "reason": redact(reason)} for field, reason in fields[:FIELDS_SHOWN]
        ]
    return Response(json.dumps(made), status, dict(headers or {}), MEDIA_TYPE)


def unexpected() -> Response:
    """Return the answer to a bug. Its stack is logged, and shown to nobody."""
    return document(
        500,
        UNEXPECTED,
        "the API failed in a way that it doesn't know",
        "Report it with what the API's log says",
    )


def install(app: FastAPI) -> None:
    """Let every error of an application be answered with a problem document."""

    async def known(request: Request, error: Exception) -> Response:
        assert isinstance(error, KasagaError)
        if status_of(error) >= 500:
            log.warning("not answered", extra={"error": str(error), "code": error.code})
        return problem(error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem(_invalid(error))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(_http(error), error.headers)

    app.add_exception_handler(KasagaError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _invalid(error: RequestValidationError) -> InvalidRequest:
    """Name the places and reasons, never the values: they may be other people's data."""
    fields: list[tuple[str, str]] = []
    status = 422
    for each in error.errors():
        if each.get("type") == "json_invalid":
            status = 400
            fields.append(("body", _no_json(each, error.body)))
            continue
        fields.append((".".join(str(part) for part in each.get("loc", ())), str(each.get("msg", ""))))
    first = f"{fields[0][0]}: {fields[0][1]}" if fields else "the request can't be read"
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    return InvalidRequest(first + more, fields=tuple(fields), status=status)


def _no_json(each: Mapping[str, Any], body: object) -> str:
    """What is wrong and where, in lines as an editor counts them; the parser gives characters."""
    text, at = body if isinstance(body, str) else "", each["loc"][-1]
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return f"it is no JSON: {each['ctx']['error']}: line {line} column {column}"


def _http(error: HTTPException) -> KasagaError:
    """What the framework says by itself: no such path, another method, a body that can't be parsed."""
    if error.status_code in (404, 405):
        text = "there is no such path" if error.status_code == 404 else "the path has no such method"
        return NoSuchPath(text, status=error.status_code)
    return InvalidRequest(str(error.detail), status=error.status_code)

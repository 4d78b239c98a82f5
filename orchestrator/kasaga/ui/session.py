"""The pages' cookies: who has shown the API's token, what the last action said, the name to act with.

Station: `pages` sets and reads them. A session's cookie holds when it ends and a signature made with a key
that only the token gives, never the token: it opens these pages alone, every process of the API knows it,
and it ends with the token. All of them are strict: no other site can make a browser send them. That forms
come from these very pages is held by `kasaga.api.guard`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

SESSION_COOKIE, SAID_COOKIE, NAME_COOKIE = "kasaga_session", "kasaga_said", "kasaga_name"

SESSION_SECONDS = 12 * 3600
"""A day's work; then the token is asked for again."""

SAID_SECONDS = 60
"""The answer to an action waits so long for the page that shows it."""

SAID_SHOWN = 700
"""Characters of such an answer: a cookie has room for 4,096 bytes."""

NAME_SECONDS = 90 * 86_400
NAME_SHOWN = 100
"""Characters of the name with which somebody acts."""


def signed(key: bytes, now: float) -> str:
    """A session's cookie: when it ends, and a signature that only the key can make."""
    end = str(int(now) + SESSION_SECONDS)
    return f"{end}.{_signature(key, end)}"


def holds(key: bytes, cookie: str, now: float) -> bool:
    """Whether a session's cookie was made with this key and hasn't ended."""
    end, _, signature = cookie.partition(".")
    if not (end.isascii() and end.isdigit() and len(end) < 20 and signature.isascii()):
        return False
    return hmac.compare_digest(signature, _signature(key, end)) and now < int(end)


def _signature(key: bytes, end: str) -> str:
    return hmac.new(key, end.encode(), hashlib.sha256).hexdigest()


def is_bounced(request: Request) -> bool:
    """A link on another site leads here, for which browsers hold a strict cookie back."""
    return request.headers.get("sec-fetch-site") == "cross-site" and request.method == "GET"


def set_cookie(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """Set a cookie that only these pages get, and no script."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/",
        # Behind something that ends TLS, it says so. Whoever lies about it loses the cookie, no more.
        secure="https" in (request.url.scheme, request.headers.get("x-forwarded-proto")),
        httponly=True,
        samesite="strict",
    )


@dataclass(frozen=True, slots=True)
class Said:
    """What became of an action, for the page that is shown next."""

    tone: str
    """good, warn or bad."""
    text: str


def say(request: Request, response: Response, said: Said) -> None:
    """Let the next page show it."""
    data = json.dumps([said.tone, said.text[:SAID_SHOWN]]).encode()
    if len(data) > 2_900:  # a cookie's room, before its encoding
        data = json.dumps([said.tone, said.text[:200]]).encode()
    set_cookie(request, response, SAID_COOKIE, base64.urlsafe_b64encode(data).decode(), SAID_SECONDS)


def heard(request: Request) -> Said | None:
    """What the page before has said; anything odd is nothing."""
    cookie = request.cookies.get(SAID_COOKIE, "")
    try:
        tone, text = json.loads(base64.urlsafe_b64decode(cookie.encode()))
    except (ValueError, TypeError):
        return None
    if tone not in ("good", "warn", "bad") or not isinstance(text, str):
        return None
    return Said(tone, text[:SAID_SHOWN])


def name_of(request: Request) -> str:
    """The name with which this browser acted last."""
    try:
        return base64.urlsafe_b64decode(request.cookies.get(NAME_COOKIE, "").encode()).decode()[:NAME_SHOWN]
    except ValueError:
        return ""


def keep_name(request: Request, response: Response, name: str) -> None:
    """Remember the name for the next form."""
    set_cookie(request, response, NAME_COOKIE, base64.urlsafe_b64encode(name.encode()).decode(), NAME_SECONDS)


def local_path(given: str) -> str:
    """An address to go on to after the way in: of this site, or the first page."""
    plain = given.startswith("/") and not given.startswith(("//", "/\\")) and given.isprintable()
    return given if plain and not urlsplit(given).netloc else "/"

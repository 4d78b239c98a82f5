"""Who may ask: the bearer token.

Station: every router of `/api/v1` depends on `require_token`; pages have a door of their own to `Access`.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from .errors import Unauthorized
from .settings import ApiSettings


class Access:
    """Knows the token, as a hash."""

    def __init__(self, settings: ApiSettings) -> None:
        token = settings.token
        self._hash = None if token is None else _hash(token.get_secret_value())

    @property
    def open(self) -> bool:
        """No token is asked for: the API is bound to a loopback address."""
        return self._hash is None

    def allows(self, token: str) -> bool:
        """Say whether a token is the right one, in the same time for each wrong one."""
        return self._hash is None or hmac.compare_digest(self._hash, _hash(token))

    def key(self, purpose: str) -> bytes:
        """Return a key that only the token gives, for signing; empty where there is no token."""
        return b"" if self._hash is None else hmac.digest(self._hash, purpose.encode(), "sha256")


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="KASAGA_API_TOKEN; not asked for on loopback without one.",
)


async def require_token(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Raise Unauthorized for a caller without the token."""
    access: Access = request.app.state.access
    if access.open:
        return
    if given is None:
        raise Unauthorized("this API asks for a bearer token")
    if not access.allows(given.credentials):
        raise Unauthorized("the bearer token is not the right one")

"""Errors of the HTTP API, each with a stable code and a remedy.

KasagaError
└── ApiError               KSG-540  never raised itself
    ├── Unguarded          KSG-541  an address that others can reach, and no token
    ├── Unauthorized       KSG-542  the bearer token is missing or wrong
    ├── Misdirected        KSG-543  the request's Host is none of this API's names
    ├── ForeignPage        KSG-544  a page of another origin has sent the request
    ├── InvalidRequest     KSG-545  a field, a parameter or the body is not what it must be
    ├── BodyTooLarge       KSG-546  the body is larger than any input may be
    ├── Busy               KSG-547  more requests, or more waiting ones, than the process takes
    ├── UndeclaredSaga     KSG-548  no orchestrator has announced a saga of this name and version
    ├── NoSuchPath         KSG-549  the API has no such path, or not with this method
    └── CannotListen       KSG-550  the address is in use, or isn't this machine's
"""

from __future__ import annotations

from kasaga_wire.errors import KasagaError


class ApiError(KasagaError):
    """What the API raises by itself; never raised itself."""

    code = "KSG-540"


class Unguarded(ApiError):
    """The API would be reachable by others, and has no token."""

    code = "KSG-541"
    default_remedy = (
        "Set KASAGA_API_TOKEN_FILE to a file with a long random text, or serve on 127.0.0.1 "
        "(KASAGA_API_HOST) behind something that knows its callers"
    )


class Unauthorized(ApiError):
    """The bearer token is missing or wrong."""

    code = "KSG-542"
    default_remedy = "Send the header `Authorization: Bearer …` with the token in KASAGA_API_TOKEN"


class Misdirected(ApiError):
    """The request's Host is none of this API's names: a foreign name may have been bound to our address."""

    code = "KSG-543"
    default_remedy = "Name the hosts that the API is reached by in KASAGA_API_ALLOWED_HOSTS"


class ForeignPage(ApiError):
    """A page of another origin has sent the request, in its reader's name."""

    code = "KSG-544"
    default_remedy = "Send it from a program, or from a page that this host serves"


class InvalidRequest(ApiError):
    """A field, a parameter or the body is not what it must be; `fields` has the place and the reason."""

    code = "KSG-545"
    default_remedy = "Mend what is named; /api/v1/openapi.json says what is expected"

    def __init__(
        self, message: str, *, remedy: str = "", fields: tuple[tuple[str, str], ...] = (), status: int = 422
    ) -> None:
        """Keep (field, reason) of each that is refused, and the status to answer with."""
        super().__init__(message, remedy=remedy)
        self.fields = fields
        self.status = status


class BodyTooLarge(ApiError):
    """The body is larger than any saga's input may be."""

    code = "KSG-546"
    default_remedy = "Send less, or a reference to it; KASAGA_API_MAX_BODY_BYTES is the limit"


class Busy(ApiError):
    """The process has more at hand than it takes. Nothing was done."""

    code = "KSG-547"
    default_remedy = "Try again in a moment; if it lasts, run more processes of the API"


class UndeclaredSaga(ApiError):
    """No orchestrator has announced a saga of this name and version."""

    code = "KSG-548"


class NoSuchPath(ApiError):
    """The API has no such path (404), or not with this method (405)."""

    code = "KSG-549"
    default_remedy = "See /api/v1/openapi.json"

    def __init__(self, message: str, *, status: int = 404) -> None:
        """Keep the status to answer with."""
        super().__init__(message)
        self.status = status


class CannotListen(ApiError):
    """The address is in use, or isn't this machine's."""

    code = "KSG-550"
    default_remedy = "Name another with --host and --port, or end what serves there"
